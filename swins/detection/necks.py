"""Necks: what lies between a pyramid and its heads.

A neck is a function of maps (B, H, W, C), fine to coarse, and a dtype policy -> as many maps of 256 channels, each of
the size of the one that it stands for. None has a norm or an activation. To add one is to add it to NECKS.

Source: RuslanGreenhead/swin_transformer, after FPN (arXiv:1612.03144) and PAN (arXiv:1803.01534); its DenseFPN is its
own. Layers are named `neck_align_0`, ... by the place of the map in the list, the finest first.
"""

import functools
import itertools

import keras
from keras import layers, ops

from swins.convolutions import Conv2D
from swins.errors import SwinsError

WIDTH = 256  # channels of every map that a neck gives

conv = functools.partial(Conv2D, data_format="channels_last")  # Xavier uniform, zero bias


@keras.saving.register_keras_serializable("swins")
class Upsample(layers.Layer):
    """Bilinear, with half-pixel centres, to the size of a finer map: (B, h, w, C), (B, H, W, C') -> (B, H, W, C)."""

    def call(self, coarse, fine):
        return ops.image.resize(coarse, ops.shape(fine)[1:3], interpolation="bilinear", data_format="channels_last")

    def compute_output_shape(self, coarse_shape, fine_shape):
        return (coarse_shape[0], *fine_shape[1:3], coarse_shape[3])


def text(size):
    """A size for people: (38, 38) -> "38x38"."""
    return "x".join(map(str, size))


def size_of(x):
    """(height, width) of a map."""
    return tuple(x.shape[1:3])


def require_falling(neck, maps):
    """Raise SwinsError where a map is larger than the one before it."""
    for i, (fine, coarse) in enumerate(itertools.pairwise(maps)):
        if any(small > large for small, large in zip(size_of(coarse), size_of(fine), strict=True)):
            raise SwinsError(
                f"{neck} takes maps from fine to coarse; got {text(size_of(coarse))} at level {i + 1} after "
                f"{text(size_of(fine))}; give levels in that order"
            )


def align(x, i, dtype):
    """A map in the neck's width."""
    return conv(WIDTH, 1, name=f"neck_align_{i}", dtype=dtype)(x)


def none(maps, dtype=None) -> list:
    """No neck: the maps themselves, with the channels that they have."""
    return list(maps)


def fpn(maps, dtype=None) -> list:
    """Each map gets the sum of the coarser ones, enlarged step by step; then a convolution smooths every sum.

    Raises:
        SwinsError: maps that are not from fine to coarse.
    """
    require_falling("fpn", maps)
    sums = [align(maps[-1], len(maps) - 1, dtype)]  # coarse to fine
    for i in reversed(range(len(maps) - 1)):
        aligned = align(maps[i], i, dtype)
        enlarged = Upsample(name=f"neck_up_{i}", dtype=dtype)(sums[-1], aligned)
        sums.append(layers.Add(name=f"neck_sum_{i}", dtype=dtype)([enlarged, aligned]))
    smooth = functools.partial(conv, WIDTH, 3, padding="same", dtype=dtype)
    return [smooth(name=f"neck_smooth_{i}")(x) for i, x in enumerate(reversed(sums))]


def padding_down(maps, i):
    """Zeros (vertical, horizontal) with which a 3x3 convolution of stride 2 makes map i as large as the next.

    One on each side; in the last step none, where that is what fits, as from 3x3 to 1x1.

    Raises:
        SwinsError: where neither does.
    """
    size, wanted = size_of(maps[i]), size_of(maps[i + 1])
    allowed = (1, 0) if i == len(maps) - 2 else (1,)
    paddings = tuple(
        next((p for p in allowed if (side + 2 * p - 3) // 2 + 1 == goal), None)
        for side, goal in zip(size, wanted, strict=True)
    )
    if None in paddings:
        halves = tuple((side + 1) // 2 for side in size)
        raise SwinsError(
            f"pan halves each map, rounding up, and only the last step may round down; level {i} is {text(size)}, so "
            f"level {i + 1} must be {text(halves)}; got {text(wanted)}; take another image_size, other extras, or neck "
            '"fpn"'
        )
    return paddings


def pan(maps, dtype=None) -> list:
    """`fpn`, and then the way back: each map gets the finer one, halved by a convolution.

    Raises:
        SwinsError: maps that are not half as large as the ones before.
    """
    paddings = [padding_down(maps, i) for i in range(len(maps) - 1)]
    maps = fpn(maps, dtype)
    paths = maps[:1]
    for i, padding in enumerate(paddings):
        x = layers.ZeroPadding2D(padding, data_format="channels_last", name=f"neck_pad_{i}", dtype=dtype)(paths[-1])
        x = conv(WIDTH, 3, strides=2, name=f"neck_down_{i}", dtype=dtype)(x)
        paths.append(layers.Add(name=f"neck_path_{i + 1}", dtype=dtype)([x, maps[i + 1]]))
    return paths


def dense_fpn(maps, dtype=None) -> list:
    """Each map gets every coarser output, enlarged at once: a convolution of all of them and of itself, coarsest first.

    Raises:
        SwinsError: maps that are not from fine to coarse.
    """
    require_falling("dense_fpn", maps)
    last = len(maps) - 1
    outputs = [align(maps[last], last, dtype)]  # coarse to fine
    for i in reversed(range(last)):
        aligned = align(maps[i], i, dtype)
        enlarged = [Upsample(name=f"neck_up_{last - j}_to_{i}", dtype=dtype)(x, aligned) for j, x in enumerate(outputs)]
        everything = layers.Concatenate(name=f"neck_concat_{i}", dtype=dtype)([*enlarged, aligned])
        outputs.append(conv(WIDTH, 3, padding="same", name=f"neck_dense_{i}", dtype=dtype)(everything))
    return outputs[::-1]


NECKS = {"none": none, "fpn": fpn, "pan": pan, "dense_fpn": dense_fpn}
