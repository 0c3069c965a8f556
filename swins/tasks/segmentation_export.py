"""What segmenters are exported as, and what their cards say."""

import json
from importlib import resources

import numpy as np
from keras import ops

from swins.segmentation.class_maps import class_maps
from swins.segmentation.sliding import in_pixels as enlarged
from swins.segmentation.upernet import LOGITS
from swins.task import Answering, Part
from swins.tasks import segmentation_evaluation

MASKS = "masks"
EQUAL = 1e-3  # of pixels, whose two likeliest classes may be as likely that sums in another order choose the other
BYTES = """found = model.signatures["serving_bytes"](image_bytes=files)  # JPEG or PNG files, prepared inside
"""


def answering(model) -> Answering:
    """The model whose outputs are its answers: images -> {"logits" of a map's cells, "masks" (B, H, W) int32}."""

    def decide(images, outputs):
        logits = outputs[LOGITS]
        size = ops.shape(images)[1:3]
        masks = ops.argmax(enlarged(lambda images, training: {LOGITS: logits}, images), -1)
        return {LOGITS: logits, MASKS: ops.cast(ops.reshape(masks, (-1, *size)), "int32")}

    return Answering(model, decide)


def in_pixels(prepare):
    """(outputs, (height, width) sizes (B, 2) of the images in files) -> outputs whose masks have these sizes."""

    def of_files(outputs, sizes):
        return {**outputs, MASKS: class_maps(outputs[LOGITS], prepare.image_size, sizes)}

    return of_files


def difference(outputs, expected) -> float:
    """How far answers are from those expected: logits over the largest, and the part of pixels of another class, but
    for as many as may be between two classes."""
    if outputs.keys() != expected.keys():
        return float("inf")
    ours, theirs = ({k: ops.convert_to_numpy(v) for k, v in part.items()} for part in (outputs, expected))
    if ours[MASKS].shape != theirs[MASKS].shape:
        return float("inf")
    apart = np.abs(ours[LOGITS] - theirs[LOGITS]).max() / np.abs(theirs[LOGITS]).max()
    others = float(np.mean(ours[MASKS] != theirs[MASKS]))
    return float(max(apart, others if others > EQUAL else 0.0))


def serving(model, certificate):
    """The preparation of the run that made the model, or of published weights; None for other than 1 or 3 channels."""
    facts = certificate.get("training", {}).get("preprocess")
    if model.in_chans not in (1, 3):
        return None
    if facts:
        return segmentation_evaluation.of_facts(facts)
    prepare = segmentation_evaluation.published(model.in_chans)
    fixed = None not in model.image_size
    return segmentation_evaluation.squash(model.image_size, prepare.mean, prepare.std) if fixed else prepare


def parts(model, certificate, deploy):
    """The SavedModels of a segmenter: its masks, and its logits, which can be trained."""
    prepare = serving(model, certificate)
    options = {"trains": False, "of_files": in_pixels(prepare) if prepare else None, "difference": difference}
    made = {"saved_model": Part(MASKS, lambda: answering(model), **options)}
    if deploy:
        fast, slow = lambda: answering(deploy(model)), lambda: answering(model)
        made["saved_model_deploy"] = Part(MASKS, fast, reference=slow, **options)
    return {**made, "saved_model_raw": Part(LOGITS, lambda: model)}


def agreement(outputs, reference):
    """{"class of a map's cells": share of cells whose most probable class is the same}."""
    same = np.argmax(outputs[LOGITS], -1) == np.argmax(reference[LOGITS], -1)
    return {"class of a map's cells": float(np.mean(same))}


def rating(certificate):
    """The mean IoU of an artefact in a table of several, and where it is from."""
    measured, training = certificate.get("measured") or {}, certificate.get("training", {})
    if measured.get("mIoU") not in (None, "none"):
        return f"mIoU {float(measured['mIoU']):.2%} ({measured['dataset']}, measured)"
    if training.get("mIoU") is None:
        return "not measured"
    return f"mIoU {training['mIoU']:.2%} (validation images of its run)"


def card(model, certificate):
    """What a segmenter's card says besides what all cards do."""
    training = certificate.get("training", {})
    names = json.dumps(training.get("classes") or certificate.get("class_names") or [], ensure_ascii=False)
    decodes = "serving_bytes" in next(iter(certificate["exports"].values()))
    prepare = serving(model, certificate)
    return {
        "template": resources.files("swins.tasks").joinpath("segmentation_card.md").read_text(),
        "image_size": "x".join(map(str, prepare.image_size if prepare else ("any", "any"))),
        "bytes": BYTES if decodes else "",
        "channels": model.in_chans,
        "classes": f"{model.numbers.num_classes} classes",
        "classes_named": f"\n\nClasses, in the order of their numbers:\n\n```json\n{names}\n```"
        if names != "[]"
        else "",
    }


FUNCTIONS = {
    "tag": "image-segmentation",
    "parts": parts,
    "deployable": True,
    "fixed_size": ("litert",),
    "serving": serving,
    "agreement": agreement,
    "ordered": agreement,
    "rating": rating,
    "card": card,
}
