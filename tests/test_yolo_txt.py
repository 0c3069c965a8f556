"""YOLO's folders are read as Ultralytics means them, and nothing of them is executed."""

import numpy as np
import pytest
from detection_files import by_name, picture, yolo
from PIL import Image

from swins.data.detection_layouts import find_detection_splits, find_evaluation_split
from swins.data.yaml_names import read_yaml
from swins.errors import SwinsError

LINES = {
    "train/a": "0 0.5 0.5 1 1\n1 0.25 0.25 0.25 0.5\n",
    "train/b": "",
    "train/c": None,
    "val/d": "1 0.5 0.5 0.5 0.5",
}


def test_boxes_are_of_the_images_pixels(tmp_path):
    yolo(tmp_path, LINES)
    training, validation = find_detection_splits(tmp_path)
    truths = by_name(training)
    assert list(truths) == ["a", "b", "c"] and [len(truth) for truth in truths.values()] == [2, 0, 0]
    assert truths["a"].boxes.tolist() == [[0, 0, 64, 48], [8, 0, 24, 24]] and truths["a"].labels.tolist() == [0, 1]
    assert truths["a"].area.tolist() == [64 * 48, 16 * 24] and truths["a"].masks is None
    assert truths["a"].image_id == "images/train/a" and truths["a"].size == (48, 64)
    assert training.classes == ("cat", "dog") and training.category_ids == validation.category_ids == (0, 1)
    assert validation.samples[0][2].boxes.tolist() == [[16, 12, 48, 36]]
    assert training.defects == ("images/train/c.png\timages without a text of labels, taken to have no objects",)


def test_numbers_of_classes_may_have_gaps(tmp_path):
    yolo(
        tmp_path,
        {**LINES, "train/a": "90 .5 .5 1 1\n5 .5 .5 1 1\n0 .5 .5 1 1"},
        "names:\n  90: cat\n  5: dog\n  1: cow",
    )
    (tmp_path / "labels" / "val" / "d.txt").write_text("1 .5 .5 1 1")
    training, validation = find_detection_splits(tmp_path)
    assert training.classes == ("cow", "dog", "cat") and training.category_ids == (1, 5, 90)
    assert by_name(training)["a"].labels.tolist() == [2, 1] and validation.samples[0][2].labels.tolist() == [0]
    assert "a.txt, line 3, class 0\tobjects of an unknown class, left out" in training.defects


def test_polygons_become_boxes(tmp_path):
    yolo(tmp_path, {**LINES, "train/a": "1 0.25 0.5 0.5 0.25 0.75 0.5\n"})
    truth = by_name(find_detection_splits(tmp_path, masks=True)[0])["a"]
    assert truth.boxes.tolist() == [[16, 12, 48, 24]] and not truth.crowd.any()
    assert truth.masks[0].parts[0].tolist() == [[16, 24], [32, 12], [48, 24]]
    assert by_name(find_detection_splits(tmp_path)[0])["a"].masks is None


def test_what_is_wrong_is_counted_and_named(tmp_path):
    wrong = "0 0.5 0.5 1 1\n2 0.5 0.5 1 1\n-1 .5 .5 1 1\n0.5 .5 .5 1 1\nnan .5 .5 1 1\n0 0.5 0.5 0.5\n0 a b c d\n"
    wrong += "0 .5 .5 1 1 0.9\n0 nan .5 1 1\n0 inf .5 1 1\n0 1e999 .5 1 1\n0 .5 .5 0 1\n0 .5 .5 -1 1\n0 3 3 1 1\n"
    wrong += "\n0 1 0.5 0.5 1\n1 320 240 20 30\n"
    yolo(tmp_path, {**LINES, "train/a": wrong, "train/b": "1 .5 .5 .5 .5"})
    (tmp_path / "labels" / "train" / "gone.txt").write_text("0 .5 .5 1 1")
    (tmp_path / "labels" / "train" / "classes.txt").write_text("cat")
    (tmp_path / "labels" / "train" / "c.txt").write_bytes(b"\xff\xff")
    (tmp_path / "images" / "train" / "broken.png").write_bytes(b"GIF")
    training = find_detection_splits(tmp_path)[0]
    assert by_name(training)["a"].boxes.tolist() == [[0, 0, 64, 48], [48, 0, 64, 48]]
    told = {line.split(": ")[1]: int(line.split(": ")[2].split()[0]) for line in training.notes}
    assert told == {
        "objects of an unknown class, left out": 4,
        "lines that are no class and box or polygon, left out": 3,
        "boxes that are no four finite numbers, left out": 3,
        "boxes of no area, left out": 1,
        "boxes whose corners are in the wrong order, left out": 1,
        "boxes outside their image, left out": 2,
        "boxes that reach over the image's edge, clipped": 1,
        "texts of labels that are no UTF-8, taken as empty": 1,
        "texts of labels whose image is missing, left out": 1,
        "images whose size is neither stated nor to be read, left out": 1,
    }
    assert "a.txt, line 6\tlines that are no class and box or polygon, left out" in training.defects


