"""Garments: canvases whose boxes, masks and classes are exact, the same everywhere, and as the arguments say."""

import dataclasses
import hashlib
import itertools
import pathlib
import pickle
import re

import numpy as np
import pytest
from PIL import Image
from shared_fixtures import DATA, ROOT, script
from training import write_idx

from swins.box_drawing import PALETTE
from swins.data import cutouts, drawing
from swins.data.garments import BACKGROUNDS, DARK, Garments
from swins.data.stacking import Layers, box_ious, tight
from swins.errors import SwinsError

CROWDED = Garments(DATA, "val", count=12, size=(96, 128), objects=(6, 9), scale=(12, 64), overlap=0.6, visible=0.3)
# of CROWDED's first four canvases; other bytes are another data set
SHA256 = "c6bd98ed67ad03cad78c54448cbe09b1ec6733448b177b87c5ef37bcb3dbb7e7"


def content(canvas):
    """Every array of a canvas, as bytes."""
    return b"".join(a.tobytes() for a in vars(canvas).values() if isinstance(a, np.ndarray))


@pytest.fixture(scope="module")
def crowded():
    return list(CROWDED)


def test_boxes_masks_and_map_agree_exactly(crowded):
    hidden = 0
    for canvas in crowded:
        count = len(canvas.labels)
        assert canvas.image.shape == (96, 128, 3) and canvas.image.dtype == np.uint8
        assert canvas.boxes.shape == (count, 4) and canvas.boxes.dtype == np.float32
        assert canvas.masks.shape == (count, 96, 128) and canvas.masks.dtype == bool
        assert canvas.semantic.shape == (96, 128) and canvas.semantic.dtype == np.uint8
        assert canvas.masks.sum(0).max() == 1  # no pixel is of two
        semantic = np.zeros((96, 128), np.uint8)
        for box, mask, label in zip(canvas.boxes, canvas.masks, canvas.labels, strict=True):
            y, x = np.nonzero(mask)
            np.testing.assert_array_equal(box, [x.min(), y.min(), x.max() + 1, y.max() + 1])
            semantic[mask] = label + 1
        np.testing.assert_array_equal(canvas.semantic, semantic)
        np.testing.assert_array_equal(canvas.area, canvas.masks.sum((1, 2)))
        np.testing.assert_array_equal(canvas.labels, CROWDED.cutouts.labels[canvas.sources])
        hidden += (canvas.area < canvas.whole).sum()
    assert hidden > 10


def test_a_garment_alone_is_its_image():
    plain = {"objects": (1, 1), "size": 64, "scale": (28, 28), "colour": False, "background": "plain"}
    mirrored = 0
    for flips in (False, True):
        garments = Garments(DATA, "train", count=20, flips=flips, **plain)
        for canvas in garments:
            (left, top, right, bottom), number = canvas.boxes[0].astype(int), canvas.sources[0]
            grey, cover = garments.cutouts.scaled(number, 28)
            inside, image = np.s_[top:bottom, left:right], canvas.image
            assert image.shape == (64, 64) and len(set(image[~canvas.masks[0]].tolist())) < 64
            same = np.array_equal(canvas.masks[0][inside], cover >= 128)
            other = np.array_equal(canvas.masks[0][inside], cover[:, ::-1] >= 128)
            assert same or (flips and other)
            mirrored += other and not same
            level = DARK + grey.astype(int) * (255 - DARK) // 255
            expected = level if same else level[:, ::-1]
            full = (cover if same else cover[:, ::-1]) == 255
            np.testing.assert_array_equal(image[inside][full], expected[full])
    assert 3 < mirrored < 17


@pytest.mark.backends
def test_the_same_arguments_give_the_same_bytes_everywhere(crowded):
    """No backend takes part in it; other processes, orders and copies make no difference."""
    assert hashlib.sha256(b"".join(map(content, crowded[:4]))).hexdigest() == SHA256
    again = pickle.loads(pickle.dumps(dataclasses.replace(CROWDED, source=str(DATA), size=[96, np.int64(128)])))
    assert content(again[-1]) == content(crowded[11]) and content(again[np.int64(5)]) == content(crowded[5])
    more = dataclasses.replace(CROWDED, count=1000)
    assert content(more[5]) == content(crowded[5]) and more[5].name == crowded[5].name == "garments_val[5]"
    others = [dataclasses.replace(CROWDED, **{name: value}) for name, value in (("seed", 1), ("split", "train"))]
    assert len({content(garments[5]) for garments in (CROWDED, *others)}) == 3
    assert len({garments.digest() for garments in (CROWDED, *others, more)}) == 4
    assert again.digest() == CROWDED.digest()


