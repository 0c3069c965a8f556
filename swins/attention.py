"""Attention maps: the weights of every block, and where on the image they point.

Letters: B batch, (H, W) tokens of a feature map, N tokens of a window, K windows of an image.
"""

import keras
from keras import ops

from swins.errors import SwinsError


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


def draw(model, images, pictures, titles, path, shown=None):
    """Draw what each block looks at, over pictures, as a PNG.

    Args:
        model: a Swin.
        images: (B, height, width, C), normalised.
        pictures: (B, height, width) or (B, height, width, 3) uint8, to draw on.
        titles: one text per image.
        path: the PNG.
        shown: names of the blocks; all by default.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise SwinsError("drawing needs matplotlib: pip install 'swins[plot]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    maps = {
        name: ops.convert_to_numpy(received(block, x))
        for name, (block, x) in block_inputs(model, images).items()
        if not shown or name in shown
    }
    height, width = pictures.shape[1:3]
    figure, axes = pyplot.subplots(
        len(pictures), len(maps) + 1, figsize=(1.7 * (len(maps) + 1), 1.8 * len(pictures)), squeeze=False
    )
    for row, picture, title, i in zip(axes, pictures, titles, range(len(pictures)), strict=True):
        row[0].imshow(picture, cmap="gray")
        row[0].set_title(title, fontsize=8)
        for axis, (name, values) in zip(row[1:], maps.items(), strict=True):
            axis.imshow(picture, cmap="gray")
            overlay = axis.imshow(values[i], extent=(-0.5, width - 0.5, height - 0.5, -0.5), cmap="inferno", alpha=0.65)
            overlay.set_clim(0, max(2.0, float(values.max())))
            axis.set_title(name if i == 0 else "", fontsize=8)
    for axis in axes.flat:
        axis.axis("off")
    figure.suptitle("Attention each token receives (mean over heads; brighter is more)", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
