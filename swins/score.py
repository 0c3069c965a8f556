"""Numbers that say how good a model is, and how they are written."""

from dataclasses import dataclass

NONE = "none"  # how a score is written that there is nothing to compute from


@dataclass(frozen=True)
class Score:
    """A number that says how good a model is; None where there is nothing to compute it from.

    larger: whether larger is better; percent: whether it is shown as one.
    """

    name: str
    words: str
    larger: bool = True
    percent: bool = False

    def better(self, value: float | None, other: float | None) -> bool:
        """Whether a value is better than another; None never is, and every number is better than None."""
        if value is None or other is None:
            return value is not None
        return value > other if self.larger else value < other

    def text(self, value: float | None) -> str:
        """A value for people."""
        if value is None:
            return NONE
        return f"{value:.2%}" if self.percent else f"{value:.4g}"


def logged(value: float | None) -> str:
    """A score as logs and tables have it."""
    return NONE if value is None else f"{value:.6f}"


def read_score(text: str) -> float | None:
    """A score of a log or a table."""
    return None if text == NONE else float(text)