def test_canvases_are_numbered_as_a_sequence():
    assert len(CROWDED) == 12
    for index in (12, -13):
        with pytest.raises(IndexError, match="0 to 11"):
            CROWDED[index]
    with pytest.raises(TypeError):
        CROWDED["0"]


def test_training_and_validation_share_no_image():
    train, val = (cutouts.Cutouts(DATA, split) for split in cutouts.SPLITS)
    assert [len(m) for m in train.members] == [800] * 10 and [len(m) for m in val.members] == [200] * 10
    images = [{c.pixels[i].tobytes() for i in np.concatenate(c.members)} for c in (train, val)]
    assert not images[0] & images[1] and len(images[0]) == 8000 and len(images[1]) == 2000
    drawn = [
        {i for canvas in Garments(DATA, split, count=60, size=96, scale=(12, 32)) for i in canvas.sources.tolist()}
        for split in cutouts.SPLITS
    ]
    assert not drawn[0] & drawn[1] and min(map(len, drawn)) > 150


def test_images_that_are_there_twice_stay_on_one_side(tmp_path, pixels):
    images, labels = (array[:200].copy() for array in pixels)
    images[100:] = images[:100]
    labels[150:] = (labels[50:100] + 1) % 10  # under another label too
    write_idx(tmp_path, "t10k", images, labels)
    alone = [cutouts.Cutouts(tmp_path, split) for split in cutouts.SPLITS]
    images[0] = 0  # no garment
    write_idx(tmp_path, "train", images[:60], labels[:60])
    write_idx(tmp_path, "t10k", images[50:], labels[50:])
    official = [cutouts.Cutouts(tmp_path, split) for split in cutouts.SPLITS]
    for train, val in (alone, official):
        seen = [{c.pixels[i].tobytes() for i in np.concatenate(c.members)} for c in (train, val)]
        assert seen[0] and seen[1] and not seen[0] & seen[1]
    assert min(np.concatenate(official[1].members)) >= 60  # t10k's own are validated on
    assert 0 not in np.concatenate(official[0].members)


def test_what_is_garment_of_an_image():
    image = np.array(
        [
            [0, 99, 99, 99, 99, 0, 0, 0],
            [0, 99, 0, 0, 99, 0, 0, 9],
            [0, 99, 0, 8, 99, 0, 0, 0],
            [0, 99, 99, 99, 99, 0, 0, 0],
            [0, 0, 0, 0, 0, 99, 0, 0],
        ],
        np.uint8,
    )
    expected = [
        [0, 1, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 1, 0, 0, 0],  # the hole is filled, dirt goes
        [0, 1, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0, 0],  # corners hold together
    ]
    np.testing.assert_array_equal(cutouts.garment(image), np.array(expected, bool))
    handle = np.pad(np.zeros((4, 4), np.uint8), 2, constant_values=200)
    np.testing.assert_array_equal(cutouts.garment(handle), handle > 0)  # 16 pixels are no print
    two = np.zeros((9, 9), np.uint8)
    two[:4, :4] = two[6:, 6:] = 50
    np.testing.assert_array_equal(cutouts.garment(two), two > 0)  # a large part beside stays


def test_masks_laid_on_each_other():
    layers = Layers((4, 6), overlap=0.5, least_visible=0.5)
    block = np.ones((2, 4), bool)
    assert layers.lay(block, 0, 0) and layers.lay(block, 2, 1)
    np.testing.assert_array_equal(
        layers.owner, [[1, 1, 1, 1, 0, 0], [1, 1, 2, 2, 2, 2], [0, 0, 2, 2, 2, 2], [0, 0, 0, 0, 0, 0]]
    )
    assert layers.boxes.tolist() == [[0, 0, 4, 2], [2, 1, 6, 3]] and layers.visible.tolist() == [6, 8]
    common, union = box_ious(layers.boxes, layers.boxes)
    assert common.tolist() == [[8, 2], [2, 8]] and union.tolist() == [[8, 14], [14, 8]]
    before = layers.owner.copy()
    assert not layers.lay(np.ones((1, 4), bool), 0, 0)  # 2 of the first's 8 pixels would be left
    assert not layers.lay(np.ones((2, 3), bool), 3, 1)  # IoU of 6 / 8 with the second
    np.testing.assert_array_equal(layers.owner, before)
    assert layers.free((1, 2)).tolist() == [[4, 0], [0, 2], [0, 3], [1, 3], [2, 3], [3, 3], [4, 3]]
    assert layers.lay(np.ones((1, 2), bool), 0, 1)  # what is hidden leaves its box
    assert layers.boxes[0].tolist() == [0, 0, 4, 1]
    assert tight(np.array([[0, 0, 0], [0, 0, 1]])) == (2, 1, 3, 2)


