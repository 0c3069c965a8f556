"""What classifiers are exported as, and what their cards say."""

import csv
import json
import string
from importlib import resources

import keras
import numpy as np

from swins.attention import blocks_of
from swins.checked_numbers import ANY
from swins.deploy import deploy
from swins.errors import SwinsError
from swins.images import preparation_of, preprocess, stated_preparation
from swins.resnet import ResNet
from swins.tags import look_up
from swins.task import Part

CROPPED = string.Template(
    "Images are scaled so that they cover $resize pixels (height x width), cut to $size in their centre, and\n"
    "normalised with mean $mean and standard deviation $std (pixels from 0 to 1): as $whose."
)
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


def parts(model, certificate, deployed):
    """The SavedModels of a classifier: its logits, its features, and if asked for, a faster form for inference.

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
    made = {"saved_model_fe": pooled}
    if model.variant.num_classes:
        made = {"saved_model": Part(output, lambda: model), **made}
    first = next(iter(made))
    made[first] = Part(made[first].output, made[first].make, everything=lambda: everything(model))
    if deployed:
        made["saved_model_deploy"] = Part(output, lambda: deploy(model), reference=lambda: model, trains=False)
    return made


def serving(model, certificate):
    """The Preprocess of an artefact's model: its training run's, or the published one; None where there is none."""
    variant = model.variant
    if variant.in_chans not in (1, 3):
        return None
    if "training" in certificate:
        return preparation_of(certificate["training"])
    if "blocks" not in certificate:  # a bare .keras file, which does not tell
        return None
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


def accuracy(certificate):
    """The card's paragraph on accuracy: measured for these weights, else published, else said to be missing."""
    name, row = certificate["name"], certificate.get("measured")
    if row:
        return (
            f"Measured with these weights: top-1 {float(row['top1']):.2%}, top-5 {float(row['top5']):.2%} on "
            f"{row['images']} images of {row['dataset']} ({row['protocol']} protocol, {row['image_size']} pixels, "
            f"{row['backend']}, {row['date'][:10]})."
        )
    if training := certificate.get("training"):
        words = {"top1": "top-1", "top5": "top-5"}
        numbers = [f"{text} {training[name]:.2%}" for name, text in words.items() if training.get(name) is not None]
        return f"At the end of its training: {', '.join(numbers)} on {training['images']} validation images."
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


def preparing(certificate, weights, decodes):
    """The card's words on how images are prepared."""
    training = certificate.get("training")
    stated, size = certificate.get("preparation") or {}, tuple(certificate["image_size"])
    if stated and not decodes:
        return f"Prepare images as the converted file says: {json.dumps(stated)}."
    prepare = preparation_of(training) if training else stated_preparation(stated, size)
    if prepare:
        whose = "the training run validated them" if training else "the converted file says"
        size, resize = ("x".join(map(str, pair)) for pair in (prepare.image_size, prepare.resize))
        return CROPPED.substitute(size=size, resize=resize, mean=prepare.mean, std=prepare.std, whose=whose)
    if decodes:
        return PREPARE.substitute(mean=weights.mean, std=weights.std)
    if "blocks" in certificate:
        return "No preprocessing is published."
    return "How images were prepared is not recorded."


def class_list(certificate):
    """The card's list of classes, of a training run or as the converted file names them."""
    classes = certificate.get("training", {}).get("classes") or certificate.get("class_names")
    if not (isinstance(classes, list) and classes):
        return ""
    return f"\n\nClasses, in the order of the logits:\n\n```json\n{json.dumps(classes, ensure_ascii=False)}\n```"


def card(model, certificate):
    """What a classifier's card says besides what all cards do: {placeholder: text}, "template" the card's own text."""
    weights = look_up(certificate["name"]).weights if "blocks" in certificate else None
    tagged = weights if weights and "." in certificate["name"] else None
    variant = model.variant
    decodes = "serving_bytes" in next(iter(certificate["exports"].values()))
    s3 = " and Chen et al., [S3](https://arxiv.org/abs/2111.14725)" if "_s3_" in certificate["architecture"] else ""
    height, width = ("height", "width") if variant.image_size == ANY else variant.image_size
    return {
        "template": resources.files("swins.tasks").joinpath("classification_card.md").read_text(),
        "dataset": tagged.dataset if tagged else "not stated",
        "license": tagged.license if tagged else "not stated",
        "image_size": "any number of" if variant.image_size == ANY else f"{height}x{width}",
        "height": height,
        "width": width,
        "channels": variant.in_chans,
        "size_rule": variant.size_rule,
        "classes": f"{variant.num_classes:,} classes" if variant.num_classes else "no classifier",
        "features": variant.embed_dim * 2 ** (len(variant.depths) - 1),
        "s3": s3,
        "accuracy": accuracy(certificate),
        "prepare": preparing(certificate, weights, decodes),
        "classes_named": class_list(certificate),
    }


FUNCTIONS = {
    "tag": "image-classification",
    "parts": parts,
    "portable": lambda model: deploy(model, portable=True),
    "serving": serving,
    "agreement": agreement,
    "ordered": ordered,
    "rating": rating,
    "card": card,
}
