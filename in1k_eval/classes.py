"""Make swins/classes/*.tsv, the names of ImageNet's classes in the order of the published heads.

Source: the lists of timm (Apache-2.0), whose names are WordNet 3.0's. Run: python in1k_eval/classes.py

Microsoft's 22k heads do not follow timm's list of 21841 synsets. Their data set (Swin-Transformer,
data/imagenet22k_dataset.py) takes Google's sorted list of 21843, two of which have no images, and moves its last two
synsets into these gaps, 9205 and 15027. That order agrees with their map22kto1k.txt for all classes of ImageNet-1k but
"teddy bear", which ImageNet-22k has not: their map gives it the 22k class of the garment.
"""

import csv
import importlib.util
import pathlib

ROOT = pathlib.Path(__file__).parents[1]
GAPS = (9205, 15027)
TEDDY = {"n04399382": "n03013580"}


def read(name):
    """Lines of one of timm's lists; timm itself is not imported."""
    info = pathlib.Path(importlib.util.find_spec("timm").origin).parent / "data" / "_info"
    return (info / f"{name}.txt").read_text().splitlines()


def synsets():
    """Synsets of the 1k and the 22k heads, each in order, and the names of all."""
    names = dict(line.split("\t") for line in read("imagenet_synset_to_lemma"))
    in21843 = read("imagenet21k_goog_synsets")
    in22k = in21843[: len(in21843) - len(GAPS)]
    for gap, moved in zip(GAPS, in21843[len(in22k) :], strict=True):
        in22k[gap] = moved
    return read("imagenet_synsets"), in22k, names


def write(name, header, rows):
    path = ROOT / "swins" / "classes" / f"{name}.tsv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE)
        writer.writerows([header, *rows])
    print(f"{path}: {len(rows)} classes")


if __name__ == "__main__":
    in1k, in22k, names = synsets()
    places = {synset: i for i, synset in enumerate(in22k)}
    write("imagenet1k", ("synset", "names", "in22k"), [(s, names[s], places[TEDDY.get(s, s)]) for s in in1k])
    write("imagenet22k", ("synset", "names"), [(s, names[s]) for s in in22k])