def test_crowding_sizes_and_overlap_are_as_asked():
    def statistics(count=30, **arguments):
        """(garments a canvas, longer sides of garments that are whole, visible parts, IoUs of pairs)."""
        numbers, sides, parts, ious = [], [], [], []
        for canvas in Garments(DATA, "train", count=count, **arguments):
            numbers.append(len(canvas.labels))
            extent = (canvas.boxes[:, 2:] - canvas.boxes[:, :2]).max(1)
            sides += extent[canvas.area == canvas.whole].tolist()
            parts += (canvas.area / canvas.whole).tolist()
            boxes = canvas.boxes.astype(int)
            common, union = box_ious(boxes, boxes)
            ious += (common / union)[np.triu_indices(len(boxes), 1)].tolist()
        return set(numbers), np.array(sides), min(parts), max(ious, default=0)

    numbers, sides, *_ = statistics(200, size=96, objects=(0, 4), scale=(16, 64), background="plain")
    assert numbers == {0, 1, 2, 3, 4}
    assert sides.min() == 16 and 60 <= sides.max() <= 64
    assert 0.4 < np.mean(sides < 32) < 0.62  # an octave as often as the other; some were made smaller
    dense = {"size": 96, "objects": (9, 9), "scale": (10, 48), "background": "plain"}
    numbers, _, part, iou = statistics(overlap=0.0, visible=1.0, **dense)
    assert numbers == {9} and part == 1 and iou == 0
    _, _, part, iou = statistics(overlap=0.2, visible=0.7, **dense)
    assert 0.7 <= part < 0.8 and 0.1 < iou <= 0.2
    _, _, part, iou = statistics(overlap=0.9, visible=0.2, **dense)
    assert 0.2 <= part < 0.4 and 0.4 < iou <= 0.9


def test_full_canvases_are_filled_with_smaller_garments(monkeypatch):
    largest, compose = [], Garments.compose
    monkeypatch.setattr(Garments, "compose", lambda *args: largest.append(args[-1]) or compose(*args))
    full = Garments(DATA, "train", count=4, size=64, objects=(15, 15), scale=(8, 64), overlap=0.0, visible=1.0)
    assert full.room == 15 and [len(canvas.labels) for canvas in full] == [15] * 4
    assert 64 in largest and 32 in largest  # all begin at 64; where one finds no place, all begin again
    starts = [i for i, side in enumerate(largest) if side == 64]
    assert all(b == a // 2 for i, (a, b) in enumerate(itertools.pairwise(largest), 1) if i not in starts)
    assert len(starts) == 4 and min(largest) >= 8


def test_all_of_coco_sizes_occur_on_a_large_canvas():
    area = np.concatenate([canvas.area for canvas in Garments(DATA, "val", count=12, size=(320, 400), scale=(16, 256))])
    parts = [np.mean(area < 32**2), np.mean((area >= 32**2) & (area < 96**2)), np.mean(area >= 96**2)]
    assert min(parts) > 0.05


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_backgrounds(background, colour):
    garments = Garments(DATA, "val", count=3, size=(40, 56), objects=(0, 0), scale=(8, 40), background=background)
    images = [canvas.image for canvas in dataclasses.replace(garments, colour=colour)]
    assert {image.shape for image in images} == {(40, 56, 3) if colour else (40, 56)}
    assert max(image.max() for image in images) < DARK and not np.array_equal(images[0], images[1])
    levels = [len(np.unique(image.reshape(40 * 56, -1), axis=0)) for image in images]
    assert max(levels) == 1 if background == "plain" else min(levels) > 4
    canvas = garments[0]
    assert canvas.boxes.shape == (0, 4) and canvas.masks.shape == (0, 40, 56) and not canvas.semantic.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "unknown split 'test'"),
        ({"background": "sky"}, "unknown background 'sky'"),
        ({"count": 0}, "count must be an integer of at least 1; got 0"),
        ({"count": 2.0}, "count must be"),
        ({"count": True}, "count must be"),
        ({"size": 7}, r"size must be pixels or a pair of them, 8 to 8192; got \(7, 7\)"),
        ({"size": (64, 64, 3)}, "size must be"),
        ({"size": (64, "64")}, "size must be"),
        ({"size": None}, "size must be"),
        ({"size": 10**6}, "size must be"),
        ({"objects": 3}, "objects must be a pair, 0 to 1000, fewest first; got 3"),
        ({"objects": (5, 4)}, "objects must be"),
        ({"objects": (-1, 4)}, "objects must be"),
        ({"scale": (16, 257)}, r"scale must be a pair of pixels, 8 to the canvas's shorter side \(256\)"),
        ({"scale": (4, 64)}, "scale must be"),
        ({"scale": (64.0, 64.5)}, "scale must be"),
        ({"scale": (64, 32)}, "scale must be"),
        ({"overlap": 1.5}, "overlap must be a number from 0 to 1; got 1.5"),
        ({"overlap": float("nan")}, "overlap must be"),
        ({"visible": 0}, "visible must be a number above 0"),
        ({"visible": "half"}, "visible must be"),
        ({"colour": 1}, "colour must be True or False"),
        ({"flips": None}, "flips must be"),
        ({"seed": -1}, "seed must be an integer of at least 0; got -1"),
        ({"seed": 0.5}, "seed must be"),
        ({"count": 0, "seed": -1}, "count must be .*; seed must be"),
        ({"objects": (1, 20), "scale": (64, 64)}, "20 of 64 pixels on 256x256, where 3 always have; take fewer"),
        ({"source": 5}, "source must be a folder"),
    ],
)
def test_arguments_out_of_bounds_are_refused(arguments, message):
    with pytest.raises(SwinsError, match=message):
        Garments(**{"source": DATA, **arguments})


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder, x, y: None, "neither train-images-idx3-ubyte.gz nor t10k"),
        (lambda folder, x, y: write_idx(folder, "t10k", x[:50], y[:49]), r"with N labels; got \(50, 28, 28\) and"),
        (lambda folder, x, y: write_idx(folder, "t10k", x[:50, 0], y[:50]), r"must be \(N, h, w\)"),
        (lambda folder, x, y: write_idx(folder, "t10k", x[:50], y[:50] + 1), "labels must be from 0 to 9; image . has"),
        (lambda folder, x, y: write_idx(folder, "t10k", x[:4], y[:4]), "val needs images; got 4 in all"),
        (lambda folder, x, y: write_idx(folder, "t10k", x[:50] * 0, y[:50]), "val needs images"),
        (
            lambda folder, x, y: [write_idx(folder, p, x[:9, :s], y[:9]) for p, s in (("train", 9), ("t10k", 8))],
            "of one",
        ),
        (lambda folder, x, y: (folder / "t10k-images-idx3-ubyte.gz").write_bytes(b"GIF"), "not a gzipped IDX file"),
    ],
)
def test_sources_that_hold_no_garments_are_refused(tmp_path, pixels, write, message):
    write(tmp_path, *pixels)
    with pytest.raises(SwinsError, match=message):
        Garments(tmp_path, "val")[0]


