"""What classifiers are exported as, and what their cards say."""

import csv
import functools
import json
import string
from importlib import resources

import keras
import numpy as np

from swins.attention import blocks_of
from swins.checked_numbers import ANY
from swins.errors import SwinsError
from swins.images import preparation_of, preprocess, stated_preparation
from swins.labels import named_classes
from swins.resnet import ResNet
from swins.results import MOST
from swins.run_result import when_scored
from swins.score import NONE
from swins.tags import look_up
from swins.task import Part
from swins.tasks.classification_evaluation import remembered

CROPPED = string.Template(
    "Images are read as $mode, scaled by Pillow's $interpolation filter so that they\n"
    "cover $resize pixels (height x width), cut to $size in their centre, and normalised with mean\n"
    "$mean and standard deviation $std (pixels from 0 to 1): as $whose."
)
BYTES = """answers = model.signatures["serving_bytes"](image_bytes=files)  # JPEG or PNG files, prepared inside
answers["names"], answers["scores"], answers["indices"]  # of the five best classes; probabilities and logits of all
"""
PREPARE = string.Template(
    "Normalise with mean $mean and standard deviation $std (pixels from 0 to 1); sizes and crops are those of timm's\n"
    "evaluation."
)


def features(model):
    """The model without its head: images -> pooled features (B, C)."""
    return keras.Model(model.input, model.get_layer("pool").output, name=f"{model.name}_fe")


def everything(model):
    """All outputs of a classifier in one pass -> a function of images.

    images (B, H, W, C) -> {"logits": (B, classes), "features": (B, C'), "attention_stage0_block0": (B, K, heads, N, N),
    ...}; without logits where the model has no classifier.
    """
    blocks = blocks_of(model)
    inputs = [block.input for block in blocks.values()]
    trunk = keras.Model(model.input, [model.output, model.get_layer("pool").output, *inputs])

    def call(images):
        logits, pooled, *maps = trunk(images, training=False)
        outputs = {"logits": logits} if model.variant.num_classes else {}
        outputs["features"] = pooled
        for (name, block), x in zip(blocks.items(), maps, strict=True):
            key = "attention_" + name.replace("stage_", "stage").replace("/block_", "_block")
            outputs[key] = keras.ops.cast(block.scores(x), "float32")
        return outputs

    return call


def names_of(model, certificate):
    """A text for each class, in the order of the logits: its name, or "class 0", "class 1" where none are known."""
    names = named_classes(model, certificate)
    return names or tuple(f"class {i}" for i in range(model.variant.num_classes))


def answers(names, outputs, sizes=None):
    """What is said of image files, in TensorFlow's graph: {"logits": (B, classes)} -> these, and the best five of them.

    probabilities (B, classes); of the five best, or all where there are fewer, indices (B, 5) int32, scores (B, 5)
    and names (B, 5), as text.
    """
    import tensorflow as tf

    probabilities = tf.nn.softmax(tf.cast(outputs["logits"], "float32"))
    scores, indices = tf.math.top_k(probabilities, min(MOST, len(names)))
    best = {"indices": indices, "scores": scores, "names": tf.gather(tf.constant(names), indices)}
    return {**outputs, "probabilities": probabilities, **best}


def difference(names, outputs, expected) -> float:
    """How far outputs of a classifier are from Keras': logits over the largest; what `answers` adds, from its logits.

    Their softmax is NumPy's, in float64; classes of one probability may change places; another name is infinitely far.
    """
    if set(outputs) != set(expected):
        return float("inf")
    logits = [np.float64(keras.ops.convert_to_numpy(part["logits"])) for part in (outputs, expected)]
    apart = np.abs(logits[0] - logits[1]).max() / np.abs(logits[1]).max()
    if "probabilities" not in outputs:
        return float(apart)
    shifted = np.exp(logits[0] - logits[0].max(1, keepdims=True))
    probabilities, indices = shifted / shifted.sum(1, keepdims=True), np.asarray(outputs["indices"])
    of_indices = np.take_along_axis(probabilities, indices, 1)
    best = -np.sort(-probabilities)[:, : indices.shape[1]]
    pairs = (outputs["probabilities"], probabilities), (outputs["scores"], of_indices), (of_indices, best)
    same = all(len(set(row)) == len(row) for row in indices.tolist())
    same = same and bool((np.asarray(outputs["names"]) == np.asarray(names)[indices]).all())
    return float(np.max([apart, *(np.abs(a - b).max() for a, b in pairs)])) if same else float("inf")


