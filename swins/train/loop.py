"""A training run: Keras' fit, from a recipe and a data set to a folder, that goes on where it was killed.

The folder holds recipe.json, checkpoints/, log.csv (a row an epoch), curves.png, best.keras, at the end model.keras and
result.json; unreadable.txt and unreadable_validation.txt if there were such images, and TensorBoard's events if asked
for.
"""

import contextlib
import datetime
import importlib.util
import json
import platform
import re
import sys

import keras

from swins import devices
from swins.data.layouts import find_splits, left_out
from swins.errors import SwinsError
from swins.resize import resize
from swins.tags import look_up
from swins.train import input_pipeline
from swins.train.folder import Run, save_model, write
from swins.train.optim import optimizer, peak_rate
from swins.train.progress import Ending, EveryBatch, Progress
from swins.train.recipes import as_json, model_options
from swins.train.start import begin_as_torch
from swins.weights.load import create


def new_model(recipe, num_classes):
    """The model of a recipe with the weights that it begins with."""
    wanted = recipe.model.num_classes
    if wanted not in (None, num_classes):
        raise SwinsError(
            f"model.num_classes must be the data's; got {wanted} and {num_classes}; leave it out, or choose other data"
        )
    name, options = recipe.model.name, model_options(recipe)
    if not recipe.model.weights:
        model = create(name, num_classes=num_classes, **options)
        if recipe.model.start:
            begin_as_torch(model, recipe.seed)
        return model
    sizes = {key: options.pop(key) for key in ("image_size", "window_size") if key in options}
    model = create(name, weights=recipe.model.weights, num_classes=num_classes, **options)
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


def out_of_memory(error):
    """Whether a backend says that there is no memory left."""
    return isinstance(error, MemoryError) or bool(
        re.search(r"resource_?exhausted|out of memory|\boom\b", f"{type(error).__name__} {error}", re.I)
    )


def fit(model, run, recipe, splits, prepare, share, ending, tensorboard):
    """Train from where the run is to its end, epoch by epoch."""
    training, validation = splits
    classes, per_epoch = len(training.classes), batches_per_epoch(recipe, training)
    micro = recipe.data.batch // recipe.optim.accumulate  # what there is memory for
    mine = f".{share.index}" if share.index else ""
    run.unreadable, run.not_scored = (
        input_pipeline.Unreadable(
            run.folder / name, max(1, int(input_pipeline.MOST_UNREADABLE * len(split) / share.count))
        )
        for name, split in zip((f"unreadable{mine}.txt", f"unreadable_validation{mine}.txt"), splits, strict=True)
    )

    def validate(model, callbacks):
        run.not_scored.forget()  # it may have been mended
        held, count = input_pipeline.validation_batches(
            validation, prepare, micro, classes, run.not_scored, recipe.data.threads, share
        )
        averages = [keras.callbacks.SwapEMAWeights()] if recipe.optim.ema else []
        watching = EveryBatch([*averages, *callbacks], model=model)
        told = model.evaluate(held, steps=count, callbacks=watching, return_dict=True, verbose=0)
        missing = run.not_scored.of_all()
        return {**told, "images": len(validation) - missing, "unreadable": missing}

    progress = Progress(run, recipe, per_epoch, validate, run.unreadable, ending, writes=share.index == 0)
    callbacks = [progress]
    if tensorboard and share.index == 0:
        callbacks.append(keras.callbacks.TensorBoard(run.folder / "tensorboard", write_graph=False))
    if run.unvalidated:
        run.say(f"epoch {run.unvalidated['epoch']} is trained and not yet validated")
        progress.set_model(model)
        progress.validated()
    while run.step < recipe.epochs * per_epoch:
        epoch, done = divmod(run.step, per_epoch)  # the epoch that was killed on its way is a fit of its own
        model.fit(
            input_pipeline.training_batches(training, recipe, prepare, classes, run.unreadable, run.step, share),
            initial_epoch=epoch,
            epochs=epoch + 1 if done else recipe.epochs,
            steps_per_epoch=per_epoch - done,
            callbacks=EveryBatch(callbacks, add_history=True, model=model),
            shuffle=False,
            verbose=0,
        )