def test_drawings_show_boxes_where_they_are(crowded):
    canvas = Garments(DATA, "val", count=1, size=64, objects=(1, 1), scale=(30, 30), colour=False)[0]
    left, top, right, bottom = canvas.boxes[0].astype(int)
    colour = PALETTE[canvas.labels[0]]
    for scale in (1, 3):
        picture = drawing.draw(canvas, scale)
        assert picture.size == (64 * scale, 64 * scale) and picture.mode == "RGB"
        drawn = (np.asarray(picture) == colour).all(-1)
        for y in (top * scale, bottom * scale - 1):
            assert drawn[y, left * scale : right * scale].all()
        for x in (left * scale, right * scale - 1):
            assert drawn[top * scale : bottom * scale, x].all()
        assert not drawn[(top + bottom) * scale // 2, : left * scale].any()
        assert not drawn[(top + bottom) * scale // 2, right * scale :].any()
    for canvas in crowded:
        assert drawing.draw(canvas).size == (128, 96)
    empty = Garments(DATA, count=1, size=32, objects=(0, 0), scale=(8, 8))[0]
    np.testing.assert_array_equal(np.asarray(drawing.draw(empty)), empty.image)


@pytest.mark.slow
def test_the_committed_table_and_sheet_are_current():
    demo = script("demo/garments.py")
    text = "\n".join(",".join(f'"{c}"' if "," in c else c for c in row) for row in demo.table())
    assert (ROOT / "demo" / "garments.csv").read_text() == text + "\n", "python demo/garments.py"
    with Image.open(ROOT / "demo" / "garments.png") as sheet:
        assert sheet.mode == "P" and sheet.size == demo.sheet().size
    assert (ROOT / "demo" / "garments.png").stat().st_size < 300_000


def test_the_page_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("demo").symlink_to(ROOT / "demo")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "garments.md").read_text(), re.DOTALL):
        exec(block.replace("count=2000", "count=8").replace("count=500", "count=4"), names)
    assert len(names["training"]) == 8 and (tmp_path / "garments" / "annotations" / "instances_val.json").is_file()
    assert (tmp_path / "canvas.png").is_file() and (tmp_path / "garments_masks" / "classes.txt").is_file()
