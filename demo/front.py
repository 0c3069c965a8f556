"""Draw the sheet at the top of README.md from the models that the repository brings -> docs/images/front.png.

Command: make front. Rows are (title, tiles); `make demo` draws a sheet of them too, of what it finds.
"""

import pathlib

import numpy as np
from embedded import CHECKPOINT, CLASSIFIER, NETWORKS, sampled
from pictures import SOURCE
from PIL import Image, ImageDraw, ImageFont

import swins
from swins import explain, files
from swins.data.garments import Garments
from swins.images import read_idx
from swins.results import Detections
from swins.samples import grid

ROOT = pathlib.Path(__file__).parents[1]
OUT = ROOT / "docs" / "images" / "front.png"
WIDTH, SPACE, TITLE, COLOURS = 1280, 10, 34, 256  # of the sheet: pixels, pixels between tiles, of a title; palette
SHOWN = (9, 5, 7, 0, 2, 8)  # classes of the first row
CANVASES = Garments(SOURCE, "val", count=7, size=64, objects=(2, 2), scale=(21, 48), colour=False)
LEAST_SCORE = 0.5  # of a box that is drawn
SAMPLES_TITLE = "Make: garments from noise, of the class that is asked for (SwinUNet)"
ACROSS = 2  # samples of a class beside each other, and as many below


def captioned(picture, caption):
    """A picture above a line of text."""
    tile = Image.new("RGB", (picture.width, picture.height + 24), "white")
    tile.paste(picture.convert("RGB"), (0, 0))
    ImageDraw.Draw(tile).text((2, picture.height + 3), caption, "black", ImageFont.load_default(16))
    return tile


def side_of(count):
    """Pixels of each of so many tiles beside each other."""
    return (WIDTH - (count + 1) * SPACE) // count


def attention_row():
    """One test image of each class of SHOWN, and beside it what the classifier looks at -> (title, tiles)."""
    pixels, labels = (read_idx(SOURCE / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    chosen = pixels[[int(np.flatnonzero(labels == label)[0]) for label in SHOWN]]
    model = swins.create(CLASSIFIER, weights=CHECKPOINT)
    images, names = swins.preprocess(model)(list(chosen)), swins.class_names(CLASSIFIER)
    captions = [explain.top_classes(row, names, count=1) for row in model.predict(images, verbose=0)]
    relevance = np.asarray(swins.attention_rollout(model, images))
    side = side_of(2 * len(chosen))
    tiles = []
    for image, heights, caption in zip(chosen, relevance, captions, strict=True):
        plain = Image.fromarray(image).convert("RGBA").resize((side, side))
        heat = Image.fromarray(np.uint8(255 * explain.relevance_colours()(explain.ranged(heights))))
        looked = Image.alpha_composite(plain, heat.resize((side, side)))
        pair = Image.new("RGB", (2 * side + SPACE, side), "white")
        pair.paste(plain.convert("RGB"), (0, 0))
        pair.paste(looked.convert("RGB"), (side + SPACE, 0))
        tiles.append(captioned(pair, caption))
    return "Classify, and see what the network looks at (attention rollout)", tiles


def results_row(network, images, results):
    """What a network found on canvases -> (title, tiles)."""
    shown = [result.at_least(LEAST_SCORE) if isinstance(result, Detections) else result for result in results]
    side = side_of(len(images))
    return network.title, [result.draw(image, side) for image, result in zip(images, shown, strict=True)]


def samples_row(samples):
    """A few Samples of each class -> (title, tiles)."""
    names = list(dict.fromkeys(samples.names))
    side, tiles = side_of(len(names)), []
    for name in names:
        own = samples.images[np.array(samples.names) == name][: ACROSS**2]
        tiles.append(captioned(grid(own, ACROSS).resize((side, side)), name))
    return SAMPLES_TITLE, tiles


def front():
    """The rows of the sheet at the top of README.md."""
    images = [CANVASES[i].image for i in range(len(CANVASES))]
    rows = [results_row(network, images, network.found(images)) for network in NETWORKS]
    return [attention_row(), *rows, samples_row(sampled()[0])]


def sheet(rows):
    """Rows (title, tiles) below each other -> PIL image."""
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
    return picture


def main():
    """Write the sheet, whole."""
    OUT.parent.mkdir(exist_ok=True)
    with files.replacing(OUT) as partial:
        picture = sheet(front()).quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        picture.save(partial, format="PNG", optimize=True)
    print(f"{OUT.relative_to(ROOT)}: {OUT.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