def require_tensorboard():
    """Raise SwinsError if events cannot be written."""
    for package in ("tensorflow", "tensorboard"):
        if importlib.util.find_spec(package) is None:
            raise SwinsError(f"--tensorboard needs {package}: pip install {package}; log.csv has losses and accuracies")


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
    input_pipeline.reader()
    if tensorboard:
        require_tensorboard()
    scope, share, count = devices.start()
    devices.check_batch("data.batch", recipe.data.batch, count, recipe.optim.accumulate)
    splits = find_splits(source, recipe.data.held_out, recipe.seed)
    strays = [path for split in splits for path in split.strays]
    if strays:
        say(left_out(source, strays))
    for note in (note for split in splits for note in split.notes):
        say(note)
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
    prepare = input_pipeline.evaluation_transform(
        recipe, size, look_up(recipe.model.name).weights, model.variant.in_chans
    )
    input_pipeline.require_channels(splits, prepare)
    with contextlib.closing(Run(folder, say)) as run:
        devices.agreed(share, lambda: run.open(recipe, splits, overwrite))
        return train_in(run, model, recipe, splits, prepare, (scope, share, count), tensorboard)


def train_in(run, model, recipe, splits, prepare, on, tensorboard):
    """Train a compiled model in the folder of a run -> the result; on is what devices.start gave."""
    (scope, share, count), say = on, run.say
    size, per_epoch, classes = prepare.image_size, batches_per_epoch(recipe, splits[0]), splits[0].classes
    with scope():
        run.restore(model, share)
    say(f"{recipe.model.name}: {model.count_params():,} parameters, {size[0]}x{size[1]} pixels, {count} device(s)")
    say(f"{len(splits[0])} images to train on, {len(splits[1])} to validate, {len(classes)} classes")
    say(f"learning rate up to {peak_rate(recipe):.3g}, {recipe.data.batch} images a batch")
    if run.step >= recipe.epochs * per_epoch:
        say("all epochs are done: nothing is left to train")
    try:
        with Ending(share) as ending:
            fit(model, run, recipe, splits, prepare, share, ending, tensorboard)
    except SwinsError:
        raise
    except Exception as error:  # each backend has errors of its own
        for unreadable in filter(None, (run.unreadable, run.not_scored)):
            if unreadable.failed:  # in a thread of TensorFlow's, which tells it in its own way
                raise unreadable.failed from error
        if out_of_memory(error):
            whole = count > 1 and keras.backend.backend() == "tensorflow"  # where micro-batches are refused
            raise SwinsError(
                f"out of memory at data.batch={recipe.data.batch}, optim.accumulate={recipe.optim.accumulate}: "
                f"{'' if whole else 'raise optim.accumulate, '}lower data.batch or set model.dtype=mixed_bfloat16, in "
                "another folder (-o) or with --overwrite; or set model.remat=True, with which this run goes on without "
                "--overwrite"
            ) from error
        raise
    if share.index:
        return {}
    return finish(model, run, recipe, prepare, classes)


def finish(model, run, recipe, prepare, classes):
    """Write model.keras, with averaged weights if there are, and result.json -> the result."""
    save_model(model, run.folder / "model.keras")
    run.write_log()  # it may have been killed before it did
    backend = keras.backend.backend()
    last = run.rows[-1]
    result = {
        "recipe": as_json(recipe),
        "top1": float(last["val_top1"]),
        "top5": float(last["val_top5"]),
        "images": last["val_images"],
        "best": run.best,
        "changes": run.changes(),
        "hours": round(last["seconds"] / 3600, 3),
        "parameters": model.count_params(),
        "classes": list(classes),
        "preprocess": {
            "image_size": prepare.image_size,
            "crop": recipe.data.crop,
            "mean": prepare.mean,
            "std": prepare.std,
        },
        "machine": f"{platform.system()} {platform.machine()}, {devices.cores()} CPUs",
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
