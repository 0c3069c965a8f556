"""A training run: Keras' fit, from a recipe and a data set to a folder, that goes on where it was killed.

The folder holds recipe.json, checkpoints/, log.csv (a row an epoch), curves.png, at the end model.keras and
result.json; unreadable.txt if there were such images, and TensorBoard's events if asked for.
"""

import csv
import datetime
import importlib.util
import io
import json
import math
import os
import pathlib
import platform
import re
import shutil
import sys
import time

import keras
import numpy as np

from swins import devices
from swins.convert.load import create
from swins.errors import SwinsError
from swins.resize import resize
from swins.tags import find
from swins.train import data as datasets
from swins.train.checkpoints import Checkpoints, loss_variables
from swins.train.optim import optimizer
from swins.train.recipe import TUNED, as_json, differences, model_options

COLUMNS = ("epoch", "learning_rate", "loss", "val_loss", "val_top1", "val_top5", "val_images", "unreadable", "seconds")
SAY_EVERY = 30.0  # seconds
MOST_CLASSES_NAMED = 1000
WRITTEN = ("checkpoints", "tensorboard", "log.csv", "curves.png", "model.keras", "result.json", "unreadable*.txt")


def new_model(recipe, num_classes):
    """The model of a recipe with the weights that it begins with."""
    wanted = recipe.model.num_classes
    if wanted not in (None, num_classes):
        raise SwinsError(
            f"model.num_classes must be the data's; got {wanted} and {num_classes}; leave it out, or choose other data"
        )
    name, options = recipe.model.name, model_options(recipe)
    if not recipe.model.weights:
        return create(name, num_classes=num_classes, **options)
    sizes = {key: options.pop(key) for key in ("image_size", "window_size")}
    model = create(name, weights=recipe.model.weights, num_classes=num_classes, **options)
    sizes = {key: value for key, value in sizes.items() if value is not None}
    return resize(model, **sizes) if sizes else model  # which carries bias tables over


def compile_model(model, recipe, steps_per_epoch, several=False):
    """Compile for a recipe, for one device or several, and build the optimiser."""
    compiled = recipe.model.compile
    if several and keras.backend.backend() == "tensorflow":
        if recipe.optim.accumulate > 1:
            raise SwinsError("optim.accumulate is for one device on TensorFlow; set it to 1, or KERAS_BACKEND=jax")
        compiled = bool(compiled)  # a replica's step reaches the others' from outside of a compiled program
    model.compile(
        optimizer=optimizer(model, recipe, steps_per_epoch),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        weighted_metrics=[
            keras.metrics.CategoricalCrossentropy(from_logits=True, name="cross_entropy"),
            keras.metrics.CategoricalAccuracy(name="top1"),
            keras.metrics.TopKCategoricalAccuracy(min(5, model.variant.num_classes), name="top5"),
        ],
        jit_compile="auto" if compiled is None else compiled,
    )
    model.optimizer.build(model.trainable_variables)


class Run:
    """A folder, and how far the run in it has come."""

    def __init__(self, folder, say):
        self.folder, self.say = pathlib.Path(folder), say
        self.checkpoints = Checkpoints(self.folder / "checkpoints")
        self.rows, self.step, self.seconds = [], 0, 0.0
        self.unreadable = self.not_scored = None

    def open(self, recipe, splits, overwrite):
        """Make the folder, or find that it is of the same recipe and data. Raises SwinsError if it is not."""
        path, mine = self.folder / "recipe.json", as_json(recipe)
        for part, split in zip(("training", "validation"), splits, strict=True):
            mine[f"{part} data"] = f"{len(split)} images, {split.digest()}"
        if path.is_file() and overwrite:
            self.clear(path)
        elif path.is_file():
            changed = differences(recorded(path), mine)
            if set(changed) - set(TUNED):
                raise SwinsError(
                    f"{self.folder} holds a run of other settings ({'; '.join(changed.values())}); go on with the same "
                    "ones, choose another folder with -o, or begin again with --overwrite; on the way only "
                    f"{', '.join(TUNED)} may change"
                )
            if changed:
                self.say(f"going on with other settings: {'; '.join(changed.values())}")
        elif self.folder.exists() and any(not p.name.startswith(".") for p in self.folder.iterdir()):
            raise SwinsError(f"{self.folder} holds other files and no run; choose another folder with -o")
        self.folder.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps(mine, indent=1) + "\n")

    def clear(self, path):
        """Delete what a run wrote, its record last, and nothing else. Raises SwinsError if it is no run's."""
        if path.stat().st_size:
            recorded(path)
        for name in WRITTEN:
            for found in self.folder.glob(name):
                shutil.rmtree(found) if found.is_dir() else found.unlink()
        path.unlink()

    def restore(self, model):
        """Go on from the newest sound checkpoint, if there is one."""
        facts = self.checkpoints.restore(model, self.say)
        if facts:
            self.step, self.rows, self.seconds = facts["step"], facts["rows"], facts["seconds"]
            self.say(f"going on after step {self.step}, of {self.folder}")

    def write_log(self):
        """log.csv and curves.png of the rows so far."""
        lines = io.StringIO()
        writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write(self.folder / "log.csv", lines.getvalue())
        draw(self.rows, self.folder / "curves.png")


