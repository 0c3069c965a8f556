"""Draw a sheet of 20 canvases of garments, and count what two data sets hold -> garments.png and garments.csv.

Command: python demo/garments.py; both are written beside it.
"""

import csv
import hashlib
import itertools
import pathlib

import numpy as np
from PIL import Image

from swins import files
from swins.data.drawing import draw
from swins.data.garments import Garments

HERE = pathlib.Path(__file__).parent
SOURCE = HERE / "fashion_mnist"
SHEET = Garments(SOURCE, "val", count=20, size=(112, 144), objects=(2, 7), scale=(12, 96), overlap=0.4)
COLUMNS, SPACE, SCALE, COLOURS = 5, 4, 2, 256  # of the sheet: canvases a row, pixels between, pixels a pixel, palette
SETS = (Garments(SOURCE, "train", count=400), Garments(SOURCE, "val", count=200))
SMALL, MEDIUM = 32**2, 96**2  # COCO's bounds of area, in pixels


def sheet():
    """All canvases of SHEET, drawn side by side -> PIL image with a palette."""
    height, width = (side * SCALE + SPACE for side in SHEET.size)
    picture = Image.new("RGB", (COLUMNS * width + SPACE, -(-len(SHEET) // COLUMNS) * height + SPACE), "white")
    for i in range(len(SHEET)):
        picture.paste(draw(SHEET[i], SCALE), (i % COLUMNS * width + SPACE, i // COLUMNS * height + SPACE))
    return picture.quantize(COLOURS, dither=Image.Dither.NONE)


def iou(a, b):
    """Intersection over union of two boxes."""
    sides = [max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])


def statistics(garments):
    """What the canvases of a data set hold -> {name: text}."""
    canvases = [garments[i] for i in range(len(garments))]
    counts = np.array([len(canvas.labels) for canvas in canvases])
    area, whole = (np.concatenate([getattr(canvas, name) for canvas in canvases]) for name in ("area", "whole"))
    ious = np.array([iou(*pair) for c in canvases for pair in itertools.combinations(c.boxes.tolist(), 2)])
    labels = np.concatenate([canvas.labels for canvas in canvases])
    pixels = hashlib.sha256(b"".join(canvas.image.tobytes() + canvas.masks.tobytes() for canvas in canvases))
    facts = {
        "canvases": len(canvases),
        "garments": len(labels),
        "images of the source": len(set(np.concatenate([canvas.sources for canvas in canvases]).tolist())),
        "garments a canvas, fewest": counts.min(),
        "garments a canvas, mean": f"{counts.mean():.2f}",
        "garments a canvas, most": counts.max(),
        "small (area below 32^2)": f"{np.mean(area < SMALL):.3f}",
        "medium": f"{np.mean((area >= SMALL) & (area < MEDIUM)):.3f}",
        "large (area from 96^2)": f"{np.mean(area >= MEDIUM):.3f}",
        "pairs of boxes that overlap": f"{np.mean(ious > 0):.3f}",
        "largest IoU of two boxes": f"{ious.max():.3f}",
        "garments partly hidden": f"{np.mean(area < whole):.3f}",
        "largest part hidden": f"{1 - np.min(area / whole):.3f}",
        "background pixels": f"{np.mean([np.mean(canvas.semantic == 0) for canvas in canvases]):.3f}",
    }
    facts |= {f"class {name}": f"{np.mean(labels == i):.3f}" for i, name in enumerate(garments.classes)}
    return {name: str(value) for name, value in facts.items()} | {"sha256 of the pixels": pixels.hexdigest()[:16]}


def table():
    """Rows of garments.csv: a statistic, and its value in each of SETS."""
    columns = [statistics(garments) for garments in SETS]
    return [
        ["statistic", *(garments.split for garments in SETS)],
        *([name, *(c[name] for c in columns)] for name in columns[0]),
    ]


def main():
    with files.replacing(HERE / "garments.png") as partial:
        sheet().save(partial, format="PNG", optimize=True)
    with files.replacing(HERE / "garments.csv") as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(table())


if __name__ == "__main__":
    main()
