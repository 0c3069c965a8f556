"""Why a Swin says what it says: attention rollout through windows and merging, Grad-CAM, and both as pictures.

Letters: B batch, (H, W) tokens of a feature map, N tokens of a window, K windows of an image.
"""

import os
import pathlib

import keras
import numpy as np
from keras import ops

from swins import attention
from swins.errors import SwinsError
from swins.images import open_image, planes
from swins.labels import class_names
from swins.tags import training_run

KINDS = ("attention", "rollout", "grad_cam")
MOST = 64  # images of a picture


def rollout_step(block, x, relevance):
    """Relevance of a block's inputs from that of its outputs, both (B, H, W): half stays, half follows the attention.

    Attention is the mean over heads (Abnar and Zuidema, arXiv:2005.00928, section 3), in windows that are cut, shifted
    and put back as the block does.
    """
    scores = ops.cast(block.scores(x), "float32")
    weights = ops.reshape(ops.mean(scores, axis=2), (-1, *scores.shape[-2:]))
    cut, _, restore = block.cut(relevance[..., None])
    followed = restore(ops.matmul(ops.transpose(weights, (0, 2, 1)), cut))[..., 0]
    return 0.5 * relevance + 0.5 * followed


def unmerge(relevance, size):
    """Share a merged token's relevance among its 2x2 neighbours: (B, ceil(H/2), ceil(W/2)) -> (B, H, W)."""
    spread = ops.repeat(ops.repeat(relevance / 4.0, 2, axis=1), 2, axis=2)
    return spread[:, : size[0], : size[1]]


def attention_rollout(model, images):
    """How much each pixel counts for the pooled features, following attention back: -> (B, height, width), mean 1.

    From the pool, where all tokens count alike, through every block (half residual, half attention) and every merging
    to the patches. It tells where the network looked, for whatever class.

    Args:
        model: a Swin.
        images: (B, height, width, C), normalised.
    """
    steps = list(attention.block_inputs(model, images).values())
    relevance = ops.ones(ops.shape(steps[-1][1])[:3], "float32")
    for block, x in reversed(steps):
        size = tuple(ops.shape(x)[1:3])
        if tuple(ops.shape(relevance)[1:3]) != size:
            relevance = unmerge(relevance, size)
        relevance = rollout_step(block, x, relevance)
    relevance = relevance / ops.mean(relevance, axis=(1, 2), keepdims=True)
    return attention.on_image(relevance, images.shape[1:3], model.variant.patch_size)


def tensorflow_gradient(function, x):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x)


def jax_gradient(function, x):
    import jax

    return jax.grad(function)(x)


def torch_gradient(function, x):
    x = x.detach().requires_grad_()
    function(x).backward(inputs=[x])  # and none of the weights'
    return x.grad


GRADIENTS = {"tensorflow": tensorflow_gradient, "jax": jax_gradient, "torch": torch_gradient}  # of a sum over a batch


def require_classifier(model, name: str) -> None:
    """Raise SwinsError for a model that gives no logits: a detector, or features alone."""
    variant = getattr(model, "variant", None)
    if variant is None:
        raise SwinsError(f"classifiers are explained; got {name}, a {type(model).__name__}; take the Swin it stands on")
    if not variant.num_classes:
        raise SwinsError(f"{name} has no classifier (num_classes is 0), so no class can be explained")


def grad_cam(model, images, classes=None, level=None):
    """Which pixels speak for a class (arXiv:1610.02391, equations 1 and 2): -> (B, height, width), from 0 to 1.

    Args:
        model: a Swin with a classifier.
        images: (B, height, width, C), normalised.
        classes: one class per image; by default the one with the largest logit.
        level: "P2" to "P5", an output of a stage; by default the map that the pool averages: of V1 and
            V2 after the final norm, of V2-CR after the last block's norms.

    Raises:
        SwinsError: no classifier, classes that it has not, or no such level.
    """
    require_classifier(model, model.name)
    if level is not None and level not in model.pyramid:
        raise SwinsError(f"level must be one of {', '.join(model.pyramid)}; got {level!r}")
    place = model.get_layer("pool").input if level is None else model.pyramid[level]
    maps, logits = keras.Model(model.input, [place, model.output])(images, training=False)
    classes = np.argmax(ops.convert_to_numpy(logits), axis=1) if classes is None else np.asarray(classes)
    if classes.shape != (len(images),) or not (classes.min() >= 0 and classes.max() < model.variant.num_classes):
        raise SwinsError(f"classes must be {len(images)} integers below {model.variant.num_classes}; got {classes}")
    rest = keras.Model(place, model.output)
    picked = ops.one_hot(classes, model.variant.num_classes)
    gradient = GRADIENTS[keras.backend.backend()](lambda x: ops.sum(rest(x, training=False) * picked), maps)
    importance = ops.mean(gradient, axis=(1, 2), keepdims=True)
    cam = ops.convert_to_numpy(ops.relu(ops.sum(ops.cast(maps * importance, "float32"), axis=-1)))
    cam = cam / np.maximum(cam.max(axis=(1, 2), keepdims=True), np.finfo("float32").tiny)
    smooth = keras.ops.image.resize(cam[..., None], images.shape[1:3], "bilinear", data_format="channels_last")
    return ops.convert_to_numpy(smooth)[..., 0]


