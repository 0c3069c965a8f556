"""Detections: what is said of an image's objects, as text, JSON and COCO's results, and drawn on it."""

import json

import numpy as np
import pytest
from PIL import Image
from shared_fixtures import PHOTOS

from swins import run_lengths
from swins.box_drawing import PALETTE, SHADE, draw_mask, spot, write_names
from swins.results import Detections, detections_of

NAMES = ("dress", "bag", "sneaker")
THREE = detections_of(
    boxes=[[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.75, 0.875], [0.9, 0.9, 1, 1]],
    scores=[0.875, 0.71, 0.93, 0.6],
    labels=[1, 2, 0, 0],
    count=3,
    names=NAMES,
    size=(100, 200),
)


def test_what_suppression_leaves_in_pixels_of_the_image():
    assert THREE.boxes.dtype == THREE.scores.dtype == np.float32 and THREE.labels.dtype == np.int64
    np.testing.assert_allclose(THREE.boxes, [[50, 50, 150, 87.5], [20, 20, 100, 60], [0, 0, 200, 100]])
    assert THREE.names == ("dress", "bag", "sneaker") and THREE.labels.tolist() == [0, 1, 2]
    assert len(THREE) == 3 and str(THREE) == "3 found: dress 0.93, bag 0.88, sneaker 0.71"
    unnamed = detections_of(np.zeros((5, 4)), np.ones(5), np.arange(5), np.int32(2), (), (9, 9))
    assert unnamed.names == ("class 0", "class 1")


def test_those_of_a_score_and_none():
    sure = THREE.at_least(0.875)
    assert str(sure) == "2 found: dress 0.93, bag 0.88" and sure.boxes.tolist() == THREE.boxes[:2].tolist()
    none = THREE.at_least(0.99)
    assert (
        str(none) == "nothing found of a score of at least 0.99; the highest is 0.93"
        and none.boxes.shape == (0, 4)
        and none.names == ()
    )
    assert none.to_json() == {"detections": []} and none.to_coco(1, [1, 2, 3]) == [] and not len(none.at_least(0))
    nothing = detections_of(np.zeros((0, 4)), [], [], 0, NAMES, (9, 9))
    assert str(nothing) == "nothing found" and nothing.boxes.dtype == np.float32 and nothing.boxes.shape == (0, 4)
    many = detections_of(np.zeros((30, 4)), np.linspace(1, 0, 30), np.zeros(30), 30, ("a, an A",), (9, 9))
    assert str(many).startswith("30 found: a 1.00, a 0.97, ") and str(many).endswith(", a 0.69, ...")


