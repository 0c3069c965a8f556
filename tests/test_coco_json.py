"""COCO JSON is read exactly, whatever its ids; what is wrong is refused, or mended, counted and named."""

import dataclasses
import functools
import itertools
import json

import numpy as np
import pytest
from detection_files import CATEGORIES, annotation, by_name, coco, image, picture
from PIL import Image
from shared_fixtures import DATA

from swins.data.detection_layouts import (
    DETECTION_LAYOUTS,
    DetectionLayout,
    find_detection_splits,
    find_evaluation_split,
    register_detection_layout,
)
from swins.data.garment_files import write_coco
from swins.data.garments import Garments
from swins.data.objects import Objects
from swins.data.segmentations import rectangle
from swins.data.split import Split
from swins.errors import SwinsError
from swins.images import open_image

GOOD = [annotation(1, 1, 7, [2, 3, 10, 20]), annotation(2, 2, 3, [5, 5, 8, 8])]


def whole(folder, annotations=GOOD, images=(1, 2), **others):
    """A data set with a training and a validation part -> its folder."""
    coco(folder, "train", [image(i) for i in images], annotations, **others)
    coco(folder, "val", [image(9)], [annotation(1, 9, 7, [0, 0, 4, 4])])
    return folder


def test_coco_mini_is_read_whole(coco_mini):
    training, validation = find_detection_splits(coco_mini)
    assert (len(training), len(validation)) == (80, 79)
    objects = [[truth for *_, truth in split.samples] for split in (training, validation)]
    assert [sum(map(len, truths)) for truths in objects] == [739, 624]
    assert [sum(int(truth.crowd.sum()) for truth in truths) for truths in objects] == [8, 5]
    assert sum(len(truth.training()) for truth in objects[0]) == 731
    assert len(training.classes) == 80 and training.classes[:2] == ("person", "bicycle")
    assert training.category_ids[-1] == 90 and training.category_ids == validation.category_ids
    assert not training.defects and not validation.defects
    facts = json.loads((coco_mini / "annotations" / "instances_val2017.json").read_text())
    rows = {entry["id"]: [] for entry in facts["images"]}
    for entry in facts["annotations"]:
        rows[entry["image_id"]].append(entry)
    for name, path, truth in validation.samples:
        assert path.name == name and open_image(path).size == truth.size[::-1]
        own = rows[truth.image_id]
        expected = np.array([[x, y, x + w, y + h] for x, y, w, h in (entry["bbox"] for entry in own)])
        np.testing.assert_allclose(truth.boxes, expected, atol=0.03)
        assert truth.area.tolist() == [entry["area"] for entry in own]
        assert [validation.category_ids[label] for label in truth.labels] == [entry["category_id"] for entry in own]
    area = np.concatenate([truth.area for truth in objects[0]])
    assert np.histogram(area, [0, 32**2, 96**2, np.inf])[0].tolist() == [301, 283, 155]  # small, medium, large


def test_garments_are_the_same_from_their_files(tmp_path):
    """Ids with gaps in one part, other ids in the other; boxes, masks, areas and classes exactly."""
    ids = (1, 2, 3, 5, 8, 13, 21, 34, 55, 90)
    garments = {
        "train": Garments(DATA, "train", count=5, size=96, objects=(1, 5), scale=(16, 64)),
        "val": Garments(DATA, "val", count=4, size=(64, 96), objects=(0, 3), scale=(16, 48)),
    }
    write_coco(garments["train"], tmp_path, ids)
    write_coco(garments["val"], tmp_path)
    splits = find_detection_splits(tmp_path, masks=True)
    assert splits[0].category_ids == ids and splits[1].category_ids == tuple(range(1, 11))
    for split, canvases in zip(splits, garments.values(), strict=True):
        assert split.classes == canvases.classes and not split.defects
        for (_, path, truth), canvas in zip(split.samples, canvases, strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(path)), canvas.image)
            np.testing.assert_array_equal(truth.boxes, canvas.boxes)
            np.testing.assert_array_equal(truth.labels, canvas.labels)
            np.testing.assert_array_equal(truth.area, canvas.area)
            assert truth.size == canvas.image.shape[:2] and not truth.crowd.any() and len(truth.masks) == len(truth)
    drawn = find_detection_splits(f"garments:{DATA}", masks=True)
    assert [len(split) for split in drawn] == [2000, 500] and drawn[0].digest() != drawn[1].digest()
    name, pixels, truth = drawn[1][3]
    assert name == "garments_val[3]" and pixels.shape[:2] == truth.size and len(truth) == len(truth.masks)
    assert find_evaluation_split(f"garments:{DATA}").classes == splits[0].classes


