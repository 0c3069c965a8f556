"""Every architecture against timm, through the converter, on weights moved at random -> in1k_eval/parity.csv.

Command: make parity, or python in1k_eval/parity.py [NAME ...]. Rows of names that are not run again are kept.
"""

import csv
import pathlib
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, replace

from swins.build import FAMILIES
from swins.cli import main as swins
from swins.convert import certificate
from swins.reference import oracle
from swins.tags import list_variants, look_up
from swins.weights import artefacts, checkpoint_files, swin_rules

TABLE = pathlib.Path(__file__).with_name("parity.csv")
NAMES = [*list_variants("swin_[!u]*_224"), *list_variants("swin_*_384"), *list_variants("swinv2_*")]  # no SwinUNet
NAMES.append("swin_tiny_patch4_window7_224.ms_in22k")
REDUCED = dict.fromkeys(list_variants("*huge*") + list_variants("*giant*"), (2, 2, 6, 1))  # depths that fit
COLUMNS = (
    "name",
    "depths",
    "classes",
    "parameters_keras",
    "parameters_torch",
    "logits_max_abs",
    "largest_logit",
    "logits_relative",
    "worst_block",
    "worst_block_relative",
    "top5_agreement",
    "versions",
)


def perturbed(architecture, variant, folder):
    """The file of timm's model with every parameter moved."""
    checkpoint = folder / "perturbed.safetensors"
    with oracle.ask("perturb", architecture=architecture, numbers=oracle.numbers(variant), seed=1) as results:
        shutil.move(results / "perturbed.safetensors", checkpoint)
    return checkpoint


def converted(name, folder):
    """The certificate of a perturbed checkpoint, converted as users do."""
    architecture, variant = look_up(name).architecture, look_up(name).variant
    checkpoint = perturbed(architecture, variant, folder)
    code = swins(["convert", "-m", name, "--checkpoint", str(checkpoint), "-o", str(folder / "out"), "--overwrite"])
    if code:
        sys.exit(code)
    return artefacts.read_certificate(folder / "out")


def compared(name, folder):
    """The certificate of a model too large for this machine, with fewer blocks."""
    variant = replace(look_up(name).variant, depths=REDUCED[name])
    architecture = f"{name} of reduced depth"  # no name of timm's, so that its class takes the numbers
    model = FAMILIES[type(variant)](**asdict(variant), dtype="float32")
    checkpoint = perturbed(architecture, variant, folder)
    swin_rules.assign(model, checkpoint_files.read(checkpoint).state)
    return certificate.compare(model, checkpoint, architecture)


def measure(name, folder):
    """Compare one architecture -> row of the table."""
    variant = look_up(name).variant
    proof = compared(name, folder) if name in REDUCED else converted(name, folder)
    worst = max(proof["blocks"], key=lambda k: proof["blocks"][k]["relative"])
    v = proof["versions"]
    logits = proof["outputs"]["logits"]
    return {
        "name": name,
        "depths": " ".join(map(str, REDUCED.get(name, variant.depths))),
        "classes": variant.num_classes,
        "parameters_keras": proof["parameters"]["keras"],
        "parameters_torch": proof["parameters"]["torch"],
        "logits_max_abs": f"{logits['max_abs']:.2e}",
        "largest_logit": f"{logits['largest']:.3f}",
        "logits_relative": f"{logits['relative']:.2e}",
        "worst_block": worst,
        "worst_block_relative": f"{proof['worst_block']:.2e}",
        "top5_agreement": proof["agreement"]["top5"],
        "versions": f"timm {v['timm']}; torch {v['torch']}; keras {v['keras']}; {v['backend']}",
    }


def main(names):
    rows = {}
    if TABLE.is_file():
        with open(TABLE, newline="") as file:
            rows = {row["name"]: row for row in csv.DictReader(file)}
    for name in names or NAMES:
        start = time.time()
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = measure(name, pathlib.Path(folder))
        print(f"{name}: {time.time() - start:.0f} s", file=sys.stderr)
        with open(TABLE, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(row for _, row in sorted(rows.items()))


if __name__ == "__main__":
    main(sys.argv[1:])
