"""Draw the sheet at the top of README.md from the models that the repository brings -> docs/images/front.png.

Command: make front. A row of the sheet is a function of ROWS: a model that is brought later adds its own.
"""

import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import swins
from swins import explain, files
from swins.data.garments import Garments
from swins.images import read_idx

ROOT = pathlib.Path(__file__).parents[1]
SOURCE = ROOT / "demo" / "fashion_mnist"
CLASSIFIER = "swin_mini_patch2_window4_28.fashion_mnist"
DETECTOR = ROOT / "demo" / "ssd64_swin_mini"
OUTLINER = ROOT / "demo" / "mask_rcnn_swin_mini_fpn"
OUT = ROOT / "docs" / "images" / "front.png"
WIDTH, SPACE, TITLE, COLOURS = 1280, 10, 34, 256  # of the sheet: pixels, pixels between tiles, of a title; palette
SHOWN = (9, 5, 7, 0, 2, 8)  # classes of the first row
CANVASES = Garments(SOURCE, "val", count=7, size=64, objects=(2, 2), scale=(21, 48), colour=False)
LEAST_SCORE = 0.5  # of a box that is drawn


def attention_row():
    """One test image of each class of SHOWN, and beside it what the classifier looks at -> (title, tiles)."""
    pixels, labels = (read_idx(SOURCE / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    chosen = pixels[[int(np.flatnonzero(labels == label)[0]) for label in SHOWN]]
    model = swins.create(CLASSIFIER, weights=SOURCE / f"{CLASSIFIER}.safetensors")
    images, names = swins.preprocess(model)(list(chosen)), swins.class_names(CLASSIFIER)
    captions = [explain.top_classes(row, names, count=1) for row in model.predict(images, verbose=0)]
    relevance = np.asarray(swins.attention_rollout(model, images))
    side = (WIDTH - (2 * len(chosen) + 1) * SPACE) // (2 * len(chosen))
    tiles = []
    for image, heights, caption in zip(chosen, relevance, captions, strict=True):
        plain = Image.fromarray(image).convert("RGBA").resize((side, side))
        heat = Image.fromarray(np.uint8(255 * explain.relevance_colours()(explain.ranged(heights))))
        looked = Image.alpha_composite(plain, heat.resize((side, side)))
        tile = Image.new("RGB", (2 * side + SPACE, side + 24), "white")
        tile.paste(plain.convert("RGB"), (0, 0))
        tile.paste(looked.convert("RGB"), (side + SPACE, 0))
        ImageDraw.Draw(tile).text((2, side + 3), caption, "black", ImageFont.load_default(16))
        tiles.append(tile)
    return "Classify, and see what the network looks at (attention rollout)", tiles


def found_by(model):
    """Canvases that no detector was trained on, with what one finds -> tiles."""
    images = [CANVASES[i].image for i in range(len(CANVASES))]
    side = (WIDTH - (len(images) + 1) * SPACE) // len(images)
    found = swins.load(model)(images)
    return [result.at_least(LEAST_SCORE).draw(image, side) for image, result in zip(images, found, strict=True)]


def boxes_row():
    """What the embedded detector finds -> (title, tiles)."""
    return "Detect: boxes, classes, scores (SSD)", found_by(DETECTOR)


def masks_row():
    """What the embedded Mask R-CNN finds -> (title, tiles)."""
    return "Outline: a mask of each object (Mask R-CNN)", found_by(OUTLINER)


ROWS = (attention_row, boxes_row, masks_row)  # classes of pixels and samples come here when their models do


def sheet(rows):
    """Rows (title, tiles) below each other -> PIL image with a palette."""
    font = ImageFont.load_default(20)
    height = sum(TITLE + max(tile.height for tile in tiles) + SPACE for _, tiles in rows) + SPACE
    picture, top = Image.new("RGB", (WIDTH, height), "white"), 0
    for title, tiles in rows:
        ImageDraw.Draw(picture).text((SPACE, top + 6), title, "black", font)
        left, top = SPACE, top + TITLE
        for tile in tiles:
            picture.paste(tile, (left, top))
            left += tile.width + SPACE
        top += max(tile.height for tile in tiles) + SPACE
    return picture.quantize(COLOURS, dither=Image.Dither.NONE)


def main():
    """Write the sheet, whole."""
    OUT.parent.mkdir(exist_ok=True)
    with files.replacing(OUT) as partial:
        sheet([row() for row in ROWS]).save(partial, format="PNG", optimize=True)
    print(f"{OUT.relative_to(ROOT)}: {OUT.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