def test_ids_may_have_gaps_any_order_and_be_texts(tmp_path):
    categories = [{"id": "z", "name": "cat"}, {"id": 0, "name": "dog"}]
    annotations = [annotation(1, "a", 0, [1, 2, 3, 4]), annotation(2, 10**12, "z", [1, 1, 2, 2])]
    images = [image("a", "one.png"), image(10**12, "two.png"), image(5, "empty.png")]
    coco(tmp_path, "train", images, annotations, categories)
    coco(tmp_path, "val", [image(1)], [annotation(1, 1, 4, [0, 0, 9, 9])], [{"id": 4, "name": "dog"}])
    training, validation = find_detection_splits(tmp_path)
    assert training.classes == ("cat", "dog") and training.category_ids == ("z", 0)
    truths = by_name(training)
    assert truths["one"].labels.tolist() == [1] and truths["one"].boxes.tolist() == [[1, 2, 4, 6]]
    assert truths["two"].labels.tolist() == [0] and truths["two"].image_id == 10**12
    assert len(truths["empty"]) == 0 and truths["empty"].boxes.shape == (0, 4)  # and it trains
    assert validation.classes == training.classes and validation.samples[0][2].labels.tolist() == [1]
    assert validation.category_ids == ("z", 4)  # cat's is nobody's there
    assert any("1 of the 2 classes" in note for note in validation.notes)


def test_numbers_of_classes_that_validation_lacks_are_nobody_elses(tmp_path):
    coco(tmp_path, "train", [image(1)], [annotation(1, 1, 3, [0, 0, 9, 9])])
    coco(tmp_path, "val", [image(1)], [annotation(1, 1, 7, [0, 0, 9, 9])], [{"id": 7, "name": "dog"}])
    validation = find_detection_splits(tmp_path)[1]
    assert validation.category_ids == (8, 7) and validation.samples[0][2].labels.tolist() == [1]


def test_a_class_that_only_validation_has_is_named(tmp_path):
    coco(tmp_path, "train", [image(1)], GOOD[:1], CATEGORIES[:1])
    categories = [*CATEGORIES, {"id": 11, "name": "unused"}]
    coco(tmp_path, "val", [image(1)], [annotation(1, 1, 3, [0, 0, 9, 9])], categories)
    with pytest.raises(SwinsError, match=r"classes must be those to train on; 1 are not: dog; .* 1: cat; rename"):
        find_detection_splits(tmp_path)
    assert find_evaluation_split(tmp_path).classes == ("cat", "dog", "unused")
    with pytest.raises(SwinsError, match="must be the model's; 1 are not: dog"):
        find_evaluation_split(tmp_path, ("cat", "horse"))
    split = find_evaluation_split(tmp_path, ("horse", "Dog", "cat"))
    assert split.samples[0][2].labels.tolist() == [1] and split.category_ids == (8, 3, 7)
    assert any("spelt otherwise" in note for note in split.notes)


def test_crowds_stay_and_do_not_train(tmp_path):
    rows = [annotation(1, 1, 7, [2, 3, 10, 20]), annotation(2, 1, 3, [0, 0, 60, 40], area=123.5) | {"iscrowd": 1}]
    truth = find_detection_splits(whole(tmp_path, rows))[0].samples[0][2]
    assert truth.crowd.tolist() == [False, True] and truth.area.tolist() == [200, 123.5]
    assert truth.training().labels.tolist() == [0] and len(truth.training()) == 1
    assert (truth.boxes.dtype, truth.labels.dtype, truth.area.dtype) == (np.float32, np.int64, np.float64)


