"""Decoded images that stay in memory are the images, whoever reads them, and no more than fit."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from detection_files import annotation, coco, image
from PIL import Image

from swins.data.decoded import cached
from swins.data.detection_layouts import find_detection_splits
from swins.images import open_image

GOOD = [annotation(1, 1, 7, [2, 3, 10, 20]), annotation(2, 2, 3, [5, 5, 8, 8])]


def test_threads_share_a_budget(tmp_path):
    coco(tmp_path, "train", [image(i) for i in range(1, 25)], GOOD)
    coco(tmp_path, "val", [image(99)])
    split = find_detection_splits(tmp_path)[0]
    kept = cached(split, 5.5 * 64 * 48 * 3 / 2**20)
    with ThreadPoolExecutor(8) as pool:
        places = [i % len(split) for i in range(20 * len(split))]
        images = list(pool.map(lambda i: np.asarray(open_image(kept[i][1])), places))
    assert kept.samples.bytes == 5 * 64 * 48 * 3 == sum(a.nbytes for a in kept.samples.images.values())
    for i, pixels in zip(places[: len(split)], images, strict=False):
        np.testing.assert_array_equal(pixels, open_image(split[i][1]))


def test_decoded_images_are_kept_up_to_a_budget(tmp_path):
    """The same samples and digest; arrays as the files are decoded; what cannot be decoded is told by who opens it."""
    coco(tmp_path, "train", [image(i) for i in range(1, 5)], GOOD)
    coco(tmp_path, "val", [image(9)])
    Image.new("P", (64, 48)).save(tmp_path / "train" / "3.png")
    (tmp_path / "train" / "4.png").write_bytes(b"GIF")
    split = find_detection_splits(tmp_path)[0]
    kept = cached(split, 1.5 * 64 * 48 * 3 / 2**20)  # room for one
    assert cached(split, 0) is split and kept.digest() == split.digest() and len(kept) == 4
    for _ in range(2):
        for i in range(4):
            (name, path, truth), (own, pixels, same) = split[i], kept[i]
            assert name == own and truth is same
            if i < 2:
                np.testing.assert_array_equal(open_image(pixels), open_image(path))
    assert isinstance(kept[0][1], np.ndarray) and kept.samples.bytes == 64 * 48 * 3
    assert kept[0][1] is kept[0][1] and not kept[0][1].flags.writeable
    assert kept[2][1] == split[2][1] and kept[3][1] == split[3][1]
    (tmp_path / "train" / "1.png").unlink()
    assert open_image(kept[0][1]).size == (64, 48)
