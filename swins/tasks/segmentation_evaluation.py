"""How segmenters are opened, what their outputs say, and how that is scored."""

import dataclasses
import functools

import keras

from swins.checked_numbers import tuples
from swins.data import miou_scores
from swins.data.labelled import Dataset
from swins.data.run_parts import parts_of_run
from swins.data.segmentation_layouts import MaskValues, find_segmentation_split, find_segmentation_splits
from swins.errors import SwinsError, unknown_name
from swins.images import Preprocess
from swins.keep_ratio import ScaledPreprocess
from swins.results import Segmentation
from swins.score import Score
from swins.segmentation.class_maps import class_map
from swins.segmentation.sliding import averaged, slide
from swins.segmentation.upernet import LOGITS
from swins.task import Prepared
from swins.tasks.detection_evaluation import stated
from swins.tasks.segmentation_settings import CROP, MEAN, STD

OPTIONS = ("protocol", "split", "inference")
KEEP_RATIO, SQUASH = PROTOCOLS = ("mmseg", "hf")
WHOLE, SLIDE, AVERAGED = INFERENCES = ("whole", "slide", "averaged")
LONG = 4  # of an image's longer side at most, over the shorter's
STRIDE = 2 / 3  # of windows, over their side


def squash(size: tuple, mean: tuple, std: tuple) -> Preprocess:
    """Images squashed to a size, as Hugging Face's processor prepares them."""
    return Preprocess(tuple(size), tuple(size), False, tuple(mean), tuple(std), "bilinear")


def as_facts(prepare) -> dict:
    """A preparation as JSON, with the size that images have, or have at most."""
    numbers = {field.name: getattr(prepare, field.name) for field in dataclasses.fields(prepare)}
    return {**numbers, "image_size": prepare.image_size}


def of_facts(facts: dict):
    """The preparation that facts tell."""
    numbers = {name: tuples(value) for name, value in facts.items()}
    if "short" in numbers:
        return ScaledPreprocess(**{name: value for name, value in numbers.items() if name != "image_size"})
    return Preprocess(**numbers)


def published(channels: int) -> Preprocess:
    """How images are prepared for the published weights, where all are of one size; grey is their mean."""
    mean, std = (levels if channels == 3 else (sum(levels) / 3,) * channels for levels in (MEAN, STD))
    return squash((CROP, CROP), mean, std)


def known(opened) -> dict:
    """Classes, what the values of masks mean, how images are prepared, and how a mask is made."""
    run, model = stated(opened), opened.model
    count = model.numbers.num_classes
    classes = run.get("classes") or opened.certificate.get("class_names") or ()
    return {
        "classes": list(classes) if len(classes) == count else [f"class {i}" for i in range(count)],
        "values": run.get("values") or dataclasses.asdict(MaskValues()),
        "preprocess": run.get("preprocess") or as_facts(published(model.in_chans)),
        "crop": run.get("crop") or [CROP, CROP],
        "inference": WHOLE,
    }


def prepare(opened, options) -> Prepared:
    """A model's images are prepared as its run validated; those of published weights, as mmsegmentation does.

    Raises:
        SwinsError: an unknown protocol or inference, a model of a fixed size that is to keep proportions, a file that
            does not tell how its images are prepared.
    """
    facts, model = stated(opened).get("preprocess"), opened.model
    inference = options.get("inference") or WHOLE
    if inference not in INFERENCES:
        raise unknown_name("inference", inference, INFERENCES)
    if not facts and not opened.certificate.get("source"):  # of no program's file
        raise SwinsError(
            f"{opened.path}: does not tell how images are prepared; take the folder of its run, or an artefact of that"
        )
    fixed = None not in model.image_size
    protocol = options.get("protocol") or (SQUASH if facts or fixed else KEEP_RATIO)
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    if fixed and (protocol == KEEP_RATIO or inference == AVERAGED):
        raise SwinsError(
            f"{opened.name}: takes images of {model.image_size} alone; {protocol}, {inference} need a model of any size"
        )
    preparation = of_facts(facts) if facts else published(model.in_chans)
    if fixed:
        preparation = squash(model.image_size, preparation.mean, preparation.std)
    if protocol == KEEP_RATIO:
        short = min(preparation.image_size)
        preparation = ScaledPreprocess(short, LONG * short, preparation.mean, preparation.std)
    words = protocol if inference == WHOLE else f"{protocol} {inference}"
    return Prepared(opened.name, words, preparation, {"preprocess": as_facts(preparation), "inference": inference})


def decide(model, facts, images, outputs) -> dict:
    """Logits of a map's cells; window by window, or averaged over sizes, those of pixels."""
    inference = facts["inference"]
    if inference == SLIDE:
        window = tuple(facts["crop"])
        stride = tuple(max(1, round(side * STRIDE)) for side in window)
        return {LOGITS: slide(model, images, window, stride)}
    if inference == AVERAGED:
        return {LOGITS: averaged(model, images)}
    return {LOGITS: outputs[LOGITS]}


def answers(outputs, facts, sizes) -> list:
    """The Segmentation of each image, in its own pixels."""
    preparation, logits = of_facts(facts["preprocess"]), keras.ops.convert_to_numpy(outputs[LOGITS])
    results = []
    for row, size in zip(logits, sizes, strict=False):
        size = tuple(map(int, size))
        inner = preparation.scaled(size) if isinstance(preparation, ScaledPreprocess) else preparation.image_size
        results.append(Segmentation(class_map(row, inner, size), tuple(facts["classes"])))
    return results


def dataset(source, opened, facts, options) -> Dataset:
    """Images to score on, whose masks are of the model's classes, by name."""
    values = MaskValues(**facts["values"])
    splits = functools.partial(find_segmentation_splits, values=values)
    of_run = parts_of_run(source, opened.path, opened.training, splits)
    split = find_segmentation_split(source, tuple(facts["classes"]), options.get("split"), values, of_run)
    return Dataset(split.name, len(split), (split[i] for i in range(len(split))), split.strays, split.notes)


def remarks(records, facts) -> list[str]:
    """A line where all pixels are said to be of one class, which scores more than it seems."""
    matrix = miou_scores.matrix_of(records, len(facts["classes"]))
    said, there = (set(matrix.sum(axis).nonzero()[0].tolist()) for axis in (0, 1))
    if len(said) != 1 or len(there) < 2:
        return []
    return [
        f"all pixels of the validation images are called {facts['classes'][said.pop()]}, of {len(there)} classes that "
        "are there: more updates help, or --set loss.class_weights=balanced"
    ]


FUNCTIONS = {
    "remarks": remarks,
    "scores": tuple(Score(name, words, percent=True) for name, words in miou_scores.SCORES.items()),
    "known": known,
    "prepare": prepare,
    "decide": decide,
    "in_graph": lambda facts: facts["inference"] == WHOLE,
    "answers": answers,
    "dataset": dataset,
    "options": OPTIONS,
    "record": miou_scores.record,
    "score": miou_scores.score,
    "columns": miou_scores.columns,
    "tables": miou_scores.tables,
    "pictures": {"": lambda result, image: result.draw(image), "_mask": lambda result, image: result.index_image()},
}
