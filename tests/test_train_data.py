"""Data sets to train on: their layouts, batches, and images that cannot be read."""

import dataclasses
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image
from training import CLASSES, SMALL, changed, log, quiet, write_idx

from swins import devices
from swins.data import cifar10, class_folders, layouts, tfds
from swins.data.labelled import find_dataset
from swins.data.split import Split
from swins.errors import SwinsError
from swins.evaluate.evaluation import Evaluation, evaluate
from swins.images import Preprocess, open_image, read_idx
from swins.task import Reading
from swins.tasks import classification
from swins.train import input_pipeline, loop


def test_a_folder_a_class_is_divided_the_same_way_every_time(class_folders):
    (class_folders / "boots" / "notes.txt").write_text("mine")
    (class_folders / ".cache").mkdir()
    (class_folders / "boots" / ".ipynb_checkpoints").mkdir()
    shutil.copy(next((class_folders / "boots").glob("*.png")), class_folders / "boots" / ".ipynb_checkpoints")
    training, validation = layouts.find_splits(class_folders, 0.25, seed=1)
    assert training.classes == CLASSES and [p.name for p in training.strays] == ["notes.txt"]
    names = [{name for name, _, _ in split.samples} for split in (training, validation)]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 42
    assert [sum(s[2] == c for s in validation.samples) for c in range(3)] == [4, 4, 4]
    again = layouts.find_splits(class_folders, 0.25, seed=1)
    assert again[1].samples == validation.samples
    assert layouts.find_splits(class_folders, 0.25, seed=2)[1].samples != validation.samples


def test_train_and_val_folders_tiny_imagenet_and_cifar(class_folders, tmp_path, pixels):
    both = tmp_path / "both"
    shutil.copytree(class_folders, both / "train")
    (both / "val" / "shirts").mkdir(parents=True)
    shutil.copy(next((class_folders / "shirts").iterdir()), both / "val" / "shirts" / "a.png")
    training, validation = layouts.find_splits(both)
    assert len(training) == 42 and [s[2] for s in validation.samples] == [1]
    assert training.notes == ("classes are taken in sorted order: boots, shirts, trousers",)
    (both / "val" / "shirts").rename(both / "val" / "Shirts_")  # matched by name, and said
    _, validation = layouts.find_splits(both)
    assert [s[2] for s in validation.samples] == [1] and "Shirts_ = shirts" in validation.notes[0]
    (both / "val" / "hats").mkdir()
    with pytest.raises(SwinsError, match=r"classes must be those of train; 1 are not: hats"):
        layouts.find_splits(both)

    tiny = tmp_path / "tiny"
    for name in CLASSES:
        shutil.copytree(class_folders / name, tiny / "train" / name / "images")
    (tiny / "val" / "images").mkdir(parents=True)
    for i, name in enumerate(reversed(CLASSES)):
        shutil.copy(next((class_folders / name).iterdir()), tiny / "val" / "images" / f"val_{i}.png")
    table = "".join(f"val_{i}.png\t{name}\t0\t0\t9\t9\n" for i, name in enumerate(reversed(CLASSES)))
    (tiny / "val" / "val_annotations.txt").write_text(table)
    training, validation = layouts.find_splits(tiny)
    assert len(training) == 42 and [s[2] for s in validation.samples] == [2, 1, 0]

    cifar = tmp_path / "cifar"
    cifar.mkdir()
    records = np.zeros((3, cifar10.CIFAR_BYTES), "uint8")
    records[:, 0] = (6, 9, 9)
    records[1, 1 : 1 + 1024] = 200  # the red plane
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        records.tofile(cifar / f"{name}.bin")
    training, validation = layouts.find_splits(cifar)
    assert (len(training), len(validation)) == (6, 3)
    _, image, label = training[4]
    assert label == 9 and image.shape == (32, 32, 3) and image[5, 5].tolist() == [200, 0, 0]
    (cifar / "test_batch.bin").write_bytes(b"abc")
    with pytest.raises(SwinsError, match="records of 3073 bytes"):
        layouts.find_splits(cifar)


