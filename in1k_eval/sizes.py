"""One model that takes any size against torchvision, and fixed sizes against timm -> in1k_eval/sizes.csv.

torchvision's weights, moved at random, are loaded through its dialect into one graph of open size,
which is called with every size, then with the first again; and into models of each fixed size with timm's construction
rule, whose tables, where windows are clipped, are interpolated as timm does.
Command: make sizes, or python in1k_eval/sizes.py.
"""

import csv
import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np

import swins
from swins.convert.certificate import difference
from swins.plans import with_overrides
from swins.reference import oracle
from swins.tags import look_up
from swins.weights import checkpoint_files

TABLE = pathlib.Path(__file__).with_name("sizes.csv")
SIZES = ((64, 64), (96, 96), (112, 112), (224, 224), (232, 232), (240, 272), (256, 256), (448, 448), (512, 512))
MODELS = {"swin_tiny_patch4_window7_224": "swin_t", "swinv2_tiny_window8_256": "swin_v2_t"}


def text(size):
    return "x".join(map(str, size))


def torchvision(name, folder, sizes):
    """torchvision's weights and logits for images of each size -> {size: (images, logits)}; writes weights.pth."""
    rng = np.random.default_rng(0)
    images = {size: rng.standard_normal((2, *size, 3), dtype="float32") for size in sizes}
    for size, x in images.items():
        np.save(folder / f"{text(size)}_images.npy", x)
    script = pathlib.Path(__file__).with_name("torchvision_sizes.py")
    subprocess.run([sys.executable, script, name, folder, *map(text, sizes)], check=True)
    return {size: (x, np.load(folder / f"{text(size)}.npy")) for size, x in images.items()}


def measure(name, folder, sizes=SIZES):
    """Compare one architecture at every size -> rows of the table."""
    theirs = torchvision(MODELS[name], folder, sizes)
    file, in_timms_names = folder / "weights.pth", folder / "timm.safetensors"
    checkpoint_files.write(checkpoint_files.read(file).state, in_timms_names)
    open_size = swins.create(name, weights=file, image_size=(None, None), size_rule="torchvision")
    native = swins.create(name, weights=in_timms_names)  # whose rule is timm's
    rows, first = [], None
    for size, (images, logits) in theirs.items():
        ours = keras.ops.convert_to_numpy(open_size(images))
        first = ours if first is None else first
        if name.startswith("swinv2_"):
            fixed = swins.create(name, weights=in_timms_names, image_size=size)
        else:
            fixed = swins.resize(native, image_size=size)
        variant = with_overrides(look_up(name).variant, {"image_size": size})
        timm = oracle.forward(in_timms_names, name, variant, images)["logits"]
        print(name, text(size), file=sys.stderr)
        rows.append(
            {
                "name": name,
                "size": text(size),
                "open_torchvision": f"{difference(ours, logits)['relative']:.2e}",
                "fixed_timm": f"{difference(keras.ops.convert_to_numpy(fixed(images)), timm)['relative']:.2e}",
                "torchvision_timm": f"{difference(logits, timm)['relative']:.2e}",
            }
        )
    again = keras.ops.convert_to_numpy(open_size(theirs[sizes[0]][0]))
    if not np.array_equal(again, first):
        sys.exit(f"{name}: the first size gives other numbers after the others")
    return rows


def main():
    rows = []
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(name, pathlib.Path(folder))
    with open(TABLE, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
