"""Learning rates by update: warm-up, then a cosine, steps or a polynomial."""

import keras
from keras import ops

from swins import recipes


def scale_of(recipe) -> float:
    """What the learning rates of a recipe are multiplied with for its batch."""
    return recipe.data.batch / recipe.optim.per_images if recipe.optim.per_images else 1.0


def peak_rate(recipe) -> float:
    """The highest learning rate of a run."""
    return recipe.optim.learning_rate * scale_of(recipe)


def wanted_warm_up(recipe, updates_per_epoch: int) -> int:
    """Updates of a recipe's warm-up."""
    return round(recipe.schedule.warmup_epochs * updates_per_epoch) + recipe.schedule.warmup_updates


def warm_up(recipe, updates_per_epoch: int) -> int:
    """Updates that the rate grows over: the recipe's, or a tenth of the run where these do not fit it."""
    wanted, updates = wanted_warm_up(recipe, updates_per_epoch), recipe.epochs * updates_per_epoch
    return wanted if wanted < updates else updates // 10


def rates_of(recipe, updates_per_epoch: int):
    """The learning rate by update of a recipe -> a schedule of Keras."""
    schedule, peak, scale = recipe.schedule, peak_rate(recipe), scale_of(recipe)
    updates = recipe.epochs * updates_per_epoch
    warm = warm_up(recipe, updates_per_epoch)
    left, start = max(updates - warm, 1), schedule.warmup_rate * scale
    if isinstance(schedule, recipes.Cosine):
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=start if warm else peak,
            decay_steps=left,
            alpha=schedule.min_rate / recipe.optim.learning_rate,
            **({"warmup_target": peak, "warmup_steps": warm} if warm else {}),
        )
    if isinstance(schedule, recipes.Poly):
        after = keras.optimizers.schedules.PolynomialDecay(peak, left, schedule.min_rate * scale, schedule.power)
        return WarmedUp(start, peak, warm, after)
    reached = [epoch for epoch in schedule.epochs if epoch < recipe.epochs]
    ends = [max(round(epoch * updates_per_epoch) - warm, 0) - 1 for epoch in reached]
    values = [peak * schedule.factor**i for i in range(len(ends) + 1)]
    if not ends:  # which Keras does not take
        ends, values = [updates], [peak, peak]
    return WarmedUp(start, peak, warm, keras.optimizers.schedules.PiecewiseConstantDecay(ends, values))


@keras.saving.register_keras_serializable("swins")
class WarmedUp(keras.optimizers.schedules.LearningRateSchedule):
    """Linear growth from a first rate to a peak, then another schedule, which counts from there.

    Args:
        start, peak: rates; updates: how many it grows over; after: the schedule that follows.
    """

    def __init__(self, start, peak, updates, after):
        self.start, self.peak, self.updates, self.after = start, peak, updates, after

    def __call__(self, step):
        step = ops.cast(step, "float32")
        later = self.after(ops.maximum(step - self.updates, 0.0))
        if not self.updates:
            return later
        growing = self.start + (self.peak - self.start) * step / self.updates
        return ops.where(step < self.updates, growing, later)

    def get_config(self):
        after = keras.optimizers.schedules.serialize(self.after)
        return {"start": self.start, "peak": self.peak, "updates": self.updates, "after": after}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "after": keras.optimizers.schedules.deserialize(config["after"])})


@keras.saving.register_keras_serializable("swins")
class ByUpdates(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule by updates, for an optimiser that accumulates: Keras asks it by micro-batches.

    Args:
        schedule: learning rate by update.
        accumulate: micro-batches that are one update.
    """

    def __init__(self, schedule, accumulate):
        self.schedule, self.accumulate = schedule, accumulate

    def __call__(self, step):
        return self.schedule(ops.floor_divide(step, self.accumulate))

    def get_config(self):
        serialize = keras.optimizers.schedules.serialize
        return {"schedule": serialize(self.schedule), "accumulate": self.accumulate}

    @classmethod
    def from_config(cls, config):
        deserialize = keras.optimizers.schedules.deserialize
        return cls(deserialize(config["schedule"]), config["accumulate"])
