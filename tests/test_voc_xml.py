"""Pascal VOC's XML is read as it is written, safely; what is wrong is refused, or left out, counted and named."""

import shutil

import numpy as np
import pytest
from detection_files import by_name, picture, voc, xml

from swins.data.detection_layouts import find_detection_splits, find_evaluation_split
from swins.errors import SwinsError

OBJECTS = {
    "a": [("dog", (1, 1, 64, 48), 0), ("cat", (10.5, 5, 20, 30), 1)],
    "b": [("dog", (3, 4, 9, 9), 0)],
    "c": [],
    "d": [("cat", (2, 2, 8, 8), 0)],
}


@pytest.fixture
def year(tmp_path):
    """VOCdevkit/VOC2007: a, b and c to train on, d to validate on."""
    folder = tmp_path / "VOCdevkit" / "VOC2007"
    voc(folder, {"train": "abc", "val": "d", "trainval": "abcd", "test": "d"}, OBJECTS)
    return folder


def test_lists_tell_what_trains(year):
    for source in (year, year.parent):
        training, validation = find_detection_splits(source)
        truths = by_name(training)
        assert list(truths) == ["a", "b", "c"] and list(by_name(validation)) == ["d"]
        assert training.classes == validation.classes == ("cat", "dog") and training.category_ids == (1, 2)
        assert truths["a"].boxes.tolist() == [[1, 1, 64, 48], [10.5, 5, 20, 30]]  # as they are written
        assert truths["a"].labels.tolist() == [1, 0] and truths["a"].crowd.tolist() == [False, True]
        assert truths["a"].training().labels.tolist() == [1] and truths["a"].area[0] == 63 * 47
        assert truths["c"].boxes.shape == (0, 4) and truths["c"].size == (48, 64) and truths["c"].image_id == "c"
        assert validation.samples[0][2].labels.tolist() == [0] and validation.samples[0][1].name == "d.png"
        assert training.defects[0].startswith("a.xml, object 2\tobjects marked as difficult")
        assert "classes without objects to train on, 1 of 2: cat" in training.notes
    (year / "ImageSets" / "Main" / "val.txt").unlink()
    assert [len(split) for split in find_detection_splits(year)] == [4, 1]  # trainval and test
    assert len(find_evaluation_split(year)) == 1 and find_evaluation_split(year).classes == ("cat",)
    assert find_evaluation_split(year, ("dog", "cat", "cow")).samples[0][2].labels.tolist() == [1]
    shutil.copytree(year, year.with_name("VOC2012"))
    with pytest.raises(SwinsError, match="holds VOC2007, VOC2012; give the folder of one"):
        find_detection_splits(year.parent)


def test_a_class_that_only_validation_has_is_named(year):
    (year / "Annotations" / "d.xml").write_text(xml("d", [("horse", (1, 1, 9, 9), 0)]))
    with pytest.raises(SwinsError, match="those to train on; 1 are not: horse; those to train on are 2: cat, dog"):
        find_detection_splits(year)


@pytest.mark.parametrize("folders", [("", ""), ("annotations", "images"), ("Annotations", "JPEGImages")])
def test_folders_without_lists(tmp_path, folders):
    texts, images = (tmp_path / name for name in folders)
    for i in range(10):
        picture(images / f"{i}.png")
        texts.mkdir(exist_ok=True)
        (texts / f"{i}.xml").write_text(xml(str(i), [("cat", (1, 1, 9, 9 + i), 0)], filename="elsewhere.jpg"))
    picture(images / "bare.png")
    training, validation = find_detection_splits(tmp_path, 0.2)
    assert (len(training), len(validation)) == (8, 2)
    assert training.defects == ("bare.png\timages without annotations, left out",)
    assert len(find_evaluation_split(tmp_path)) == 10


def test_roboflows_folders(tmp_path):
    for part, count in (("train", 3), ("valid", 2)):
        for i in range(count):
            picture(tmp_path / part / f"{i}.png")
            (tmp_path / part / f"{i}.xml").write_text(xml(str(i), [("cat", (1, 1, 9, 9), 0)]))
    assert [len(split) for split in find_detection_splits(tmp_path)] == [3, 2]


