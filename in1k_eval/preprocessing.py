"""Our preprocessing against timm's own transform and Microsoft's recipe -> in1k_eval/preprocessing.csv.

Command: make preprocessing, or python in1k_eval/preprocessing.py FOLDER_OF_IMAGES. Differences are of pixels, in units
of 1/255, before normalisation is undone for neither side: normalised values are scaled back by the standard deviation.
"""

import csv
import pathlib
import sys

import numpy as np

from swins.images import preprocess
from swins.reference import oracle

TABLE = pathlib.Path(__file__).with_name("preprocessing.csv")
NAMES = ("swin_tiny_patch4_window7_224", "swin_base_patch4_window12_384")


def compare(files, name, protocol):
    """(mean, largest) difference of pixels in units of 1/255, over image files."""
    prepare = preprocess(name, protocol)
    ours = prepare(list(files))
    with oracle.ask("transform", architecture=name, protocol=protocol, files=[str(f) for f in files]) as results:
        theirs = np.load(results / "images.npy")
    difference = np.abs(ours - theirs) * np.float32(prepare.std) * 255
    return float(difference.mean()), float(difference.max())


def main(folder):
    files = sorted(p for p in pathlib.Path(folder).iterdir() if p.suffix in (".png", ".jpg"))
    rows = [["protocol", "size", "images", "mean", "largest"]]
    for name in NAMES:
        for protocol in ("timm", "ms"):
            mean, largest = compare(files, name, protocol)
            rows.append([protocol, preprocess(name).image_size[0], len(files), f"{mean:.2g}", f"{largest:.2g}"])
            print(*rows[-1], sep="\t")
    with open(TABLE, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
