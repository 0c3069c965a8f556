"""How far long work is, in lines."""

import contextlib
import sys
import time


def on_standard_error(text):
    """Print a line where the commands say how far they are."""
    print(text, file=sys.stderr, flush=True)


class Steps:
    """Says each step of so many before it begins, and how many seconds it took.

    Example:
    >>> steps = Steps(1, print)
    >>> with steps("writing model.onnx"):
    ...     pass
    [1/1] writing model.onnx
    [1/1] 0.0 s
    """

    def __init__(self, total, say):
        self.total, self.say, self.number = total, say, 0

    @contextlib.contextmanager
    def __call__(self, text):
        self.number += 1
        place = f"[{self.number}/{self.total}]"
        self.say(f"{place} {text}")
        start = time.perf_counter()
        yield
        self.say(f"{place} {time.perf_counter() - start:.1f} s")
