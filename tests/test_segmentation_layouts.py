"""Data sets of images and masks: which layout a folder has, what its values mean, and all that can be wrong."""

import numpy as np
import pytest
from mask_files import blocks, image, pairs, save
from PIL import Image

from swins import settings
from swins.data.class_weights import class_weights, pixel_counts
from swins.data.run_parts import parts_of_run
from swins.data.segmentation_layouts import (
    CAMVID,
    CITYSCAPES,
    SEGMENTATION_LAYOUTS,
    MaskValues,
    SegmentationLayout,
    find_segmentation_split,
    find_segmentation_splits,
    register_segmentation_layout,
)
from swins.errors import SwinsError
from swins.labels import ade20k_names

GARMENTS = "garments:demo/fashion_mnist,count=8,size=64,scale=16-32,objects=1-3"


def values_of(split, place=0):
    """The classes that the mask of a sample has, sorted."""
    return np.unique(split[place][2].pixels()).tolist()


def names_of(split):
    return [name for name, *_ in (split[i] for i in range(len(split)))]


def test_ade20k(tmp_path):
    folder = tmp_path / "ADEChallengeData2016"
    for part, names in (("training", ("ADE_train_1", "ADE_train_2")), ("validation", ("ADE_val_1",))):
        pairs(folder / "images" / part, folder / "annotations" / part, names, (0, 1, 150), image_end=".jpg")
    for source in (tmp_path, folder):
        training, validation = find_segmentation_splits(source)
        assert training.classes == validation.classes == ade20k_names()
        assert (len(training), len(validation)) == (2, 1) and values_of(training) == [0, 149, 255]
    own = MaskValues(classes=tuple(f"c{i}" for i in range(151)))
    assert values_of(find_segmentation_splits(folder, values=own)[0]) == [0, 1, 150]
    split = find_segmentation_split(folder, ade20k_names(), "train")
    assert split.name.endswith("/train") and names_of(split) == ["ADE_train_1.jpg", "ADE_train_2.jpg"]


def test_camvid(tmp_path):
    folder = tmp_path / "CamVid"
    for part, names in (("train", "abc"), ("val", "de"), ("test", "f")):
        pairs(folder / part, folder / f"{part}annot", names, (0, 10, 11))
    training, validation = find_segmentation_splits(tmp_path)
    assert training.classes == CAMVID and len(CAMVID) == 11
    assert values_of(training) == [0, 10, 255] and len(validation) == 2
    assert names_of(find_segmentation_split(tmp_path, part="test")) == ["f.png"]
    twelve = (*CAMVID, "void")
    training, _ = find_segmentation_splits(tmp_path, values=MaskValues(classes=twelve))
    assert values_of(training) == [0, 10, 11] and training.classes == twelve


@pytest.mark.parametrize("ending", ["labelTrainIds", "labelIds"])
def test_cityscapes(tmp_path, ending):
    values = {"labelTrainIds": (0, 18, 255), "labelIds": (7, 33, 4)}[ending]
    for part in ("train", "val"):
        for city in ("ulm", "jena"):
            name = f"{city}/{city}_000000_000019"
            image(tmp_path / "leftImg8bit" / part / f"{name}_leftImg8bit.png")
            save(tmp_path / "gtFine" / part / f"{name}_gtFine_{ending}.png", blocks(*values))
            save(tmp_path / "gtFine" / part / f"{name}_gtFine_color.png", np.zeros((4, 4, 3), np.uint8))
            (tmp_path / "gtFine" / part / f"{name}_gtFine_polygons.json").write_text("{}")
    training, validation = find_segmentation_splits(tmp_path)
    assert training.classes == CITYSCAPES and len(CITYSCAPES) == 19
    assert values_of(training) == [0, 18, 255] and len(training) == len(validation) == 2
    assert training.defects == () and names_of(training)[0] == "jena/jena_000000_000019_leftImg8bit.png"
    if ending == "labelIds":
        with pytest.raises(SwinsError, match="as many as the layout's, 19; got 2"):
            find_segmentation_splits(tmp_path, values=MaskValues(classes=("a", "b")))


