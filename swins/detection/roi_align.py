"""RoIAlign over a pyramid (arXiv:1703.06870, section 3; arXiv:1612.03144, section 4.2), as mmdet and torchvision do it.

A region is cut into bins, a bin is the mean of points in it, and a point is read between the cells around it. The
points of a bin are a grid, so it is separable: out = A_y F A_x^T, where A_y and A_x say how much of each row and column
of a window of the map F a bin has. Each region takes the smallest of a few windows that holds its cells, and regions of
one window are computed together, so that shapes are static and small regions cost little.

Measured on 2 cores, TensorFlow's graph and torchvision's operator, regions of 16 to 500 pixels on maps of an image of
800x1216 pixels and 256 channels; milliseconds forward, then forward and backward, and what memory rose by:

    regions, bins         adaptive here            torchvision adaptive    static 2 here   torchvision static 2
    2 x 512, 7 x 7        208, 672 (1.3 GB)        476, 2001 (0.3 GB)      169, 953 *      358, 1284
    2 x 128, 14 x 14      84, 297 (1.0 GB)         227, 1062 (0.3 GB)
    1 x 1000, 7 x 7       180 (0.35 GB)            536 (0.2 GB)                            344

(* 16 regions together, not 32: adaptive 197, 962.) Adaptive sampling costs what static does, so training has it too.
Others tried for 2 x 512: a gather of the corners of static points 411, 759 (2.2 GB); for each region a list of as many
cells as the largest has, 554, 1520 (3.9 GB); products over whole maps, some seconds.

Letters: B images, N regions of an image, R regions of all, C channels, S bins of a side, T regions together.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

from keras import ops

from swins.boxes import floats

STRIDES = (4, 8, 16, 32)  # pixels from cell to cell of each level
ADAPTIVE = 0  # points of a bin's side: as many as it has cells, rounded up; the published weights were trained so
MANY, TOGETHER = 512, (16, 32)  # regions of an image, and how many are computed together: of fewer, and of so many
FINEST = 14.0  # cells: half of the side from which a region has the second level
NEAR = 6  # points of an adaptive bin that can lie within a cell of a cell, and one: they are half a cell apart or more


def finite(boxes):
    """Boxes in float32, whose numbers that are none are 0: their places in a table would be none either."""
    boxes = floats(boxes)
    return ops.where(ops.isfinite(boxes), boxes, 0.0)


def roi_levels(boxes, levels: int = len(STRIDES), first_stride: float = STRIDES[0]):
    """The level of each region by its area: (B, N, 4) xyxy pixels -> (B, N) int32, 0 for the finest.

    The first has those below 112 * 112 pixels if its stride is 4; sides are twice as long from level to level.
    """
    left, top, right, bottom = ops.unstack(floats(boxes), 4, -1)
    side = ops.sqrt(ops.maximum((right - left) * (bottom - top), 0.0))
    level = ops.floor(ops.log2(side / (FINEST * first_stride) + 1e-6))
    return ops.cast(ops.clip(level, 0, levels - 1), "int32")


def largest(numbers: list):
    """The largest of integers, or of scalar tensors where a graph takes any size."""
    known = all(isinstance(number, int) for number in numbers)
    return max(numbers) if known else functools.reduce(ops.maximum, numbers)


def windows(map_sizes) -> list:
    """(height, width) in cells of windows, from small to large: one of them holds each region's cells.

    A region has less than 28 * 28 cells, but on the last level, whose map is the last window. So one longer than 30
    cells is narrower than 27, and one longer than 62 narrower than 13; its points touch two cells more.
    """
    tall, wide = (largest([size[axis] for size in map_sizes]) for axis in (0, 1))
    return [(8, 8), (16, 16), (32, 32), (64, 32), (32, 64), (tall, 16), (16, wide), map_sizes[-1]]


class Axis(NamedTuple):
    """Footprints along one axis of their maps, each (R,) float32 in cells; 0 is the middle of the first cell.

    start: where a region begins; bin: the length of its bins; points: of a bin; count: cells of the map; first: the
    first cell that a point touches; cells: how many there are from it to the last.
    """

    start: object
    bin: object
    points: object
    count: object
    first: object
    cells: object


def axis_of(low, high, stride, count, bins: int, sampling: int) -> Axis:
    """The Axis of regions from `low` to `high` pixels on maps of `count` cells of `stride` pixels, each (R,)."""
    start = low / stride - 0.5
    side = high / stride - 0.5 - start
    # Compilers take numbers that they know apart and together otherwise, so that 21 / 7 is 3.0000002, and a point more.
    width = side / ops.maximum(1e-20 * side, bins)
    points = ops.maximum(ops.ceil(width) if sampling == ADAPTIVE else 1e-20 * side, sampling)
    half = 0.5 * width / ops.maximum(points, 1.0)
    ends = start + half, start + side - half  # of a box turned inside out the second comes first
    first = ops.clip(ops.floor(ops.minimum(*ends)), 0, count - 1)
    last = ops.clip(ops.floor(ops.maximum(*ends)) + 1, 0, count - 1)
    return Axis(start, width, points, count, first, last - first + 1)


def weights(axis: Axis, bins: int, length, sampling: int):
    """How much of each cell of a window the points of each bin have, their sum -> (R, bins, length) float32.

    A point beyond the map by more than a cell is worth nothing, others are brought to the map.
    """
    start, width, points, count, first = (x[:, None, None, None] for x in axis[:5])
    cell = first + ops.reshape(floats(ops.arange(length, dtype="int32")), (1, 1, -1, 1))
    begin = start + ops.reshape(ops.arange(bins, dtype="float32"), (1, -1, 1, 1)) * width
    some = ops.maximum(points, 1.0)
    place = ops.reshape(ops.arange(sampling or NEAR, dtype="float32"), (1, 1, 1, -1))
    if sampling == ADAPTIVE:
        nearest = ops.floor((cell - 1 - begin) * some / ops.where(width > 0, width, 1.0) - 0.5)
        place = place + ops.maximum(nearest, 0.0)
    point = begin + (place + 0.5) * width / some
    near = (place < points) & (point >= -1) & (point <= count)
    hat = ops.maximum(1 - ops.abs(ops.clip(point, 0, count - 1) - cell), 0.0)
    return ops.sum(ops.where(near, hat, 0.0), -1)


class Footprints(NamedTuple):
    """Where regions of all images lie in the table of all cells: image by image, level by level, row by row.

    y, x: Axis; base: (R,) int32 place of the region's level in the table; columns: (R,) int32 cells in a row of it.
    """

    y: Axis
    x: Axis
    base: object
    columns: object

    def chosen(self, places):
        """Those of an index array."""
        take = functools.partial(ops.take, indices=places, axis=0)
        return Footprints(Axis(*map(take, self.y)), Axis(*map(take, self.x)), take(self.base), take(self.columns))

    def places(self, height, width) -> tuple:
        """Rows (R, height) and columns (R, width) of windows of so many cells, int32; beyond the map its last."""
        return tuple(
            ops.cast(
                ops.minimum(axis.first[:, None] + floats(ops.arange(n, dtype="int32")), axis.count[:, None] - 1),
                "int32",
            )
            for axis, n in ((self.y, height), (self.x, width))
        )

    def points(self):
        """How many points a bin has, 1 where it has none -> (R, 1, 1, 1) float32."""
        return ops.maximum(self.y.points * self.x.points, 1.0)[:, None, None, None]

    def cells(self, height, width):
        """Places in the table of windows of so many cells -> (R, height, width) int32."""
        rows, columns = self.places(height, width)
        return (self.base[:, None] + rows * self.columns[:, None])[:, :, None] + columns[:, None, :]


def footprints_of(boxes, map_sizes, size: int, sampling: int, strides) -> Footprints:
    """The Footprints of boxes (B, N, 4), each on the level of its area."""
    level = ops.reshape(roi_levels(boxes, len(map_sizes), strides[0]), (-1,))
    rows, columns = (ops.stack([ops.cast(size[axis], "int32") for size in map_sizes]) for axis in (0, 1))
    ends = ops.cumsum(rows * columns)
    images = ops.repeat(ops.arange(ops.shape(boxes)[0], dtype="int32"), ops.shape(boxes)[1])
    base = images * ends[-1] + ops.take(ends - rows * columns, level, 0)
    rows, columns = (ops.take(x, level, 0) for x in (rows, columns))
    stride = ops.take(ops.convert_to_tensor(strides, "float32"), level, 0)
    left, top, right, bottom = ops.unstack(ops.reshape(boxes, (-1, 4)), 4, -1)
    y = axis_of(top, bottom, stride, floats(rows), size, sampling)
    x = axis_of(left, right, stride, floats(columns), size, sampling)
    return Footprints(y, x, base, columns)


class Groups:
    """Which regions are computed together: those of one window, T at a time.

    members: (M, T) int32 regions, R where there is none; window: (M,) int32, its place among the windows, their
    number for a group of none; ends: of each window, how many groups there are up to its last; slots: (R,) int32, the
    place of each region among the members.
    """

    def __init__(self, regions: Footprints, shapes: list, together: int):
        self.together = together
        total, kinds = ops.shape(regions.base)[0], len(shapes)
        fits = [(regions.y.cells <= floats(height)) & (regions.x.cells <= floats(width)) for height, width in shapes]
        kind = ops.sum(ops.cast(ops.cumsum(ops.cast(ops.stack(fits, 1), "int32"), 1) == 0, "int32"), 1)
        kind = ops.minimum(kind, kinds - 1)
        ranks = ops.cumsum(ops.one_hot(kind, kinds, dtype="int32"), 0)
        groups = (ranks[-1] + together - 1) // together  # of each window
        self.ends = ends = ops.cumsum(groups)
        rank = ops.take_along_axis(ranks, kind[:, None], 1)[:, 0] - 1
        self.slots = together * ops.take(ends - groups, kind, 0) + rank
        self.count = total // together + kinds
        empty = ops.broadcast_to(ops.cast(total, "int32"), (self.count * together,))
        members = ops.scatter_update(empty, self.slots[:, None], ops.arange(total, dtype="int32"))
        self.members = ops.reshape(members, (self.count, together))
        places = ops.arange(self.count, dtype="int32")
        self.window = ops.sum(ops.cast(places[:, None] >= ends, "int32"), 1)


def in_groups(window, footprints: Footprints, groups: Groups, shapes, shape: tuple):
    """What regions have, computed group by group -> (R, *shape) float32.

    window: footprints of a group, height, width of its window -> (T, *shape).
    """

    def group(place):
        members = ops.take(groups.members, place, 0)
        part = footprints.chosen(ops.minimum(members, ops.shape(footprints.base)[0] - 1))
        branches = [functools.partial(window, part, *shape) for shape in shapes]
        nothing = functools.partial(ops.zeros, (groups.together, *shape))
        return ops.switch(ops.take(groups.window, place), [*branches, nothing])

    values = ops.map(group, ops.arange(groups.count, dtype="int32"))
    return ops.take(ops.reshape(values, (-1, *shape)), groups.slots, 0)


def forward(table, footprints: Footprints, groups: Groups, shapes, size: int, sampling: int):
    """Bins of all regions: (cells, C) -> (R, S, S, C) float32."""
    channels = table.shape[-1]

    def window(part, height, width):
        cells = floats(ops.take(table, ops.reshape(part.cells(height, width), (-1,)), 0))
        cells = ops.reshape(cells, (groups.together, height, width * channels))
        rows = ops.matmul(weights(part.y, size, height, sampling), cells)
        rows = ops.reshape(rows, (groups.together, size, width, channels))
        return ops.matmul(weights(part.x, size, width, sampling)[:, None], rows) / part.points()

    return in_groups(window, footprints, groups, shapes, (size, size, channels))


def backward(gradient, total, regions: Footprints, groups: Groups, shapes, size: int, sampling: int):
    """The gradient in the table of `total` cells of the gradient in the bins: (R, S, S, C) -> (total, C) float32."""
    channels, count = gradient.shape[-1], ops.shape(regions.base)[0]

    def add(height, width, place, table):
        members = ops.take(groups.members, place, 0)
        there = floats(members < count)[:, None, None, None]
        members = ops.minimum(members, count - 1)
        part = regions.chosen(members)
        bins = there * ops.take(gradient, members, 0) / part.points()
        rows = ops.matmul(ops.transpose(weights(part.x, size, width, sampling), (0, 2, 1))[:, None], bins)
        rows = ops.reshape(rows, (groups.together, size, width * channels))
        cells = ops.matmul(ops.transpose(weights(part.y, size, height, sampling), (0, 2, 1)), rows)
        places = ops.reshape(part.cells(height, width), (-1, 1))
        return place + 1, ops.scatter_update(table, places, ops.reshape(cells, (-1, channels)), reduction="add")

    state = ops.cast(0, "int32"), ops.zeros((total, channels))
    for kind, shape in enumerate(shapes):  # a loop a window, so that XLA adds in place
        end = groups.ends[kind]
        state = ops.while_loop(lambda place, _, end=end: place < end, functools.partial(add, *shape), state)
    return state[1]


def roi_align(maps: Sequence, boxes, size: int, *, sampling: int = ADAPTIVE, strides: Sequence[int] = STRIDES):
    """Features of regions, each from the level of its area: [(B, H, W, C), ...], (B, N, 4) -> (B, N, size, size, C).

    No gradient goes to the boxes. A region without an area is 0 under adaptive sampling; numbers of boxes that are none
    count as 0.

    Args:
        maps: of one pyramid, fine to coarse, one for each stride.
        boxes: xyxy in pixels of the images that the maps are of.
        size: bins of a side.
        sampling: points of a bin's side, or ADAPTIVE.
        strides: pixels from cell to cell of each map, each twice the one before.
    """
    map_sizes = [tuple(ops.shape(x)[1:3]) for x in maps]
    channels, shapes = maps[0].shape[-1], windows(map_sizes)
    table = ops.concatenate([ops.reshape(x, (ops.shape(x)[0], -1, channels)) for x in maps], 1)
    boxes, count = ops.stop_gradient(finite(boxes)), boxes.shape[1]

    @ops.custom_gradient
    def align(table, boxes):
        regions = footprints_of(boxes, map_sizes, size, sampling, strides)
        groups = Groups(regions, shapes, TOGETHER[isinstance(count, int) and count >= MANY])
        shape = ops.shape(table)

        def gradient(*values, upstream=None):
            upstream = floats(values[0] if upstream is None else upstream)
            result = backward(upstream, shape[0] * shape[1], regions, groups, shapes, size, sampling)
            return ops.cast(ops.reshape(result, shape), table.dtype), ops.zeros_like(boxes)

        rows = ops.reshape(table, (-1, channels))
        return ops.cast(forward(rows, regions, groups, shapes, size, sampling), table.dtype), gradient

    return ops.reshape(align(table, boxes), (-1, ops.shape(boxes)[1], size, size, channels))