def recorded(path):
    """The settings and data of a run's recipe.json. Raises SwinsError if it is something else."""
    try:
        record = json.loads(path.read_text())
        if {"model.name", "training data"} <= record.keys():
            return record
    except (ValueError, AttributeError):
        pass
    raise SwinsError(f"{path} is no record of a run; choose another folder with -o, or move it away")


def write(path, text):
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


class Progress(keras.callbacks.Callback):
    """Counts batches, saves the state, keeps the log, says how far it is, and stops when the loss is no number."""

    def __init__(self, run, recipe, per_epoch, validate, unreadable, writes):
        super().__init__()
        self.run, self.recipe, self.per_epoch, self.writes = run, recipe, per_epoch, writes
        self.validate, self.unreadable = validate, unreadable
        self.before, self.begun, self.first = run.seconds, time.perf_counter(), run.step
        self.said, self.loss_so_far = self.begun, None

    def seconds(self):
        """Of the whole run, its earlier parts too."""
        return self.before + time.perf_counter() - self.begun

    def save(self):
        if self.writes:
            self.run.checkpoints.save(self.model, self.run.step, {"rows": self.run.rows, "seconds": self.seconds()})

    def on_train_begin(self, logs=None):
        if self.run.step % self.per_epoch:  # fit forgets what an epoch's mean loss was when the run was killed
            self.loss_so_far = [np.array(keras.ops.convert_to_tensor(v)) for v in loss_variables(self.model)]

    def on_epoch_begin(self, epoch, logs=None):
        if self.loss_so_far:
            for variable, value in zip(loss_variables(self.model), self.loss_so_far, strict=True):
                variable.assign(value)
            self.loss_so_far = None

    def on_train_batch_end(self, batch, logs=None):
        self.run.step += 1
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            if self.writes:
                self.run.checkpoints.drop(self.run.step - 1)  # whose update gave it, while its own loss was from before
            self.stop(f"the loss is {loss} at step {self.run.step}")
        every = self.recipe.checkpoint_steps
        if every and self.run.step % every == 0 and self.run.step % self.per_epoch:
            self.save()
        if time.perf_counter() - self.said > SAY_EVERY:
            self.said = time.perf_counter()
            self.run.say(self.how_far(loss))

    def stop(self, reason):
        """Raise SwinsError, with what to do about a loss that is no number."""
        raise SwinsError(
            f"{reason}; the checkpoints in {self.run.checkpoints.folder} are from before; go on from there with a "
            "lower optim.learning_rate, or with optim.clip_norm"
        )

    def how_far(self, loss):
        """A line about the running epoch."""
        batch = self.recipe.data.batch // self.recipe.optim.accumulate
        speed = (self.run.step - self.first) / (time.perf_counter() - self.begun)
        left = datetime.timedelta(seconds=round((self.recipe.epochs * self.per_epoch - self.run.step) / speed))
        epoch, step = divmod(self.run.step - 1, self.per_epoch)
        return (
            f"epoch {epoch + 1} of {self.recipe.epochs}, step {step + 1} of {self.per_epoch}, loss {loss:.4f}, "
            f"{speed * batch:.0f} images/s, {left} left"
        )

    def on_epoch_end(self, epoch, logs=None):
        getattr(self.model, "jax_state_sync", lambda: None)()
        told = self.validate(self.model)
        if not math.isfinite(told["cross_entropy"]):
            self.stop(f"the validation loss is {told['cross_entropy']} after step {self.run.step}")
        row = {
            "epoch": epoch + 1,
            "learning_rate": f"{float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)):.3e}",
            "loss": f"{float(logs['loss']):.6f}",
            "val_loss": f"{float(told['cross_entropy']):.6f}",
            "val_top1": f"{float(told['top1']):.6f}",
            "val_top5": f"{float(told['top5']):.6f}",
            "val_images": told["images"],
            "unreadable": self.unreadable.of_all() + told["unreadable"],
            "seconds": round(self.seconds()),
        }
        self.run.rows = [*self.run.rows, row]
        self.save()
        if self.writes:
            self.run.write_log()
        self.run.say(", ".join(f"{key} {value}" for key, value in row.items()))