@pytest.mark.parametrize("parted", ["images/train", "train/images", "whole", "suffix"])
def test_pairs_of_folders(tmp_path, parted):
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    if parted == "images/train":
        pairs(tmp_path / "images" / "train", tmp_path / "masks" / "train", "abc")
        pairs(tmp_path / "images" / "val", tmp_path / "masks" / "val", "d")
    elif parted == "train/images":
        pairs(tmp_path / "train" / "images", tmp_path / "train" / "masks", "abc")
        pairs(tmp_path / "valid" / "images", tmp_path / "valid" / "masks", "d")
    else:
        end = "_mask.png" if parted == "suffix" else ".png"
        pairs(tmp_path / "images", tmp_path / "masks", "abcd", image_end=".jpg", mask_end=end)
    training, validation = find_segmentation_splits(tmp_path, 0.25, seed=3)
    assert (len(training), len(validation)) == (3, 1) and training.classes == ("sky", "road", "car")
    assert not {*names_of(training)} & {*names_of(validation)} and not training.defects
    assert names_of(find_segmentation_splits(tmp_path, 0.25, seed=3)[1]) == names_of(validation)
    assert pixel_counts(training).tolist() == [3 * 12 * n for n in (6, 6, 4)]
    assert training.digest() == find_segmentation_splits(tmp_path, 0.25, seed=3)[0].digest()


def test_what_values_mean(tmp_path):
    pairs(tmp_path / "images", tmp_path / "masks", "abcd", (0, 3, 7, 255))
    training, _ = find_segmentation_splits(tmp_path)
    assert training.classes == ("class 0", "class 3", "class 7") and values_of(training) == [0, 1, 2, 255]
    assert any("classes are known by their values alone, 3" in note for note in training.notes)
    scored = find_segmentation_split(tmp_path, training.classes)
    assert scored.classes == training.classes and values_of(scored) == [0, 1, 2, 255]
    eight = tuple("abcdefgh")
    assert values_of(find_segmentation_split(tmp_path, eight)) == [0, 3, 7, 255]
    voided = MaskValues(classes=eight[:4], void=(7, 255))
    training, _ = find_segmentation_splits(tmp_path, values=voided)
    assert values_of(training) == [0, 3, 255]
    assert any("classes without pixels to train on, 2 of 4: b, c" in note for note in training.notes)
    reduced, _ = find_segmentation_splits(tmp_path, values=MaskValues(reduce_zero_label=True))
    assert reduced.classes == ("class 3", "class 7") and values_of(reduced) == [0, 1, 255]
    reduced, _ = find_segmentation_splits(tmp_path, values=MaskValues(eight[:7], reduce_zero_label=True))
    assert values_of(reduced) == [2, 6, 255]


def test_masks_of_0_and_255_alone(tmp_path):
    pairs(tmp_path / "images", tmp_path / "masks", "abc", (0, 255))
    training, _ = find_segmentation_splits(tmp_path)
    assert training.classes == ("background", "foreground") and values_of(training) == [0, 1]
    assert any("taken as class 1; if it is void" in note for note in training.notes)
    named, _ = find_segmentation_splits(tmp_path, values=MaskValues(("no", "yes")))
    assert named.classes == ("no", "yes") and values_of(named) == [0, 1]
    assert values_of(find_segmentation_split(tmp_path, ("no", "yes"))) == [0, 1]
    void, _ = find_segmentation_splits(tmp_path, values=MaskValues(("no", "yes"), void=(255,)))
    assert values_of(void) == [0, 255]
    for name in "abc":
        save(tmp_path / "masks" / f"{name}.png", blocks(255))
    with pytest.raises(SwinsError, match=r"none that can be used .*without a pixel of a class, .*: 3 "):
        find_segmentation_splits(tmp_path)
    assert values_of(find_segmentation_split(tmp_path, training.classes)) == [1]
    for name in "abc":
        save(tmp_path / "masks" / f"{name}.png", blocks(0))
    with pytest.raises(SwinsError, match="needs at least two classes; got class 0 alone"):
        find_segmentation_splits(tmp_path)


