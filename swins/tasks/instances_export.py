"""What Mask R-CNNs are exported as, and what their cards say."""

import dataclasses
import functools
import json
from importlib import resources

import keras
import numpy as np
from keras import ops

from swins.detection.mask_pasting import paste_in_graph
from swins.keep_ratio import KeepRatioPreprocess
from swins.task import Answering, Part
from swins.tasks import detection_export, instances_evaluation

BYTES = """found = model.signatures["serving_bytes"](image_bytes=files)  # JPEG or PNG files, prepared inside
"""
MASKS = """; `masks` (B, N, 28, 28), of each box, from 0 to 1, and where files were given (B, N, H, W), true
where a file's pixel is the object's, H and W of the largest file"""


def scaled(sizes, prepare: KeepRatioPreprocess):
    """Heights and widths (B, 2) that images of these sizes have on the canvas, as `scaled_sides` has them, float32."""
    sides = ops.cast(sizes, "float64")
    limits = [prepare.long / ops.max(sides, 1), prepare.short / ops.min(sides, 1)]
    limits += [prepare.image_size[i] / sides[:, i] for i in (0, 1)]
    factor = functools.reduce(ops.minimum, limits)
    return ops.cast(ops.maximum(ops.floor(sides * factor[:, None] + 0.5), 1), "float32")


def in_pixels(prepare: KeepRatioPreprocess, outputs, sizes) -> dict:
    """Outputs in pixels of images of (height, width) sizes (B, 2): boxes, and masks (B, N, H, W) of the largest."""
    whole = ops.cast(sizes, "float32")
    factors = ops.take(scaled(sizes, prepare) / whole, [1, 0, 1, 0], 1)[:, None]
    boxes = ops.clip(outputs["boxes"] / factors, 0, ops.take(whole, [1, 0, 1, 0], 1)[:, None])
    found = {**outputs, "boxes": boxes}
    if "masks" in outputs:
        masks, (height, width) = outputs["masks"], ops.unstack(ops.max(sizes, 0), 2)
        flat = ops.reshape(masks, (-1, *masks.shape[2:])), ops.reshape(boxes, (-1, 4))
        pasted = ops.map(lambda one: paste_in_graph(*one, (height, width)), flat)  # one at a time, for its memory
        found["masks"] = ops.reshape(pasted, (-1, masks.shape[1], height, width))
    return found


def difference(outputs, expected) -> float:
    """How far answers are from those expected: in boxes and scores as for detectors, in masks by their mean."""
    boxes = [{k: v for k, v in part.items() if k != "masks"} for part in (outputs, expected)]
    worst = detection_export.difference(*boxes)
    if ("masks" in outputs) != ("masks" in expected):
        return float("inf")
    if "masks" in expected:
        ours, theirs = (np.asarray(ops.convert_to_numpy(part["masks"]), "float32") for part in (outputs, expected))
        worst = max(worst, float(np.abs(ours - theirs).mean()))
    return worst


def facts_of(model, certificate) -> dict:
    """What a run says of a model that is exported; of another, what holds for published weights."""
    run = certificate.get("training", {})
    return {"preprocess": None, "selection": {}, **{k: run[k] for k in ("preprocess", "selection") if k in run}}


def answering(model, certificate) -> Answering:
    """The model whose outputs are its answers, images -> boxes, scores, labels, count and masks."""
    facts = {"selection": facts_of(model, certificate)["selection"]}
    return Answering(model, lambda images, outputs: instances_evaluation.decide(model, facts, images, outputs))


def raw(model) -> keras.Model:
    """What runs before boxes are chosen: images -> {"map_0", ... of the pyramid, "objectness", "deltas"}."""
    images = keras.Input(model.input.shape[1:], name="images")
    outputs = model(images)
    maps = {f"map_{i}": x for i, x in enumerate(outputs["maps"])}
    parts = {name: ops.concatenate(outputs[name], 1) for name in ("objectness", "deltas")}
    return keras.Model(images, {**maps, **parts}, name=f"{model.name}_raw")


def parts(model, certificate, deploy):
    """The SavedModel of a Mask R-CNN, its answers; not to be trained, as heads train on sampled regions."""
    prepare = serving(model, certificate)
    of_files = functools.partial(in_pixels, prepare) if prepare else None
    options = {"trains": False, "of_files": of_files, "difference": difference}
    made = {"saved_model": Part("detections", lambda: answering(model, certificate), **options)}
    if deploy:
        fast, slow = lambda: answering(deploy(model), certificate), lambda: answering(model, certificate)
        made["saved_model_deploy"] = Part("detections", fast, reference=slow, **options)
    return made


def serving(model, certificate):
    """The preparation of the run that made the model, or of published weights, on one canvas with room for all.

    None for other than 1 or 3 channels.
    """
    facts, channels = facts_of(model, certificate)["preprocess"], model.in_chans
    if channels not in (1, 3):
        return None
    prepare = instances_evaluation.of_facts(facts) if facts else instances_evaluation.published(model)
    return dataclasses.replace(prepare, canvases=(prepare.image_size,))


def agreement(outputs, reference):
    """{"anchors": share of anchors that are as much more than not an object for both}."""
    same = (outputs["objectness"] > 0) == (reference["objectness"] > 0)
    return {"decision on anchors": float(np.mean(same))}


def card(model, certificate):
    """What a model's card says besides what all cards do."""
    training = certificate.get("training", {})
    names = json.dumps(training.get("classes", []), ensure_ascii=False)
    decodes = "serving_bytes" in next(iter(certificate["exports"].values()))
    prepare = serving(model, certificate)
    return {
        "template": resources.files("swins.tasks").joinpath("instances_card.md").read_text(),
        "kind": model.KIND if model.numbers.masks else "Faster R-CNN",
        "image_size": "x".join(map(str, prepare.image_size if prepare else ("any", "any"))),
        "multiple": model.multiple,
        "masks": MASKS if model.numbers.masks else "",
        "bytes": BYTES if decodes else "",
        "channels": model.in_chans,
        "classes": f"{model.numbers.num_classes} classes",
        "classes_named": f"\n\nClasses, in the order of the labels:\n\n```json\n{names}\n```" if training else "",
    }


FUNCTIONS = {
    "tag": "image-segmentation",
    "parts": parts,
    "raw": raw,
    "deployable": True,
    "serving": serving,
    "agreement": agreement,
    "rating": detection_export.rating,
    "card": card,
}