def draw(rows, path):
    """A picture of losses, accuracy and learning rate over the epochs."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return  # log.csv has the numbers
    figure = Figure((12, 3.2), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    panels = {"loss": ("loss", "val_loss"), "accuracy": ("val_top1", "val_top5"), "learning rate": ("learning_rate",)}
    for axis, (title, names) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for name in names:
            axis.plot(epochs, [float(row[name]) for row in rows], label=name, marker="." if len(rows) < 40 else "")
        axis.set(title=title, xlabel="epoch")
        axis.legend()
    figure.savefig(path, dpi=100)


def out_of_memory(error):
    """Whether a backend says that there is no memory left."""
    return isinstance(error, MemoryError) or bool(
        re.search(r"resource_?exhausted|out of memory|\boom\b", f"{type(error).__name__} {error}", re.I)
    )


def fit(model, run, recipe, splits, prepare, share, tensorboard):
    """Train from where the run is to its end, epoch by epoch -> the callback that watched."""
    training, validation = splits
    classes, per_epoch = len(training.classes), batches_per_epoch(recipe, training)
    mine = f".{share.index}" if share.index else ""
    run.unreadable, run.not_scored = (
        datasets.Unreadable(run.folder / name, max(1, int(datasets.MOST_UNREADABLE * len(split) / share.count)))
        for name, split in zip((f"unreadable{mine}.txt", f"unreadable_validation{mine}.txt"), splits, strict=True)
    )

    def validate(model):
        held, count = datasets.validation_batches(
            validation, prepare, recipe.data.batch, classes, run.not_scored, recipe.data.threads, share
        )
        averages = [keras.callbacks.SwapEMAWeights()] if recipe.optim.ema else []
        told = model.evaluate(held, steps=count, callbacks=averages, return_dict=True, verbose=0)
        missing = run.not_scored.of_all()
        return {**told, "images": len(validation) - missing, "unreadable": missing}

    progress = Progress(run, recipe, per_epoch, validate, run.unreadable, writes=share.index == 0)
    callbacks = [progress]
    if tensorboard and share.index == 0:
        require_tensorboard()
        callbacks.append(keras.callbacks.TensorBoard(run.folder / "tensorboard", write_graph=False))
    while run.step < recipe.epochs * per_epoch:
        epoch, done = divmod(run.step, per_epoch)  # the epoch that was killed on its way is a fit of its own
        model.fit(
            datasets.training_batches(training, recipe, prepare, classes, run.unreadable, run.step, share),
            initial_epoch=epoch,
            epochs=epoch + 1 if done else recipe.epochs,
            steps_per_epoch=per_epoch - done,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        )
    return progress


def require_tensorboard():
    """Raise SwinsError if events cannot be written."""
    for package in ("tensorflow", "tensorboard"):
        if importlib.util.find_spec(package) is None:
            raise SwinsError(f"--tensorboard needs {package}: pip install {package}; log.csv has the same numbers")


def batches_per_epoch(recipe, training):
    """Calls of the training step an epoch; `accumulate` of them are one update."""
    if len(training) < recipe.data.batch:
        raise SwinsError(
            f"data.batch must not exceed the training images; got {recipe.data.batch} and {len(training)}; lower it: "
            f"--set data.batch={max(2, len(training) // 4 * 2)}"
        )
    return len(training) // recipe.data.batch * recipe.optim.accumulate


def train(recipe, source, folder, *, overwrite=False, tensorboard=False, say=print):
    """Train a recipe on a data set -> the result, a dict, which result.json in the folder holds too.

    Started again on the same folder it goes on: from the newest checkpoint that is sound, with the same learning rates,
    averages, order of the data and random numbers.

    Args:
        recipe: a Recipe.
        source: a data set, as `find_splits` takes it.
        folder: where everything goes.
        overwrite: begin again, and delete the run that is there.
        tensorboard: write TensorBoard's events too.
        say: what is told of progress, a line at a time.

    Raises:
        SwinsError: bad data, settings that cannot work, a loss that is no number, or too little memory.
    """
    scope, share, count = devices.start()
    devices.check_batch("data.batch", recipe.data.batch, count, recipe.optim.accumulate)
    splits = datasets.find_splits(source, recipe.data.held_out, recipe.seed)
    for split in splits:
        if split.strays:
            few = ", ".join(str(path) for path in split.strays[:3])
            say(f"{len(split.strays)} files in {source} are no images by their endings and are left out: {few}, ...")
    per_epoch = batches_per_epoch(recipe, splits[0])
    if recipe.deterministic:
        make_deterministic()
    keras.utils.set_random_seed(recipe.seed)
    classes = splits[0].classes
    with scope():
        model = new_model(recipe, len(classes))
        compile_model(model, recipe, per_epoch // recipe.optim.accumulate, several=count > 1)
    size = model.variant.image_size
    if None in size:
        raise SwinsError("model.image_size must be given: images of a batch have one size; got any")
    prepare = datasets.evaluation_transform(recipe, size, find(recipe.model.name)[3], model.variant.in_chans)
    run = Run(folder, say)
    if share.index == 0:
        run.open(recipe, splits, overwrite)
    devices.wait(share)
    with scope():
        run.restore(model)
    say(f"{recipe.model.name}: {model.count_params():,} parameters, {size[0]}x{size[1]} pixels, {count} device(s)")
    say(f"{len(splits[0])} images to train on, {len(splits[1])} to validate, {len(classes)} classes")
    try:
        progress = fit(model, run, recipe, splits, prepare, share, tensorboard)
    except SwinsError:
        raise
    except Exception as error:  # each backend has errors of its own
        for unreadable in filter(None, (run.unreadable, run.not_scored)):
            if unreadable.failed:  # in a thread of TensorFlow's, which tells it in its own way
                raise unreadable.failed from error
        if out_of_memory(error):
            raise SwinsError(
                f"out of memory at data.batch={recipe.data.batch}, optim.accumulate={recipe.optim.accumulate}: raise "
                "optim.accumulate, lower data.batch or set model.dtype=mixed_bfloat16, in another folder (-o) or with "
                "--overwrite; or set model.remat=True, with which this run goes on"
            ) from error
        raise
    if share.index:
        return {}
    return finish(model, run, recipe, prepare, classes, progress)


def finish(model, run, recipe, prepare, classes, progress):
    """Write model.keras, with averaged weights if there are, and result.json -> the result."""
    if recipe.optim.ema:
        model.optimizer.average_into(model.trainable_variables)
    if keras.distribution.distribution():  # the file is written by one process: nothing may wait for the others
        keras.distribution.set_distribution(None)
    plain = type(model).from_config(model.get_config())
    plain.set_weights(model.get_weights())
    plain.save(run.folder / ".model.partial.keras")
    (run.folder / ".model.partial.keras").replace(run.folder / "model.keras")
    run.write_log()  # it may have been killed before it did
    backend = keras.backend.backend()
    last = run.rows[-1]
    result = {
        "recipe": as_json(recipe),
        "top1": float(last["val_top1"]),
        "top5": float(last["val_top5"]),
        "images": last["val_images"],
        "hours": round(progress.seconds() / 3600, 3),
        "parameters": model.count_params(),
        "classes": list(classes) if len(classes) <= MOST_CLASSES_NAMED else len(classes),
        "preprocess": {
            "image_size": prepare.image_size,
            "crop": recipe.data.crop,
            "mean": prepare.mean,
            "std": prepare.std,
        },
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
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