def test_images_that_exif_turns_are_named(tmp_path):
    yolo(tmp_path, LINES)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "train" / "a.png", exif=exif)
    training = find_detection_splits(tmp_path)[0]
    assert any("EXIF says are shown turned" in line for line in training.defects)
    assert by_name(training)["a"].size == (48, 64)


@pytest.mark.parametrize("place", ["classes.txt", "obj.names", "labels/classes.txt", "labels/train/classes.txt"])
def test_names_in_a_text(tmp_path, place):
    yolo(tmp_path, LINES, names=None)
    (tmp_path / place).write_text("man's hat\nfire hydrant\n\n", encoding="utf-8")
    assert find_detection_splits(tmp_path)[0].classes == ("man's hat", "fire hydrant")


def test_other_folders(tmp_path):
    """Roboflow's, CVAT's list, LabelImg's one folder, and what data.yaml says."""
    for part in ("train", "valid"):
        picture(tmp_path / "roboflow" / part / "images" / "a.jpg")
        (tmp_path / "roboflow" / part / "labels").mkdir()
        (tmp_path / "roboflow" / part / "labels" / "a.txt").write_text("0 .5 .5 1 1")
    (tmp_path / "roboflow" / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['x']"
    )
    assert [len(split.samples[0][2]) for split in find_detection_splits(tmp_path / "roboflow")] == [1, 1]
    cvat = tmp_path / "cvat"
    for i in range(4):
        picture(cvat / "obj_train_data" / f"{i}.png")
        (cvat / "obj_train_data" / f"{i}.txt").write_text("0 .5 .5 1 1")
    (cvat / "obj.names").write_text("x\n")
    (cvat / "train.txt").write_text("data/obj_train_data/0.png\nobj_train_data/1.png\ndata/obj_train_data/9.png\n")
    training, validation = find_detection_splits(cvat)
    assert (len(training), len(validation)) == (1, 1)
    assert training.defects == ("data/obj_train_data/9.png\timages whose file is missing, left out",)
    (cvat / "train.txt").unlink()
    assert len(find_evaluation_split(cvat)) == 4
    one = cvat / "obj_train_data"
    (one / "classes.txt").write_text("x\n")
    assert len(find_evaluation_split(one)) == 4 and not find_evaluation_split(one).defects
    stated = tmp_path / "stated"
    yolo(
        stated,
        {"all/a": "0 .5 .5 1 1", "all/b": "", "more/c": ""},
        "train: [images/all]\nval: ./images/more\nnames: [x]",
    )
    assert [len(split) for split in find_detection_splits(stated)] == [2, 1]


@pytest.mark.parametrize("value", ["/etc", "images/../../..", "C:\\data", "missing"])
def test_folders_outside_are_refused(tmp_path, value):
    yolo(tmp_path, {"all/a": "0 .5 .5 1 1"}, f"train: {value}\nnames: [x]")
    with pytest.raises(SwinsError, match=r"own folder; got|must be a folder or list of images in"):
        find_detection_splits(tmp_path)


def test_lists_that_lead_out_are_refused(tmp_path):
    yolo(tmp_path, {"all/a": "0 .5 .5 1 1"}, "train: train.txt\nnames: [x]")
    (tmp_path / "train.txt").write_text("./images/all/a.png\n../../secret.png\n")
    with pytest.raises(SwinsError, match=r"own folder; got '\.\./\.\./secret.png'"):
        find_detection_splits(tmp_path)
    (tmp_path / "train.txt").write_bytes(b"\xff\n")
    with pytest.raises(SwinsError, match="must be UTF-8"):
        find_detection_splits(tmp_path)


