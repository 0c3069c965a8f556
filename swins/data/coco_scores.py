"""COCO's scores of detections: AP and AR in pixels of the original images, as faster-coco-eval computes them.

They are computed of records alone, a JSON of each image with what is in it and what was detected. A number that no
object counts for, such as AP_large where none is large, is None; where there are objects, and nothing is detected, 0.
Where all records have masks, as the text of COCO's run lengths, these are scored too, by the IoU of their pixels.

T: thresholds of IoU, .50 to .95; R: 101 recalls; K: classes that occur; A: ranges of area, all, small (below 32x32
pixels), medium and large (from 96x96); M: numbers of detections that count, of an image and class.
"""

import json
import pathlib

import numpy as np

from swins import run_lengths
from swins.errors import SwinsError, install, unknown_name

SCORES = {  # name: words
    "AP": "AP",
    "AP50": "AP at IoU .50",
    "AP75": "AP at IoU .75",
    "AP_small": "AP of small objects",
    "AP_medium": "AP of medium objects",
    "AP_large": "AP of large objects",
    "AR1": "AR of 1 detection an image",
    "AR10": "AR of 10",
    "AR100": "AR of 100",
    "AR_small": "AR of small objects",
    "AR_medium": "AR of medium objects",
    "AR_large": "AR of large objects",
}
MASK_SCORES = {f"mask_{name}": f"mask {words}" for name, words in SCORES.items()}
BOXES, MASKS = "bbox", "segm"  # what is compared
AREAS = ("small", "medium", "large")
MOST = (1, 10, 100)
PROTOCOLS = ("coco", "r_ssd")
CLASS_SCORES = ("AP", "AP50", "AP75")
CLASS_COLUMNS = ("label", "name", "objects", *CLASS_SCORES)


def record(result, truth) -> dict:
    """What scoring needs of one image, as JSON: the Detections that are its result, and the Objects that are there."""
    kinds = {"boxes": truth.boxes, "labels": truth.labels, "crowd": truth.crowd, "area": truth.area}
    detected = {"boxes": result.boxes, "scores": result.scores, "labels": result.labels}
    truth_columns, columns = ({k: np.asarray(v).tolist() for k, v in part.items()} for part in (kinds, detected))
    if truth.masks is not None and result.masks is not None:
        truth_columns["masks"], columns["masks"] = texts(truth.bitmaps()), texts(result.masks)
    size = [int(side) for side in truth.size]
    return {"image_id": truth.image_id, "size": size, "truth": truth_columns, "detections": columns}


def texts(masks) -> list[str]:
    """Masks (n, H, W) bool as the texts of their run lengths."""
    return [run_lengths.to_text(run_lengths.lengths(mask)) for mask in masks]


def relative(record: dict) -> dict:
    """A record by the protocol of R. Greenhead's SSD: boxes relative to the image's sides, and every object counts.

    Which areas are small or large does not hold then, and masks are left out.
    """
    height, width = record["size"]

    def scaled(part):
        boxes = np.reshape(record[part]["boxes"], (-1, 4)) / [width, height, width, height]
        others = {name: column for name, column in record[part].items() if name != "masks"}
        return {**others, "boxes": boxes.tolist()}

    truth, detected = scaled("truth"), scaled("detections")
    truth["crowd"] = [False] * len(truth["labels"])
    truth["area"] = [(right - left) * (bottom - top) for left, top, right, bottom in truth["boxes"]]
    return {**record, "truth": truth, "detections": detected, "protocol": "r_ssd"}


def revise(rows: list, options: dict) -> list:
    """[(name of an image, record)] by options["protocol"]: "coco", the default, or "r_ssd"."""
    protocol = options.get("protocol") or PROTOCOLS[0]
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", str(protocol), PROTOCOLS)
    return [(name, relative(record)) for name, record in rows] if protocol == "r_ssd" else rows


