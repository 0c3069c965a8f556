"""The layouts that data sets have: each recognises a folder, and reads it as Splits. A new one is a file and a row.

What a row says is in Layout; `register_layout` adds one from elsewhere.
"""

import pathlib
from collections.abc import Callable
from dataclasses import dataclass

from swins.data.cifar10 import TEST_BATCH, TRAIN_BATCHES, from_cifar
from swins.data.class_folders import folders, from_folders, from_one_folder, from_validation_folder, parts
from swins.data.idx import TRAIN_IMAGES, from_idx, from_test_files
from swins.data.split import Arrays, Split, require_label
from swins.data.tfds import Stored, from_tfds
from swins.data.tiny_imagenet import ANNOTATIONS, from_tiny_imagenet
from swins.errors import SwinsError

TEST_ALONE = "idx_test:"


@dataclass(frozen=True)
class Layout:
    """How a data set lies in a folder.

    words: what it is, for the error where no layout fits; recognises: folder -> whether it is one.
    splits: (folder, held_out, seed) -> (Split to train on, Split to validate on); held_out is the part of each class
        that is kept for validation where nothing else is, seed which images those are.
    validation: folder -> the Split that models are scored on, or None where the layout has none of its own.
    holds_out: whether `splits` keeps images for validation that are among those to train on where nothing else is.
    """

    words: str
    recognises: Callable[[pathlib.Path], bool]
    splits: Callable[[pathlib.Path, float, int], tuple[Split, Split]]
    validation: Callable[[pathlib.Path], Split | None] = lambda folder: None
    holds_out: bool = False


def cifar10(folder, held_out, seed):
    """Both Splits of CIFAR-10."""
    return from_cifar(folder, sorted(folder.glob(TRAIN_BATCHES))), from_cifar(folder, [folder / TEST_BATCH])


def one_folder(folder, held_out, seed):
    """Both Splits of class folders without validation images, which train/ may lie around."""
    training = parts(folder)[0]
    return from_one_folder(training if training and folders(training) else folder, held_out, seed)


LAYOUTS = [  # the first that recognises a folder reads it
    Layout(
        "Tiny ImageNet's layout",
        lambda folder: bool(parts(folder)[0]) and (folder / ANNOTATIONS).is_file(),
        lambda folder, *_: from_tiny_imagenet(folder),
        lambda folder: from_tiny_imagenet(folder)[1],
    ),
    Layout(
        "CIFAR-10's *.bin",
        lambda folder: (folder / TEST_BATCH).is_file(),
        cifar10,
        lambda folder: from_cifar(folder, [folder / TEST_BATCH]),
    ),
    Layout("IDX files", lambda folder: (folder / TRAIN_IMAGES).is_file(), lambda folder, *_: from_idx(folder)),
    Layout(
        "train/ and val/ of such",
        lambda folder: all(parts(folder)),
        lambda folder, *_: from_folders(folder, *parts(folder)),
        lambda folder: from_validation_folder(folder, *parts(folder)),
    ),
    Layout("a folder a class", lambda folder: bool(folders(folder)), one_folder, holds_out=True),
]


def register_layout(layout: Layout) -> None:
    """Add a layout, which is asked before all others."""
    LAYOUTS.insert(0, layout)


def layout_of(folder: pathlib.Path) -> Layout | None:
    """The layout of a folder, or None."""
    return next((layout for layout in LAYOUTS if layout.recognises(folder)), None)


def validation_of(folder: pathlib.Path) -> Split | None:
    """The validation Split of a folder whose layout has one of its own; None for other layouts."""
    layout = layout_of(folder)
    return layout.validation(folder) if layout else None


def holds_out(source) -> bool:
    """Whether a data set has no validation images of its own, so that `find_splits` keeps some for these."""
    if str(source).startswith(TEST_ALONE):
        return True
    layout = None if str(source).startswith("tfds:") else layout_of(pathlib.Path(source))
    return bool(layout and layout.holds_out)


def find_splits(source, held_out=0.1, seed=0):
    """Recognise a data set -> (Split to train on, Split to validate on).

    Args:
        source: a folder with train/ and val/ of class folders (ImageNet, Places365), or of class folders alone; Tiny
            ImageNet's; CIFAR-10's binary files; IDX files; "idx_test:FOLDER" for the test images of these alone; or
            "tfds:NAME".
        held_out: part of each class that is kept for validation where there are class folders or test images alone.
        seed: which images those are.

    Raises:
        SwinsError: if it is none of these, is empty, has fewer than two classes, a class without images to train on, or
            a label that is no class.
    """
    folder = pathlib.Path(source)
    if str(source).startswith("tfds:"):
        splits = from_tfds(str(source).removeprefix("tfds:"))
    elif str(source).startswith(TEST_ALONE):
        splits = from_test_files(pathlib.Path(str(source).removeprefix(TEST_ALONE)), held_out, seed)
    elif not folder.is_dir():
        raise SwinsError(f"{source}: no such folder; give a folder of images or tfds:NAME")
    elif layout := layout_of(folder):
        splits = layout.splits(folder, held_out, seed)
    else:
        *others, last = [layout.words for layout in reversed(LAYOUTS)]
        raise SwinsError(f"{source}: holds no images to train on: it needs {', '.join(others)}, or {last}")
    for part, split in zip(("training", "validation"), splits, strict=True):
        if not len(split):
            raise SwinsError(
                f"{source}: holds no {part} images; it needs images of a known ending, in a folder a class"
            )
        if isinstance(split.samples, Arrays):
            require_label(source, f"one of the {part} images", int(split.samples.labels.max()), len(split.classes))
        if isinstance(split.samples, Stored):  # others of its labels are seen when they are read
            name, _, label = split[0]
            require_label(source, name, label, len(split.classes))
    classes = splits[0].classes
    if isinstance(splits[0].samples, list):
        labels = {label for _, _, label in splits[0].samples}
        bare = [name for label, name in enumerate(classes) if label not in labels]
        if bare:
            raise SwinsError(
                f"{source}: every class needs an image to train on; {len(bare)} have none: {', '.join(bare[:5])}; add "
                "images, or remove the folders"
            )
    if len(classes) < 2:
        raise SwinsError(f"{source}: a classifier needs at least two classes; got {len(classes)}: {', '.join(classes)}")
    return splits
