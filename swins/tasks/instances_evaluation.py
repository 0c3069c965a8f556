"""How Mask R-CNNs are opened, what their outputs say, and how that is scored."""

import dataclasses
import functools

import keras
import numpy as np
from keras import ops

from swins.checked_numbers import tuples
from swins.data import coco_scores
from swins.data.coco_scores import MASK_SCORES, PROTOCOLS, SCORES
from swins.data.detection_layouts import find_detection_splits, find_evaluation_split
from swins.data.instance_augment import FIXED, with_objects
from swins.data.labelled import Dataset
from swins.data.run_parts import parts_of_run
from swins.data.split import Split
from swins.detection.mask_pasting import paste
from swins.errors import SwinsError, unknown_name
from swins.keep_ratio import KeepRatioPreprocess, common_canvas
from swins.results import Detections
from swins.score import Score
from swins.task import Prepared
from swins.tasks import detection_evaluation
from swins.tasks.instances_settings import MEAN, STD, Selection

LONG = 1333  # pixels of the longer side, at most, of images for published weights
WIDTHS = (800, 1088, 1216, 1344)  # of canvases as mmdetection has them for photographs of 1:1, 4:3, 3:2, and others
CANVASES = tuple(dict.fromkeys(canvas for wide in WIDTHS for canvas in ((FIXED[0], wide), (wide, FIXED[0]))))
WORDS = {name: words for pair in zip(SCORES.items(), MASK_SCORES.items(), strict=True) for name, words in pair}


def as_facts(prepare: KeepRatioPreprocess) -> dict:
    """A preparation as JSON, with the size of its canvas."""
    numbers = {field.name: getattr(prepare, field.name) for field in dataclasses.fields(KeepRatioPreprocess)}
    return {"image_size": prepare.image_size, **numbers}


def of_facts(facts: dict) -> KeepRatioPreprocess:
    """The preparation that facts tell."""
    return KeepRatioPreprocess(**{name: tuples(value) for name, value in facts.items() if name != "image_size"})


def published(model) -> KeepRatioPreprocess:
    """How images are prepared for the published weights, mmdetection's numbers; grey is their mean.

    A model of one size has that canvas. On JAX, which compiles each shape, all images have one.
    """
    channels, fixed = model.in_chans, tuple(model.input.shape[1:3])
    mean, std = (levels if channels == 3 else (sum(levels) / 3,) * channels for levels in (MEAN, STD))
    canvases = (common_canvas(CANVASES),) if keras.backend.backend() == "jax" else CANVASES
    return KeepRatioPreprocess(FIXED[0], LONG, canvases if None in fixed else (fixed,), mean, std)


def known(opened) -> dict:
    """Classes, their ids in the data, how images are prepared and what is an answer."""
    run, model = detection_evaluation.stated(opened), opened.model
    count = model.numbers.num_classes
    classes = run.get("classes") or opened.certificate.get("class_names") or ()
    return {
        "classes": list(classes) if len(classes) == count else [f"class {i}" for i in range(count)],
        "category_ids": run.get("category_ids") or list(range(1, count + 1)),
        "preprocess": run.get("preprocess") or as_facts(published(model)),
        "masks": model.numbers.masks,
        "selection": dataclasses.asdict(Selection(**run.get("selection", {}))),
    }


def prepare(opened, options) -> Prepared:
    """A model's images are prepared as its run validated; those of published weights, as mmdetection does.

    Raises:
        SwinsError: an unknown protocol of scores, a file that does not tell how its images are prepared.
    """
    protocol = options.get("protocol") or PROTOCOLS[0]
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    facts = detection_evaluation.stated(opened).get("preprocess")
    if not facts and not opened.certificate.get("source"):  # of no program's file
        raise SwinsError(
            f"{opened.path}: does not tell how images are prepared; take the folder of its run, or an artefact of that"
        )
    return Prepared(opened.name, protocol, of_facts(facts) if facts else published(opened.model))


def content_sizes(images):
    """Height and width of images (B, H, W, C) without the zeros at their bottom and right -> (B, 2) int32.

    A prepared pixel is 0 only where every channel is the mean, so that no edge of a photograph is taken for padding.
    """
    shown = ops.any(images != 0, -1)
    sides = []
    for axis in (2, 1):
        some = ops.any(shown, axis)
        places = ops.arange(1, ops.shape(some)[1] + 1, dtype="int32")
        sides.append(ops.max(ops.where(some, places, 1), 1))
    return ops.stack(sides, 1)


def decide(model, facts, images, outputs) -> dict:
    """Boxes, scores, labels and masks of a network's outputs, in pixels of the prepared images."""
    return model.decide(outputs, content_sizes(images), **Selection(**facts["selection"]).rule)


def answers(outputs, facts, sizes) -> list:
    """The Detections of each image, in its own pixels."""
    prepare = of_facts(facts["preprocess"])
    arrays = {name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()}
    results = []
    for row, size in enumerate(sizes):
        one = {name: array[row] for name, array in arrays.items()}
        results.append(detections(one, tuple(facts["classes"]), prepare, tuple(map(int, size))))
    return results


def detections(outputs, names, prepare, size) -> Detections:
    """The Detections of one image of (height, width) from what `decide` gives of it."""
    count, (height, width) = int(outputs["count"]), size
    boxes = np.clip(prepare.original(outputs["boxes"][:count], size), 0, np.float32([width, height] * 2))
    labels = outputs["labels"][:count].astype("int64")
    known_names = tuple(names[i] for i in labels.tolist())
    masks = paste(outputs["masks"][:count], boxes, size) if "masks" in outputs else None
    return Detections(boxes, outputs["scores"][:count].astype("float32"), labels, known_names, masks)


def find_splits(source, held_out, seed, masks) -> tuple[Split, Split]:
    """The Splits of a data set, (to train on, to validate on): images without an object are not trained on."""
    training, validation = find_detection_splits(source, held_out, seed, masks)
    return with_objects(training), validation


def dataset(source, opened, facts, options) -> Dataset:
    """Images to score on, with masks if the model has them; labels are the model's classes, by name."""
    masks = opened.model.numbers.masks
    of_run = parts_of_run(source, opened.path, opened.training, functools.partial(find_splits, masks=masks))
    split = find_evaluation_split(source, tuple(facts["classes"]), masks, options.get("split"), of_run)
    return Dataset(split.name, len(split), (split[i] for i in range(len(split))), split.strays, split.notes)


def score(records) -> dict:
    """COCO's numbers of boxes and of masks, which are None where there are none."""
    return {**dict.fromkeys(WORDS), **coco_scores.score(records)}


FUNCTIONS = {
    **detection_evaluation.FUNCTIONS,
    "scores": tuple(Score(name, words, percent=True) for name, words in WORDS.items()),
    "known": known,
    "prepare": prepare,
    "decide": decide,
    "answers": answers,
    "dataset": dataset,
    "score": score,
}
