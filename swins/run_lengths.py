"""Masks as COCO's run lengths: pixels column after column, how many are background, how many foreground, and so on.

H, W: pixels of an image; r: runs. As text, COCO writes each length, from the fourth on less the one two before it, in
groups of five bits, the lowest first, a printable letter each: a sixth bit says that another follows.
"""

import numpy as np

from swins.errors import SwinsError

FIRST, LAST = ord("0"), ord("0") + 63  # letters
BITS, MORE, SIGN = 5, 32, 16
MOST_GROUPS = 8  # of a length's letters, which is below 2**39


def lengths(mask: np.ndarray) -> np.ndarray:
    """Run lengths of a mask (H, W) bool -> (r,) int64, whose first is of background and may be 0.

    >>> lengths(np.array([[0, 1], [0, 1], [1, 0]], bool)).tolist()
    [2, 3, 1]
    """
    height, columns = mask.shape[0], np.flatnonzero(mask.any(0))
    if not columns.size:
        return np.array([mask.size])
    left, right = columns[0], columns[-1] + 1  # what lies beside them has no edges
    pixels = np.concatenate([[False], mask[:, left:right].T.ravel(), [False]])
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + left * height
    if edges[-1] == mask.size:
        edges = edges[:-1]
    return np.diff(np.concatenate([[0], edges, [mask.size]]))


def bitmap(runs: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) bool of run lengths (r,), of a size (H, W)."""
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(size[::-1]).T


def to_text(runs: np.ndarray) -> str:
    """Run lengths (r,) as COCO's text.

    >>> to_text(np.array([2, 3, 1]))
    '231'
    """
    left = np.array(runs, np.int64)
    left[3:] -= runs[1:-2]
    letters, written = [], []
    more = np.ones(len(left), bool)
    while more.any():
        group, written = left & (MORE - 1), [*written, more]
        left = left >> BITS
        more = more & np.where(group & SIGN, left != -1, left != 0)
        letters.append(FIRST + group + MORE * more)
    rows = np.stack(letters, 1)[np.stack(written, 1)]
    return rows.astype(np.uint8).tobytes().decode("ascii")


def of_text(text: str | bytes) -> np.ndarray:
    """Run lengths (r,) int64 of COCO's text.

    Raises:
        SwinsError: for a text that is none.
    """
    letters = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    letters = np.frombuffer(letters, np.uint8).astype(np.int64) - FIRST
    ends = np.flatnonzero(letters & MORE == 0)
    if not letters.size or letters.min() < 0 or letters.max() > LAST - FIRST or letters[-1] & MORE:
        raise SwinsError(f"run lengths as text must be whole, of letters from 0 to o; got {text!r:.60}")
    starts = np.concatenate([[0], ends[:-1] + 1])
    groups = ends - starts + 1
    if groups.max() > MOST_GROUPS:
        raise SwinsError(f"run lengths as text must be of at most {MOST_GROUPS} letters each; got {text!r:.60}")
    place = np.arange(len(letters)) - np.repeat(starts, groups)
    values = np.add.reduceat((letters & (MORE - 1)) << (BITS * place), starts)
    values -= np.where(letters[ends] & SIGN, 1 << (BITS * groups), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def to_json(mask: np.ndarray) -> dict:
    """A mask (H, W) bool as COCO's JSON has it, {"size": [H, W], "counts": text}."""
    return {"size": [int(side) for side in mask.shape], "counts": to_text(lengths(mask))}


def require_runs(runs: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The run lengths. Raises SwinsError for those that do not fill an image of this size (H, W)."""
    if not runs.size or (runs < 0).any() or runs.max() > size[0] * size[1] or runs.sum() != size[0] * size[1]:
        raise SwinsError(f"run lengths must fill {size[1]}x{size[0]} pixels; got {int(runs.sum())} of them")
    return runs


def of_json(segmentation: dict) -> np.ndarray:
    """The mask (H, W) bool of {"size": [H, W], "counts": text or list}.

    Raises:
        SwinsError: for run lengths that are none, or do not fill the size.
    """
    counts, size = segmentation["counts"], tuple(segmentation["size"])
    runs = np.array(counts, np.int64) if isinstance(counts, list) else of_text(counts)
    return bitmap(require_runs(runs, size), size)