def test_as_json_and_as_cocos_results():
    rows = json.loads(json.dumps(THREE.to_json()))["detections"]
    assert rows[1] == {"label": 1, "name": "bag", "box": [20, 20, 100, pytest.approx(60)], "score": 0.875}
    rows = json.loads(json.dumps(THREE.to_coco(139, (18, 7, 90))))
    assert rows[0] == {
        "image_id": 139, "category_id": 18, "bbox": [50, 50, 100, 37.5], "score": pytest.approx(0.93)
    }  # fmt: skip


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_boxes_are_drawn_where_they_are(grey):
    photo = np.full((120, 480, 3), grey, "uint8")
    one = detections_of([[0.25, 0.4, 0.5, 0.8]], [0.9], [2], 1, NAMES, photo.shape[:2])
    for width, scale in ((None, 1), (1920, 4)):
        picture = np.asarray(one.draw(photo, width))
        assert picture.shape == (120 * scale, 480 * scale, 3)
        line = (picture == PALETTE[2]).all(-1)
        left, top, right, bottom = (int(side) * scale for side in (120, 48, 240, 96))
        assert line[top, left:right].all() and line[bottom - 1, left:right].all()
        assert line[top:bottom, left].all() and line[top:bottom, right - 1].all()
        assert (picture[(top + bottom) // 2, left - 1] == SHADE).all()  # seen on any colour
        assert (picture[(top + bottom) // 2, (left + right) // 2] == grey).all()
        name = picture[:top, left:]
        assert (name == PALETTE[2]).all(-1).sum() > 100 and (name == 255).all(-1).any()  # white on red
    assert photo.min() == photo.max()  # the photograph itself is untouched


def test_pictures_that_are_small_and_boxes_beyond_them():
    photo = Image.new("L", (40, 30), 200)
    hostile = Detections(
        np.float32([[-30, -20, 90, 80], [39, 29, 39, 29], [50, 50, 60, 60], [-9, 5, -1, 9], [10, 10, 10.1, 30]]),
        np.linspace(0.9, 0.1, 5, dtype="float32"),
        np.arange(5),
        ("x" * 300, "\u4e00", "ok", "", "é, e"),
    )
    picture = hostile.draw(photo)
    assert picture.size == (480, 360) and picture.mode == "RGB" and photo.size == (40, 30)
    assert hostile.draw(photo, 7).size == (7, 5)
    empty = hostile.at_least(1)
    np.testing.assert_array_equal(np.asarray(empty.draw(photo, 40)), np.asarray(photo.convert("RGB")))
    assert empty.draw(np.zeros((5, 500, 6), "uint8")).size == (500, 5)  # of other channels the first


def test_the_surest_is_above_the_others_and_its_name_is_written_first():
    photo = Image.new("RGB", (480, 300), "white")
    both = detections_of([[0.25, 0.25, 0.75, 0.75]] * 2, [0.9, 0.8], [0, 2], 2, NAMES, (300, 480))
    picture = np.asarray(both.draw(photo))
    assert (picture[75, 120:360] == PALETTE[0]).all() and (picture[74 - 5, 121] == PALETTE[0]).all()
    assert (picture == PALETTE[2]).all(-1).any()  # the other's name lies elsewhere
    narrow = Image.new("RGB", (60, 13), "white")  # where both lie in one place
    write_names(narrow, [(0, 0, 60, 13)] * 2, ["one", "two"], [PALETTE[0], PALETTE[2]])
    assert narrow.getpixel((0, 0)) == PALETTE[0] and PALETTE[2] in {colour for _, colour in narrow.getcolors()}


def test_names_are_written_beside_their_boxes_and_apart():
    assert spot((10, 20, 30, 40), (15, 8), (64, 64), []) == (10, 12, 25, 20)
    assert spot((10, 2, 30, 40), (15, 8), (64, 64), []) == (10, 40, 25, 48)
    assert spot((10, 20, 30, 40), (15, 8), (64, 64), [(8, 10, 20, 14)]) == (10, 40, 25, 48)
    assert spot((0, 0, 64, 64), (15, 8), (64, 64), []) == (0, 0, 15, 8)
    assert spot((60, 60, 64, 64), (90, 8), (64, 64), []) == (0, 56, 90, 64)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs shared/data/photos")
def test_on_photographs(rng):
    for path in sorted(PHOTOS.iterdir())[:5]:
        corners = np.sort(rng.random((8, 2, 2)), axis=1).reshape(8, 4)
        detections = detections_of(corners, rng.random(8), rng.integers(0, 3, 8), 8, NAMES, (299, 299))
        picture = detections.draw(path)
        assert picture.size == (480, 480)
        for label in set(detections.labels.tolist()):
            assert (np.asarray(picture) == PALETTE[label]).all(-1).sum() > 50


def masked(masks, labels=(1, 2)):
    """Detections with masks (n, H, W), whose boxes are around them."""
    boxes = [[m.any(0).argmax(), m.any(1).argmax(), *np.argwhere(m).max(0)[::-1] + 1] for m in masks]
    scores = np.linspace(0.9, 0.5, len(masks), dtype="float32")
    names = tuple(NAMES[label] for label in labels)
    return Detections(np.float32(boxes).reshape(-1, 4), scores, np.array(labels), names, np.array(masks))


def test_masks_stay_with_their_objects():
    masks = np.zeros((3, 100, 200), bool)
    masks[0, :9], masks[1, 5:30, 20:60], masks[2, 50:] = True, True, True
    two = detections_of(THREE.boxes[[0, 1, 2]] / 200, [0.5, 0.9, 0.7], [0, 1, 2], 2, NAMES, (100, 200), masks)
    np.testing.assert_array_equal(two.masks, masks[[1, 0]])
    np.testing.assert_array_equal(two.at_least(0.6).masks, masks[[1]])
    assert two.at_least(2).masks.shape == (0, 100, 200) and THREE.masks is None and THREE.at_least(0).masks is None
    rows = json.loads(json.dumps(two.to_json()))["detections"]
    lines = json.loads(json.dumps(two.to_coco(5, (7, 8, 9))))
    assert "mask" not in THREE.to_json()["detections"][0] and "segmentation" not in THREE.to_coco(5, (7, 8, 9))[0]
    for row, line, mask in zip(rows, lines, two.masks, strict=True):
        assert row["mask"] == line["segmentation"] and line["category_id"] in (7, 8)
        np.testing.assert_array_equal(run_lengths.of_json(row["mask"]), mask)


def test_masks_are_drawn_where_they_are():
    """Translucent, with an opaque edge, the surest above; on a drawing of another size, and of the image's own."""
    photo = np.full((100, 500, 3), 200, "uint8")
    masks = np.zeros((2, 100, 500), bool)
    masks[0, 30:70, 100:200], masks[1, 40:100, 150:300] = True, True
    for width, scale in ((None, 1), (1000, 2)):
        picture = np.asarray(masked(masks).draw(photo, width))
        first, second = (tuple((200 * 155 + c * 100) // 255 for c in PALETTE[label]) for label in (1, 2))
        assert tuple(picture[50 * scale, 120 * scale]) == first and tuple(picture[85 * scale, 250 * scale]) == second
        both = tuple((second[i] * 155 + PALETTE[1][i] * 100) // 255 for i in range(3))
        assert tuple(picture[55 * scale, 175 * scale]) == both
        assert tuple(picture[20 * scale, 20 * scale]) == (200, 200, 200)
    pixels = np.zeros((9, 9, 3), "uint8")
    diamond = np.abs(np.arange(9) - 4)[:, None] + np.abs(np.arange(9) - 4) < 4
    draw_mask(pixels, diamond, (255, 0, 0))
    assert pixels[..., 0].max(0).tolist() == [0, 255, 255, 255, 255, 255, 255, 255, 0]
    assert pixels[4, :, 0].tolist() == [0, 255, 100, 100, 100, 100, 100, 255, 0] and not pixels[..., 1].any()
    whole = np.zeros((5, 5, 3), "uint8")
    draw_mask(whole, np.ones((5, 5), bool), (255, 0, 0), 2)
    assert (whole[..., 0] == 100).all()  # the picture's edge is none of the mask's
    draw_mask(whole, np.zeros((5, 5), bool), (0, 255, 0))
    assert not whole[..., 1].any()
    none = masked(masks).at_least(1)
    np.testing.assert_array_equal(np.asarray(none.draw(photo)), photo)
