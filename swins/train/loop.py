"""A training run: Keras' fit, from a recipe and a data set to a folder, that goes on where it was killed.

The folder holds recipe.json, checkpoints/, log.csv (a row an epoch), curves.png, best.keras, facts.json on its models,
at the end model.keras and result.json; unreadable.txt and unreadable_validation.txt if there were such images,
annotations_training.txt and annotations_validation.txt if some were mended or left out, and TensorBoard's events if
asked for.
"""

import contextlib
import dataclasses
import datetime
import importlib.util
import json
import re
import sys
from dataclasses import dataclass

import keras

from swins import devices
from swins.data.split import left_out
from swins.errors import SwinsError
from swins.files import write
from swins.recipes import Recipe, as_json
from swins.run_result import training_of
from swins.task import Task, read_score, task_of_recipe
from swins.train import input_pipeline
from swins.train.folder import Run, save_model
from swins.train.optimisers import optimiser
from swins.train.progress import Ending, EveryBatch, Progress
from swins.train.schedules import peak_rate
from swins.train.trainee import Trainee
from swins.train.validation import Validation, validate


@dataclass(frozen=True)
class Job:
    """All that a run is of: its task and recipe, its Splits, its network, how images are read, and on what.

    scope makes a context in which models are made; share is what this process reads; devices how many there are.
    """

    task: Task
    recipe: Recipe
    splits: tuple
    scope: object
    share: devices.Share
    devices: int
    network: keras.Model | None = None
    preparation: object = None
    readings: tuple = ()

    @property
    def several(self) -> bool:
        """Whether a batch is divided among devices."""
        return self.devices > 1

    @property
    def facts(self) -> dict:
        """What prediction needs to know."""
        return self.task.facts(self.recipe, self.network, self.preparation, self.splits[0])

    @property
    def per_epoch(self) -> int:
        """Calls of the training step an epoch; `accumulate` of them are one update."""
        training, optim, batch = self.splits[0], self.recipe.optim, self.recipe.data.batch
        if len(training) < batch:
            raise SwinsError(
                f"data.batch must not exceed the training images; got {batch} and {len(training)}; lower it: "
                f"--set data.batch={max(2, len(training) // 4 * 2)}"
            )
        images = len(training) // batch * batch
        if self.readings:
            images = input_pipeline.samples_per_epoch(training, self.readings[0], batch)
        if not images:
            raise SwinsError(f"data.batch must not exceed a group's training images; got {batch}; lower it")
        return (self.recipe.updates_per_epoch or images // batch) * optim.accumulate


def compile_trainee(trainee, recipe, updates_per_epoch, several=False):
    """Compile for a recipe, for one device or several, and build the optimiser."""
    compiled = recipe.model.compile
    if several and keras.backend.backend() == "tensorflow":
        if recipe.optim.accumulate > 1:
            raise SwinsError("optim.accumulate is for one device on TensorFlow; set it to 1, or KERAS_BACKEND=jax")
        compiled = bool(compiled)  # a replica's step reaches the others' from outside of a compiled program
    depths = trainee.task.depths(trainee.network)
    trainee.compile(
        optimizer=optimiser(trainee.trainable_variables, recipe, updates_per_epoch, depths),
        jit_compile="auto" if compiled is None else compiled,
    )
    trainee.optimizer.build(trainee.trainable_variables)


def out_of_memory(error):
    """Whether a backend says that there is no memory left."""
    return isinstance(error, MemoryError) or bool(
        re.search(r"resource_?exhausted|out of memory|\boom\b", f"{type(error).__name__} {error}", re.I)
    )


def fit(trainee, run, job, ending, tensorboard):
    """Train from where the run is to its end, epoch by epoch."""
    recipe, share, per_epoch = job.recipe, job.share, job.per_epoch
    training, validation = job.splits
    micro = recipe.data.batch // recipe.optim.accumulate  # what there is memory for
    process = f".{share.index}" if share.index else ""
    names = (f"unreadable{process}.txt", f"unreadable_validation{process}.txt")
    run.unreadable, run.not_scored = (
        input_pipeline.Unreadable(run.folder / name, limit(split, share))
        for name, split in zip(names, job.splits, strict=True)
    )

    def validated(trainee, heed):
        run.not_scored.forget()  # it may have been mended
        batches, count = input_pipeline.validation_batches(
            validation, job.readings[1], micro, run.not_scored, recipe.data.threads, share
        )
        with averaged(trainee):
            held = (batch for batch, _ in zip(batches, range(count), strict=False))
            loss, records = validate(trainee, held, job.facts, share, job.several, heed)
        missing = run.not_scored.of_all()
        if not records:
            raise SwinsError(f"{validation.name}: none of its {len(validation)} validation images can be read")
        return Validation(loss, job.task.score(records), len(validation) - missing, missing)

    progress = Progress(run, recipe, per_epoch, validated, run.unreadable, ending, writes=share.index == 0)
    callbacks = [progress]
    if tensorboard and share.index == 0:
        callbacks.append(keras.callbacks.TensorBoard(run.folder / "tensorboard", write_graph=False))
    if run.unvalidated:
        run.say(f"epoch {run.unvalidated['epoch']} is trained and not yet validated")
        progress.set_model(trainee)
        progress.validated()
    while run.step < recipe.epochs * per_epoch:
        epoch, done = divmod(run.step, per_epoch)  # what is left of an epoch, when a run goes on, is a fit of its own
        trainee.fit(
            input_pipeline.training_batches(training, job.readings[0], recipe, run.unreadable, run.step, share),
            initial_epoch=epoch,
            epochs=epoch + 1 if done else recipe.epochs,
            steps_per_epoch=per_epoch - done,
            callbacks=EveryBatch(callbacks, add_history=True, model=trainee),
            shuffle=False,
            verbose=0,
        )


def limit(split, share):
    """How many images of a Split a process may fail to read."""
    return max(1, int(input_pipeline.MOST_UNREADABLE * len(split) / share.count))


@contextlib.contextmanager
def averaged(trainee):
    """The averages of the weights in their place, if there are any."""
    if not trainee.optimizer.use_ema:
        yield
        return
    swap = keras.callbacks.SwapEMAWeights()
    swap.set_model(trainee)
    swap.on_test_begin()
    try:
        yield
    finally:
        swap.on_test_end()


def require_tensorboard():
    """Raise SwinsError if events cannot be written."""
    for package in ("tensorflow", "tensorboard"):
        if importlib.util.find_spec(package) is None:
            raise SwinsError(f"--tensorboard needs {package}: pip install {package}; log.csv has losses and accuracies")


def train(recipe, source, folder, *, overwrite=False, tensorboard=False, say=print):
    """Train a recipe on a data set -> the result, a dict, which result.json in the folder holds too; {} in all but the
    first of several processes.

    Started again on the same folder it goes on: from the newest checkpoint that is sound, with the same learning rates,
    averages, order of the data and random numbers.

    Args:
        recipe: a Recipe.
        source: a data set, as the recipe's kind of work takes it.
        folder: where everything goes.
        overwrite: begin again, and delete the run that is there.
        tensorboard: write TensorBoard's events too.
        say: what is told of progress, a line at a time.

    Raises:
        SwinsError: bad data, settings that cannot work, a loss that is no number, or too little memory.
    """
    input_pipeline.reader()
    if tensorboard:
        require_tensorboard()
    task, (scope, share, count) = task_of_recipe(recipe), devices.start()
    devices.check_batch("data.batch", recipe.data.batch, count, recipe.optim.accumulate)
    job = Job(task, recipe, task.splits(source, recipe), scope, share, count)
    strays = [path for split in job.splits for path in split.strays]
    if strays:
        say(left_out(source, strays))
    for note in (note for split in job.splits for note in split.notes):
        say(note)
    job.per_epoch  # noqa: B018 (refuses a batch that is too large, before anything is made)
    if recipe.deterministic:
        make_deterministic()
    keras.utils.set_random_seed(recipe.seed)
    with scope():
        network = task.network(recipe, job.splits[0])
        preparation = task.preparation(recipe, network, job.splits)
        makers = zip((task.training, task.validating), job.splits, strict=True)
        readings = tuple(reading(recipe, preparation, split) for reading, split in makers)
        job = dataclasses.replace(job, network=network, preparation=preparation, readings=readings)
        trainee = Trainee(network, task, recipe)
        compile_trainee(trainee, recipe, job.per_epoch // recipe.optim.accumulate, job.several)
    with contextlib.closing(Run(folder, task, say)) as run:
        devices.agreed(share, lambda: run.open(recipe, job.splits, overwrite))
        return train_in(run, trainee, job, tensorboard)


def train_in(run, trainee, job, tensorboard):
    """Train a compiled Trainee in the folder of a run -> the result."""
    recipe, say, (training, validation) = job.recipe, run.say, job.splits
    with job.scope():
        run.restore(trainee, job.share)
    for name, split in zip(("training", "validation"), job.splits, strict=True):
        if split.defects and not job.share.index:
            text = "".join(f"{line}\n" for line in split.defects)
            write(run.folder / f"annotations_{name}.txt", text.encode("utf-8", "backslashreplace").decode())
            say(f"{len(split.defects)} annotations were mended or left out: {run.folder / f'annotations_{name}.txt'}")
    if not job.share.index:
        facts = {"task": job.task.name, "recipe": as_json(recipe), **job.facts}
        write(
            run.folder / "facts.json", json.dumps(facts, indent=1) + "\n"
        )  # for best.keras, until the result is there
    pixels = "x".join(map(str, job.preparation.image_size))
    say(f"{recipe.model.name}: {trainee.count_params():,} parameters, {pixels} pixels, {job.devices} device(s)")
    classes = f", {len(training.classes)} classes" if training.classes else ""
    say(f"{len(training)} images to train on, {len(validation)} to validate{classes}")
    say(f"learning rate up to {peak_rate(recipe):.3g}, {recipe.data.batch} images a batch")
    if run.step >= recipe.epochs * job.per_epoch:
        say("all epochs are done: nothing is left to train")
        if not run.unvalidated and (finished := training_of(run.folder)):
            return finished if not job.share.index else {}
    try:
        with Ending(job.share) as ending:
            fit(trainee, run, job, ending, tensorboard)
    except SwinsError:
        raise
    except Exception as error:  # each backend has errors of its own
        for unreadable in filter(None, (run.unreadable, run.not_scored)):
            if unreadable.failed:  # in a thread of TensorFlow's, which tells it in its own way
                raise unreadable.failed from error
        if out_of_memory(error):
            whole = job.several and keras.backend.backend() == "tensorflow"  # where micro-batches are refused
            cache = "lower data.cache, " if getattr(recipe.data, "cache", 0) else ""
            raise SwinsError(
                f"out of memory at data.batch={recipe.data.batch}, optim.accumulate={recipe.optim.accumulate}: "
                f"{'' if whole else 'raise optim.accumulate, '}{cache}lower data.batch or set "
                "model.dtype=mixed_bfloat16, in another folder (-o) or with --overwrite; or set model.remat=True, with "
                "which this run goes on without --overwrite"
            ) from error
        raise
    if job.share.index:
        return {}
    return finish(trainee, run, job)


def finish(trainee, run, job):
    """Write model.keras, with averaged weights if there are, and result.json -> the result."""
    save_model(trainee, run.folder / "model.keras")
    run.write_log()  # it may have been killed before it did
    backend, last = keras.backend.backend(), run.rows[-1]
    result = {
        "task": job.task.name,
        "recipe": as_json(job.recipe),
        **{score.name: read_score(last[f"val_{score.name}"]) for score in job.task.scores},
        "images": last["val_images"],
        "best": run.best,
        "changes": run.changes(),
        "hours": round(last["seconds"] / 3600, 3),
        "parameters": trainee.count_params(),
        **job.facts,
        "machine": devices.machine(),
        "versions": f"keras {keras.__version__}; {backend} {sys.modules[backend].__version__}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write(run.folder / "result.json", json.dumps(result, indent=1) + "\n")
    return result


def make_deterministic():
    """Ask the backend for the same sums in the same order each time; JAX on CPUs needs no asking."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
