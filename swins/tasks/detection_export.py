"""What detectors are exported as, and what their cards say."""

import json
from dataclasses import asdict
from importlib import resources

import numpy as np
from keras import ops

from swins.detection.selection import selecting
from swins.images import stated_preparation
from swins.task import Part
from swins.tasks.detection_settings import Selection

BYTES = """found = model.signatures["serving_bytes"](image_bytes=files)  # JPEG or PNG files, prepared inside
"""


def in_pixels(outputs, sizes):
    """Outputs whose boxes are in pixels of images of (height, width) sizes (B, 2)."""
    scale = ops.cast(ops.take(sizes, [1, 0, 1, 0], axis=1), "float32")[:, None]
    return {**outputs, "boxes": outputs["boxes"] * scale}


def difference(outputs, expected) -> float:
    """How far boxes are from those expected: each from the nearest of its image and class.

    In coordinates over the largest, and in scores. Boxes of nearly the same score may change places, and where the list
    ends the least score decides.
    """
    ours, theirs = ({k: ops.convert_to_numpy(v) for k, v in part.items()} for part in (outputs, expected))
    if ours.keys() != theirs.keys():
        return float("inf")
    largest = max(1.0, float(np.abs(theirs["boxes"]).max()))
    return float(np.max([apart(*pair, largest) for pair in zip(rows(ours), rows(theirs), strict=True)]))


def rows(outputs):
    """(boxes, scores, labels) of each image, without empty places."""
    for boxes, scores, labels in zip(outputs["boxes"], outputs["scores"], outputs["labels"], strict=True):
        yield boxes[labels >= 0], scores[labels >= 0], labels[labels >= 0]


def apart(ours, theirs, largest) -> float:
    """The difference of one image's boxes."""
    if not len(ours[1]) and not len(theirs[1]):
        return 0.0
    least = min(part[1].min() for part in (ours, theirs) if len(part[1]))
    coordinates = np.abs(ours[0][:, None] - theirs[0][None]).max(-1, initial=0) / largest
    cost = np.maximum(coordinates, np.abs(ours[1][:, None] - theirs[1][None]))
    cost = np.where(ours[2][:, None] == theirs[2][None], cost, np.inf)
    worst = 0.0
    for part, nearest in ((ours, cost.min(1, initial=np.inf)), (theirs, cost.min(0, initial=np.inf))):
        worst = max(worst, float(np.minimum(nearest, part[1] - least).max(initial=0)))
    return worst


def parts(model, certificate, deploy):
    """The SavedModels of a detector: its answers, and its raw outputs, which can be trained."""
    rule = asdict(Selection(**certificate.get("training", {}).get("selection", {})))
    rule["most"] = rule.pop("boxes")
    options = {"trains": False, "of_files": in_pixels, "difference": difference}
    made = {"saved_model": Part("detections", lambda: selecting(model, **rule), **options)}
    if deploy:
        fast, slow = lambda: selecting(model, deploy(model), **rule), lambda: selecting(model, **rule)
        made["saved_model_deploy"] = Part("detections", fast, reference=slow, **options)
    return {**made, "saved_model_raw": Part("raw", lambda: model)}


def serving(model, certificate):
    """The Preprocess of the run that made the model; None where no run tells, or for other than 1 or 3 channels."""
    facts = certificate.get("training", {}).get("preprocess")
    if model.input.shape[-1] not in (1, 3):
        return None
    return stated_preparation(facts, model.image_size) if facts else None


def agreement(outputs, reference):
    """{"class of default boxes": share of default boxes whose most probable class is the same}."""
    same = np.argmax(outputs["scores"], -1) == np.argmax(reference["scores"], -1)
    return {"class of default boxes": float(np.mean(same))}


def rating(certificate):
    """The AP of an artefact in a table of several, and where it is from."""
    measured, training = certificate.get("measured") or {}, certificate.get("training", {})
    if measured.get("AP") not in (None, "none"):
        return f"AP {float(measured['AP']):.2%} ({measured['dataset']}, measured)"
    return "not measured" if training.get("AP") is None else f"AP {training['AP']:.2%} (validation images of its run)"


def card(model, certificate):
    """What a detector's card says besides what all cards do."""
    training = certificate.get("training", {})
    height, width = model.image_size
    decodes = "serving_bytes" in next(iter(certificate["exports"].values()))
    names = json.dumps(training.get("classes", []), ensure_ascii=False)
    return {
        "template": resources.files("swins.tasks").joinpath("detection_card.md").read_text(),
        "image_size": f"{height}x{width}",
        "height": height,
        "width": width,
        "bytes": BYTES if decodes else "",
        "channels": model.input.shape[-1],
        "classes": f"{model.numbers.num_classes} classes",
        "boxes": f"{len(model.priors):,}",
        "classes_named": f"\n\nClasses, in the order of the labels:\n\n```json\n{names}\n```" if training else "",
    }


FUNCTIONS = {
    "tag": "image-object-detection",
    "parts": parts,
    "deployable": True,
    "serving": serving,
    "agreement": agreement,
    "rating": rating,
    "card": card,
}