def test_data_that_cannot_be_trained_on(tmp_path, class_folders):
    with pytest.raises(SwinsError, match="no such folder"):
        layouts.find_splits(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SwinsError, match="holds no images to train on"):
        layouts.find_splits(tmp_path / "empty")
    (tmp_path / "empty" / "a").mkdir()
    with pytest.raises(SwinsError, match="holds no training images"):
        layouts.find_splits(tmp_path / "empty")
    (class_folders / "train").mkdir()  # a class, not a split
    with pytest.raises(SwinsError, match="every class needs an image to train on; 1 have none: train"):
        layouts.find_splits(class_folders)
    shutil.copy(next((class_folders / "boots").iterdir()), class_folders / "train" / "a.png")
    assert len(layouts.find_splits(class_folders)[0].classes) == 4
    for name in (*CLASSES[1:], "train"):
        shutil.rmtree(class_folders / name)
    with pytest.raises(SwinsError, match="at least two classes; got 1: boots"):
        layouts.find_splits(class_folders)


def test_linked_folders_count_and_odd_names_are_refused_or_survive(class_folders, tmp_path):
    more = tmp_path / "more"
    shutil.copytree(class_folders / "boots", more)
    (class_folders / "boots" / "more").symlink_to(more)
    (class_folders / "shirts" / "loop").symlink_to(class_folders)
    training, validation = layouts.find_splits(class_folders)
    assert len(training) + len(validation) == 42 + 14
    name = os.fsencode(class_folders / "trousers") + b"/caf\xe9.png"
    pathlib.Path(os.fsdecode(name)).write_bytes(b"no image")
    training, validation = layouts.find_splits(class_folders)
    assert all(len(split.digest()) == 16 for split in (training, validation))
    unreadable = input_pipeline.Unreadable(tmp_path / "unreadable.txt", 5)
    for split in (training, validation):
        for i in range(len(split)):
            input_pipeline.readable(split, i, unreadable)
    assert name in (tmp_path / "unreadable.txt").read_bytes()
    assert list(input_pipeline.Unreadable(tmp_path / "unreadable.txt", 5).texts) == [
        os.fsdecode(b"trousers/caf\xe9.png")
    ]
    (class_folders / os.fsdecode(b"h\xe9ts")).mkdir()
    with pytest.raises(SwinsError, match=r"must have names in UTF-8; 'h.udce9ts' are not; rename them"):
        layouts.find_splits(class_folders)


def test_folders_that_cannot_be_read_are_no_empty_ones(class_folders, monkeypatch):
    real = pathlib.Path.iterdir

    def refuses(path):
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    (class_folders / "boots" / "locked").mkdir()
    monkeypatch.setattr(pathlib.Path, "iterdir", refuses)
    with pytest.raises(PermissionError, match="locked"):
        layouts.find_splits(class_folders)


@pytest.mark.slow
def test_four_channels(tmp_path, rng):
    folder = tmp_path / "data"
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for i in range(6):
            np.save(folder / name / f"{i}.npy", rng.integers(0, 256, (30, 33, 4), "uint8"))
    four = changed(SMALL, model={"in_chans": 4}, data={"batch": 4, "mean": (0.5,) * 4, "std": (0.25,) * 4})
    four = dataclasses.replace(four, epochs=1)
    for recipe, said in (
        (changed(four, data={"mean": None}), "need a number a channel"),
        (changed(four, augment={"rand_augment": "rand-m9"}), "are for grey or RGB images; the model takes 4 channels"),
        (
            changed(four, model={"in_chans": 2}, data={"mean": (0.5,) * 2, "std": (0.5,) * 2}),
            "the model has 2 channels",
        ),
    ):
        with pytest.raises(SwinsError, match=said):
            loop.train(recipe, folder, tmp_path / "run", say=quiet)
        assert not (tmp_path / "run").exists()
    said = []
    loop.train(four, folder, tmp_path / "run", say=said.append)
    assert "classes are taken in sorted order: boots, shirts, trousers" in said
    how = Evaluation(progress=False, predictions=tmp_path / "p.csv")
    row = evaluate(tmp_path / "run", folder, how=how)
    assert row["images"] == 18 and row["unreadable"] == 0
    assert (tmp_path / "p.csv").read_text().startswith("file,label,top1,top2,top3,is,said,probability\nboots/0.npy,0,")
    # beside images of Pillow's, .npy are something else, and said to be left out
    Image.fromarray(rng.integers(0, 256, (30, 33, 4), "uint8")).save(folder / "boots" / "a.png")
    samples, strays = class_folders.listed(class_folders.folders(folder))
    assert len(samples) == 1 and len(strays) == 18


