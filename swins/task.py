"""What a kind of work is: a Task, a frozen object of functions. train/, evaluate/, export/, convert/ know Tasks alone.

A new kind is a file of its own that makes a Task and registers it: see `swins/tasks/classification.py`, and
`tests/angles.py`, which is one in a test.
"""

import importlib
import pathlib
from collections.abc import Callable
from dataclasses import dataclass

import keras

from swins.errors import SwinsError, unknown_name
from swins.run_result import FIRST

NONE = "none"  # how a score is written that there is nothing to compute from


@dataclass(frozen=True)
class Score:
    """A number that says how good a model is; None where there is nothing to compute it from.

    larger: whether larger is better; percent: whether it is shown as one.
    """

    name: str
    words: str
    larger: bool = True
    percent: bool = False

    def better(self, value: float | None, other: float | None) -> bool:
        """Whether a value is better than another; None never is, and every number is better than None."""
        if value is None or other is None:
            return value is not None
        return value > other if self.larger else value < other

    def text(self, value: float | None) -> str:
        """A value for people."""
        if value is None:
            return NONE
        return f"{value:.2%}" if self.percent else f"{value:.4g}"


def logged(value: float | None) -> str:
    """A score as logs and tables have it."""
    return NONE if value is None else f"{value:.6f}"


def read_score(text: str) -> float | None:
    """A score of a log or a table."""
    return None if text == NONE else float(text)


class Computed(keras.losses.Loss):
    """A loss whose value is given."""

    def call(self, y_true, y_pred):
        return y_pred


def shared(value):
    """A loss, a scalar, as Keras wants it of one of the devices that a batch is divided among: its share of their sum.

    Losses of keras.losses are so already.
    """
    value = keras.ops.reshape(value, (1,))
    return Computed(dtype="float32")(value, value)


@dataclass(frozen=True)
class Reading:
    """How samples of a Split become batches; every random number comes from the generator that is passed in.

    sample: (image as `open_image` gives it, truth, generator, size) -> one sample, whatever `batch` takes; size is
        (height, width) in pixels, one of `sizes`, or None where there are none.
    batch: ([sample], generator) -> (images (b, H, W, C), {name: array (b, ...)}), shaped by b and size alone.
    filler: a sample in place of one that cannot be read, or that fills a batch up where samples are scored.
    groups: number of the group that each sample of the Split is in, (n,) integers, if batches are of one group each;
        sizes: for each group, the sizes that its batches are drawn from. Empty: all samples have one size.
    """

    sample: Callable
    batch: Callable
    filler: Callable = lambda: None
    groups: object = None
    sizes: tuple = ()


@dataclass(frozen=True)
class Prepared:
    """How a model's images are prepared: a callable, what of (a variant, a run), and by whose rules, for tables."""

    name: str
    protocol: str
    preparation: Callable


@dataclass(frozen=True)
class Part:
    """A SavedModel to write. output: name of what it gives, where that is a tensor; make: -> its Keras model.

    reference: -> the Keras model that it is compared with, if another; everything: -> a function of images for a
    further signature, `all_outputs`; trains: whether it can be trained; in_pixels: (outputs, sizes (B, 2)) -> outputs
    of image files whose own sizes are these; difference: (outputs, expected) -> how far they are from each other, over
    the largest value, where that is not entry by entry.
    """

    output: str
    make: Callable
    reference: Callable | None = None
    everything: Callable | None = None
    trains: bool = True
    in_pixels: Callable | None = None
    difference: Callable | None = None


