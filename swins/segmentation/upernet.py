"""UPerNet (arXiv:1807.10221) on any feature pyramid: semantic segmentation.

Letters: B images, (H, W) cells of a map, C channels, K classes.
"""

from dataclasses import asdict

import keras
from keras import layers

from swins.changes import Recorded
from swins.errors import SwinsError, unknown_name
from swins.fresh_weights import xavier
from swins.rcnn_numbers import stride_of
from swins.segmentation.pyramid_pooling import ConvNorm, ResizedAs, pyramid_pooling
from swins.upernet_numbers import upernet_numbers

LOGITS, AUXILIARY = "logits", "auxiliary"  # outputs


def of_pyramid(pyramid, levels):
    """A pyramid with the maps of `levels` alone -> (keras.Model, names of the maps, fine to coarse).

    Raises:
        SwinsError: no functional model of one input and {name: map}, unknown levels, maps of unknown channels.
    """
    outputs = getattr(pyramid, "output", None) if isinstance(pyramid, keras.Model) else None
    if not (isinstance(outputs, dict) and outputs and len(pyramid.inputs) == 1):
        raise SwinsError(
            "a UPerNet stands on a functional Keras model of images -> {level: map}, as swins.backbone gives; got "
            f"{pyramid!r}; make one: keras.Model(images, {{'P3': map, ...}})"
        )
    for name in levels or ():
        if name not in outputs:
            raise unknown_name("level", name, list(outputs))
    names = tuple(levels or sorted(outputs, key=stride_of))
    for name in names:
        if len(outputs[name].shape) != 4 or outputs[name].shape[-1] is None:
            raise SwinsError(f"a map of a pyramid is (B, H, W, C) of a known C; {name} is {outputs[name].shape}")
    if set(names) != set(outputs):
        pyramid = keras.Model(pyramid.inputs[0], {name: outputs[name] for name in names}, name=pyramid.name)
    return pyramid, names


def classifier(x, numbers, name):
    """Logits of each cell, in float32: (B, H, W, C) -> (B, H, W, K). In training whole channels are dropped before.

    Fresh weights are Glorot's, as segmentation-models-pytorch's; from mmsegmentation's, of a deviation of 0.01, they
    take hundreds of updates to grow.
    """
    if numbers.drop_rate:
        whole = (None, 1, 1, x.shape[-1])
        x = layers.Dropout(numbers.drop_rate, noise_shape=whole, name=f"{name}_drop", dtype="float32")(x)
    options = {"kernel_initializer": xavier(), "data_format": "channels_last", "dtype": "float32"}
    return layers.Conv2D(numbers.num_classes, 1, name=name, **options)(x)


def fused_map(maps, numbers, dtype):
    """What a pyramid's maps say together: [(B, H, W, C)] fine to coarse -> (B, H, W, width) of the finest's size."""

    def like(x, other, name):
        return ResizedAs(name=f"{name}_resized", dtype=dtype)([x, other])

    width = numbers.width
    laterals = [ConvNorm(width, 1, name=f"lateral_convs_{i}", dtype=dtype)(x) for i, x in enumerate(maps[:-1])]
    laterals.append(pyramid_pooling(maps[-1], width, numbers.bins, dtype))
    for i in reversed(range(len(laterals) - 1)):
        coarser = like(laterals[i + 1], laterals[i], f"lateral_{i + 1}")
        laterals[i] = layers.Add(name=f"lateral_{i}", dtype=dtype)([laterals[i], coarser])
    smooth = [ConvNorm(width, 3, name=f"fpn_convs_{i}", dtype=dtype)(x) for i, x in enumerate(laterals[:-1])]
    smooth.append(laterals[-1])
    return ConvNorm(width, 3, name="fpn_bottleneck", dtype=dtype)(smooth if len(smooth) > 1 else smooth[0])


@keras.saving.register_keras_serializable("swins")
class UPerNet(Recorded):
    """UPerNet: images (B, height, width, channels) -> {"logits": (B, H, W, K)}, of the finest map's cells, float32.

    In training "auxiliary" is beside them, (B, H', W', K) of the auxiliary head's map; `output` has both. For pixels
    `swins.segmentation.sliding` enlarges logits as the references do. Layers are named as mmsegmentation's modules.

    Args:
        pyramid: a functional Keras model of images -> {"P2": map, ...}, Pn of stride 2**n: what `swins.backbone` gives
            (`norms=True` of a Swin), or your own. Its weights are shared.
        num_classes: K.
        width: channels of the decoder's maps.
        bins: parts along each axis in which the coarsest map is averaged.
        auxiliary: channels of the auxiliary head, which helps in training alone; 0 leaves it out.
        auxiliary_level: the map that it is on; None for the one before the last.
        drop_rate: share of channels that are dropped before each classifier, in training.
        levels: the pyramid's maps that are used, fine to coarse, such as ("P3", "P4"); None for all.
        dtype: a Keras dtype policy of the decoder; logits stay float32, the pyramid keeps its own.
        frozen: layers that do not train: their names, or paths of what is in them.
        changed: what was done to layers later, as `get_config` tells it.

    Raises:
        SwinsError: a pyramid that is none, levels that it has not.

    Example:
    >>> import swins
    >>> pyramid = swins.backbone("swin_mini_patch2_window4_28", image_size=(None, None), norms=True)
    >>> model = UPerNet(pyramid, num_classes=11, width=32, auxiliary=16)
    >>> {name: tuple(x.shape) for name, x in model(keras.ops.zeros((1, 50, 64, 1))).items()}
    {'logits': (1, 25, 32, 11)}
    """

    def __init__(self, pyramid, *, name=None, dtype=None, frozen=(), changed=None, **numbers):
        numbers = upernet_numbers(numbers)
        if isinstance(pyramid, dict):
            pyramid = keras.saving.deserialize_keras_object(pyramid)
        backbone, levels = of_pyramid(pyramid, numbers.levels)
        if numbers.auxiliary_level not in (None, *levels):
            raise unknown_name("auxiliary_level", numbers.auxiliary_level, levels)
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy()).name

        images = keras.Input(backbone.inputs[0].shape[1:], name="images")
        features = backbone(images)
        fused = fused_map([features[level] for level in levels], numbers, policy)
        outputs = {LOGITS: classifier(fused, numbers, "conv_seg")}
        if numbers.auxiliary:
            x = features[numbers.auxiliary_level or levels[-2:][0]]
            x = ConvNorm(numbers.auxiliary, 3, name="auxiliary_convs_0", dtype=policy)(x)
            outputs[AUXILIARY] = classifier(x, numbers, "auxiliary_conv_seg")
        super().__init__(inputs=images, outputs=outputs, name=name)
        self.numbers, self.policy, self.backbone, self.levels = numbers, policy, backbone, levels
        self.record(frozen, changed)

    @property
    def image_size(self) -> tuple:
        """(height, width) of the images, in pixels; (None, None) for any."""
        return tuple(self.backbone.inputs[0].shape[1:3])

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        return self.backbone.inputs[0].shape[-1]

    def call(self, images, training=None, mask=None):
        outputs = super().call(images, training=training, mask=mask)
        return outputs if training else {LOGITS: outputs[LOGITS]}

    def compute_output_spec(self, images, training=None, mask=None):
        outputs = super().compute_output_spec(images, training=training, mask=mask)
        return outputs if training else {LOGITS: outputs[LOGITS]}

    def get_config(self):
        pyramid = keras.saving.serialize_keras_object(self.backbone)
        config = {"pyramid": pyramid, **asdict(self.numbers), "name": self.name, "dtype": self.policy}
        return {**config, **self.get_changes()}
