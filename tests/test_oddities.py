"""What is odd about a data set is said before a run, counted and named."""

import numpy as np
import pytest
from PIL import Image
from training import SMALL

from swins.data import labelled, layouts, oddities
from swins.data.split import Arrays, Split
from swins.image_files import open_image
from swins.train import input_pipeline, loop


@pytest.fixture
def two_sides(tmp_path, rng):
    """train/ and val/ of three classes, of different pictures."""
    for part in ("train", "val"):
        for name in ("boots", "shirts", "trousers"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(3):
                path = tmp_path / part / name / f"{part}{i}.png"
                Image.fromarray(rng.integers(0, 256, (28, 28), "uint8")).save(path)
    return tmp_path


def notes(folder):
    return oddities.notes_on(*layouts.find_splits(folder))


def test_nothing_is_said_of_what_is_in_order(two_sides):
    assert notes(two_sides) == []


def test_copies_on_both_sides_are_counted_and_named(two_sides):
    for i in (0, 2):
        (two_sides / "val" / "boots" / f"again{i}.png").write_bytes(
            (two_sides / "train" / "shirts" / f"train{i}.png").read_bytes()
        )
    (two_sides / "val" / "boots" / "gone.png").symlink_to("nowhere")
    line, other = notes(two_sides)
    assert other == (
        "2 pictures are in two classes, byte for byte: boots/again0.png is shirts/train0.png, boots/again2.png is "
        "shirts/train2.png; remove each from one"
    )
    assert line == (
        "2 validation images are among those to train on, byte for byte: the score is too good; "
        "boots/again0.png is the training image shirts/train0.png, boots/again2.png is the training image "
        "shirts/train2.png; remove them from one side"
    )
    images = np.arange(50, dtype="uint8").reshape(5, 10, 1)
    splits = [
        Split("x", Arrays(n, images[i:], np.arange(5)[i:] % 2), ("a", "b")) for n, i in (("train", 0), ("val", 3))
    ]
    assert oddities.copies(*splits) == [("val[0]", "train[3]"), ("val[1]", "train[4]")]


def test_classes_that_cannot_be_judged_are_named(two_sides):
    for name in ("boots", "shirts"):
        for path in (two_sides / "val" / name).iterdir():
            path.unlink()
    for path in sorted((two_sides / "train" / "boots").iterdir())[1:]:
        path.unlink()
    assert notes(two_sides) == [
        "1 class has one picture, which is trained on and never judged: boots",
        "all validation images are of one class, trousers: a score says nothing of the 3",
    ]
    Image.new("L", (28, 28)).save(two_sides / "val" / "shirts" / "a.png")
    assert notes(two_sides) == ["1 class has one picture, which is trained on and never judged: boots"]
    for path in sorted((two_sides / "val" / "trousers").iterdir()):
        path.unlink()
    Image.new("L", (28, 28), 9).save(two_sides / "val" / "boots" / "a.png")
    assert notes(two_sides) == ["1 of 3 classes has no validation images: trousers"]


def test_files_of_several_frames_are_named_and_the_first_is_taken(two_sides):
    frames = [Image.new("L", (28, 28), 80 * i) for i in range(3)]
    folder = two_sides / "train" / "boots"
    for name in ("a.gif", "b.tiff", "c.png", "d.webp"):
        frames[0].save(
            folder / name, save_all=True, append_images=frames[1:], **({"lossless": True} if name == "d.webp" else {})
        )
    frames[0].save(folder / "e.gif")
    (folder / "f.gif").write_bytes(b"no picture")
    names = ["boots/a.gif (3)", "boots/b.tiff (3)", "boots/c.png (3)", "boots/d.webp (3)"]
    (line,) = notes(two_sides)
    assert line == f"4 files have several frames or pages, of which the first is taken: {', '.join(names)}"
    assert labelled.find_dataset(two_sides / "train", 3).notes[-1] == line


def test_files_that_exif_turns_are_named_and_taken_as_stored(two_sides, monkeypatch):
    image, turn = Image.new("RGB", (40, 30)), Image.Exif()
    for name, value in (("a.jpg", 6), ("b.webp", 3), ("c.jpg", 1), ("d.tiff", 6)):
        turn[0x0112] = value
        image.save(two_sides / "train" / "boots" / name, exif=turn)
    (two_sides / "train" / "boots" / "e.jpg").write_bytes(b"no picture")
    (line,) = notes(two_sides)
    assert line == (
        "2 files are shown turned by EXIF, and taken as stored, as everywhere here: boots/a.jpg, boots/b.webp; where "
        "that matters turn the pixels (PIL.ImageOps.exif_transpose)"
    )
    assert open_image(two_sides / "train" / "boots" / "a.jpg").size == (40, 30)
    assert open_image(two_sides / "train" / "boots" / "d.tiff").size == (30, 40)  # which Pillow turns
    monkeypatch.setattr(oddities, "MOST_TURNED", 2)  # of four: the first and the third
    assert notes(two_sides)[0].startswith("1 file is shown turned by EXIF, of 2 looked at, and taken as stored")


@pytest.mark.parametrize("part", ["train", "val", "alone"])
def test_files_beside_class_folders_are_named(two_sides, part):
    """Whichever way the folder is read: to train on, with validation images or without, and to evaluate on."""
    folder = two_sides / ("train" if part == "alone" else part)
    for name in ("photo.png", "notes.txt", ".hidden"):
        (folder / name).write_bytes(b"")
    (two_sides / "train" / "boots" / "notes.txt").write_bytes(b"")  # in a class: a stray, as ever
    line = f"{folder}: 2 files lie beside the class folders, of no class, and left out: notes.txt, photo.png"
    splits = layouts.find_splits(folder if part == "alone" else two_sides)
    assert [line in split.notes for split in splits] == [part != "val", part == "val"]
    assert [path.name for path in splits[0].strays] == ["notes.txt"]
    if part != "alone":
        assert labelled.find_dataset(folder, 3).notes[-1] == line


def test_the_first_unreadable_files_are_said_with_their_reasons(tmp_path):
    said = []
    unreadable = input_pipeline.Unreadable(tmp_path / "u.txt", 10, said.append)
    for i in (0, 0, 1):
        unreadable.add(f"{i}.png", f"{i}.png: not a readable image (it is {i})")
    unreadable.forget()  # as each validation does
    for i in range(5):
        unreadable.add(f"{i}.png", f"{i}.png: not a readable image (it is {i})")
    lines = [f"unreadable: {i}.png: not a readable image (it is {i})" for i in range(3)]
    assert said == [*lines, f"further images that cannot be read are in {tmp_path / 'u.txt'} alone"]
    assert len((tmp_path / "u.txt").read_text().splitlines()) == 5


def test_of_grains_warnings_the_one_on_jax_alone_is_held_back(monkeypatch):
    absl, lines = pytest.importorskip("absl.logging"), []
    logger = absl.get_absl_logger()
    monkeypatch.setattr(logger, "handle", lambda record: logger.filter(record) and lines.append(record.getMessage()))
    with input_pipeline.without_profiler():
        absl.warning("Failed to load jax profiler: %s", "No module named 'jax'")
        absl.warning("Grain multiprocess worker profiling requires jaxlib extension version 448 or later")
        absl.warning("Failed to load a file")
    absl.warning("Failed to load jax profiler: %s", "of others")
    assert lines == ["Failed to load a file", "Failed to load jax profiler: of others"]


def test_a_run_says_so_first(two_sides, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(loop.keras.utils, "set_random_seed", lambda seed: 1 / 0)
    (two_sides / "val" / "boots" / "x.png").write_bytes((two_sides / "train" / "boots" / "train0.png").read_bytes())
    recipe = loop.dataclasses.replace(SMALL, data=loop.dataclasses.replace(SMALL.data, batch=2))
    with pytest.raises(ZeroDivisionError):
        loop.train(recipe, two_sides, tmp_path / "run", say=lines.append)
    assert "2 a batch" in lines[1] and lines[2].startswith("1 validation image is among those to train on")