@dataclass(frozen=True)
class Task:
    """A kind of work.

    Of training:
        name; recipe: the class of its recipes; scores: what models are judged by, the first is the headline.
        splits: (source, recipe) -> (Split to train on, Split to validate on).
        network: (recipe, training Split) -> keras.Model, images -> a tensor or {name: tensor}, with first weights; its
            layers are named, as checkpoints know variables by their paths.
        preparation: (recipe, network, splits) -> a callable that prepares images as validation and prediction do: a
            dataclass with an image_size, as Preprocess is.
        training, validating: (recipe, preparation, Split) -> Reading.
        losses: (recipe, network, {name: array} of a batch, {name: output}) -> {name: scalar}, each a sum over the
            images divided by the batch's size; "weight" (b,) in the batch is 0 for fillers, which count in that size.
        depths: network -> {path of a variable: depth}, for rates that grow with it.
        facts: (recipe, network, preparation, training Split) -> what result.json keeps for prediction, as JSON;
            "preprocess" in it has the "image_size" in pixels that a model of any size was trained at.
    Of prediction:
        owns: whether a Keras model is one of this kind.
        output: model -> name of its output, where that is a tensor.
        known: Opened -> the facts that `answers` needs.
        prepare: (Opened, {option: value}) -> Prepared.
        answers: ({name: output (b, ...)}, facts, sizes) -> [result], one for each image; sizes are (height, width) in
            pixels of the images as they were read. A result has draw(image), to_json() and __str__.
        predict_options: names of what prediction takes besides images, as the command line has them.
        select: (result, {option: value}) -> the part of it that is wanted, another result.
        listing: ([(name of an image, result)], facts) -> a list of what is JSON, image by image, for a file.
    Of evaluation:
        options: names of what an evaluation takes besides a source, as the command line has them.
        dataset: (source, Opened, facts, {option: value}) -> labelled images.
        record: (result, truth) -> what scoring needs of one image, as JSON; a truth that is no JSON has a to_json().
        revise: ([(name of an image, record)], {option: value}) -> the same, changed.
        score: [record] -> {name: number}, in the order of `scores`; None where there is nothing to compute it from.
        columns: [record] -> (header, [row]) of a table of predictions.
        tables: ([record], facts) -> {name: (header, [row])} of tables that lie beside it, as one with a row a class.
    Of export:
        parts: (model, certificate, deployed) -> {name of a SavedModel: Part}.
        portable: model -> its faster form for other runtimes, of built-in operations; None where there is none.
        serving: (model, certificate) -> how a SavedModel prepares image files itself, or None.
        agreement: ({name: output}, {name: reference}) -> {name of a score: share of images with the same answer}.
        ordered: as `agreement`, but more strictly, for programs that compute the same.
        tag: what model hubs call it, as "image-classification".
        rating: certificate -> how good it is, in a few words.
        card: (model, certificate) -> {placeholder: text} of its model card; "template" is the card itself, if its own.
    """

    name: str
    recipe: type
    scores: tuple[Score, ...]
    splits: Callable
    network: Callable
    preparation: Callable
    training: Callable
    validating: Callable
    losses: Callable
    facts: Callable
    owns: Callable
    answers: Callable
    record: Callable
    score: Callable
    known: Callable
    prepare: Callable
    dataset: Callable
    depths: Callable = lambda network: {}
    output: Callable = lambda model: "output"
    predict_options: tuple[str, ...] = ()
    select: Callable = lambda result, options: result
    listing: Callable = lambda rows, facts: [{"image": name, **result.to_json()} for name, result in rows]
    options: tuple[str, ...] = ()
    revise: Callable = lambda rows, options: rows
    columns: Callable = lambda records: (sorted(records[0]), [[row[k] for k in sorted(row)] for row in records])
    tables: Callable = lambda records, facts: {}
    parts: Callable | None = None
    portable: Callable | None = None
    serving: Callable = lambda model, certificate: None
    agreement: Callable = lambda outputs, reference: {}
    tag: str = ""
    ordered: Callable = lambda outputs, reference: {}
    rating: Callable = lambda certificate: "not measured"
    card: Callable = lambda model, certificate: {}

    @property
    def headline(self) -> Score:
        """The first of the scores."""
        return self.scores[0]

    def parts_of(self, model, certificate: dict, deployed: bool = False) -> dict:
        """{name of a SavedModel: Part} of a model; by default the model itself."""
        if self.parts:
            return self.parts(model, certificate, deployed)
        return {"saved_model": Part(self.output(model), lambda: model)}

    def named(self, model, outputs) -> dict:
        """A model's outputs by their names."""
        return outputs if isinstance(outputs, dict) else {self.output(model): outputs}


TASKS: dict[str, Task] = {}


def register(task: Task) -> Task:
    """Make a kind of work known by its name, the class of its recipes, and the models that it owns.

    One of a name that is known takes its place, so that a recipe's file may define its own and be read again.
    """
    TASKS[task.name] = task
    return task


def task_of_recipe(recipe) -> Task:
    """The Task of a recipe, by its class."""
    tasks = registered().values()
    for task in (*(t for t in tasks if type(recipe) is t.recipe), *(t for t in tasks if isinstance(recipe, t.recipe))):
        return task
    raise unknown_name("recipe", type(recipe).__name__, [task.recipe.__name__ for task in TASKS.values()])


def task_named(name: str | None) -> Task:
    """The Task of a name that a run or a certificate records; those before there were others record none.

    Raises:
        SwinsError: an unknown name: the module that registers the task is not imported.
    """
    tasks = registered()
    if (name or FIRST) not in tasks:
        raise unknown_name("task", str(name), list(tasks))
    return tasks[name or FIRST]


def task_of(model: keras.Model, stated: str | None = None, where: object = "the file") -> Task:
    """The Task of a Keras model: that of a name, if a run or a certificate states one, else the one that owns it.

    Raises:
        SwinsError: if none is known here.
    """
    if stated:
        return task_named(stated)
    tasks = sorted(registered().values(), key=lambda task: task.name == FIRST)  # which owns whatever is a Swin
    task = next((task for task in tasks if task.owns(model)), None)
    if task is None:
        raise SwinsError(f"{where}: holds a {type(model).__name__}, of no kind of work that is known here")
    return task


def refuse_options(task: Task, options: dict, known: tuple[str, ...]) -> None:
    """Raise SwinsError for options that a kind of work does not take, which takes those that are known."""
    others = [name for name, value in options.items() if value is not None and name not in known]
    if others:
        words = ", ".join(f"--{name.replace('_', '-')}" for name in others)
        raise SwinsError(f"{words}: not of {task.name}; leave out")


def registered() -> dict[str, Task]:
    """All tasks, those of `swins.tasks` among them."""
    for path in sorted(pathlib.Path(__file__).with_name("tasks").glob("*.py")):
        if path.stem != "__init__":
            importlib.import_module(f"swins.tasks.{path.stem}")
    return TASKS
