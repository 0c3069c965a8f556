"""Every size rule against the program that has it, at sizes that windows do not tile -> in1k_eval/size_rules.csv.

A Swin-T of each program, every parameter moved at random, is loaded through its dialect into models of each fixed size
and into one graph of open size, where the rule allows that. A backbone's four maps are compared, each with its norm.
Command: make size-rules, or python in1k_eval/size_rules.py.
"""

import csv
import json
import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np

import swins
from swins.convert.certificate import difference
from swins.weights import checkpoint_files, swin_rules

TABLE = pathlib.Path(__file__).with_name("size_rules.csv")
SCRIPT = pathlib.Path(__file__).with_name("size_rules_reference.py")
ANY, LEVELS = (None, None), ("P2", "P3", "P4", "P5")
SIZES = ((224, 224), (224, 320), (160, 160), (192, 192), (224, 448), (256, 256), (300, 500), (480, 640), (226, 451))
NUMBERS = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)}
V1, V2 = swins.SwinTransformer, swins.SwinTransformerV2
MODELS = {  # the reference's name: (class, numbers that its files do not tell, where its file is)
    "timm_v1": (V1, {}, "timm_v1.safetensors"),
    "timm_v2": (V2, {}, "timm_v2.safetensors"),
    "torchvision_v1": (V1, {}, "torchvision_v1.pth"),
    "torchvision_v2": (V2, {}, "torchvision_v2.pth"),
    "hugging_face_v1": (V1, {}, "hugging_face_v1/model.safetensors"),
    "hugging_face_v2": (V2, {"native_size": 256}, "hugging_face_v2/model.safetensors"),
    "made_for_224": (V2, {"native_size": 224}, "made_for_224/model.safetensors"),
    "donut": (V1, {}, "donut/model.safetensors"),
    "backbone_v1": (V1, {}, "backbone_v1/model.safetensors"),
    "backbone_v2": (V2, {"native_size": 256}, "backbone_v2/model.safetensors"),
    "upernet": (V1, {}, "upernet.pth"),
    "mask2former": (V1, {}, "mask2former/model.safetensors"),
    "maskformer": (V1, {}, "maskformer.pth"),
}


def references(folder, numbers=NUMBERS, sizes=SIZES):
    """Write every program's files to a folder -> {"NAME/HEIGHTxWIDTH/part": array}."""
    command = [sys.executable, SCRIPT, folder, json.dumps(numbers), json.dumps(sizes)]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    with np.load(folder / "outputs.npz") as outputs:
        return dict(outputs)


def pictures(size):
    return np.random.default_rng(size).standard_normal((1, *size, 3), dtype="float32")


def model_of(name, checkpoint, numbers, image_size):
    """A Keras model with all its maps, in the size rule that the checkpoint's program has."""
    family, more, _ = MODELS[name]
    numbers = {**numbers, **checkpoint.facts.numbers, **more, "window_size": 7 if family is V1 else 8}
    model = family(**{**numbers, "num_classes": checkpoint.num_classes, "image_size": image_size})
    swin_rules.assign(model, checkpoint.state)
    return keras.Model(model.input, {**model.pyramid, "logits": model.output})


def normed(level, x, checkpoint):
    """A map after the norm that a dense backbone has for it, if it has one."""
    norm = checkpoint.norm_of(LEVELS.index(level))
    if not norm:
        return x
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * norm["weight"] + norm["bias"]


def worst(outputs, theirs, checkpoint):
    """The largest difference, over the reference's largest value, of what a program gives for a size."""
    return max(
        difference(normed(part, outputs[part], checkpoint) if part in LEVELS else outputs[part], y)["relative"]
        for part, y in theirs.items()
    )


def measure(name, folder, outputs, numbers=NUMBERS):
    """Compare one program's model at every size that it takes -> rows of the table."""
    checkpoint = checkpoint_files.read(folder / MODELS[name][2]).backbone()
    rule, rows = checkpoint.facts.numbers["size_rule"], []
    opened = model_of(name, checkpoint, numbers, ANY) if rule != "timm" else None  # which clips windows
    for size in sorted(
        {tuple(map(int, key.split("/")[1].split("x"))) for key in outputs if key.startswith(f"{name}/")}
    ):
        where = f"{name}/{size[0]}x{size[1]}/"
        theirs = {key.removeprefix(where): y for key, y in outputs.items() if key.startswith(where)}
        row = {"model": name, "size_rule": rule, "size": f"{size[0]}x{size[1]}", "fixed": "", "open": ""}
        for column, model in (("fixed", model_of(name, checkpoint, numbers, size)), ("open", opened)):
            if model is not None:
                ours = {part: keras.ops.convert_to_numpy(y) for part, y in model(pictures(size)).items()}
                row[column] = f"{worst(ours, theirs, checkpoint):.2e}"
        rows.append(row)
    return rows


def main():
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        outputs = references(pathlib.Path(folder))
        for name in MODELS:
            print(name, file=sys.stderr, flush=True)
            rows += measure(name, pathlib.Path(folder), outputs)
    with open(TABLE, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