YAMLS = [
    "names: ['a', \"b\", c d]\nnc: 3",
    "# data\npath: ../coco # root\ntrain: images/train\nval:\n  - x\n  - y\nnames:\n  0: person\n  1: traffic light",
    "names:\n- a b\n- 'it''s'\n- \"tab\\tand \\u00e9\"\n",
    "names:\n  - man's hat # a comment\n  - 'a # b'\n  - c#d\n",
    "names: {0: a, 1: 'b, c', 2: d}",
    "names: [\n  'a', # first\n  'b',\n  c\n]\ntrain: t\n",
    'names: ["a, b", "c: d", e-f]',
    "train: 'x y'\nval: \"v\"\n'test': z\nnames: [k]\nurl: https://x.org/a.zip\nempty:\n",
    "---\nnames:\n    '0': a\n    '1': b\nroboflow:\n  workspace: w\n  url: https://u.v/w\n",
    "names: ['日本', 'Ångström']\r\nnc: 2\r\n",
]


@pytest.mark.parametrize("text", YAMLS)
def test_the_reader_of_yaml_reads_as_pyyaml(tmp_path, text):
    yaml = pytest.importorskip("yaml")
    (tmp_path / "data.yaml").write_bytes(text.encode())

    def texts(value):
        if isinstance(value, dict):
            return {str(key): texts(inner) for key, inner in value.items()}
        return [texts(inner) for inner in value] if isinstance(value, list) else "" if value is None else str(value)

    assert read_yaml(tmp_path / "data.yaml") == texts(yaml.safe_load(text))


@pytest.mark.parametrize(
    "names",
    [
        "names: !!python/object/apply:os.system ['touch pwned']",
        "names: [!!python/object/apply:os.system ['touch pwned']]",
        "names:\n  - !!python/object/apply:os.system ['touch pwned']",
        "a: &a [x]\nnames: *a",
        "names: [a",
        "names: 5",
        "names:",
        "names: [a, a]",
        "names: [a, '']",
        "names: {-1: a}",
        "names: {x: a}",
        "names: [[a, b]]",
        "names: |\n  a\n  b",
        'names: ["\\x"]',
        "names: [a, b, c]\nnc: 2",
        b"names: [\xff]",
    ],
)
def test_names_that_are_none_are_refused(tmp_path, monkeypatch, names):
    monkeypatch.chdir(tmp_path)
    yolo(tmp_path / "data", LINES, names="")
    (tmp_path / "data" / "data.yaml").write_bytes(names if isinstance(names, bytes) else names.encode())
    with pytest.raises(SwinsError, match=r"data\.yaml: (names must|not a YAML)|holds no images"):
        find_detection_splits(tmp_path / "data")
    assert not (tmp_path / "pwned").exists()


def test_a_random_set_comes_back(tmp_path, rng):
    """Boxes written as Ultralytics writes them, six digits, are those that were meant, up to these."""
    names, lines, expected = [f"class {i}" for i in range(5)], {}, {}
    for i in range(6):
        corners = np.sort(rng.uniform(0, 1, (rng.integers(0, 9), 2, 2)), 1).reshape(-1, 4)
        labels = rng.integers(0, 5, len(corners))
        rows = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
        text = "".join(
            f"{label} {' '.join(f'{x:.6f}' for x in row)}\n" for label, row in zip(labels, rows, strict=True)
        )
        lines[f"{'val' if i == 5 else 'train'}/{i}"] = text
        expected[str(i)] = labels, corners * [64, 48, 64, 48]
    yolo(tmp_path, {**lines, "train/x": "0 .5 .5 .1 .1"}, f"names: {names}")
    for split in find_detection_splits(tmp_path):
        for name, truth in by_name(split).items():
            if name in expected:
                labels, boxes = expected[name]
                np.testing.assert_array_equal(truth.labels, labels)
                np.testing.assert_allclose(truth.boxes, boxes, atol=1e-4)
