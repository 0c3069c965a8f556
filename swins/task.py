"""What a kind of work is: a Task, a frozen object of functions. train/, evaluate/, export/, convert/ know Tasks alone.

A new kind is a file of its own that makes a Task and registers it: see `swins/tasks/classification.py`, and
`tests/angles.py`, which is one in a test.
"""

import importlib
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, field

import keras

from swins.errors import SwinsError, unknown_name
from swins.run_result import FIRST
from swins.score import Score


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
    batch: ([sample], generator) -> (images (b, H, W, C), {name: array (b, ...)}), shaped by b and size alone; in place
        of images {name: array (b, ...)} where the network takes more than these.
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
    """How a model's images are prepared: a callable, what of (a variant, a run), and by whose rules, for tables.

    facts: those that hold in place of the model's own, for its answers.
    """

    name: str
    protocol: str
    preparation: Callable
    facts: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What is written on an evaluation beside `Task.tables`.

    tables: {name: (header, [row])}; figures: {name: ([record], facts) -> a figure of matplotlib}; worst: [(name of an
    image, lines of text)] of mistakes, the worst first.
    """

    tables: dict
    figures: dict
    worst: list


@dataclass(frozen=True)
class Part:
    """A SavedModel to write. output: name of what it gives, where that is a tensor; make: -> its Keras model.

    reference: -> the Keras model that it is compared with, if another; everything: -> a function of images for a
    further signature, `all_outputs`; trains: whether it can be trained; of_files: (outputs, sizes (B, 2)) -> outputs of
    image files whose own sizes are these, such as boxes in pixels, or names of classes; difference: (outputs, expected)
    -> how far they are from each other, over the largest value, where that is not entry by entry; tolerance: how far
    they may be, if more than others, as where an output is computed in many steps; nudged: inputs -> inputs that differ
    by about a rounding, where those steps may enlarge one: outputs may then differ as much as Keras' own of these do.

    Of a model of more than images: example: count -> {name: array (count, ...)} of its inputs; further: model ->
    {name of a further signature: (function of tensors by name -> {name: tensor}, {input: (shape, dtype)})}.
    """

    output: str
    make: Callable
    reference: Callable | None = None
    everything: Callable | None = None
    trains: bool = True
    of_files: Callable | None = None
    difference: Callable | None = None
    tolerance: float | None = None
    nudged: Callable | None = None
    example: Callable | None = None
    further: Callable | None = None


def image_input(model):
    """The images among a model's inputs, as Keras describes them: shape (None, H, W, C)."""
    return model.input["images"] if isinstance(model.input, dict) else model.input


@dataclass(frozen=True)
class Evaluated:
    """What came of samples that were scored: the data set's name, how they were drawn, how many, {score: value},
    (header, rows) of a table of them, how many were drawn a second, and lines that tell more."""

    dataset: str
    protocol: str
    images: int
    values: dict
    predictions: tuple
    images_per_second: float
    notes: tuple = ()


