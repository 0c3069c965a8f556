"""Garments' canvases as files, in layouts that people have: COCO JSON, and folders of images and index masks.

Both can be written for "train" and "val" into one folder, one after the other. What swins did not write stays there.
"""

import contextlib
import json
import numbers
import pathlib
from collections.abc import Sequence
from dataclasses import asdict

from swins import files, run_lengths
from swins.box_drawing import PALETTE
from swins.data.garments import Garments
from swins.errors import SwinsError
from swins.image_files import pillow

BACKGROUND = "background"


def rle(mask) -> dict:
    """COCO's uncompressed run lengths of a mask (H, W) bool: column after column, beginning with background.

    >>> import numpy as np
    >>> rle(np.array([[0, 1], [0, 1], [1, 0]], bool))
    {'size': [3, 2], 'counts': [2, 3, 1]}
    """
    return {"size": list(mask.shape), "counts": run_lengths.lengths(mask).tolist()}


def require_ids(ids, classes):
    """Numbers of COCO's categories as a tuple. Raises SwinsError unless they are integers, one for each class."""
    ids = tuple(range(1, len(classes) + 1)) if ids is None else tuple(ids)
    whole = all(isinstance(i, numbers.Integral) and not isinstance(i, bool) and i >= 0 for i in ids)
    if not (whole and len(set(ids)) == len(ids) == len(classes)):
        raise SwinsError(f"category_ids must be {len(classes)} integers of at least 0, each once; got {ids}")
    return tuple(map(int, ids))


@contextlib.contextmanager
def written(garments, folder):
    """Give a new folder for a split's files; whole, it takes a folder's place, with all that is no file of this split.

    Raises:
        SwinsError: if files would be replaced that swins did not write.
    """
    record = f"garments_{garments.split}.json"

    def check(path):
        if path.exists() and not path.is_dir():
            raise SwinsError(f"{path} must be a folder; it is a file; choose another")

    def dropped(old):
        """Files that the folder's record says swins wrote for this split, and those that are the same in both."""
        names = set()
        if (old / record).is_file():
            names = {*json.loads((old / record).read_text(encoding="utf-8"))["files"], record}

        def same(path):
            both = old / path, partial / path
            return all(map(pathlib.Path.is_file, both)) and both[0].read_bytes() == both[1].read_bytes()

        return lambda path: path.as_posix() in names or same(path)

    with files.folder(folder, check, dropped) as partial:
        yield partial
        names = sorted(path.as_posix() for path in files.entries(partial))
        arguments = {**asdict(garments), "source": str(garments.source)}
        facts = {"made_of": arguments, "digest": garments.digest(), "files": names}
        (partial / record).write_text(json.dumps(facts, indent=1), encoding="utf-8")


def save_images(garments, folder):
    """Write the canvases' images as images/SPLIT/NUMBER.png below a folder, giving (file name, Canvas) of each."""
    place = folder / "images" / garments.split
    place.mkdir(parents=True)
    for i in range(len(garments)):
        canvas, name = garments[i], f"{i:06d}.png"
        pillow().fromarray(canvas.image).save(place / name)
        yield name, canvas


def write_coco(garments: Garments, folder: str | pathlib.Path, category_ids: Sequence[int] | None = None) -> None:
    """Write images/SPLIT/*.png and annotations/instances_SPLIT.json, masks as uncompressed run lengths.

    Args:
        category_ids: numbers of the categories, one a class; by default 1 to 10. COCO's own have gaps.

    Raises:
        SwinsError: for other category_ids, and files in the folder that swins did not write and would replace.
    """
    ids = require_ids(category_ids, garments.classes)
    height, width = garments.size
    images, annotations = [], []
    with written(garments, folder) as partial:
        for number, (name, canvas) in enumerate(save_images(garments, partial), 1):
            images.append({"id": number, "file_name": name, "width": width, "height": height})
            for box, label, area, mask in zip(
                canvas.boxes.tolist(), canvas.labels, canvas.area.tolist(), canvas.masks, strict=True
            ):
                annotations.append(
                    {
                        "id": len(annotations) + 1,  # pycocotools takes 0 for none
                        "image_id": number,
                        "category_id": ids[label],
                        "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                        "area": area,
                        "iscrowd": 0,
                        "segmentation": rle(mask),
                    }
                )
        categories = [
            {"id": i, "name": name, "supercategory": "garment"} for i, name in zip(ids, garments.classes, strict=True)
        ]
        facts = {
            "info": {"description": f"canvases of Fashion-MNIST's garments, {garments.split}, {garments.digest()}"},
            "licenses": [{"id": 1, "name": "MIT", "url": "https://github.com/zalandoresearch/fashion-mnist"}],
            "categories": categories,
            "images": images,
            "annotations": annotations,
        }
        (partial / "annotations").mkdir()
        target = partial / "annotations" / f"instances_{garments.split}.json"
        target.write_text(json.dumps(facts, separators=(",", ":")), encoding="utf-8")


def write_masks(garments: Garments, folder: str | pathlib.Path) -> None:
    """Write images/SPLIT/*.png, masks/SPLIT/*.png (palette PNG whose values are classes) and classes.txt.

    Value v of a mask is line v of classes.txt, counted from 0, which is the background.

    Raises:
        SwinsError: for files in the folder that swins did not write and would replace.
    """
    with written(garments, folder) as partial:
        (partial / "masks" / garments.split).mkdir(parents=True)
        for name, canvas in save_images(garments, partial):
            mask = pillow().fromarray(canvas.semantic)
            mask.putpalette(bytes([0, 0, 0, *sum(PALETTE, ())]))
            mask.save(partial / "masks" / garments.split / name)
        names = "".join(f"{name}\n" for name in (BACKGROUND, *garments.classes))
        (partial / "classes.txt").write_text(names, encoding="utf-8")
