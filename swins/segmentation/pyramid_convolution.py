"""A convolution of a pyramid's maps, all enlarged to the finest and laid together, without enlarging them first.

Enlarging acts on cells and a kernel's tap on channels, so they change places: a map is multiplied with the nine taps of
its part of a 3x3 kernel where it is small, and what each tap gave is enlarged, moved by the tap's place and added up,
all by two matrices, one of rows and one of columns. It is the same sum in another order. Of UPerNet on four levels the
convolution after it has 2.7 times fewer products so; benchmarks/README.md has the network beside transformers'.

Letters: B images, (H, W) cells of the finest map, (h, w) of another, C channels, F filters, S side of the kernel.
"""

from keras import ops

from swins.convolutions import Conv2D


def resizing_matrix(length, new):
    """What interpolates `length` cells linearly at the centres of `new` ones: (new, length), rows of sum 1.

    Lengths may be tensors.
    """
    scale = ops.cast(length, "float32") / ops.cast(new, "float32")
    place = (ops.arange(new, dtype="float32") + 0.5) * scale - 0.5
    place = ops.clip(place, 0.0, ops.cast(length, "float32") - 1.0)
    return ops.relu(1.0 - ops.abs(place[:, None] - ops.arange(length, dtype="float32")[None]))


def moved_matrices(length, new, side: int):
    """`resizing_matrix` for each tap of a kernel: (new, length * side).

    Row r of tap s is the cell r + s - side // 2 of the enlarged map, nothing beyond its ends.
    """
    reach = side // 2
    rows = ops.pad(resizing_matrix(length, new), ((reach, reach), (0, 0)))
    return ops.reshape(ops.stack([rows[s : new + s] for s in range(side)], -1), (new, length * side))


def enlarged_convolution(x, kernel, size):
    """A convolution of a map enlarged to a size, (B, h, w, C) with (S, S, C, F) -> (B, *size, F) float32."""
    height, width = ops.shape(x)[1:3]
    side, _, channels, filters = kernel.shape
    taps = ops.matmul(x, ops.reshape(ops.transpose(kernel, (2, 1, 0, 3)), (channels, -1)))
    taps = ops.reshape(ops.cast(taps, "float32"), (-1, height, width * side, side * filters))
    taps = ops.matmul(moved_matrices(width, size[1], side), taps)  # (B, h, W, S * F)
    taps = ops.transpose(ops.reshape(taps, (-1, height, size[1], side, filters)), (0, 1, 3, 2, 4))
    taps = ops.reshape(taps, (-1, height * side, size[1] * filters))
    return ops.reshape(ops.matmul(moved_matrices(height, size[0], side), taps), (-1, *size, filters))


def convolved_pyramid(conv: Conv2D, maps: list):
    """A convolution of maps that are enlarged to the first's size, bilinear, and laid together -> (B, H, W, F).

    Args:
        conv: of a square kernel of odd side, stride 1, "same" padding, without bias; built for the maps' channels
            together.
        maps: [(B, H, W, C), (B, h, w, C'), ...], the finest first.
    """
    finest, *others = maps
    size, kernel = ops.shape(finest)[1:3], ops.convert_to_tensor(conv.kernel)
    first = finest.shape[-1]
    total = ops.cast(conv.convolution_op(finest, kernel[:, :, :first]), "float32")
    for x in others:
        last = first + x.shape[-1]
        total = total + enlarged_convolution(x, kernel[:, :, first:last], size)
        first = last
    return ops.cast(total, finest.dtype)
