"""SSD (arXiv:1512.02325) on any feature pyramid: more maps, a neck, and a head for each map.

Letters: B images, (H, W) cells of a map, C channels, P default boxes, K classes.
"""

import math
from dataclasses import asdict, replace

import keras
from keras import layers, ops

from swins.changes import Recorded
from swins.checked_numbers import tuples
from swins.detection.default_boxes import Priors, default_boxes, per_cell, priors_of
from swins.detection.necks import NECKS, conv, require_falling, size_of, text
from swins.errors import SwinsError, unknown_name
from swins.layers import NORM_EPSILON, layer_norm
from swins.patch_expanding import PatchExpanding
from swins.ssd_numbers import Extra, numbers_of

LENGTH = 20.0  # of the first map's cells, to begin with (arXiv:1506.04579)
WIDEST, NARROWEST = 512, 256  # channels of computed extras


def batch_norm(name, dtype=None):
    """BatchNorm over channels with PyTorch's epsilon and momentum, which Keras counts the other way round."""
    return layers.BatchNormalization(axis=-1, epsilon=NORM_EPSILON, momentum=0.9, name=name, dtype=dtype)


NORMS = {"batch": batch_norm, "layer": layer_norm}


@keras.saving.register_keras_serializable("swins")
class Rescale(layers.Layer):
    """Bring each cell to length 1, then multiply every channel by a learned number: (B, H, W, C) -> the same shape."""

    def build(self, shape):
        length = keras.initializers.Constant(LENGTH)
        self.scale = self.add_weight(shape=(shape[-1],), initializer=length, name="scale")

    def call(self, x):
        y = ops.cast(x, "float32")
        square = ops.sum(y * y, -1, keepdims=True)
        y = y * ops.rsqrt(ops.maximum(square, 1e-24))  # a cell of zeros stays so
        return ops.cast(y, x.dtype) * ops.cast(self.scale, x.dtype)


def of_pyramid(pyramid, levels):
    """A pyramid with the maps of `levels` alone -> (keras.Model, names of the maps, fine to coarse).

    Raises:
        SwinsError: no functional model of one input and {name: map}, one of any image size, unknown levels.
    """
    outputs = getattr(pyramid, "output", None) if isinstance(pyramid, keras.Model) else None
    if not (isinstance(outputs, dict) and outputs and len(pyramid.inputs) == 1):
        raise SwinsError(
            "an SSD stands on a functional Keras model of images -> {level: map}, as swins.backbone gives; got "
            f"{pyramid!r}; make one: keras.Model(images, {{'P3': map, ...}})"
        )
    images = pyramid.inputs[0]
    if len(images.shape) != 4 or None in images.shape[1:]:
        raise SwinsError(
            "an SSD is of one image size, which its default boxes are spread over; the pyramid takes images "
            f"{images.shape[1:]}; make it with an image_size"
        )
    for name, x in outputs.items():
        if len(x.shape) != 4 or None in x.shape[1:]:
            raise SwinsError(f"a map of a pyramid is (B, H, W, C) of known sizes; {name} is {x.shape}")
    for name in levels or ():
        if name not in outputs:
            raise unknown_name("level", name, list(outputs))
    names = levels or sorted(outputs, key=lambda name: (-math.prod(size_of(outputs[name])), name))
    if set(names) != set(outputs):
        pyramid = keras.Model(images, {name: outputs[name] for name in names}, name=pyramid.name)
    return pyramid, tuple(names)


