"""Axis orders as text: "oihw->hwio" says how PyTorch's tensor becomes a Keras variable, and read backwards the reverse.

A letter is an axis. Letters in parentheses share one, the first slowest, as in einops; the sizes of all of them but one
stand after a comma: "o(chw)->(hwc)o, h=7, w=7". The empty text keeps the array as it is.
"""

import functools
import math
import re
from dataclasses import dataclass

import numpy as np

from swins.errors import SwinsError

SIDE, SIZE = r"(?:[a-z]|\([a-z]+\))+", r"[a-z]=[1-9]\d*"
TEXT = re.compile(rf"({SIDE})->({SIDE})((?:,{SIZE})*)")


@dataclass(frozen=True)
class Order:
    """What a text says: the letters of each axis before and after, and the sizes of letters that are given."""

    before: tuple
    after: tuple
    sizes: dict


def axes_of(side: str) -> tuple:
    """The letters of each axis of one side of a text: "o(chw)" -> ("o", "chw")."""
    return tuple(axis.strip("()") for axis in re.findall(r"[a-z]|\([a-z]+\)", side))


@functools.cache
def read(text: str) -> Order:
    """What a text says -> Order.

    Raises:
        SwinsError: a text that cannot be read, or not in both directions.
    """
    match = TEXT.fullmatch(text.replace(" ", ""))
    if not match:
        raise SwinsError(f'axes are two orders of letters and sizes, such as "oihw->hwio"; got {text!r}')
    before, after = axes_of(match[1]), axes_of(match[2])
    sizes = {part[0]: int(part[2:]) for part in match[3].split(",") if part}
    letters = "".join(before)
    if len(set(letters)) < len(letters) or sorted(letters) != sorted("".join(after)):
        raise SwinsError(f"axes must be the same on both sides of ->, each once; got {text!r}")
    open_groups = [axis for axis in (*before, *after) if len(set(axis) - sizes.keys()) > 1]
    if open_groups or not sizes.keys() <= set(letters):
        raise SwinsError(f"sizes must be those of all letters but one in parentheses, as in h=7; got {text!r}")
    return Order(before, after, sizes)


def inverse(text: str) -> str:
    """The text of the way back: "oi->io" -> "io->oi"."""
    if not text:
        return text
    orders, comma, sizes = text.partition(",")
    before, after = (side.strip() for side in orders.split("->"))
    return f"{after}->{before}{comma}{sizes}"


def permute(value: np.ndarray, text: str) -> np.ndarray:
    """An array with its axes in the order that a text says, without a copy where that can be.

    One of another rank, or whose axes cannot be split so, is given back as it is: its shape then says what is wrong.
    """
    if not text:
        return value
    order = read(text)
    if value.ndim != len(order.before):
        return value
    sizes = dict(order.sizes)
    for axis, length in zip(order.before, value.shape, strict=True):
        known = math.prod(sizes[letter] for letter in axis if letter in sizes)
        unknown = [letter for letter in axis if letter not in sizes]
        if length % known or (not unknown and length != known):
            return value
        sizes.update(dict.fromkeys(unknown, length // known))
    letters = "".join(order.before)
    split = value.reshape([sizes[letter] for letter in letters])
    turned = split.transpose([letters.index(letter) for letter in "".join(order.after)])
    return turned.reshape([math.prod(sizes[letter] for letter in axis) for axis in order.after])
