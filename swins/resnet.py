"""ResNet as torchvision has it ("v1.5"), for feature pyramids and classes.

Letters: B batch, (H, W) places of a map, C channels.
"""

from dataclasses import asdict

import keras
from keras import layers

from swins.changes import Recorded
from swins.convolutions import Conv2D
from swins.fresh_weights import kaiming, torch_linear
from swins.layers import NORM_EPSILON
from swins.plans import with_overrides
from swins.resnet_plan import VariantResNet, plan_resnet

MOMENTUM = 0.9  # of moving averages: what PyTorch calls 0.1
LAST = {"data_format": "channels_last"}


def convolution(x, channels, kernel, stride, name, dtype):
    """A convolution without bias, padded by half its kernel on every side: (B, H, W, C) -> (B, H', W', channels).

    H' is H over the stride, rounded up. Keras' own "same" pads even sides at their ends alone where the stride is 2.
    """
    if stride > 1 and kernel > 1:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad", dtype=dtype, **LAST)(x)
    padding = "same" if stride == 1 else "valid"
    options = {"use_bias": False, "kernel_initializer": kaiming(), "name": name, "dtype": dtype, **LAST}
    return Conv2D(channels, kernel, stride, padding, **options)(x)


def batch_norm(x, name, dtype):
    """Batch norm over channels with PyTorch's epsilon and momentum."""
    return layers.BatchNormalization(-1, MOMENTUM, NORM_EPSILON, name=name, dtype=dtype)(x)


def relu(x, name, dtype):
    """What is above 0."""
    return layers.ReLU(name=name, dtype=dtype)(x)


def bottleneck(x, plan, b, dtype):
    """Block b of a stage: a branch of 1x1, 3x3 and 1x1 convolutions beside a shortcut -> (B, H', W', plan.channels).

    The 3x3 convolution has the stride, where the paper's first 1x1 has it.
    """
    name, stride = f"{plan.name}_{b}", 1 if b else plan.stride
    y = convolution(x, plan.hidden, 1, 1, f"{name}_conv1", dtype)
    y = relu(batch_norm(y, f"{name}_bn1", dtype), f"{name}_relu1", dtype)
    y = convolution(y, plan.hidden, 3, stride, f"{name}_conv2", dtype)
    y = relu(batch_norm(y, f"{name}_bn2", dtype), f"{name}_relu2", dtype)
    y = convolution(y, plan.channels, 1, 1, f"{name}_conv3", dtype)
    y = batch_norm(y, f"{name}_bn3", dtype)
    if b == 0:
        x = convolution(x, plan.channels, 1, stride, f"{name}_downsample_0", dtype)
        x = batch_norm(x, f"{name}_downsample_1", dtype)
    return relu(layers.Add(name=f"{name}_add", dtype=dtype)([y, x]), name, dtype)


def classifier(x, channels, classes):
    """Logits of pooled features (B, channels) -> (B, classes), with torch.nn.Linear's first weights."""
    return layers.Dense(classes, name="head", dtype="float32", **torch_linear(channels))(x)


@keras.saving.register_keras_serializable("swins")
class ResNet(Recorded):
    """ResNet of bottleneck blocks (arXiv:1512.03385), with torchvision's strides: of a block the 3x3 has them ("v1.5").

    Layers are named after torchvision's modules, `conv1`, `bn1`, `layer1_0_conv1`, and a block's output after it,
    `layer1_0`; the classifier is `head`, as a Swin's. Fresh weights are drawn as torchvision's. (`keras.applications`
    has the stride on the first 1x1, and other numbers with the same weights.)

    Batch norms train as PyTorch's, but for one thing: Keras' moving variance takes the batch's variance over n values
    of a channel (n = images x places) as it is, PyTorch n / (n - 1) times that. After a step it is smaller by a tenth
    of the variance over n - 1: for one image of 300 pixels 1e-3 of it in the last stage, 4e-6 after the first
    convolution. Outputs in training are the same. A layer that does not train uses its moving statistics.

    Args:
        depths: blocks of each stage.
        strides: of each stage's first block, 1 or 2.
        stages: how many stages are built, from the first; 0 for all. `stages=3` leaves `layer4` out.
        width: channels of the first convolution; a stage's map has 4 times as many, doubled by each later stage.
        image_size: pixels, an integer or (height, width); (None, None) for any size.
        in_chans: channels of the images.
        num_classes: logits; 0 returns pooled features.
        dtype: a Keras dtype policy such as "mixed_bfloat16"; the head stays in float32.
        frozen: names of layers that do not train.
        changed: what was done to layers later, as `get_config` tells it: {path: facts}, see `swins.changes`.

    `pyramid` has the last map at each stride, Pn at 2**n pixels: {"P2": (B, H/4, W/4, 256), "P3": ..., "P4": ..., "P5":
    (B, H/32, W/32, 2048)}, sides rounded up, after the stage's last ReLU. A stage whose stride is 1 takes the place of
    the one before it: with `strides=(1, 2, 1, 2), stages=3` they are {"P2": 256 channels, "P3": 1024}.

    Raises:
        SwinsError: if the numbers cannot make a model; the message has all reasons.

    Example:
    >>> model = ResNet(image_size=64, depths=(1, 1), strides=(1, 2), num_classes=5)
    >>> {level: tuple(x.shape) for level, x in model.pyramid.items()}
    {'P2': (None, 16, 16, 256), 'P3': (None, 8, 8, 512)}
    """

    numbers = VariantResNet

    def __init__(self, *, name=None, dtype=None, frozen=(), changed=None, **numbers):
        variant = with_overrides(self.numbers(), numbers)
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy()).name
        images = keras.Input((*variant.image_size, variant.in_chans), name="images")
        x = convolution(images, variant.width, 7, 2, "conv1", policy)
        x = relu(batch_norm(x, "bn1", policy), "relu", policy)
        x = layers.ZeroPadding2D(1, name="maxpool_pad", dtype=policy, **LAST)(x)  # after ReLU, 0 is as good as -inf
        x = layers.MaxPooling2D(3, 2, name="maxpool", dtype=policy, **LAST)(x)
        pyramid = {}
        for plan in plan_resnet(variant):
            for b in range(plan.blocks):
                x = bottleneck(x, plan, b, policy)
            pyramid[plan.level] = x
        x = layers.GlobalAveragePooling2D(name="pool", dtype="float32", **LAST)(x)
        if variant.num_classes:
            x = classifier(x, variant.features, variant.num_classes)
        super().__init__(inputs=images, outputs=x, name=name)
        self.variant, self.policy, self.pyramid = variant, policy, pyramid
        self.record(frozen, changed)

    def __call__(self, images, *args, **kwargs):
        self.variant.check_images(self.name, getattr(images, "shape", ()))
        return super().__call__(images, *args, **kwargs)

    def get_config(self):
        return {**asdict(self.variant), "name": self.name, "dtype": self.policy, **self.get_changes()}