def computed_extras(x, count) -> tuple:
    """Rows of `count` maps that follow a map, each half as large.

    Each has half of the channels of the map before, from 256 to 512, but no more than the first.
    """
    channels, rows = x.shape[-1], []
    for _ in range(count):
        channels = max(min(channels // 2, WIDEST), min(channels, NARROWEST))
        rows.append(Extra(max(channels // 2, 1), channels))
    return tuple(rows)


def extra_map(x, row, norm, name, dtype):
    """One more map, of the one before, by a row: (B, H, W, C) -> (B, H', W', channels)."""
    x = conv(row.middle, 1, use_bias=False, name=f"{name}_conv1", dtype=dtype)(x)
    x = layers.ReLU(name=f"{name}_relu1", dtype=dtype)(NORMS[norm](f"{name}_norm1", dtype)(x))
    if row.padding:
        x = layers.ZeroPadding2D(row.padding, data_format="channels_last", name=f"{name}_pad", dtype=dtype)(x)
    x = conv(row.channels, 3, strides=row.stride, use_bias=False, name=f"{name}_conv2", dtype=dtype)(x)
    return layers.ReLU(name=f"{name}_relu2", dtype=dtype)(NORMS[norm](f"{name}_norm2", dtype)(x))


def with_extras(maps, rows, norm, dtype):
    """Maps and those that rows make of the last, one after the other -> list of maps.

    Raises:
        SwinsError: a row that leaves nothing of a map.
    """
    maps = list(maps)
    for i, row in enumerate(rows):
        row = row.on(size_of(maps[-1]))
        if min(row.size(size_of(maps[-1]))) < 1:
            raise SwinsError(
                f"a 3x3 convolution without padding needs 3x3 cells; row {i} of extras, {tuple(row)}, gets a map of "
                f"{text(size_of(maps[-1]))}; use larger images, or padding 1"
            )
        maps.append(extra_map(maps[-1], row, norm, f"extras_{i}", dtype))
    return maps


def head(maps, counts, width, name):
    """A convolution for each map, of its own: maps and boxes a cell of each -> (B, P, width), in float32.

    Channels are those of a cell's first box, then those of its second, ...; rows go map by map, cell by cell.
    """
    rows = []
    for i, (x, count) in enumerate(zip(maps, counts, strict=True)):
        y = conv(count * width, 3, padding="same", name=f"{name}_{i}", dtype="float32")(x)
        rows.append(layers.Reshape((-1, width), name=f"{name}_{i}_rows", dtype="float32")(y))
    return layers.Concatenate(axis=1, name=name, dtype="float32")(rows)


@keras.saving.register_keras_serializable("swins")
class SSD(Recorded):
    """Single-shot detector: images (B, height, width, channels) -> {"boxes": (B, P, 4), "scores": (B, P, K + 1)}.

    Boxes are coded against `priors`, the default boxes (P, 4), see `swins.boxes.decode`; scores are before softmax, the
    background's first. Both are float32. `backbone` is the pyramid with the maps that are used, `sizes` has (rows,
    columns) of each map, the finest first.

    Args:
        pyramid: a functional Keras model of images -> {level: map}: what `swins.backbone` gives, or your own. Its
            weights are shared.
        num_classes: K, classes without background.
        neck: what lies between maps and heads: "none", "fpn", "pan" or "dense_fpn".
        extras: maps that follow the pyramid's, a row each: (middle, channels), channels of a 1x1 and a 3x3 convolution
            that halves the map, or (middle, channels, stride, padding); None for as many as the preset has maps for,
            computed.
        extra_norm: what follows their convolutions: "batch" or "layer".
        rescale: whether cells of the first map get a learned length, 20 at first.
        expand: whether the pyramid's last map is enlarged twice, by patch expanding.
        levels: the pyramid's maps that are used, fine to coarse, such as ("P3", "P4"); None for all.
        preset: of the default boxes: "r_ssd", "torchvision", or Priors of `swins.detection.default_boxes`.
        dtype: a Keras dtype policy of neck and extras; heads stay in float32, the pyramid keeps its own.
        frozen: layers that do not train: their names, or paths of what is in them.
        changed: what was done to layers later, as `get_config` tells it.

    Raises:
        SwinsError: a pyramid that is none, maps that neck or extras do not fit, as many maps as the preset has not.

    Example:
    >>> import swins
    >>> model = SSD(swins.backbone("swin_mini_patch2_window4_28", image_size=64), num_classes=10, neck="fpn")
    >>> {name: tuple(x.shape) for name, x in model.output.items()}, model.priors.shape
    ({'boxes': (None, 6132, 4), 'scores': (None, 6132, 11)}, (6132, 4))
    """

    def __init__(self, pyramid, *, name=None, dtype=None, frozen=(), changed=None, **numbers):
        numbers = numbers_of(numbers)
        if numbers.neck not in NECKS:
            raise unknown_name("neck", str(numbers.neck), list(NECKS))
        if isinstance(numbers.preset, dict):  # of a config, as the pyramid may be
            numbers = replace(numbers, preset=Priors(**{k: tuples(v) for k, v in numbers.preset.items()}))
        priors = priors_of(numbers.preset)
        if isinstance(pyramid, dict):
            pyramid = keras.saving.deserialize_keras_object(pyramid)
        backbone, levels = of_pyramid(pyramid, numbers.levels)
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy()).name

        images = keras.Input(backbone.inputs[0].shape[1:], name="images")
        features = backbone(images)
        maps = [features[level] for level in levels]
        if numbers.expand:
            maps[-1] = PatchExpanding(name="expand", dtype=policy)(maps[-1])
        counts = per_cell(priors)
        rows = numbers.extras
        if rows is None:
            rows = computed_extras(maps[-1], max(len(counts) - len(maps), 0))
        maps = with_extras(maps, rows, numbers.extra_norm, policy)
        if len(maps) != len(counts):
            raise SwinsError(
                f"this preset has boxes for {len(counts)} maps; got {len(levels)} of the pyramid and {len(rows)} "
                "of extras; choose others with levels= and extras=, or give Priors for as many"
            )
        require_falling("an SSD", maps)
        if numbers.rescale:
            maps[0] = Rescale(name="rescale", dtype=policy)(maps[0])
        maps = NECKS[numbers.neck](maps, policy)
        outputs = {
            "boxes": head(maps, counts, 4, "boxes"),
            "scores": head(maps, counts, numbers.num_classes + 1, "scores"),
        }
        super().__init__(inputs=images, outputs=outputs, name=name)
        self.numbers, self.policy, self.backbone = numbers, policy, backbone
        self.sizes = tuple(map(size_of, maps))
        self.priors = default_boxes(self.sizes, priors, self.image_size)
        self.record(frozen, changed)

    @property
    def image_size(self) -> tuple:
        """(height, width) of the images, in pixels."""
        return size_of(self.inputs[0])

    def __call__(self, images, *args, **kwargs):
        shape, size = getattr(images, "shape", ()), self.image_size
        if len(shape) == 4 and any(side not in (None, fixed) for side, fixed in zip(shape[1:3], size, strict=True)):
            raise SwinsError(
                f"{self.name} takes images of the {text(size)} pixels it was built for, as its default boxes are; got "
                f"{text(shape[1:3])}; resize them, or make a detector with another image_size"
            )
        return super().__call__(images, *args, **kwargs)

    def get_config(self):
        pyramid = keras.saving.serialize_keras_object(self.backbone)
        config = {"pyramid": pyramid, **asdict(self.numbers), "name": self.name, "dtype": self.policy}
        return {**config, **self.get_changes()}
