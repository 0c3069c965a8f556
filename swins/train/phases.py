"""The parts of a run that have an optimiser and a schedule of their own: first the head alone, then all weights."""

import contextlib
import dataclasses
from dataclasses import dataclass

from swins.recipes import Frozen, Recipe, Steps


@dataclass(frozen=True)
class Phase:
    """Consecutive epochs of a run. recipe: theirs, as if they were all; first: their first epoch, counted from 0.

    frozen: whether the backbone keeps its weights.
    """

    recipe: Recipe
    first: int = 0
    frozen: bool = False

    @property
    def end(self) -> int:
        """The epoch after its last."""
        return self.first + self.recipe.epochs


def phases(recipe: Recipe) -> tuple[Phase, ...]:
    """The phases of a recipe, in their order; those of a frozen backbone are at most all its epochs."""
    count, optim, schedule = min(recipe.frozen.epochs or 0, recipe.epochs), recipe.optim, recipe.schedule
    whole = dataclasses.replace(recipe, frozen=Frozen())
    if not count:
        return (Phase(whole),)
    rate = recipe.frozen.learning_rate or optim.learning_rate
    head = dataclasses.replace(whole, epochs=count, optim=dataclasses.replace(optim, learning_rate=rate))
    if count == recipe.epochs:
        return (Phase(head, frozen=True),)
    if isinstance(schedule, Steps):  # whose epochs are counted from the run's beginning
        passed = sum(epoch <= count for epoch in schedule.epochs)
        later = tuple(epoch - count for epoch in schedule.epochs[passed:])
        schedule = dataclasses.replace(schedule, epochs=later)
        optim = dataclasses.replace(optim, learning_rate=optim.learning_rate * schedule.factor**passed)
    rest = dataclasses.replace(whole, epochs=recipe.epochs - count, optim=optim, schedule=schedule)
    return Phase(head, frozen=True), Phase(rest, count)


def phase_of_epoch(recipe: Recipe, epoch: int) -> Phase:
    """The phase that an epoch is in, counted from 0."""
    return next(phase for phase in phases(recipe)[::-1] if phase.first <= epoch)


def phase_of_state(recipe: Recipe, step: int, per_epoch: int) -> Phase:
    """The phase whose state there is after a step: at the end of its last epoch still its own."""
    return phase_of_epoch(recipe, max(step - 1, 0) // per_epoch)


class Trunk:
    """Variables of a network's backbone, which keep their values while they are frozen.

    Args:
        variables: all of them; those that never learn are left as they are.
    """

    def __init__(self, variables):
        self.variables = tuple(v for v in {id(v): v for v in variables}.values() if v.trainable)

    def freeze(self, frozen: bool) -> None:
        """Whether they keep their values from now on."""
        for variable in self.variables:
            variable.trainable = not frozen

    @contextlib.contextmanager
    def thawed(self):
        """Learning again, for a copy of the network, and then as before."""
        before = [variable.trainable for variable in self.variables]
        self.freeze(False)
        try:
            yield
        finally:
            for variable, flag in zip(self.variables, before, strict=True):
                variable.trainable = flag
