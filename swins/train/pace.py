"""How long steps and validations of a run take, measured, and what is left of it by that."""

import datetime
import time


class Pace:
    """Seconds of a step and of a validation.

    Steps are measured from one time that the device is waited for to another. What comes before the first one, where
    all is compiled, does not count, nor do validations among the steps. Of the first validation, in which all is
    compiled too, no more counts than an epoch's steps take.

    Example:
    >>> pace = Pace(clock=iter([0.0, 5.0, 5.0, 8.0]).__next__)
    >>> pace.waited(10), pace.waited(20), pace.begins_validation(), pace.validated(20)
    (None, None, None, None)
    >>> str(pace.left(steps=100, validations=2))
    '0:00:56'
    """

    def __init__(self, clock=time.perf_counter):
        self.clock, self.mark, self.steps, self.seconds = clock, None, 0, 0.0
        self.validation, self.validations = 0.0, 0

    def waited(self, step: int) -> None:
        """The device has done so many steps of the run."""
        now = self.clock()
        if self.mark:
            self.steps, self.seconds = self.steps + step - self.mark[0], self.seconds + now - self.mark[1]
        self.mark = step, now

    def begins_validation(self) -> None:
        self.mark = None, self.clock()

    def validated(self, step: int) -> None:
        """A validation has ended, after so many steps of the run."""
        now = self.clock()
        self.validation, self.mark = now - self.mark[1], (step, now)
        self.validations += 1

    @property
    def of_a_step(self) -> float | None:
        """Seconds; None before any is measured."""
        return self.seconds / self.steps if self.steps else None

    def left(self, steps: int, validations: int) -> datetime.timedelta | None:
        """How long so many of both take; None before any step is measured."""
        if not self.steps:
            return None
        trained = steps * self.of_a_step
        judged = validations * self.validation
        if self.validations == 1:
            judged = min(judged, trained)
        return datetime.timedelta(seconds=round(trained + judged))