def instances(records: list, part: str, kind: str = BOXES) -> list:
    """The objects or the detections of all records, as COCO's files have them, to compare boxes or masks."""
    lines = []
    for number, record in enumerate(records, 1):
        columns = record[part]
        for i, (left, top, right, bottom) in enumerate(columns["boxes"]):
            width, height = right - left, bottom - top
            line = {"id": len(lines) + 1, "image_id": number, "category_id": columns["labels"][i] + 1}
            line |= {"bbox": [left, top, width, height], "area": width * height, "iscrowd": 0}
            if kind == MASKS:
                text = columns["masks"][i]
                area = int(run_lengths.of_text(text)[1::2].sum())
                line |= {"segmentation": {"size": record["size"], "counts": text}, "area": area}
            if part == "truth":
                line |= {"area": columns["area"][i], "iscrowd": int(columns["crowd"][i])}
            else:
                line["score"] = columns["scores"][i]
            lines.append(line)
    return lines


def require_evaluator() -> tuple:
    """faster-coco-eval's (COCO, COCOeval_faster). Raises SwinsError if it is missing."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ModuleNotFoundError as error:
        raise SwinsError(f"COCO's scores need faster-coco-eval: {install('detection')}") from error
    return COCO, COCOeval_faster


def curves(records: list, kind: str = BOXES) -> tuple:
    """Precision (T, R, K, A, M), recall (T, K, A, M), both -1 where no object counts, and the K labels that occur.

    kind: BOXES or MASKS, of which the IoUs are.

    Raises:
        SwinsError: if faster-coco-eval is missing.
    """
    COCO, COCOeval_faster = require_evaluator()
    # of equal scores those of the first image by its number come first, as in pycocotools
    records = sorted(records, key=lambda record: (isinstance(record["image_id"], str), record["image_id"]))
    truths, detected = (instances(records, part, kind) for part in ("truth", "detections"))
    labels = sorted({line["category_id"] - 1 for line in (*truths, *detected)})
    if not truths:
        return np.full((10, 101, len(labels), 4, 3), -1.0), np.full((10, len(labels), 4, 3), -1.0), labels
    sizes = [record["size"] for record in records]
    facts = {
        "images": [{"id": i, "height": size[0], "width": size[1]} for i, size in enumerate(sizes, 1)],
        "categories": [{"id": label + 1, "name": str(label)} for label in labels],
    }
    truths, detected = (COCO({**facts, "annotations": lines}) for lines in (truths, detected))
    evaluation = COCOeval_faster(truths, detected, kind)
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"]), labels


def mean(values) -> float | None:
    """The mean of those that are not -1, None where all are."""
    values = values[values > -1]
    return float(values.mean()) if values.size else None


def summary(precision, recall, areas: bool = True) -> dict:
    """{name: number} of SCORES. areas: whether the objects' areas are in pixels."""
    ranges = list(enumerate(AREAS, 1))
    return {
        "AP": mean(precision[:, :, :, 0, -1]),
        "AP50": mean(precision[0, :, :, 0, -1]),
        "AP75": mean(precision[5, :, :, 0, -1]),
        **{f"AP_{name}": mean(precision[:, :, :, a, -1]) if areas else None for a, name in ranges},
        **{f"AR{most}": mean(recall[:, :, 0, m]) for m, most in enumerate(MOST)},
        **{f"AR_{name}": mean(recall[:, :, a, -1]) if areas else None for a, name in ranges},
    }


def in_pixels(records: list) -> bool:
    """Whether no record is by a protocol of relative boxes."""
    return all("protocol" not in record for record in records)


def have_masks(records: list) -> bool:
    """Whether all records have masks, of objects and of detections."""
    return bool(records) and all("masks" in record[part] for record in records for part in ("truth", "detections"))


def score(records: list) -> dict:
    """The numbers of SCORES of all records, and of MASK_SCORES if they have masks; None where no object counts."""
    scores = summary(*curves(records)[:2], in_pixels(records))
    if have_masks(records):
        scores |= {f"mask_{name}": value for name, value in summary(*curves(records, MASKS)[:2]).items()}
    return scores