def test_16_bits(tmp_path):
    for name in "ab":
        image(tmp_path / "images" / f"{name}.png")
        save(tmp_path / "masks" / f"{name}.png", blocks(0, 1).astype(np.uint16) * 1000)
    training, _ = find_segmentation_splits(tmp_path)
    assert training.classes == ("class 0", "class 1000") and values_of(training) == [0, 1]
    save(tmp_path / "masks" / "a.png", np.arange(192, dtype=np.uint16).reshape(12, 16))
    save(tmp_path / "masks" / "b.png", np.arange(192, dtype=np.uint16).reshape(12, 16) + 192)
    with pytest.raises(SwinsError, match=r"may have 255 classes; got 383 values, 0, 1, 2, 3, 4, ...; are they of inst"):
        find_segmentation_splits(tmp_path)


def test_garments():
    training, validation = find_segmentation_splits(GARMENTS)
    assert len(training.classes) == 11 and training.classes[0] == "background"
    assert (len(training), len(validation)) == (8, 2)
    name, pixels, mask = training[3]
    canvas = training.samples.garments[3]
    assert name == canvas.name and pixels.shape[:2] == mask.size == (64, 64)
    np.testing.assert_array_equal(mask.pixels(), canvas.semantic)
    assert find_segmentation_split(GARMENTS, training.classes).digest() == validation.digest() != training.digest()
    counts = pixel_counts(training)
    assert counts.sum() == 8 * 64 * 64 and len(class_weights(training, "balanced")) == 11
    with pytest.raises(SwinsError, match="has no test images; it has those of train and val"):
        find_segmentation_split(GARMENTS, part="test")
    with pytest.raises(SwinsError, match="are of files of masks; leave them out"):
        find_segmentation_splits(GARMENTS, values=MaskValues(void=(0,)))
    with pytest.raises(SwinsError, match="classes must be the model's"):
        find_segmentation_split(GARMENTS, ("a", "b"))


def test_class_weights(tmp_path):
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\ncat\n")
    pairs(tmp_path / "images", tmp_path / "masks", "ab", (0, 0, 1, 2))
    split = find_segmentation_split(tmp_path)
    assert pixel_counts(split).tolist() == [192, 96, 96, 0]
    np.testing.assert_allclose(class_weights(split, "balanced"), [128 / 192, 128 / 96, 128 / 96, 1])
    assert class_weights(split, "") is None and class_weights(split, (1, 2, 3.5, 0)) == (1.0, 2.0, 3.5, 0.0)
    for weights, text in (
        ("even", "balanced"),
        ((1, 2), "a number a class; got 2 and 4 classes"),
        ((0, 0, 0, 0), "not all 0"),
        ((1, 2, 3, -1), "at least 0"),
        ((1, 2, 3, float("nan")), "at least 0"),
    ):
        with pytest.raises(SwinsError, match=text):
            class_weights(split, weights)


