"""Options that older files have under other names."""

PAD_ORDERS = {"roll_then_pad": "timm", "pad_then_roll": "torchvision"}  # values of pad_order, as size rules


def renamed(options):
    """A dict of options in which `pad_order` is the `size_rule` that it was."""
    options = dict(options)
    order = options.pop("pad_order", None)
    if order is not None:
        options["size_rule"] = PAD_ORDERS.get(order, order)
    return options


class Renamed:
    """What a layer inherits that older files describe by other options."""

    @classmethod
    def from_config(cls, config):
        return cls(**renamed(config))


SETTINGS = {  # of recipes until 0.1.0, and what they are called since
    "optim.warmup_rate": "schedule.warmup_rate",
    "optim.min_rate": "schedule.min_rate",
    "optim.warmup_epochs": "schedule.warmup_epochs",
}
CLASSES = {"recipe": "Classification", "optim": "AdamW", "schedule": "Cosine"}  # of recipes that record none
LATER = {
    "schedule.warmup_updates": 0,
    "updates_per_epoch": 0,
}  # settings that there were not yet, with the values that mean what was done then
SINCE = {  # the same of recipes that record their classes
    "optim.decay_biases": False,
    "patience": None,
    "keep": None,
    "frozen.epochs": None,
    "frozen.learning_rate": None,
}
SINCE_OF = {  # of one kind of recipe
    "Classification": {"loss.class_weights": None},
    "Segmentation": {"model.width": None},
}


def renamed_settings(recorded):
    """A recipe's recorded settings under their names of today, with the classes that all recipes had."""
    if "recipe" in recorded:
        return {**SINCE, **SINCE_OF.get(recorded["recipe"], {}), **recorded}
    later = {**LATER, **SINCE, **SINCE_OF[CLASSES["recipe"]]}
    return {**CLASSES, **later, **{SETTINGS.get(name, name): value for name, value in recorded.items()}}
