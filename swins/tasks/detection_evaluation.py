"""How detectors are opened, what their outputs say, and how that is scored."""

import dataclasses
import functools
import json

import keras
import numpy as np

from swins.checked_numbers import tuples
from swins.data.coco_scores import PROTOCOLS, SCORES, columns, listing, record, revise, score, tables
from swins.data.detection_layouts import find_detection_splits, find_evaluation_split
from swins.data.labelled import Dataset
from swins.data.run_parts import parts_of_run
from swins.detection.default_boxes import Priors, default_boxes
from swins.detection.selection import selector
from swins.errors import SwinsError, unknown_name
from swins.images import Preprocess
from swins.results import detections_of
from swins.score import Score
from swins.task import Prepared
from swins.tasks.detection_settings import Selection

OPTIONS, PREDICT_OPTIONS = ("protocol", "split"), ("threshold",)
DEFAULT = Selection()
SHOWN = 0.3  # least score of what `swins predict` shows


def decoding(network, selection=DEFAULT) -> dict:
    """What makes boxes of a network's raw outputs, as JSON: its default boxes, and what of them is an answer."""
    preset = network.numbers.preset
    priors = {
        "preset": preset if isinstance(preset, str) else dataclasses.asdict(preset),
        "maps": [list(size) for size in network.sizes],
        "image_size": list(network.image_size),
    }
    return {"priors": priors, "selection": dataclasses.asdict(selection)}


def stated(opened) -> dict:
    """What the run that made an Opened's model says of it; {} of a bare file."""
    return opened.training or opened.certificate.get("training") or {}


def known(opened) -> dict:
    """Classes, their ids in the data, and how boxes are made."""
    run, count = stated(opened), opened.model.numbers.num_classes
    classes = run.get("classes") or ()
    return {
        "classes": list(classes) if len(classes) == count else [f"class {i}" for i in range(count)],
        "category_ids": run.get("category_ids") or list(range(1, count + 1)),
        **decoding(opened.model, Selection(**run.get("selection", {}))),
    }


def prepare(opened, options) -> Prepared:
    """A model's images are prepared as its run validated: squashed to its size.

    Raises:
        SwinsError: an unknown protocol of scores, a file that does not tell how its images are prepared.
    """
    protocol = options.get("protocol") or PROTOCOLS[0]
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    facts, size = stated(opened).get("preprocess"), opened.model.image_size
    if not facts:
        raise SwinsError(
            f"{opened.path}: does not tell how images are prepared; take the folder of its run, or an artefact of that"
        )
    return Prepared(opened.name, protocol, Preprocess(size, size, False, tuple(facts["mean"]), tuple(facts["std"])))


@functools.lru_cache(maxsize=4)
def selector_of(priors: str, selection: str, classes: int) -> keras.Model:
    """The model that makes answers of raw outputs; facts come as JSON text."""
    priors, selection = json.loads(priors), json.loads(selection)
    preset = priors["preset"]
    if isinstance(preset, dict):
        preset = Priors(**{name: tuples(value) for name, value in preset.items()})
    table = default_boxes(tuples(priors["maps"]), preset, tuple(priors["image_size"]))
    return selector(table, classes, most=selection.pop("boxes"), **selection)


def answers(outputs, facts, sizes) -> list:
    """The Detections of each image, in its own pixels; of raw outputs, or of those that a SavedModel has selected."""
    if "count" not in outputs:
        raw = {name: np.asarray(outputs[name], "float32") for name in ("boxes", "scores")}
        texts = (json.dumps(facts[name], sort_keys=True) for name in ("priors", "selection"))
        outputs = selector_of(*texts, raw["scores"].shape[-1] - 1).predict_on_batch(raw)
    count = len(sizes)  # TensorFlow repeats a batch for each device that the selector is on
    arrays = [keras.ops.convert_to_numpy(outputs[name])[:count] for name in ("boxes", "scores", "labels", "count")]
    names = tuple(facts["classes"])
    return [detections_of(*row, names, size) for *row, size in zip(*arrays, sizes, strict=True)]


def dataset(source, opened, facts, options) -> Dataset:
    """Images to score on, whose labels are the model's classes, by name."""
    of_run = parts_of_run(source, opened.path, opened.training, find_detection_splits)
    split = find_evaluation_split(source, tuple(facts["classes"]), part=options.get("split"), of_run=of_run)
    return Dataset(split.name, len(split), (split[i] for i in range(len(split))), split.strays, split.notes)


def select(result, options):
    """The Detections of at least options["threshold"], by default SHOWN."""
    threshold = options.get("threshold")
    return result.at_least(SHOWN if threshold is None else threshold)


FUNCTIONS = {
    "scores": tuple(Score(name, words, percent=True) for name, words in SCORES.items()),
    "known": known,
    "prepare": prepare,
    "answers": answers,
    "dataset": dataset,
    "options": OPTIONS,
    "record": record,
    "revise": revise,
    "score": score,
    "columns": columns,
    "tables": tables,
    "predict_options": PREDICT_OPTIONS,
    "select": select,
    "listing": listing,
}