def parts(model, certificate, deploy):
    """The SavedModels of a classifier: its logits, its features, and if asked for, a faster form for inference.

    Of image files, those with logits say classes too: see `answers`.

    Raises:
        SwinsError: a ResNet, which is here to be a backbone.
    """
    if isinstance(model, ResNet):
        raise SwinsError(
            f"classifiers that are exported are Swins; got {model.name}, a ResNet; Keras' own model.export(FOLDER) "
            "writes a SavedModel of it"
        )
    output = "logits" if model.variant.num_classes else "features"
    pooled = Part("features", lambda: features(model) if model.variant.num_classes else model)
    made, said = {"saved_model_fe": pooled}, {}
    if model.variant.num_classes:
        names = names_of(model, certificate)
        functions = {"of_files": answers, "difference": difference}
        said = {key: functools.partial(function, names) for key, function in functions.items()}
        made = {"saved_model": Part(output, lambda: model), **made}
    first = next(iter(made))
    made[first] = Part(made[first].output, made[first].make, everything=lambda: everything(model), **said)
    if deploy:
        made["saved_model_deploy"] = Part(output, lambda: deploy(model), reference=lambda: model, trains=False, **said)
    return made


def serving(model, certificate):
    """The Preprocess of an artefact's model: its run's, its file's or the published one; None where none tells."""
    variant = model.variant
    if variant.in_chans not in (1, 3):
        return None
    if "training" in certificate:
        return preparation_of(certificate["training"])
    if "blocks" not in certificate:  # a .keras file, whose model may remember its weights
        return remembered(model)
    try:
        stated = stated_preparation(certificate.get("preparation") or {}, variant.image_size)
    except SwinsError:  # one that this package has not: then there is no `serving_bytes`, and the card says so
        return None
    if stated and len(stated.mean) == variant.in_chans:
        return stated
    return preprocess(certificate["name"], image_size=variant.image_size, in_chans=variant.in_chans)


def agreement(outputs, reference):
    """{"top1": share of images whose largest output is the same one}."""
    ((ours,), (theirs,)) = outputs.values(), reference.values()
    return {"top1": float(np.mean(np.argmax(ours, axis=1) == np.argmax(theirs, axis=1)))}


def ordered(outputs, reference):
    """{"top5": share of images whose five largest outputs are the same, in their order}."""
    ((ours,), (theirs,)) = outputs.values(), reference.values()
    first = [np.argsort(-y, axis=1, kind="stable")[:, :5] for y in (ours, theirs)]
    return {"top5": float(np.mean((first[0] == first[1]).all(axis=1)))}


def published_row(name):
    """The published accuracies of a tagged name, or None."""
    with resources.files("swins").joinpath("published.csv").open(newline="") as file:
        return next((row for row in csv.DictReader(file) if row["variant"] == name), None)


def numbers_of(scores):
    """Top-1 and top-5 in words, as far as a row of results or a run has them."""
    words = {"top1": "top-1", "top5": "top-5"}
    known = {text: scores.get(name) for name, text in words.items() if scores.get(name) not in (None, "", NONE)}
    return ", ".join(f"{text} {float(value):.2%}" for text, value in known.items())


def accuracy(certificate):
    """The card's paragraph on accuracy: measured for these weights, else published, else said to be missing."""
    name, row = certificate["name"], certificate.get("measured")
    if row:
        return (
            f"Measured with these weights: {numbers_of(row)} on {row['images']} images of {row['dataset']} "
            f"({row['protocol']} protocol, {row['image_size']} pixels, {row['backend']}, {row['date'][:10]})."
        )
    if training := certificate.get("training"):
        return f"{when_scored(training)}: {numbers_of(training)} on {training['images']} validation images."
    row = published_row(name) if "blocks" in certificate else None
    if row:
        return (
            f"Published for `{name}`, not measured here with these weights (from `{certificate['source']['file']}`): "
            f"ImageNet-1k top-1 {row['timm_top1']}%, top-5 {row['timm_top5']}%, timm's protocol. "
            "`swins eval ARTEFACT --data IMAGENET_VAL` measures it."
        )
    return "Not measured, and nothing is published under this name. `swins eval` measures it."


