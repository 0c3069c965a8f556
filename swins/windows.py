"""Window geometry as pure functions: cut, restore, shift, pad, and who may attend to whom.

Letters: B batch, (H, W) tokens of a feature map, C channels, (M, M') window sides, N = M * M' tokens of a window,
K windows of one image. A `size`, `window` or `shift` is a pair (vertical, horizontal) in tokens.
"""

import numpy as np
from keras import ops

from swins.map_sides import parts, sides
from swins.size_rules import MASKED


def is_zero(number):
    """Whether a number of tokens is known, and 0."""
    return isinstance(number, int) and number == 0


def partition(x, window):
    """Cut a feature map into non-overlapping windows, row by row: (B, H, W, C) -> (B*K, N, C)."""
    (m, n), (h, w), c = window, sides(x), x.shape[-1]
    cut = ops.transpose(ops.reshape(x, (-1, h // m, m, w // n, n, c)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(cut, (-1, m * n, c))


def reverse(windows, window, size):
    """Put windows back into the map they were cut from: (B*K, N, C) -> (B, H, W, C)."""
    (m, n), (h, w), c = window, size, windows.shape[-1]
    back = ops.transpose(ops.reshape(windows, (-1, h // m, w // n, m, n, c)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(back, (-1, h, w, c))


def roll(x, shift):
    """Move a map up and left by `shift`, around the edges; negative values move it back. Keeps (B, H, W, C).

    Parts and concatenations, not `ops.roll`: LiteRT and TF.js have no roll, JAX none by a shift that depends on sizes.
    """
    for axis, s in enumerate(shift, 1):
        x = x if is_zero(s) else ops.concatenate(parts(x, s, axis)[::-1], axis)
    return x


def pad(x, multiple):
    """Append zero rows and columns until the sides are multiples of `multiple`: (B, H, W, C) -> (B, H', W', C)."""
    # not `-side % m`: ONNX's remainder of a negative number is negative
    down, right = (m - 1 - (side - 1) % m for side, m in zip(sides(x), multiple, strict=True))
    return x if is_zero(down) and is_zero(right) else ops.pad(x, ((0, 0), (0, down), (0, right), (0, 0)))


def crop(x, size):
    """Undo `pad`: keep the first rows and columns, (B, H', W', C) -> (B, *size, C)."""
    for axis, side in enumerate(size, 1):
        x = x if isinstance(side, int) and side == x.shape[axis] else parts(x, side, axis)[0]
    return x


def roll_then_pad(x, window, shift):
    """Zeros lie beside the rolled map -> the padded map, and a function that takes one back."""
    return pad(roll(x, shift), window), lambda y: roll(crop(y, sides(x)), [-s for s in shift])


def pad_then_roll(x, window, shift):
    """Zeros move around the edges too -> as `roll_then_pad`."""
    return roll(pad(x, window), shift), lambda y: crop(roll(y, [-s for s in shift]), sides(x))


def shift_for(rule, size, window, shift):
    """What a SizeRule makes of a shift for a map of this size."""
    pairs = zip(size, window, strict=True)
    covered = (int(side <= m) if isinstance(side, int) else ops.cast(side <= m, "int32") for side, m in pairs)
    return rule.shift(tuple(covered), shift)


def neighbours(x):
    """Stack 2x2 neighbours on the channel axis, odd sides padded: (B, H, W, C) -> (B, ceil(H/2), ceil(W/2), 4C).

    The order is (row, column) = (0,0), (1,0), (0,1), (1,1): the column offset is the slow axis.
    """
    x = pad(x, (2, 2))
    (h, w), c = sides(x), x.shape[-1]
    pairs = ops.transpose(ops.reshape(x, (-1, h // 2, 2, w // 2, 2, c)), (0, 1, 3, 4, 2, 5))
    return ops.reshape(pairs, (-1, h // 2, w // 2, 4 * c))


def regions(side, m, s):
    """Number of the region of each place along an axis of a rolled map -> (side,) integers, 0 to 2."""
    if isinstance(side, int) and isinstance(s, int):
        place = np.arange(side)
        return np.int32(place >= side - m) + np.int32(place >= side - s)
    place = ops.arange(side)
    return ops.cast(place >= side - m, "int32") + ops.cast(place >= side - s, "int32")


def region_ids(size, window, shift):
    """Number of the image region that each token of a rolled map comes from, window by window -> (K, N) integers.

    Along an axis the rolled map has three regions: all but the last window, the part of the last window that was
    already there, and the part that came around the edge (Swin, arXiv:2103.14030, figure 4).
    """
    rows, columns = (regions(*along) for along in zip(size, window, shift, strict=True))
    ids = ops.add(3 * rows[:, None], columns[None, :])  # a graph keeps sides, not maps
    return ops.squeeze(partition(ops.reshape(ids, (1, *size, 1)), window), -1)


def shift_mask(size, window, shift, masked=MASKED):
    """Additive mask that keeps regions of a rolled map apart -> (K, N, N), 0 or `masked`."""
    ids = region_ids(size, window, shift)
    return ops.where(ids[:, :, None] == ids[:, None, :], 0.0, masked)


def relative_index(window):
    """Row of the bias table for each pair of tokens -> (N, N) numpy integers.

    The table holds all offsets (dh, dw), dh slow: index = (dh + M - 1) * (2M' - 1) + (dw + M' - 1).
    """
    m, n = window
    h, w = (axis.ravel() for axis in np.mgrid[:m, :n])
    dh, dw = h[:, None] - h[None, :], w[:, None] - w[None, :]
    return (dh + m - 1) * (2 * n - 1) + dw + n - 1