class Answering(keras.Model):
    """A network and what becomes of its outputs, where answers need more than these: images -> {name: output}.

    Args:
        network: images -> outputs; its weights are shared.
        decide: (images, outputs) -> {name: output}.
        in_graph: whether `predict` runs it in a graph.
    """

    def __init__(self, network, decide, in_graph=True, **kwargs):
        super().__init__(name=network.name, **kwargs)
        self.network, self.decide = network, decide
        self.run_eagerly = not in_graph
        self.built = True
        if keras.backend.backend() == "tensorflow":
            self.jit_compile = False  # XLA takes longer to compile the choice of boxes than a folder of pictures takes

    @property
    def input(self):
        """The network's."""
        return self.network.input

    def call(self, images, training=None):
        return self.decide(images, self.network(images, training=False))


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
        losses: (recipe, network, {name: array} of a batch, {name: output}, training=False) -> {name: scalar}, each a
            sum over the images divided by the batch's size; "weight" (b,) in the batch is 0 for fillers, which count in
            that size; training: whether parts of the network that run here train, where outputs are not all of it.
        depths: network -> {path of a variable: depth}, for rates that grow with it.
        trunk: network -> variables of its backbone, which a recipe may freeze at the beginning.
        examined: ({name: output}, {name: array} of a batch) -> {name: output} that `answers` takes in validation, where
            these need more than a network gives: the outputs themselves, unless it says more.
        epoch_pictures: (recipe, network, facts, epoch) -> {name: PIL image} to draw after an epoch, counted from 1.
        facts: (recipe, network, preparation, training Split) -> what result.json keeps for prediction, as JSON;
            "preprocess" in it has the "image_size" in pixels that a model of any size was trained at.
        measures: {name of a score: (arrays, {name: output}) -> (b,)}: what it is of each image of a batch that is
            trained on, from what training computes anyway; its mean is logged beside the validation's.
        guessing: facts -> the validation loss of a model that knows the classes and does not look; None where no such
            number is known.
        telling: (name of a score, facts) -> whether it says anything of such a model, as top-5 does of many classes.
    Of prediction:
        owns: whether a Keras model is one of this kind.
        output: model -> name of its output, where that is a tensor.
        known: Opened -> the facts that `answers` needs.
        prepare: (Opened, {option: value}) -> Prepared.
        load: Opened -> what `swins.load` gives, where that is no Predictor: None if it is. load_saved: (name, a
            SavedModel's root, its facts) -> the same of a SavedModel.
        decide: (model, facts, images, {name: output}) -> {name: output (b, ...)} that `answers` takes, in the graph,
            where these are not the model's own: None if they are.
        in_graph: facts -> whether `decide` can be run in a graph whose images are of no known size.
        answers: ({name: output (b, ...)}, facts, sizes) -> [result], one for each image; sizes are (height, width) in
            pixels of the images as they were read. A result has draw(image), to_json() and __str__.
        predict_options: names of what prediction takes besides images, as the command line has them.
        select: (result, {option: value}) -> the part of it that is wanted, another result.
        listing: ([(name of an image, result)], facts) -> a list of what is JSON, image by image, for a file.
        pictures: {end of a file's name: (result, image) -> PIL image} of what is drawn of each image.
    Of evaluation:
        options: names of what an evaluation takes besides a source, as the command line has them.
        dataset: (source, Opened, facts, {option: value}) -> labelled images.
        record: (result, truth) -> what scoring needs of one image, as JSON; a truth that is no JSON has a to_json().
        revise: ([(name of an image, record)], {option: value}) -> the same, changed.
        score: [record] -> {name: number}, in the order of `scores`; None where there is nothing to compute it from.
        remarks: ([record], facts) -> lines on what a run's last validation shows beside its scores.
        evaluate: (Opened, source, {option: value}, bar) -> Evaluated, of what is scored by what it makes and not image
            by image: None of others; bar: count -> a context with update(n). sample_scores: the Scores that it gives.
        columns: ([record], facts) -> (header, [row]) of a table of predictions.
        tables: ([record], facts) -> {name: (header, [row])} of tables that lie beside it, as one with a row a class.
        report: ([(name of an image, record)], facts) -> Report; None where there is no more than the tables.
    Of export:
        parts: (model, certificate, deploy) -> {name of a SavedModel: Part}; deploy: what makes a faster form of the
            model, `swins.deploy`, None to leave it out.
        raw: model -> the Keras model that files of other runtimes are made of, images -> {name: tensor}: the model
            itself, if it gives tensors.
        deployable: whether `swins.deploy` has a faster form of its models.
        fixed_size: targets whose files have one size, even of a model of any: converters do not take such.
        serving: (model, certificate) -> how a SavedModel prepares image files itself, or None.
        namable: model -> how many classes can be named when it is exported; 0 where their names are no part of that.
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
    trunk: Callable = lambda network: network.backbone.variables if hasattr(network, "backbone") else []
    examined: Callable = lambda outputs, arrays: outputs
    epoch_pictures: Callable | None = None
    measures: dict = field(default_factory=dict)
    guessing: Callable = lambda facts: None
    telling: Callable = lambda name, facts: True
    load: Callable | None = None
    load_saved: Callable | None = None
    output: Callable = lambda model: "output"
    decide: Callable | None = None
    in_graph: Callable = lambda facts: True
    predict_options: tuple[str, ...] = ()
    select: Callable = lambda result, options: result
    listing: Callable = lambda rows, facts: [{"image": name, **result.to_json()} for name, result in rows]
    pictures: dict = field(default_factory=lambda: {"": lambda result, image: result.draw(image)})
    options: tuple[str, ...] = ()
    evaluate: Callable | None = None
    sample_scores: tuple[Score, ...] = ()
    revise: Callable = lambda rows, options: rows
    remarks: Callable = lambda records, facts: []
    columns: Callable = lambda records, facts: (sorted(records[0]), [[row[k] for k in sorted(row)] for row in records])
    tables: Callable = lambda records, facts: {}
    report: Callable | None = None
    parts: Callable | None = None
    raw: Callable = lambda model: model
    deployable: bool = False
    fixed_size: tuple[str, ...] = ()
    serving: Callable = lambda model, certificate: None
    namable: Callable = lambda model: 0
    agreement: Callable = lambda outputs, reference: {}
    tag: str = ""
    ordered: Callable = lambda outputs, reference: {}
    rating: Callable = lambda certificate: "not measured"
    card: Callable = lambda model, certificate: {}

    @property
    def headline(self) -> Score:
        """The first of the scores."""
        return self.scores[0]

    def scores_of(self, facts: dict) -> tuple[Score, ...]:
        """The scores that say something of a model of such facts."""
        return tuple(score for score in self.scores if self.telling(score.name, facts))

    def scored(self, records: list, facts: dict) -> dict:
        """{name: number} of these scores, of records."""
        numbers = self.score(records)
        return {score.name: numbers[score.name] for score in self.scores_of(facts)}

    def parts_of(self, model, certificate: dict, deploy: Callable | None = None) -> dict:
        """{name of a SavedModel: Part} of a model; by default the model itself."""
        if self.parts:
            return self.parts(model, certificate, deploy)
        return {"saved_model": Part(self.output(model), lambda: model)}

    def answering(self, model, facts: dict) -> keras.Model:
        """The model that is run for answers: images -> outputs that `answers` takes."""
        if self.decide is None:
            return model
        return Answering(
            model,
            lambda images, outputs: self.decide(model, facts, images, self.named(model, outputs)),
            self.in_graph(facts),
        )

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