def test_what_is_wrong_with_annotations_is_counted_and_named(tmp_path):
    nan, inf = float("nan"), float("inf")
    boxes = {
        "boxes that reach over the image's edge, clipped": [[-5, 0, 20, 20], [60, 40, 1e300, 10]],
        "boxes outside their image, left out": [[64, 0, 5, 5], [-9, -9, 9, 9], [0, 100, 5, 5]],
        "boxes of no area, left out": [[5, 5, 0, 9], [5, 5, 1e-300, 9]],
        "boxes whose corners are in the wrong order, left out": [[9, 9, -3, 4]],
        "boxes that are no four finite numbers, left out": [
            *([nan, 0, 5, 5], [0, 0, inf, 5], [10**400, 0, 5, 5], [1e308, 0, 1e308, 5], ["1", 2, 3, 4]),
            *([1, 2, 3], "1234", None, [[1], 2, 3, 4], [True, 0, 5, 5], {}),
        ],
    }
    rows = [annotation(i, 1, 7, box) for i, box in enumerate((b for own in boxes.values() for b in own), 10)]
    rows += [*GOOD, annotation(2, 2, 7, [60, 40, 4.5, 8.9])]  # of rounding, and another's number
    rows += [annotation(50, 77, 7, [0, 0, 5, 5]), annotation(51, 2, 8, [0, 0, 5, 5]), annotation(52, [], {}, [1] * 4)]
    training = find_detection_splits(whole(tmp_path, rows))[0]
    truth = by_name(training)
    assert truth["1"].boxes.tolist() == [[0, 0, 15, 20], [60, 40, 64, 48], [2, 3, 12, 23]]
    assert truth["1"].area.tolist() == [15 * 20, 4 * 8, 200]
    assert truth["2"].boxes.tolist() == [[5, 5, 13, 13], [60, 40, 64, 48]]
    counts = {kind: len(own) for kind, own in boxes.items()} | {
        "annotations whose number another has, kept": 1,
        "objects of an image that is not listed, left out": 2,
        "objects of an unknown class, left out": 1,
    }
    told = {line.split(": ")[1]: int(line.split(": ")[2].split()[0]) for line in training.notes}
    assert told == counts
    assert len(training.defects) == sum(counts.values())
    assert "1.png, annotation 12\tboxes outside their image, left out" in training.defects
    assert "annotation 51, category 8\tobjects of an unknown class, left out" in training.defects


def test_images_that_are_missing_are_named_unless_all_are(tmp_path):
    whole(tmp_path)
    (tmp_path / "train" / "1.png").unlink()
    training = find_detection_splits(tmp_path)[0]
    assert len(training) == 1 and training.defects == ("1.png\timages whose file is missing, left out",)
    assert "classes without objects to train on, 1 of 2: cat" in training.notes
    (tmp_path / "train" / "2.png").unlink()
    with pytest.raises(SwinsError, match=r"none of its images is there, such as 1.png; looked for in .*annotations"):
        find_detection_splits(tmp_path)


