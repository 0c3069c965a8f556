"""V1's position-bias tables for another window, by the two published interpolations, in numpy on any backend.

A table has a row per offset (dh, dw), dh slow, and a column per head: ((2M-1)(2M'-1), heads) for windows of (M, M').
Both interpolations are separable: a matrix (new, old) for each axis of offsets.
"""

import numpy as np

from swins.errors import unknown_name


def bicubic(old, new):
    """Microsoft's and open-mmlab's, which is torch's bicubic resize of one axis -> (new, old).

    Cubic convolution with a = -0.75 over the 4 nearest points, half-pixel centres, no antialiasing; points beyond the
    border repeat it.
    """
    a = -0.75
    centres = (np.arange(new)[:, None] + 0.5) * float(np.float32(old / new)) - 0.5
    centres = centres.astype("float32").astype("float64")  # rounded as torch rounds them
    points = np.floor(centres) + np.arange(-1, 3)
    d = np.abs(centres - points)
    kernel = np.where(d <= 1, (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4))
    nearest = np.eye(old)[np.clip(points, 0, old - 1).astype(int)]
    return (kernel[..., None] * nearest).sum(axis=1)


def geometric(old, new):
    """timm's, after BEiT: linear between old offsets that were spread to reach as far as the new ones -> (new, old).

    Offset k moves to 1 + q + ... + q**(k-1), q bisected in [1.01, 1.5]; points beyond the last offset repeat it. So a
    smaller table is nearly a crop, and an axis that keeps its length beside one that changes is spread too.
    """
    reach, goal = old // 2, new // 2
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        low, high = (low, q) if (1 - q**reach) / (1 - q) > goal else (q, high)
    spread = np.cumsum(q ** np.arange(reach))
    offsets = np.concatenate([-spread[::-1], [0], spread]).astype("float32")  # rounded as timm's
    return np.stack([np.interp(np.arange(-goal, goal + 1), offsets, one) for one in np.eye(old)], axis=1)


INTERPOLATIONS = {"timm": geometric, "microsoft": bicubic}


def named(interpolation):
    """The function of a name. Raises SwinsError for an unknown one."""
    if str(interpolation) not in INTERPOLATIONS:
        raise unknown_name("interpolation", str(interpolation), list(INTERPOLATIONS))
    return INTERPOLATIONS[interpolation]


def resize_table(table, window, new_window, interpolation="timm"):
    """A table for another window, (vertical, horizontal) tokens: ((2M-1)(2M'-1), heads) -> the same for `new_window`.

    The array itself if the window is the same. The interpolations, "timm" and "microsoft", differ visibly. Microsoft's
    own code knows square windows only; others are interpolated axis by axis.
    """
    matrix = named(interpolation)
    if tuple(window) == tuple(new_window):
        return table
    old, new = ([2 * m - 1 for m in sides] for sides in (window, new_window))
    grid = table.astype("float64").reshape(*old, -1)
    resized = np.einsum("yh,xw,hwd->yxd", *map(matrix, old, new), grid, optimize=True)
    return resized.reshape(-1, grid.shape[-1]).astype(table.dtype)