def rating(certificate):
    """The top-1 of an artefact in a table of several, and where it is from."""
    published = published_row(certificate["name"]) if "blocks" in certificate else None
    measured, training = certificate.get("measured"), certificate.get("training")
    if measured:
        return f"{float(measured['top1']):.2%} ({measured['dataset']}, measured)"
    if training and training.get("top1") is not None:
        return f"{training['top1']:.2%} (validation images of its run)"
    return f"{published['timm_top1']} (published)" if published else "not measured"


def preparing(model, certificate, weights, decodes):
    """The card's words on how images are prepared."""
    training = certificate.get("training")
    stated, size = certificate.get("preparation") or {}, tuple(certificate["image_size"])
    if stated and not decodes:
        return f"Prepare images as the converted file says: {json.dumps(stated)}."
    prepare = preparation_of(training) if training else stated_preparation(stated, size)
    whose = "the training run validated them" if training else "the converted file says"
    if not prepare and "blocks" not in certificate:
        prepare, whose = remembered(model), "the model remembers of its weights"
    if prepare:
        size, resize = ("x".join(map(str, pair)) for pair in (prepare.image_size, prepare.resize))
        mode = "grey (Pillow's mode L)" if len(prepare.mean) == 1 else "RGB"
        numbers = {"size": size, "resize": resize, "mean": prepare.mean, "std": prepare.std, "whose": whose}
        return CROPPED.substitute(numbers, mode=mode, interpolation=prepare.interpolation)
    if decodes:
        return PREPARE.substitute(mean=weights.mean, std=weights.std)
    if "blocks" in certificate:
        return "No preprocessing is published."
    return "How images were prepared is not recorded."


def class_list(model, certificate):
    """The card's list of classes, as a person, a training run or the converted file names them."""
    classes = named_classes(model, {**certificate, "name": ""})  # a tag's are published
    if not model.variant.num_classes:
        return ""
    if not classes and not named_classes(model, certificate):
        return "\n\nIts classes have no names, only numbers: `names` are `class 0`, `class 1`, ..."
    if not classes:
        return ""
    names = json.dumps(list(classes), ensure_ascii=False)
    return f"\n\nClasses, in the order of the logits:\n\n```json\n{names}\n```"


def card(model, certificate):
    """What a classifier's card says besides what all cards do: {placeholder: text}, "template" the card's own text."""
    weights = look_up(certificate["name"]).weights if "blocks" in certificate else None
    tagged = weights if weights and "." in certificate["name"] else None
    variant = model.variant
    decodes = "serving_bytes" in next(iter(certificate["exports"].values()))
    stated = certificate.get("stated") or {}
    s3 = " and Chen et al., [S3](https://arxiv.org/abs/2111.14725)" if "_s3_" in certificate["architecture"] else ""
    height, width = ("height", "width") if variant.image_size == ANY else variant.image_size
    return {
        "template": resources.files("swins.tasks").joinpath("classification_card.md").read_text(),
        "dataset": stated.get("data") or (tagged.dataset if tagged else "not stated"),
        "license": stated.get("license") or (tagged.license if tagged else "not stated"),
        **({"bytes": BYTES} if decodes and variant.num_classes else {}),
        "image_size": "any number of" if variant.image_size == ANY else f"{height}x{width}",
        "height": height,
        "width": width,
        "channels": variant.in_chans,
        "size_rule": variant.size_rule,
        "classes": f"{variant.num_classes:,} classes" if variant.num_classes else "no classifier",
        "features": variant.embed_dim * 2 ** (len(variant.depths) - 1),
        "s3": s3,
        "accuracy": accuracy(certificate),
        "prepare": preparing(model, certificate, weights, decodes),
        "classes_named": class_list(model, certificate),
    }


FUNCTIONS = {
    "tag": "image-classification",
    "parts": parts,
    "deployable": True,
    "serving": serving,
    "namable": lambda model: model.variant.num_classes,
    "agreement": agreement,
    "ordered": ordered,
    "rating": rating,
    "card": card,
}