@pytest.mark.parametrize("stated", [{}, {"width": 0, "height": 0}, {"width": None, "height": "48"}, {"width": 1e9}])
def test_sizes_that_are_not_stated_are_the_files(tmp_path, stated):
    images = [{**{k: v for k, v in image(1).items() if k not in ("width", "height")}, **stated}]
    coco(tmp_path, "train", images, GOOD[:1])
    coco(tmp_path, "val", images, GOOD[:1])
    (tmp_path / "val" / "1.png").write_bytes(b"GIF")
    with pytest.raises(
        SwinsError, match=r"needs images to validate on; .* neither stated nor to be read, .*: 1 \(1.png"
    ):
        find_detection_splits(tmp_path)
    (tmp_path / "annotations" / "instances_val.json").unlink()
    with pytest.raises(SwinsError, match="needs two images, one to train and one to validate on; got 1"):
        find_detection_splits(tmp_path)
    assert find_evaluation_split(tmp_path).samples[0][2].size == (48, 64)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "/etc/passwd",
        "a/../../b.png",
        "..\\b.png",
        "C:\\b.png",
        "C:b.png",
        "",
        "a\0b",
        None,
        5,
        "\\\\h\\x",
    ],
)
def test_files_outside_the_folder_are_refused_by_name(tmp_path, name):
    picture(tmp_path / "secret.png")
    whole(tmp_path / "data")
    path = tmp_path / "data" / "annotations" / "instances_train.json"
    facts = json.loads(path.read_text())
    facts["images"][1]["file_name"] = name
    path.write_text(json.dumps(facts))
    with pytest.raises(SwinsError, match="must lie in the data set's own folder; got"):
        find_detection_splits(tmp_path / "data")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "its content is a list"),
        (b"[" * 200_000, "not COCO's JSON of objects"),
        (b'{"a":' * 200_000, "not COCO's JSON of objects"),
        (b"\xff\xfe{}", "utf-8"),
        (b'{"images": [', "not COCO's JSON of objects"),
        (b"", "not COCO's JSON of objects"),
        (b"{}", "no list of images and annotations and categories"),
        (b'{"images": [], "annotations": [], "categories": {"1": "a"}}', "no list of categories"),
        (b'{"images": [], "annotations": [[1]], "categories": [{"id": 1, "name": "a"}]}', "annotations are no objects"),
        (b'{"images": [], "annotations": [], "categories": []}', "every category needs a name"),
        (b'{"images": [], "annotations": [], "categories": [{"id": 1}]}', "every category needs a name"),
        (b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": 1}]}', "every category needs a name"),
        (
            b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "\\ud800"}]}',
            "every category needs a name",
        ),
        (
            b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a\\nb"}]}',
            "every category needs a name",
        ),
        (b'{"images": [], "annotations": [], "categories": [{"id": "\\ud800", "name": "a"}]}', "categories need an id"),
        (b'{"images": [], "annotations": [], "categories": [{"name": "a"}]}', "categories need an id"),
        (b'{"images": [], "annotations": [], "categories": [{"id": true, "name": "a"}]}', "categories need an id"),
        (
            b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "categories need ids of their own; shared: 1;",
        ),
        (b'{"images": [{}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "images need an id"),
        (
            b'{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": [], '
            b'"categories": [{"id": 1, "name": "a"}]}',
            "images need ids of their own; shared: 1;",
        ),
        (b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "needs images to train on"),
        (b'{"images": [' + b"9" * 5000 + b'], "annotations": [], "categories": []}', "not COCO's JSON of objects"),
    ],
)
def test_a_json_that_is_none_of_cocos_is_refused(tmp_path, content, message):
    whole(tmp_path)
    (tmp_path / "annotations" / "instances_train.json").write_bytes(content)
    with pytest.raises(SwinsError, match=message):
        find_detection_splits(tmp_path)


JUNK = (None, True, -1, 1.5, 1e308, float("nan"), 10**400, "", "7", "../x", "\ud800", "\0", [], {}, [[]], [1, 2, 3, 4])


def places(node, path=()):
    """Paths of everything in a JSON."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def test_whatever_stands_in_a_json_is_refused_or_gives_boxes_inside_images(tmp_path):
    """Junk in each place of it, one after the other."""
    whole(tmp_path)
    path = tmp_path / "annotations" / "instances_train.json"
    good, counts = path.read_text(), {"read": 0, "refused": 0}
    for place, junk in itertools.product(places(json.loads(good)), JUNK):
        facts = json.loads(good)
        node = functools.reduce(lambda inner, key: inner[key], place[:-1], facts)
        node[place[-1]] = junk
        path.write_text(json.dumps(facts))
        try:
            split = find_detection_splits(tmp_path)[0]
        except SwinsError as error:
            counts["refused"] += 1
            assert str(error).encode() and "\n" not in str(error)
            continue
        counts["read"] += 1
        assert "".join((*split.notes, *split.defects)).encode().isascii() and split.digest()
        for *_, truth in split.samples:
            (height, width), boxes = truth.size, truth.boxes
            assert (boxes[:, :2] >= 0).all() and (boxes <= [width, height, width, height]).all()
            assert (boxes[:, 2:] > boxes[:, :2]).all() and np.isfinite(truth.area).all() and set(truth.labels) <= {0, 1}
    assert min(counts.values()) > 100


def test_names_of_categories_that_are_there_twice(tmp_path):
    """Roboflow's first category is none but the project's name, which a class may have too."""
    categories = [{"id": 0, "name": "cat"}, {"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
    whole(tmp_path, categories=categories)
    training = find_detection_splits(tmp_path)[0]
    assert training.classes == ("cat", "dog") and training.category_ids == (7, 3)
    assert training.defects[0].startswith("0 (cat)\tcategories without objects")
    rows = [*GOOD, annotation(3, 1, 0, [2, 3, 10, 20])]
    with pytest.raises(SwinsError, match="need names of their own; 0 and 7 are both 'cat'"):
        find_detection_splits(whole(tmp_path, rows, categories=categories))


def test_layouts_of_coco(tmp_path):
    """Roboflow's; images in images/train; one file alone, of which a part is held out by the seed."""
    facts = {"images": [image(i) for i in range(20)], "categories": CATEGORIES}
    facts["annotations"] = [annotation(i, i, 7 if i % 2 else 3, [1, 1, 9, 9]) for i in range(20)]
    for part in ("train", "valid"):
        for i in range(20):
            picture(tmp_path / "roboflow" / part / f"{i}.png", 8, 8)
        (tmp_path / "roboflow" / part / "_annotations.coco.json").write_text(json.dumps(facts))
    assert [len(split) for split in find_detection_splits(tmp_path / "roboflow")] == [20, 20]
    below = tmp_path / "below"
    (below / "annotations").mkdir(parents=True)
    for part in ("train", "val"):
        (below / "images").mkdir(exist_ok=True)
        (below / "images" / part).symlink_to(tmp_path / "roboflow" / "train")
        (below / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(facts))
    training, validation = find_detection_splits(below)
    assert training.samples[0][1].parent == below / "images" / "train"
    assert validation.samples[0][1].parent == below / "images" / "val"
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "images").symlink_to(tmp_path / "roboflow" / "train")
    (alone / "result.json").write_text(json.dumps(facts))
    training, validation = find_detection_splits(alone, 0.25, seed=3)
    assert (len(training), len(validation)) == (15, 5)
    names = [{name for name, *_ in split.samples} for split in (training, validation)]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 20
    again, other = (find_detection_splits(alone, 0.25, seed=seed)[1] for seed in (3, 4))
    assert again.digest() == validation.digest() != other.digest()
    assert len(find_evaluation_split(alone)) == 20
    (below / "annotations" / "instances_train2014.json").write_text("{}")
    with pytest.raises(SwinsError, match=r"one file for train; got instances_train2014.json, instances_train2017.json"):
        find_detection_splits(below)
    with pytest.raises(SwinsError, match="none to train on"):
        (below / "annotations" / "instances_train2014.json").unlink()
        (below / "annotations" / "instances_train2017.json").unlink()
        find_detection_splits(below)
    assert len(find_evaluation_split(below)) == 20


