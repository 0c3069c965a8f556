"""Attention maps: the weights of every block, and where on the image they point.

Letters: B batch, (H, W) tokens of a feature map, N tokens of a window, K windows of an image.
"""

import keras
import numpy as np
from keras import ops

from swins.errors import SwinsError


def stride_of(model, block):
    """Pixels of a token's side in "stage_2/block_0": the patch's, doubled by each merging."""
    return model.variant.patch_size * 2 ** int(block.partition("/")[0].removeprefix("stage_"))


def blocks_of(model):
    """{"stage_0/block_0": block layer} in the order they run."""
    names = (layer.name.split("_") for layer in model.layers)
    found = [f"{n[1]} {n[3]}" for n in names if n[0] == "stages" and "blocks" in n]
    return {
        f"stage_{s}/block_{b}": model.get_layer(f"stages_{s}_blocks_{b}") for s, b in (entry.split() for entry in found)
    }


def block_inputs(model, images):
    """{"stage_0/block_0": (block, its input (B, H, W, C))} for a batch of images."""
    blocks = blocks_of(model)
    if not blocks:
        raise SwinsError(
            f"attention is a Swin's; got {model.name}, which has no block of it; swins.grad_cam takes others"
        )
    inputs = keras.Model(model.input, [block.input for block in blocks.values()])(images, training=False)
    return {name: (block, x) for (name, block), x in zip(blocks.items(), inputs, strict=True)}


def attention_maps(model, images):
    """Attention weights of every block: images (B, height, width, C) -> {"stage_0/block_0": (B, K, heads, N, N)}."""
    return {name: ops.convert_to_numpy(block.scores(x)) for name, (block, x) in block_inputs(model, images).items()}


def received(block, x):
    """How much attention each token gets from its window, mean over heads; 1 is its fair share.

    (B, H, W, C) -> (B, H, W): un-windowed, cropped and un-shifted, so that a value lies on its own token.
    """
    scores = block.scores(x)
    weights = ops.reshape(ops.sum(ops.mean(scores, axis=2), axis=2), (-1, scores.shape[-1], 1))
    _, _, restore = block.cut(x)
    return restore(weights)[..., 0]


def on_image(tokens, size, stride):
    """Spread a value per token over its pixels, stride x stride: (B, H, W) -> (B, *size); pixels of no patch get 0."""
    pixels = np.asarray(ops.convert_to_numpy(tokens), "float32").repeat(stride, axis=1).repeat(stride, axis=2)
    missing = [max(0, side - have) for side, have in zip(size, pixels.shape[1:], strict=True)]
    return np.pad(pixels, ((0, 0), (0, missing[0]), (0, missing[1])))[:, : size[0], : size[1]]


def stitched_attention(model, images):
    """Where each block looks, on the image: windows put back, shifts undone.

    images (B, height, width, C) -> {"stage_0/block_0": (B, height, width)}: attention that a pixel's token receives
    from the tokens of its window, mean over heads; 1 is a fair share.
    """
    size = images.shape[1:3]
    found = block_inputs(model, images).items()
    return {name: on_image(received(block, x), size, stride_of(model, name)) for name, (block, x) in found}
