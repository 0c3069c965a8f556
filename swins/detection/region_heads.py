"""Heads of a Mask R-CNN (arXiv:1703.06870, figure 4): what is in a region, where it ends, which pixels it has.

A region comes as features that RoIAlign gives. Letters: B images, N regions of an image, S side of a region's features,
C channels, K classes.
"""

import keras
from keras import layers, ops

from swins.changes import Composite
from swins.convolutions import Conv2D
from swins.fresh_weights import Normal, kaiming, xavier
from swins.layers import NORM_EPSILON

BOX_SIDE, MASK_SIDE = 7, 14  # of the features that box and mask heads take; masks have twice the side
LAST = {"data_format": "channels_last"}


def merged(x):
    """The regions of all images in one axis: (B, N, ...) -> (B*N, ...)."""
    return ops.reshape(x, (-1, *x.shape[2:]))


def apart(y, x):
    """The regions of y (B*N, ...) by image again, as those of x (B, N, ...) -> (B, N, ...)."""
    return ops.reshape(y, (*ops.shape(x)[:2], *y.shape[1:]))


@keras.saving.register_keras_serializable("swins")
class BoxHead(Composite):
    """Features (B, N, S, S, C) -> logits (B, N, K + 1), the background's last, and deltas (B, N, 4K), class by class.

    Two dense layers with ReLU, then one for logits and one for deltas, which are float32.

    Args:
        num_classes: K.
        hidden: units of the first layers.
    """

    DENSE = 2

    def __init__(self, num_classes, hidden=1024, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.hidden = hidden

    def build(self, shape):
        _, _, side, _, channels = shape
        options = {"activation": "relu", "dtype": self.dtype_policy}
        self.shared_fcs = [
            layers.Dense(self.hidden, kernel_initializer=xavier(), name=f"shared_fcs_{i}", **options)
            for i in range(self.DENSE)
        ]
        self.fc_cls = layers.Dense(
            self.num_classes + 1, kernel_initializer=Normal(0, 0.01), name="fc_cls", dtype="float32"
        )
        self.fc_reg = layers.Dense(
            4 * self.num_classes, kernel_initializer=Normal(0, 0.001), name="fc_reg", dtype="float32"
        )
        inputs = (None, self.inputs(side, channels))
        for part in (*self.shared_fcs, self.fc_cls, self.fc_reg):
            part.build(inputs)
            inputs = (None, self.hidden)

    def inputs(self, side, channels):
        """Numbers of a region that the first dense layer gets; parts before it are built here."""
        return side * side * channels

    def features(self, x, training):
        """What the first dense layer gets: (B*N, S, S, C) -> (B*N, inputs)."""
        return ops.reshape(x, (-1, x.shape[1] * x.shape[2] * x.shape[3]))

    def call(self, regions, training=None):
        x = self.features(merged(regions), training)
        for dense in self.shared_fcs:
            x = dense(x)
        return apart(self.fc_cls(x), regions), apart(self.fc_reg(x), regions)


@keras.saving.register_keras_serializable("swins")
class ConvBoxHead(BoxHead):
    """BoxHead whose first layers are four 3x3 convolutions, each with a batch norm and ReLU, and one dense layer.

    Batch norms train on all regions that come, of all images.
    """

    DENSE, CONVOLUTIONS = 1, 4

    def inputs(self, side, channels):
        self.shared_convs, self.shared_norms = [], []
        for i in range(self.CONVOLUTIONS):
            convolution = Conv2D(
                channels,
                3,
                padding="same",
                use_bias=False,
                kernel_initializer=kaiming(),
                name=f"shared_convs_{i}_conv",
                dtype=self.dtype_policy,
                **LAST,
            )
            norm = layers.BatchNormalization(
                -1, 0.9, NORM_EPSILON, name=f"shared_convs_{i}_bn", dtype=self.dtype_policy
            )
            for part in (convolution, norm):
                part.build((None, side, side, channels))
            self.shared_convs.append(convolution)
            self.shared_norms.append(norm)
        return super().inputs(side, channels)

    def features(self, x, training):
        for convolution, norm in zip(self.shared_convs, self.shared_norms, strict=True):
            x = ops.relu(norm(convolution(x), training=training))
        return super().features(x, training)


@keras.saving.register_keras_serializable("swins")
class MaskHead(Composite):
    """Features (B, N, S, S, C) -> logits of each class's mask (B, N, 2S, 2S, K), float32.

    Four 3x3 convolutions and a transposed one of stride 2, each with ReLU, and a 1x1 convolution.

    Args:
        num_classes: K.
    """

    CONVOLUTIONS = 4

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes

    def build(self, shape):
        _, _, side, _, channels = shape
        options = {"dtype": self.dtype_policy, "activation": "relu", **LAST}
        self.convs = [
            Conv2D(channels, 3, padding="same", kernel_initializer=kaiming(), name=f"convs_{i}", **options)
            for i in range(self.CONVOLUTIONS)
        ]
        self.upsample = layers.Conv2DTranspose(
            channels, 2, strides=2, kernel_initializer=kaiming(), name="upsample", **options
        )
        self.conv_logits = Conv2D(
            self.num_classes, 1, kernel_initializer=kaiming(), name="conv_logits", dtype="float32", **LAST
        )
        for part in (*self.convs, self.upsample):
            part.build((None, side, side, channels))
        self.conv_logits.build((None, 2 * side, 2 * side, channels))

    def call(self, regions):
        x = merged(regions)
        for part in (*self.convs, self.upsample, self.conv_logits):
            x = part(x)
        return apart(x, regions)