def test_what_is_wrong_is_counted_and_named(tmp_path):
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    images, masks = tmp_path / "images", tmp_path / "masks"
    pairs(images, masks, ["good", "small", "turned", "strange", "void", "coloured", "broken", "unread", "lossy"])
    save(masks / "small.png", blocks(0, 1)[:5])
    turned = Image.fromarray(np.zeros((12, 16, 3), np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(images / "turned.png", exif=exif)
    save(masks / "turned.png", blocks(0, 1).T)
    save(masks / "strange.png", blocks(0, 1, 9, 77))
    save(masks / "void.png", blocks(255))
    save(masks / "coloured.png", np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8))
    (masks / "broken.png").write_bytes(b"none")
    (images / "unread.png").write_bytes(b"none")
    (masks / "lossy.png").unlink()
    Image.fromarray(blocks(0, 1)).save(masks / "lossy.jpg")
    image(images / "alone.png")
    save(masks / "single.png", blocks(0, 1))
    (images / "notes.txt").write_text("no image")
    image(images / "good.bmp")
    save(masks / "good.tif", blocks(1))
    save(masks / "good-mask.png", blocks(1))
    split = find_segmentation_split(tmp_path)
    assert names_of(split) == ["good.bmp", "void.png"] and [path.name for path in split.strays] == ["notes.txt"]
    text = "\n".join(split.notes)
    for words in (
        "images: images without a mask, left out: 1 (alone.png)",
        "masks without an image, left out: 1 (single.png)",
        "masks of another size than their image, left out; scale them to the nearest pixel, or mend the image: 1 "
        "(small.png: 16x5, image 16x12)",
        "says are shown turned, left out; store both alike (PIL.ImageOps.exif_transpose): 1 (turned.png: 12x16, image",
        "masks with values that are of no class, left out; name all classes, or set data.void, or "
        "data.reduce_zero_label where classes begin with 1: 1 (strange.png: 9, 77)",
        "images of one name, of which the first is taken: 1 (good.png)",
        "masks of an image that has another, left out: 2 (good.tif, good-mask.png)",
        "masks of colours, not of class numbers, left out; write the numbers into grey or palette PNGs",
        "masks that cannot be read, left out: 1 (broken.png: not a readable mask",
        "images that cannot be read, left out: 1 (unread.png)",
        "masks in formats that change class numbers, as JPEG, left out; save them as PNG: 1 (lossy.jpg)",
    ):
        assert words in text, words
    assert len(split.defects) == 12 and all("\t" in line for line in split.defects)
    with pytest.raises(SwinsError, match="needs two images, one to train and one to validate on; got 1"):
        find_segmentation_splits(tmp_path)
    pairs(images, masks, ["more", "many"])
    training, validation = find_segmentation_splits(tmp_path)
    assert not any(name == "void.png" for name in (*names_of(training), *names_of(validation)))
    assert any("images without a pixel of a class, which are not trained on: 1 (void.png)" in n for n in training.notes)


def test_folders_that_are_no_data_set(tmp_path):
    with pytest.raises(SwinsError, match="no such folder"):
        find_segmentation_splits(tmp_path / "none")
    with pytest.raises(SwinsError, match=r"holds no images with masks: it needs ADE20K's .*, or images/ and masks/"):
        find_segmentation_splits(tmp_path)
    image(tmp_path / "yolo" / "images" / "train" / "a.png")
    (tmp_path / "yolo" / "labels" / "train").mkdir(parents=True)
    (tmp_path / "yolo" / "labels" / "train" / "a.txt").write_text("0 .5 .5 .1 .1\n")
    with pytest.raises(SwinsError, match="holds no images with masks"):
        find_segmentation_splits(tmp_path / "yolo")
    (tmp_path / "images").mkdir()
    save(tmp_path / "masks" / "a.png", blocks(0))
    with pytest.raises(SwinsError, match=r"needs images to train on; got none that can be used .*without an image"):
        find_segmentation_splits(tmp_path)
    image(tmp_path / "images" / "a.png")
    save(tmp_path / "masks" / "a.png", np.full((12, 16, 3), [1, 2, 3], np.uint8))
    with pytest.raises(SwinsError, match=r"got none that can be used .*masks of colours"):
        find_segmentation_splits(tmp_path)
    for text in ("a\na\n", "", "a\n\nb\n"):
        (tmp_path / "classes.txt").write_text(text)
        with pytest.raises(SwinsError, match="needs a name of a class a line"):
            find_segmentation_splits(tmp_path)
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SwinsError, match="must be UTF-8"):
        find_segmentation_splits(tmp_path)
    with pytest.raises(SwinsError, match="split"):
        find_segmentation_split(tmp_path, part="all")


