"""Files for other runtimes beside Keras -> in1k_eval/targets.csv.

The embedded model in every target and precision, with its top-1 on all 10,000 test images; full-size models in float32
on weights moved at random. Command: make targets, or python in1k_eval/targets.py [NAME ...]; rows of other names stay.
"""

import csv
import pathlib
import sys
import tempfile
import time

import numpy as np
from parity import perturbed

from swins.convert import conversion
from swins.exports import targets
from swins.images import preprocess, read_idx
from swins.tags import look_up
from swins.weights import artefacts

TABLE = pathlib.Path(__file__).with_name("targets.csv")
DATA = pathlib.Path(__file__).parents[1] / "demo" / "fashion_mnist"
EMBEDDED = "swin_mini_patch2_window4_28.fashion_mnist"
FULL = ("swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "swin_s3_tiny_224")
COLUMNS = (
    "name",
    "target",
    "precision",
    "bytes",
    "batch_1",
    "batch_3",
    "images",
    "keras_top1",
    "top1",
    "same_top1",
    "versions",
)


def row_of(name, record, more):
    """A row of the table from a record of the certificate."""
    differences = {k: f"{record['difference'][k]:.1e}" for k in ("batch_1", "batch_3") if k in record["difference"]}
    facts = {k: record[k] for k in ("target", "precision", "bytes")}
    return {"name": name, **facts, **differences, **more, "versions": "; ".join(record["versions"])}


def embedded(folder):
    """Rows of the embedded model: all targets and precisions, on the test images."""
    checkpoint = DATA / f"{EMBEDDED}.safetensors"
    made, _ = conversion.convert(EMBEDDED, checkpoint, folder / "out")
    records = {}
    for target, its in targets.TARGETS.items():
        _, certificate = targets.export(made, [target], its.precisions, DATA, say=say)
        records |= certificate["targets"]
    pixels, labels = (read_idx(DATA / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    images = preprocess(EMBEDDED)(list(pixels))
    ours = artefacts.load_model(made).predict(images, batch_size=250, verbose=0).argmax(axis=1)
    for file, record in records.items():
        theirs = targets.run(made / file, images=images)["images"]["logits"].argmax(axis=1)
        tops = {"images": len(labels), "keras_top1": np.mean(ours == labels), "top1": np.mean(theirs == labels)}
        yield row_of(EMBEDDED, record, {**tops, "same_top1": np.mean(ours == theirs)})


def full_size(name, folder):
    """Rows of a full-size model on weights moved at random, float32."""
    architecture, variant = look_up(name).architecture, look_up(name).variant
    made, _ = conversion.convert(name, perturbed(architecture, variant, folder), folder / "out")
    _, certificate = targets.export(made, list(targets.TARGETS), say=say)
    for record in certificate["targets"].values():
        yield row_of(name, record, {})


def say(text):
    print(f"  {text}", file=sys.stderr)


def main(names):
    rows = []
    if TABLE.is_file():
        with open(TABLE, newline="") as file:
            rows = list(csv.DictReader(file))
    for name in names or (EMBEDDED, *FULL):
        start = time.time()
        with tempfile.TemporaryDirectory() as folder:
            make = embedded(pathlib.Path(folder)) if name == EMBEDDED else full_size(name, pathlib.Path(folder))
            rows = [row for row in rows if row["name"] != name] + list(make)
        print(f"{name}: {time.time() - start:.0f} s", file=sys.stderr)
        with open(TABLE, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