def test_folders_of_no_layout_are_refused_and_layouts_are_registered(tmp_path, monkeypatch):
    with pytest.raises(
        SwinsError, match=r"holds no images with boxes: it needs COCO's .*, Pascal VOC's XML, or images/"
    ):
        find_detection_splits(tmp_path)
    with pytest.raises(SwinsError, match="no such folder"):
        find_detection_splits(tmp_path / "none")
    monkeypatch.setattr("swins.data.detection_layouts.DETECTION_LAYOUTS", [*DETECTION_LAYOUTS])
    truth = Objects([[1, 1, 5, 5]], [0], [False], [16.0], (8, 8), 1)

    def read(folder, part, masks):
        return Split(part, [("a", tmp_path / "a.png", truth)], ("thing",))

    register_detection_layout(DetectionLayout("mine", lambda folder: ("one", "two", None), read))
    training, validation = find_detection_splits(tmp_path)
    assert (training.name, validation.name) == ("one", "two") and training.digest() == validation.digest()


def test_boxes_are_of_the_size_that_is_stated(tmp_path):
    """An image that was scaled keeps its proportions; one that was turned or cut does not, and is refused."""
    truth = Objects([[2, 4, 10, 20]], [1], [False], [100.0], (427, 640), 5)
    assert truth.fitted((427, 640)) is truth
    half = truth.fitted((214, 320))
    np.testing.assert_allclose(half.boxes, [[1, 4 * 214 / 427, 5, 20 * 214 / 427]], rtol=1e-6)
    np.testing.assert_allclose(half.area, [100 * 0.5 * 214 / 427])
    assert half.size == (214, 320) and half.image_id == 5 and len(truth.fitted((854, 1280))) == 1
    with pytest.raises(
        SwinsError,
        match="image 5 must have the size that its boxes are of, 640x427; got 427x640; turn it as it is shown",
    ):
        truth.fitted((640, 427))
    with pytest.raises(SwinsError, match="640x427; got 600x427; mend it"):
        truth.fitted((427, 600))
    masked = dataclasses.replace(truth, masks=(rectangle(truth.boxes[0]),)).fitted((214, 320))
    np.testing.assert_allclose(masked.masks[0].box(masked.size), masked.boxes[0], rtol=1e-6)