def of_class(precision, labels, label: int):
    """Precision (T, R) of a class, -1 where it does not occur."""
    return precision[:, :, labels.index(label), 0, -1] if label in labels else np.full(precision.shape[:2], -1.0)


def class_table(records: list, classes) -> tuple:
    """A header, and a row for each of the classes' names: its label, name, objects but crowds, AP, of masks too."""
    tables = [curves(records, kind) for kind in (BOXES, MASKS) if kind == BOXES or have_masks(records)]
    objects = np.zeros(len(classes), int)
    for record in records:
        truth = record["truth"]
        np.add.at(objects, np.array(truth["labels"], int)[~np.array(truth["crowd"], bool)], 1)
    rows = []
    for label, name in enumerate(classes):
        own = [of_class(precision, labels, label) for precision, _, labels in tables]
        scores = [mean(values) for curve in own for values in (curve, curve[0], curve[5])]
        rounded = [None if value is None else round(value, 5) for value in scores]
        rows.append([label, name, int(objects[label]), *rounded])
    masks = [f"mask_{name}" for name in CLASS_SCORES] if len(tables) > 1 else []
    return (*CLASS_COLUMNS, *masks), rows


def coco_scores(truths: list, results: list, classes, protocol: str = "coco") -> dict:
    """COCO's 12 numbers of a detector, and "per_class", {name of a class: its AP}; None where no object counts.

    Of masks the same, "mask_AP" and so on, "mask_per_class", if all truths and results have them.

    Args:
        truths: Objects of each image; results: Detections of each; both in pixels of the original images.
        classes: names of all classes.
        protocol: "coco", or "r_ssd" for numbers to compare with R. Greenhead's: without crowds, areas and masks.

    Raises:
        SwinsError: an unknown protocol, as many results as truths, or faster-coco-eval is missing.
    """
    if len(truths) != len(results):
        raise SwinsError(f"every image needs a result; got {len(truths)} images and {len(results)} results")
    rows = [(None, record(result, truth)) for result, truth in zip(results, truths, strict=True)]
    records = [record for _, record in revise(rows, {"protocol": protocol})]
    scores = {}
    for kind, prefix in ((BOXES, ""), (MASKS, "mask_")):
        if kind == BOXES or have_masks(records):
            precision, recall, labels = curves(records, kind)
            scores |= {f"{prefix}{k}": v for k, v in summary(precision, recall, in_pixels(records)).items()}
            own = {name: mean(of_class(precision, labels, label)) for label, name in enumerate(classes)}
            scores[f"{prefix}per_class"] = own
    return scores


def columns(records: list, facts: dict) -> tuple:
    """A table's header, and its rows: an image's number, how many objects it has, and its detections as JSON."""
    lines = []
    for record in records:
        detected = record["detections"]
        rows = zip(detected["labels"], detected["scores"], detected["boxes"], strict=True)
        detections = [{"label": n, "score": round(s, 5), "box": [round(x, 2) for x in box]} for n, s, box in rows]
        lines.append([record["image_id"], len(record["truth"]["labels"]), len(detections), json.dumps(detections)])
    return ["image_id", "objects", "detected", "detections"], lines


def tables(records: list, facts: dict) -> dict:
    """The table of classes, that lies beside an evaluation's predictions."""
    return {"classes": class_table(records, facts["classes"])}


def listing(rows: list, facts: dict) -> list:
    """[(name of an image, Detections)] in COCO's format of results.

    An image's number is that in the name of its file, as COCO's have it, else its name; a class's is that of
    facts["category_ids"], else its label.
    """
    lines = []
    for name, result in rows:
        stem = pathlib.PurePath(name).stem
        ids = facts.get("category_ids") or range(int(result.labels.max(initial=-1)) + 1)
        lines += result.to_coco(int(stem) if stem.isdecimal() else name, ids)
    return lines
