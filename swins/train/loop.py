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
import shutil
import sys
from dataclasses import dataclass

import keras
import numpy as np

from swins import devices
from swins.data.oddities import notes_on
from swins.data.split import left_out
from swins.errors import SwinsError
from swins.files import replacing, write
from swins.recipes import Recipe, as_json
from swins.run_result import training_of
from swins.score import read_score
from swins.task import Task, task_of_recipe
from swins.train import input_pipeline
from swins.train.folder import Run, save_model
from swins.train.optimisers import optimiser
from swins.train.phases import phase_of_epoch, phase_of_state
from swins.train.progress import Ending, EveryBatch, Progress
from swins.train.run_plan import chance_in, enough, learnt_by_heart, near_guessing, plan, settings_text
from swins.train.schedules import peak_rate
from swins.train.trainee import Trainee, momentum_of_statistics
from swins.train.validation import Validation, examiner, validate


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
                f"{settings_text(enough(self.recipe, len(training)))}"
            )
        images = len(training) // batch * batch
        if self.readings:
            images = input_pipeline.samples_per_epoch(training, self.readings[0], batch)
        if not images:
            raise SwinsError(f"data.batch must not exceed a group's training images; got {batch}; lower it")
        return (self.recipe.updates_per_epoch or images // batch) * optim.accumulate

    def plan(self) -> list[str]:
        """Lines on what the run will do, as far as it is known."""
        return plan(self.recipe, len(self.splits[0]), self.per_epoch // self.recipe.optim.accumulate)


def compile_trainee(trainee, recipe, updates_per_epoch, several=False):
    """Compile for a recipe, for one device or several, and build the optimiser."""
    compiled = recipe.model.compile
    if several and keras.backend.backend() == "tensorflow":
        if recipe.optim.accumulate > 1:
            raise SwinsError("optim.accumulate is for one device on TensorFlow; set it to 1, or KERAS_BACKEND=jax")
        compiled = bool(compiled)  # a replica's step reaches the others' from outside of a compiled program
    depths = trainee.task.depths(trainee.network)
    updates = recipe.epochs * updates_per_epoch
    trainee.statistics_momentum = momentum_of_statistics(recipe.optim.ema, updates, recipe.optim.accumulate)
    trainee.compile(
        optimizer=optimiser(trainee.trainable_variables, recipe, updates_per_epoch, depths),
        jit_compile="auto" if compiled is None else compiled,
    )
    trainee.optimizer.build(trainee.trainable_variables)


def begin(trainee, job, phase):
    """Make a Trainee ready for a phase of its run, with an optimiser that has done nothing yet."""
    trainee.trunk.freeze(phase.frozen)
    compile_trainee(trainee, phase.recipe, job.per_epoch // job.recipe.optim.accumulate, job.several)


def say_phase(trainee, job, phase, say):
    """Say what a phase is, where there are several."""
    if not job.recipe.frozen.epochs:
        return
    count = sum(int(np.prod(variable.shape)) for variable in trainee.trainable_variables)
    which = "but the backbone's" if phase.frozen else "all"
    first, last = phase.first + 1, phase.end
    epochs = f"epoch {first}" if first == last else f"epochs {first} to {last}"
    say(f"{epochs}: {count:,} weights learn, {which}; rate up to {peak_rate(phase.recipe):.3g}")


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
        input_pipeline.Unreadable(run.folder / name, limit(split, share), run.say)
        for name, split in zip(names, job.splits, strict=True)
    )

    facts = job.facts
    run.scores = job.task.scores_of(facts)
    with job.scope():
        examine = examiner(trainee, facts, share, job.devices)

    def validated(trainee, heed):
        run.not_scored.forget()  # it may have been mended
        batches, count = input_pipeline.validation_batches(
            validation, job.readings[1], micro, run.not_scored, recipe.data.threads, share
        )
        with averaged(trainee):
            held = (batch for batch, _ in zip(batches, range(count), strict=False))
            loss, records = validate(job.task, held, facts, share, examine, heed)
            if job.task.epoch_pictures and not share.index:
                run.draw(job.task.epoch_pictures(recipe, trainee.network, facts, run.unvalidated["epoch"]))
        missing = run.not_scored.of_all()
        if not records:
            raise SwinsError(f"{validation.name}: none of its {len(validation)} validation images can be read")
        run.remarks = job.task.remarks(records, facts)
        return Validation(loss, job.task.scored(records, facts), len(validation) - missing, missing)

    progress = Progress(run, recipe, per_epoch, validated, run.unreadable, ending, writes=share.index == 0)
    callbacks = [progress]
    if tensorboard and share.index == 0:
        callbacks.append(keras.callbacks.TensorBoard(run.folder / "tensorboard", write_graph=False))
    if run.unvalidated:
        run.say(f"epoch {run.unvalidated['epoch']} is trained and not yet validated")
        progress.set_model(trainee)
        progress.validated()
    current = phase_of_state(recipe, run.step, per_epoch)
    if not run.ended(recipe, per_epoch) and phase_of_epoch(recipe, run.step // per_epoch) == current:
        say_phase(trainee, job, current, run.say)
    while not run.ended(recipe, per_epoch):
        epoch, done = divmod(run.step, per_epoch)  # what is left of an epoch, when a run goes on, is a fit of its own
        if (phase := phase_of_epoch(recipe, epoch)) != current:
            current = phase
            with job.scope():
                begin(trainee, job, phase)
            progress.begins_phase()
            say_phase(trainee, job, phase, run.say)
        trainee.fit(
            input_pipeline.batches_to_fit(training, job.readings[0], recipe, run.unreadable, run.step, share),
            initial_epoch=epoch,
            epochs=epoch + 1 if done else phase.end,
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
    planned = job.plan()  # refuses a batch that is too large, before anything is made
    for line in planned:
        say(line)
    for line in notes_on(*job.splits):
        say(line)
    if recipe.deterministic:
        make_deterministic()
    keras.utils.set_random_seed(recipe.seed)
    with scope():
        network = task.network(recipe, job.splits[0])
        preparation = task.preparation(recipe, network, job.splits)
        makers = zip((task.training, task.validating), job.splits, strict=True)
        readings = tuple(reading(recipe, preparation, split) for reading, split in makers)
        job = dataclasses.replace(job, network=network, preparation=preparation, readings=readings)
        for line in job.plan():
            if line not in planned:  # batches of one group each are fewer
                say(line)
        trainee = Trainee(network, task, recipe)
        if recipe.frozen.epochs and not trainee.trunk.variables:
            raise SwinsError(f"frozen.epochs is of networks with a backbone; {network.name} has none; leave it out")
    with contextlib.closing(Run(folder, task, say)) as run:
        devices.agreed(share, lambda: run.open(recipe, job.splits, overwrite))
        return train_in(run, trainee, job, tensorboard)


def train_in(run, trainee, job, tensorboard):
    """Train a compiled Trainee in the folder of a run -> the result."""
    recipe, say, (training, validation) = job.recipe, run.say, job.splits
    with job.scope():
        step_phase = lambda step: phase_of_state(recipe, step, job.per_epoch)  # noqa: E731
        run.restore(trainee, job.share, lambda step: begin(trainee, job, step_phase(step)))
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
    grey = "grey " * (len(getattr(job.preparation, "mean", ())) == 1)  # also of images in colour
    pixels = f"{'x'.join(map(str, job.preparation.image_size))} {grey}pixels"
    say(f"{recipe.model.name}: {trainee.count_params():,} parameters, {pixels}, {job.devices} device(s)")
    classes = f", {len(training.classes)} classes" if training.classes else ""
    say(f"{len(training)} images to train on, {len(validation)} to validate{classes}")
    say(
        f"learning rate up to {peak_rate(recipe):.3g}, {recipe.data.batch} images a batch; the first step takes longest"
    )
    if run.ended(recipe, job.per_epoch):
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
    backend, kept = keras.backend.backend(), run.last_row(job.recipe)
    if run.step < job.recipe.epochs * job.per_epoch:
        run.say(
            f"stopped early: no epoch of the last {run.waited(job.recipe)} was better than epoch {run.best['epoch']}"
        )
    if kept is run.rows[-1]:
        save_model(trainee, run.folder / "model.keras")
    else:
        chance = chance_in(int(kept["val_images"]))
        run.say(f"model.keras has the weights of the best epoch, {kept['epoch']} of {len(run.rows)}{chance}")
        if not (run.folder / "best.keras").is_file():
            raise SwinsError(f"{run.folder / 'best.keras'} is gone; --set keep=None takes the last epoch's weights")
        with replacing(run.folder / "model.keras") as partial:
            shutil.copyfile(run.folder / "best.keras", partial)
    run.write_log()  # it may have been killed before it did
    losses = float(kept["val_loss"]), float(run.rows[-1]["loss"])
    updates = job.recipe.epochs * job.per_epoch // job.recipe.optim.accumulate  # planned: it may have stopped early
    line = near_guessing(job.recipe, updates, *losses, job.task.guessing(job.facts))
    line = line or learnt_by_heart(job.recipe, run.rows)
    for remark in filter(None, (line, *run.remarks)):
        run.say(remark)
    result = {
        "task": job.task.name,
        "recipe": as_json(job.recipe),
        **{score.name: read_score(kept[f"val_{score.name}"]) for score in run.scores},
        "images": kept["val_images"],
        "epoch": kept["epoch"],
        "best": run.best,
        "changes": run.changes(),
        "hours": round(run.rows[-1]["seconds"] / 3600, 3),
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