def test_classes_of_a_model(tmp_path):
    (tmp_path / "classes.txt").write_text("Sky\nroad\nunused\n")
    pairs(tmp_path / "images", tmp_path / "masks", "ab", (0, 1))
    split = find_segmentation_split(tmp_path, ("car", "road", "sky"))
    assert split.classes == ("car", "road", "sky") and split[0][2].counts(3).tolist() == [0, 96, 96]
    assert any("spelt otherwise" in note for note in split.notes)
    trained = MaskValues(("road", "sky"))
    assert find_segmentation_split(tmp_path, trained.classes, values=trained)[0][2].counts(2).tolist() == [96, 96]
    assert np.unique(find_segmentation_split(tmp_path, trained.classes, values=trained)[0][2].pixels()[:, 0]) == [1]
    renamed = MaskValues(("Himmel", "Weg"))
    assert find_segmentation_split(tmp_path, renamed.classes, values=renamed)[0][2].pixels()[0, 0] == 0
    with pytest.raises(SwinsError, match="classes must be the model's; 1 are not: road"):
        find_segmentation_split(tmp_path, ("sky", "car"))


def test_images_to_validate_on_alone(tmp_path):
    pairs(tmp_path / "images" / "val", tmp_path / "masks" / "val", "ab")
    assert len(find_segmentation_split(tmp_path)) == 2
    with pytest.raises(SwinsError, match="none to train on; add these"):
        find_segmentation_splits(tmp_path)
    with pytest.raises(SwinsError, match="has no train images; it has those of val"):
        find_segmentation_split(tmp_path, part="train")


def test_a_layout_from_elsewhere(tmp_path):
    pairs(tmp_path / "photos", tmp_path / "truth", "ab")
    pair = SEGMENTATION_LAYOUTS[-1]
    known = list(SEGMENTATION_LAYOUTS)
    from swins.data.mask_folders import MaskFolders

    def parts(folder):
        return MaskFolders(folder / "photos", folder / "truth"), None, None

    register_segmentation_layout(SegmentationLayout("photos/ and truth/", parts, pair.meaning))
    try:
        assert len(find_segmentation_split(tmp_path)) == 2
    finally:
        SEGMENTATION_LAYOUTS[:] = known


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (MaskValues(classes=("a", "a")), "classes must be texts, each once"),
        (MaskValues(classes=(" ",)), "classes must be texts"),
        (MaskValues(void=(-1,)), "void must be integers from 0 to 65535"),
        (MaskValues(void=(70000,)), "void must be"),
        (MaskValues(reduce_zero_label=1), "reduce_zero_label takes bool or None"),
    ],
)
def test_settings_check_themselves(values, text):
    assert any(text in problem for problem in settings.problems(values))


def test_the_defaults_are_right():
    assert not settings.problems(MaskValues()) and not settings.problems(MaskValues(["a", "b"], [], True))


def test_the_parts_that_a_run_made_are_found_again(tmp_path):
    pairs(tmp_path / "images", tmp_path / "masks", "abcdef", (0, 1, 2))
    training, validation = find_segmentation_splits(tmp_path, 0.3, 4)
    run = {"recipe": {"data.held_out": 0.3, "seed": 4}}
    of_run = parts_of_run(tmp_path, tmp_path / "run", run, find_segmentation_splits)
    assert (len(training), len(validation)) == (4, 2)
    for part, whole in (("train", training), ("val", validation)):
        split = find_segmentation_split(tmp_path, training.classes, part, of_run=of_run)
        assert split.name == f"{tmp_path.name}/{part}"
        assert [name for name, *_ in split.samples] == [name for name, *_ in whole.samples]
    assert len(find_segmentation_split(tmp_path, training.classes, "train")) == 6
    with pytest.raises(SwinsError, match="has no val images; it has those of train"):
        find_segmentation_split(tmp_path, training.classes, "val")
