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
