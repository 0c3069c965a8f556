"""Why a Swin says what it says: attention rollout through windows and merging, Grad-CAM, and both as pictures.

Letters: B batch, (H, W) tokens of a feature map, N tokens of a window, K windows of an image.
"""

import os
import pathlib
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from swins import attention
from swins.errors import SwinsError, missing_package, unknown_name
from swins.images import open_image, planes
from swins.labels import class_names
from swins.tags import training_run

KINDS = ("attention", "rollout", "grad_cam")
MOST = 64  # images of a picture
ENDINGS = (".png", ".pdf", ".svg")  # of pictures
PANEL = 3.0  # inches of a panel's side
DENSEST = 0.85  # of the most relevant pixels' colour; of the least it is 0


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


def relevance_colours():
    """matplotlib's colours of relevance, from 0 to 1: inferno, clear where there is none, nearly opaque where most."""
    try:
        from matplotlib import colormaps
        from matplotlib.colors import ListedColormap
    except ModuleNotFoundError as error:
        raise missing_package("drawing", "matplotlib", "plot") from error
    steps = np.linspace(0, 1, 256)
    colours = colormaps["inferno"](0.15 + 0.85 * steps)
    colours[:, 3] = DENSEST * steps
    return ListedColormap(colours, "relevance")


def ranged(values):
    """A map's values from 0, its least, to 1, its most; 0 everywhere where all are alike."""
    values = np.asarray(values, "float32")
    least, most = values.min(), values.max()
    return (values - least) / (most - least) if most > least else np.zeros_like(values)


def draw(pictures, maps, titles, path=None, note="", captions=None):
    """Draw maps over pictures, a row an image, the clearer the less relevant -> matplotlib's figure.

    Args:
        pictures: (B, height, width) or (B, height, width, 3) uint8, to draw on.
        maps: {title: (B, height, width)}; each panel's colours go from its least to its most.
        titles: one text per image, such as its classes.
        path: the PNG, PDF or SVG to write, by its ending; None writes none.
        note: the figure's title.
        captions: {title: a text per image}, which stand above panels in place of the title.
    """
    colours = relevance_colours()
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PANEL * (len(maps) + 1) + 0.6, (PANEL + 0.5) * len(pictures) + 0.4), layout="constrained")
    axes = figure.subplots(len(pictures), len(maps) + 1, squeeze=False)
    for i, (row, picture, title) in enumerate(zip(axes, pictures, titles, strict=True)):
        for axis in row:
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
        row[0].set_title(title, fontsize=9, parse_math=False)
        for axis, (name, values) in zip(row[1:], maps.items(), strict=True):
            axis.imshow(ranged(values[i]), cmap=colours, vmin=0, vmax=1)
            caption = (captions or {}).get(name, [name if i == 0 else ""] * len(pictures))[i]
            axis.set_title(caption, fontsize=9, parse_math=False)
    for axis in axes.flat:
        axis.axis("off")
    if maps:
        bar = figure.colorbar(ScalarMappable(cmap=colours), ax=axes, fraction=0.02, pad=0.01, ticks=[0, 0.5, 1])
        bar.ax.set_yticklabels(["least: clear", "", "most"], fontsize=8)
        bar.set_label("relevance, panel by panel", fontsize=8)
    figure.suptitle(note, fontsize=10, parse_math=False)
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


def top_classes(logits, names, count=3, also=None):
    """ "golden retriever 93%" a line: the classes with the largest probabilities, for one row of logits.

    also: the number of a class that is shown after these, if it is none of them.
    """
    probabilities = ops.convert_to_numpy(ops.softmax(logits))
    best = np.argsort(-probabilities)[:count].tolist()
    best += [also] if also is not None and also not in best else []
    return "\n".join(f"{names[i].partition(',')[0]} {probabilities[i]:.0%}" for i in best)


def class_number(text, names):
    """The number of a class that is given by it or by its name, as far as the first comma -> an integer.

    Raises:
        SwinsError: for a class that a model has not, with the closest names; for a name that several have.
    """
    if text.isdecimal():
        if int(text) >= len(names):
            raise SwinsError(f"the model has classes 0 to {len(names) - 1}; got {text}")
        return int(text)
    short = [name.partition(",")[0] for name in names]
    lower = [[name.lower() for name in known] for known in (names, short)]
    for known, wanted in ((names, text), (short, text), *((known, text.lower()) for known in lower)):
        if numbers := [i for i, name in enumerate(known) if name == wanted]:
            if len(numbers) > 1:
                raise SwinsError(f"several classes are called {text}; name one by its number: {numbers}")
            return numbers[0]
    raise unknown_name("class", text, short)


@dataclass(frozen=True)
class Explained:
    """A model to explain: its name, its Preprocess, its classes' names, the Swin, and which class Grad-CAM is of.

    names: as many as classes, in their order; shown: the number of a class, None for each image's most probable one.
    """

    name: str
    prepare: object
    names: tuple
    model: keras.Model
    shown: int | None = None


def draw_files(explained, files, path, kinds=KINDS):
    """Draw what a model looks at in image files -> a text per file: its name and, below, its best classes.

    Args:
        explained: an Explained.
        files: paths, or arrays of pixels.
        path: the PNG, PDF or SVG.
        kinds: of KINDS.
    """
    model, prepare, names = explained.model, explained.prepare, explained.names
    images, classes, captions = prepare(list(files)), None, {}
    titles = [title_of(file, i) for i, file in enumerate(files)]
    if model.variant.num_classes:
        logits = ops.convert_to_numpy(model.predict(images, verbose=0))
        best = [top_classes(row, names, also=explained.shown) for row in logits]
        titles = [f"{title}\n{text}" for title, text in zip(titles, best, strict=True)]
        classes = logits.argmax(1) if explained.shown is None else np.full(len(images), explained.shown)
        odds = ops.convert_to_numpy(ops.softmax(logits))
        pairs = [(names[k].partition(",")[0], row[k]) for k, row in zip(classes, odds, strict=True)]
        captions = {"Grad-CAM": [f"Grad-CAM: {name} {share:.0%}" for name, share in pairs]}
    maps = panels(model, images, kinds, classes)
    draw([cropped(prepare, file) for file in files], maps, titles, path, explained.name, captions)
    return titles


def title_of(file, number):
    """A file's name as text that every terminal can show; of an array its number."""
    if isinstance(file, np.ndarray):
        return f"image_{number}"
    return os.fsencode(pathlib.Path(file).name).decode("utf-8", "backslashreplace")