def test_labels_that_are_no_class(tmp_path, idx):
    images, labels = (read_idx(idx / f"train-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    shutil.copytree(idx, tmp_path / "idx")
    write_idx(tmp_path / "idx", "train", images, np.where(np.arange(len(labels)) == 7, 200, labels).astype("uint8"))
    with pytest.raises(SwinsError, match=r"the largest is 200, and 190 have none: 10, 11.*mend the labels"):
        layouts.find_splits(tmp_path / "idx")
    write_idx(tmp_path / "idx", "train", images, labels)
    write_idx(tmp_path / "idx", "t10k", images, np.full_like(labels, 12))
    with pytest.raises(SwinsError, match="labels must be from 0 to 9; one of the validation images has 12"):
        layouts.find_splits(tmp_path / "idx")
    # tensorflow-datasets tells labels one by one; what was never labelled has -1
    rows = [{"image": images[0], "label": label} for label in (1, -1)]
    split = Split("shapes", tfds.Stored(rows), ("a", "b"))
    unreadable = input_pipeline.Unreadable(tmp_path / "unreadable.txt", 5)
    with pytest.raises(SwinsError, match="shapes: labels must be from 0 to 1; 1 has -1; mend it, or take other data"):
        input_pipeline.readable(split, 1, unreadable)
    assert unreadable.failed and input_pipeline.readable(split, 0, unreadable)[1] == 1
    (tmp_path / "test_batch.bin").write_bytes(bytes([11]) + bytes(cifar10.CIFAR_BYTES - 1))
    with pytest.raises(SwinsError, match=r"labels must be from 0 to 9; cifar10\[0\] has 11"):
        list(find_dataset(tmp_path, 10).samples)


PREPARE = Preprocess((28, 28), (28, 28), True, (0.286,), (0.353,))


def batches(split, recipe, start=0, share=None, count=3):
    reading = classification.training(recipe, PREPARE, split)
    unreadable = input_pipeline.Unreadable("unused", 0)
    found = input_pipeline.training_batches(split, reading, recipe, unreadable, start, share or devices.Share())
    return [(images, arrays["target"]) for (images, arrays), _ in zip(found, range(count), strict=False)]


def test_batches_depend_on_the_seed_and_the_step_alone(idx):
    training, _ = layouts.find_splits(idx)
    recipe = changed(SMALL, augment={"mixup": 0.5, "erase": 0.5, "rand_augment": "rand-m9-mstd0.5-inc1"})
    whole = batches(training, recipe, count=13)
    assert whole[0][0].shape == (20, 28, 28, 1) and whole[0][1].shape == (20, 10)
    for start in (1, 9, 11):  # an epoch has ten
        (later,) = batches(training, changed(recipe, data={"threads": 1}), start=start, count=1)
        for mine, its in zip(later, whole[start], strict=True):
            np.testing.assert_array_equal(mine, its)
    assert np.abs(whole[0][0] - whole[10][0]).max() > 0.1
    (other,) = batches(training, dataclasses.replace(recipe, seed=1), count=1)
    assert np.abs(other[0] - whole[0][0]).max() > 0.1


def test_an_epoch_has_every_image_once_and_processes_share_its_batches(idx):
    training, _ = layouts.find_splits(idx)
    recipe = changed(SMALL, augment={"pad": 0, "flip": 0.0, "smoothing": 0.0})

    def keys(found):
        return sorted(image.tobytes() for images, _ in found for image in images)

    for epoch in (0, 1):
        assert len(set(keys(batches(training, recipe, start=10 * epoch, count=10)))) == 200
    ((first, _),), ((second, _),) = (batches(training, recipe, start=10 * epoch, count=1) for epoch in (0, 1))
    assert keys([(first, None)]) != keys([(second, None)])  # in another order
    (first,) = batches(training, recipe, start=4, count=1)
    parts = [batches(training, recipe, 4, devices.Share(i, 2), count=1)[0] for i in (0, 1)]
    assert [len(part[0]) for part in parts] == [10, 10] and keys(parts) == keys([first])


def test_validation_counts_every_image_once(idx, tmp_path):
    _, validation = layouts.find_splits(idx)
    reading = classification.validating(SMALL, PREPARE, validation)
    for share in (devices.Share(), devices.Share(1, 2)):
        unreadable = input_pipeline.Unreadable(tmp_path / "u.txt", 5)
        found, count = input_pipeline.validation_batches(validation, reading, 32, unreadable, 1, share)
        weights = np.concatenate([arrays["weight"] for _, arrays, *_ in found])
        assert count == 3 and len(weights) == 96 // share.count and weights.sum() == 70 // share.count


def test_what_all_processes_could_not_read_is_counted_once(tmp_path):
    mine, other = (input_pipeline.Unreadable(tmp_path / name, 5) for name in ("unreadable.txt", "unreadable.1.txt"))
    for unreadable, name in ((mine, "a"), (other, "a"), (other, "b")):
        unreadable.add(name, "no image")
    input_pipeline.Unreadable(tmp_path / "unreadable_validation.txt", 5).add("c", "no image")
    assert mine.of_all() == other.of_all() == 2
    other.forget()
    assert mine.of_all() == 1 and not input_pipeline.Unreadable(tmp_path / "unreadable.1.txt", 5).texts


def test_names_of_unreadable_images_are_appended_a_whole_line_each(tmp_path):
    path = tmp_path / "unreadable.txt"
    mine = input_pipeline.Unreadable(path, 5000)
    for i in range(3):
        mine.add(f"{i}.png", "no image")
    kept = path.stat().st_ino
    mine.add("b\nc\t\udcff.png", "two\nlines")  # as no UTF-8 is read
    mine.add("1.png", "no image")
    assert path.stat().st_ino == kept  # the file itself, not another in its place
    lines = path.read_text().splitlines()
    assert lines == [*(f"{i}.png\tno image" for i in range(3)), r"'b\nc\t\udcff.png'" + "\t" + r"'two\nlines'"]
    with open(path, "a") as file:
        file.write("9.png\tno im")  # the process was killed
    assert mine.of_all() == 4
    again = input_pipeline.Unreadable(path, 5000)
    again.add("b\nc\t\udcff.png", "two\nlines")
    again.add("9.png", "no image")
    assert path.read_text().splitlines() == [*lines, "9.png\tno image"] and again.of_all() == 5


@pytest.mark.slow
def test_unreadable_images_are_named_counted_and_replaced(class_folders, tmp_path):
    broken = sorted((class_folders / "boots").iterdir())[:2]
    for path in broken:
        path.write_bytes(b"no image")
    told = []
    result = loop.train(changed(SMALL, data={"batch": 8}), class_folders, tmp_path / "run", say=told.append)
    names = [
        p for name in ("unreadable.txt", "unreadable_validation.txt") for p in [tmp_path / "run" / name] if p.is_file()
    ]
    text = "".join(path.read_text() for path in names)
    assert all(str(path) in text for path in broken)
    rows = log(tmp_path / "run")
    assert rows[-1]["unreadable"] == "2" and int(rows[-1]["val_images"]) == result["images"]
    split = tmp_path / "split"
    shutil.copytree(class_folders, split / "val")
    shutil.copytree(class_folders, split / "train", ignore=lambda _, names: [p.name for p in broken if p.name in names])
    for path in sorted((split / "val" / "trousers").iterdir())[:7]:
        path.write_bytes(b"no image")
    with pytest.raises(SwinsError, match=r"more than 4 images cannot be read.*unreadable_validation.txt"):
        loop.train(changed(SMALL, data={"batch": 8}), split, tmp_path / "run3", say=quiet)
    for path in (class_folders / "shirts").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(SwinsError, match=r"more than \d images cannot be read"):
        loop.train(changed(SMALL, data={"batch": 8}), class_folders, tmp_path / "run2", say=quiet)


def test_what_was_mended_is_not_counted_again(tmp_path):
    path = tmp_path / "unreadable.txt"
    first = input_pipeline.Unreadable(path, 2)
    for name in "ab":
        first.add(name, "broken")
    assert len(input_pipeline.Unreadable(path, 2).texts) == 2  # killed, it goes on
    with pytest.raises(SwinsError, match=r"more than 2 images cannot be read.*mend them, or remove them and begin"):
        first.add("c", "broken")
    second = input_pipeline.Unreadable(path, 2)
    second.add("c", "broken")
    assert list(second.texts) == ["c"]


@pytest.mark.slow
def test_validation_takes_no_more_memory_than_a_micro_batch(idx, tmp_path, monkeypatch):
    sizes, made = [], input_pipeline.validation_batches
    monkeypatch.setattr(input_pipeline, "validation_batches", lambda *a: sizes.append(a[2]) or made(*a))
    loop.train(dataclasses.replace(changed(SMALL, optim={"accumulate": 2}), epochs=1), idx, tmp_path, say=quiet)
    assert sizes == [10]


@pytest.mark.slow
def test_tensorflow_datasets_in_array_records(tmp_path, pixels):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs swins[datasets]")

    class SwinsShapes(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["a", "b"])}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, _):
            return {"train": self._generate_examples(6), "test": self._generate_examples(4)}

        def _generate_examples(self, count):
            for i in range(count):
                yield i, {"image": np.full((8, 8, 3), 10 * i, "uint8"), "label": i % 2}

    SwinsShapes(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    tfds.core.add_data_dir(str(tmp_path))
    training, validation = layouts.find_splits("tfds:swins_shapes")
    assert (len(training), len(validation), training.classes) == (6, 4, ("a", "b"))
    for split in (training, validation):
        for i in range(len(split)):
            _, image, label = split[i]
            pixel = np.asarray(open_image(image))[0, 0, 0]
            assert pixel // 10 % 2 == label
    scored = find_dataset("tfds:swins_shapes", 2)
    assert scored.count == 4
    assert [(image, label) for _, image, label in scored.samples] == [validation[i][1:] for i in range(4)]


def test_batches_of_a_group_have_one_size_drawn_for_each(idx):
    """As pictures that lie are batched apart from those that stand, at several scales."""
    training, _ = layouts.find_splits(idx)
    groups = np.arange(200) % 3 == 0  # 67 and 133, of which 60 and 120 fill batches
    sizes = (((28, 28), (32, 32)), ((28, 40), (32, 48)))

    def sample(image, label, rng, size):
        return np.full((*size, 1), label, "float32"), (size, rng.random())

    def batch(samples, rng):
        images, facts = zip(*samples, strict=True)
        assert len({size for size, _ in facts}) == 1
        return np.stack(images), {"drawn": np.array([drawn for _, drawn in facts])}

    reading = Reading(sample, batch, groups=groups.astype(int), sizes=sizes)
    assert input_pipeline.samples_per_epoch(training, reading, 20) == 180
    unreadable = input_pipeline.Unreadable("unused", 0)

    def read(start, count, share=devices.ALONE, recipe=SMALL):
        found = input_pipeline.training_batches(training, reading, recipe, unreadable, start, share)
        return [(images, arrays["drawn"]) for (images, arrays), _ in zip(found, range(count), strict=False)]

    whole = read(0, 27)  # three epochs
    shapes = [images.shape[1:3] for images, _ in whole]
    assert set(shapes) == {size for group in sizes for size in group}
    assert all(sum(shape in sizes[1] for shape in shapes[i : i + 9]) == 3 for i in (0, 9, 18))
    for start in (5, 20):
        (again,) = read(start, 1)
        np.testing.assert_array_equal(again[1], whole[start][1])
    halves = [images.shape[1:3] for images, _ in read(0, 18, recipe=changed(SMALL, optim={"accumulate": 2}))]
    assert halves[::2] == halves[1::2] == shapes[:9]  # a batch has one size, in however many parts it is computed
    parts = [read(5, 1, devices.Share(i, 2))[0] for i in (0, 1)]
    assert {part[0].shape[1:3] for part in parts} == {shapes[5]}
    np.testing.assert_array_equal(np.sort(np.concatenate([part[1] for part in parts])), np.sort(whole[5][1]))
