"""Whether reading images keeps up with training on them, in images/s -> benchmarks/input_pipeline.csv.

What is timed, each in a process of its own, in turns: reading alone (decoding, augmentation, batches; our pipeline, and
timm's loader as its training script makes it, with as many workers as cores); the training step alone, on one batch
again and again; and fit, which does both. Where reading and the step share the same cores, a fit that never leaves one
idle takes the sum of both times.

    python benchmarks/input_pipeline.py RECIPE DATA [NAME=VALUE ...]    adds the recipe's row, or replaces it
"""

import csv
import functools
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
TABLE = HERE / "input_pipeline.csv"
PARTS = ("reading", "reading_timm", "step", "fit")
ROUNDS, SECONDS, FIRST = 3, 10.0, 3  # batches that are not timed


def rate(batches, size):
    """Images/s of an iterator of batches."""
    for _ in itertools.islice(batches, FIRST):
        pass
    begun = time.perf_counter()
    for count, _ in enumerate(batches, 1):
        if time.perf_counter() - begun > SECONDS:
            return count * size / (time.perf_counter() - begun)
    raise SystemExit("the data set is too small to be timed")


def prepared(recipe, source, folder):
    """(trainee, training split, function that makes the batches) of a recipe."""
    from swins.task import task_of_recipe
    from swins.train import input_pipeline
    from swins.train.trainee import Trainee

    task = task_of_recipe(recipe)
    splits = task.splits(source, recipe)
    network = task.network(recipe, splits[0])
    reading = task.training(recipe, task.preparation(recipe, network, splits), splits[0])
    unreadable = input_pipeline.Unreadable(folder / "unreadable.txt", len(splits[0]))
    batches = functools.partial(input_pipeline.training_batches, splits[0], reading, recipe, unreadable)
    return Trainee(network, task, recipe), splits[0], batches


def reading(recipe, source, folder):
    *_, batches = prepared(recipe, source, folder)
    return rate(iter(batches()), recipe.data.batch)


def reading_timm(recipe, source, folder):
    """timm's loader with the recipe's augmentation; None where timm has no such augmentation."""
    if not getattr(recipe.augment, "scale", None) or (recipe.augment.rand_augment and recipe.augment.color_jitter):
        return None
    import timm.data
    from PIL import Image
    from timm.data import auto_augment

    from swins.checked_numbers import pair
    from swins.tags import look_up

    def posterize(image, bits, **options):
        """timm's, but for no bits at all, which Pillow has come to refuse: its loader would end there."""
        return auto_augment.posterize(image, bits, **options) if bits else Image.new(image.mode, image.size)

    operations = auto_augment.NAME_TO_OP
    operations |= {name: posterize for name in operations if name.startswith("Posterize")}
    a, named = recipe.augment, look_up(recipe.model.name)
    size = pair(recipe.model.image_size or named.variant.image_size)
    folder = next((p for name in ("train", "training") if (p := pathlib.Path(source) / name).is_dir()), source)
    dataset = timm.data.ImageDataset(str(folder))
    loader = timm.data.create_loader(
        dataset, (3, *size), recipe.data.batch, is_training=True, use_prefetcher=False, scale=a.scale, ratio=a.ratio,
        hflip=a.flip, color_jitter=a.color_jitter, auto_augment=a.rand_augment or None, re_prob=a.erase,
        re_mode="pixel", interpolation="bicubic", mean=recipe.data.mean or named.weights.mean,
        std=recipe.data.std or named.weights.std, num_workers=os.cpu_count(), persistent_workers=True,
    )  # fmt: skip
    mixer, classes = (lambda images, labels: (images, labels)), len(dataset.reader.class_to_idx)
    if a.mixup or a.cutmix:
        mixer = timm.data.Mixup(a.mixup, a.cutmix, None, a.mix, a.switch, "batch", True, a.smoothing, classes)
    return rate((mixer(*batch) for _ in itertools.count() for batch in loader), recipe.data.batch)


def fitted(model, recipe, batches):
    """Images/s of fit."""
    import keras

    from swins.train import loop

    class Clock(keras.callbacks.Callback):
        steps, begun, seconds = 0, None, 0.0

        def on_train_batch_end(self, batch, logs=None):
            self.steps += 1
            float(logs["loss"])  # as the run does
            now = time.perf_counter()
            if self.steps == FIRST:
                self.begun = now
            elif self.steps > FIRST:
                self.seconds = now - self.begun
                self.model.stop_training = self.seconds > SECONDS

    loop.compile_trainee(model, recipe, 1000)
    clock = Clock()
    steps = 1_000_000  # an end that is not reached: the clock stops it
    model.fit(batches, steps_per_epoch=steps, epochs=1, callbacks=[clock], shuffle=False, verbose=0)
    return (clock.steps - FIRST) * recipe.data.batch / recipe.optim.accumulate / clock.seconds


def step(recipe, source, folder):
    model, _, batches = prepared(recipe, source, folder)
    batch = next(iter(batches()))
    return fitted(model, recipe, (batch for _ in itertools.count()))


def fit(recipe, source, folder):
    model, _, batches = prepared(recipe, source, folder)
    return fitted(model, recipe, batches())


def row_of(name, facts, rates):
    """The table's row of the medians of each part's rates, in images/s; None for what was not measured."""
    middle = {part: None if None in found else statistics.median(found) for part, found in rates.items()}
    both = 1 / (1 / middle["reading"] + 1 / middle["step"])
    timm = middle["reading_timm"]
    return {
        "recipe": name,
        **facts,
        **{part: "" if value is None else f"{value:.1f}" for part, value in middle.items()},
        "reading_over_timm": f"{middle['reading'] / timm:.2f}" if timm else "",
        "reading_over_step": f"{middle['reading'] / middle['step']:.2f}",
        "fit_over_step": f"{middle['fit'] / middle['step']:.2f}",
        "fit_over_sum": f"{middle['fit'] / both:.2f}",
    }


def main(path, source, *settings):
    command = [sys.executable, "-P", __file__, path, source, *settings]
    rates = {part: [] for part in PARTS}
    for _ in range(ROUNDS):
        for part in PARTS:
            done = subprocess.run(
                command, env={**os.environ, "SWINS_PART": part}, stdout=subprocess.PIPE, check=True, text=True
            )
            facts, found = json.loads(done.stdout.splitlines()[-1])
            rates[part].append(found)
            print(part, found, file=sys.stderr)
    facts = {"data": pathlib.Path(source).name, "settings": " ".join(settings), **facts}
    new = row_of(pathlib.Path(path).stem, facts, rates)
    rows = []
    if TABLE.is_file():
        with open(TABLE, newline="") as file:
            rows = [r for r in csv.DictReader(file) if r["recipe"] != new["recipe"]]
    with open(TABLE, "w", newline="") as file:
        writer = csv.DictWriter(file, new, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted([*rows, new], key=lambda r: r["recipe"]))


def one(part, path, source, *settings):
    """Time a part, in this process."""
    if part == "reading_timm":
        import timm  # noqa: F401 (before TensorFlow, which would abort it)
    import keras

    from swins import recipes

    recipe = recipes.with_settings(recipes.load(path), settings)
    facts = {"batch": recipe.data.batch, "cores": os.cpu_count(), "backend": keras.backend.backend()}
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps([facts, globals()[part](recipe, source, pathlib.Path(folder))]))


if __name__ == "__main__":
    part = os.environ.get("SWINS_PART")
    one(part, *sys.argv[1:]) if part else main(*sys.argv[1:])