def last_blocks(model):
    """Names of each stage's last block."""
    return list({name.partition("/")[0]: name for name in attention.blocks_of(model)}.values())


def panels(model, images, kinds=KINDS, classes=None):
    """What to draw for a batch of images -> {title: (B, height, width)}.

    Args:
        model: a Swin.
        images: (B, height, width, C), normalised.
        kinds: of "attention" (each stage's last block), "rollout", "grad_cam".
        classes: what `grad_cam` explains.
    """
    found = {}
    if "attention" in kinds:
        stitched = attention.stitched_attention(model, images)
        found |= {name: stitched[name] for name in last_blocks(model)}
    if "rollout" in kinds:
        found["rollout"] = attention_rollout(model, images)
    if "grad_cam" in kinds and model.variant.num_classes:
        found["Grad-CAM"] = grad_cam(model, images, classes)
    return found


def draw(pictures, maps, titles, path=None, note=""):
    """Draw maps over pictures, a row an image -> matplotlib's figure.

    Args:
        pictures: (B, height, width) or (B, height, width, 3) uint8, to draw on.
        maps: {title: (B, height, width)}.
        titles: one text per image, such as its classes.
        path: the PNG to write; None writes none.
        note: the figure's title.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise SwinsError("drawing needs matplotlib: pip install 'swins[plot]'") from error
    figure = Figure(figsize=(2.1 * (len(maps) + 1), 2.3 * len(pictures) + 0.4), layout="constrained")
    axes = figure.subplots(len(pictures), len(maps) + 1, squeeze=False)
    for i, (row, picture, title) in enumerate(zip(axes, pictures, titles, strict=True)):
        row[0].imshow(picture, cmap="gray")
        row[0].set_title(title, fontsize=8, parse_math=False)
        for axis, (name, values) in zip(row[1:], maps.items(), strict=True):
            axis.imshow(picture, cmap="gray")
            axis.imshow(values[i], cmap="inferno", alpha=0.6, vmin=float(values[i].min()))
            axis.set_title(name if i == 0 else "", fontsize=8)
    for axis in axes.flat:
        axis.axis("off")
    figure.suptitle(note, fontsize=9)
    if path:
        figure.savefig(path, dpi=110)
    return figure


def cropped(prepare, image):
    """The part of an image that the model sees, as uint8 pixels (height, width[, 3]) to draw on."""
    part, *_ = planes(open_image(image), len(prepare.mean))  # the first channel, where they are neither grey nor RGB
    return np.asarray(prepare.crop(prepare.scale(part)))


def names_of(model, name):
    """Names of a model's classes: published ones where its name or their number tells, else "class 0", "class 1"."""
    count = model.variant.num_classes
    try:
        names = class_names(name if "." in name or training_run(name) else count)
    except SwinsError:
        names = []
    return names if len(names) == count else [f"class {i}" for i in range(count)]


def top_classes(logits, names, count=3):
    """ "golden retriever 93%" a line: the classes with the largest probabilities, for one row of logits."""
    probabilities = ops.convert_to_numpy(ops.softmax(logits))
    best = np.argsort(-probabilities)[:count]
    return "\n".join(f"{names[i].partition(',')[0]} {probabilities[i]:.0%}" for i in best)


def draw_files(model, name, prepare, files, path, kinds=KINDS):
    """Draw what a model looks at in image files, as a PNG -> a text per file: its name and, below, its best classes.

    Args:
        model: a Swin.
        name: "architecture" or "architecture.tag", which tells the classes' names.
        prepare: its Preprocess.
        files: paths.
        path: the PNG.
        kinds: of KINDS.
    """
    images = prepare(list(files))
    titles = [os.fsencode(pathlib.Path(file).name).decode("utf-8", "backslashreplace") for file in files]
    if model.variant.num_classes:
        names, logits = names_of(model, name), model.predict(images, verbose=0)
        titles = [f"{title}\n{top_classes(row, names)}" for title, row in zip(titles, logits, strict=True)]
    draw([cropped(prepare, file) for file in files], panels(model, images, kinds), titles, path, name)
    return titles