def test_what_is_wrong_is_counted_and_named(year):
    """Among it are BCCD's two boxes of no area."""
    boxes = [(504, 37, 504, 37), (18, 12, 18, 12), (70, 1, 90, 9), (9, 9, 3, 12), ("nan", 1, 5, 5), ("", 1, 5, 5)]
    boxes += [("1e999", 1, 5, 5), ("five", 1, 5, 5), (-20, 2, 30, 9)]
    objects = [("dog", box, 0) for box in boxes] + [("", (1, 1, 5, 5), 0), ("  dog ", (1, 1, 5, 5), 0)]
    text = xml("a", objects, size=(0, 0, 3)).replace("</annotation>", "<object><name>dog</name></object></annotation>")
    (year / "Annotations" / "a.xml").write_text(text)
    (year / "Annotations" / "d.xml").write_text(xml("d", OBJECTS["b"]))
    (year / "JPEGImages" / "b.png").unlink()
    (year / "ImageSets" / "Main" / "train.txt").write_text("a  1\nb -1\n\nc\nnone\na\n")
    training = find_detection_splits(year)[0]
    truth = by_name(training)["a"]
    assert truth.size == (48, 64)  # the file's, as none is stated
    assert truth.boxes.tolist() == [[0, 2, 30, 9], [1, 1, 5, 5]] and training.classes == ("dog",)
    told = {line.split(": ")[1]: int(line.split(": ")[2].split()[0]) for line in training.notes}
    assert told == {
        "boxes of no area, left out": 2,
        "boxes outside their image, left out": 1,
        "boxes whose corners are in the wrong order, left out": 1,
        "boxes that are no four finite numbers, left out": 5,
        "boxes that reach over the image's edge, clipped": 1,
        "objects without a class, left out": 1,
        "images whose file is missing, left out": 1,
        "images without annotations, left out": 1,
    }
    assert "a.xml, object 2\tboxes of no area, left out" in training.defects


BOMB = """<!DOCTYPE annotation [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><annotation><filename>&b;
</filename></annotation>"""
FILE = (
    '<!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation><filename>&a;</filename></annotation>'
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "document type"),
        (FILE, "document type"),
        (BOMB.encode("utf-16"), "document type"),
        ("<annotation>", "not an XML of annotations"),
        ("", "not an XML of annotations"),
        ("{}", "not an XML of annotations"),
        ("<annotation>&a;</annotation>", "undefined entity"),
        ("<annotations></annotations>", "begins with annotation; got annotations"),
        (b"\xff\xff", "not an XML of annotations"),
        (b'<?xml version="1.0" encoding="nonsense"?><annotation/>', "not an XML of annotations"),
        (b"<annotation>" + b"\x00" * 9 + b"</annotation>", "not an XML of annotations"),
        (b" " * (2**24 + 1), "more than 16777216 bytes"),
    ],
)
def test_xml_is_read_safely(year, content, message):
    (year / "Annotations" / "b.xml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SwinsError, match=message):
        find_detection_splits(year)


def test_deep_xml_ends(year):
    deep = "<part>" * 100_000 + "</part>" * 100_000
    (year / "Annotations" / "b.xml").write_text(xml("b", OBJECTS["b"]).replace("<object>", f"<object>{deep}"))
    truth = by_name(find_detection_splits(year)[0])["b"]
    assert truth.boxes.tolist() == [[3, 4, 9, 9]]


def test_names_that_lead_out_are_refused(year):
    (year / "Annotations" / "b.xml").rename(year / "Annotations" / "e.xml")
    (year / "Annotations" / "e.xml").write_text(xml("e", OBJECTS["b"], filename="../../../etc/passwd"))
    (year / "ImageSets" / "Main" / "train.txt").write_text("a\ne\n")
    with pytest.raises(SwinsError, match=r"own folder; got '\.\./\.\./\.\./etc/passwd'"):
        find_detection_splits(year)
    (year / "ImageSets" / "Main" / "train.txt").write_text("a\n../../a\n")
    with pytest.raises(SwinsError, match=r"own folder; got '\.\./\.\./a'"):
        find_detection_splits(year)
    (year / "ImageSets" / "Main" / "train.txt").write_bytes(b"\xff\xfe\n")
    with pytest.raises(SwinsError, match="must be UTF-8"):
        find_detection_splits(year)


def test_no_objects_to_train_on(year):
    (year / "ImageSets" / "Main" / "train.txt").write_text("c\n")
    (year / "ImageSets" / "Main" / "val.txt").write_text("c\n")
    with pytest.raises(SwinsError, match="needs objects to train on; got none that can be used"):
        find_detection_splits(year)


def test_boxes_are_numpy_arrays_of_one_kind(year):
    for split in find_detection_splits(year):
        for *_, truth in split.samples:
            assert truth.boxes.dtype == np.float32 and truth.labels.dtype == np.int64 and truth.crowd.dtype == bool
