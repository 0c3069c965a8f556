"""The model card of an artefact, in the format of Kaggle Models and TF-Hub, and the page that lists several."""

import csv
import os
import pathlib
import string
from importlib import resources

from swins.convert.artefact import read_certificate
from swins.errors import SwinsError
from swins.plans import ANY
from swins.tags import find

BYTES = string.Template(
    '$output = model.signatures["serving_bytes"](image_bytes=files)["$output"]  # JPEG or PNG files, prepared inside\n'
)
PREPARE = string.Template(
    "Normalise with mean $mean and standard deviation $std (pixels from 0 to 1); sizes and crops are those of timm's\n"
    "evaluation."
)
EXPORTED = {"saved_model": "classifier", "saved_model_fe": "feature vector", "saved_model_deploy": "for inference"}
USES = dict.fromkeys(EXPORTED, "reusable, fine-tunable SavedModel")
USES["saved_model_deploy"] = "SavedModel for inference only, faster"


def archive_name(part):
    """saved_model -> model.tar.gz"""
    return f"{part.replace('saved_model', 'model')}.tar.gz"


def measured_row(table, certificate):
    """The newest full row of a results table for these very weights, or None."""
    if not table:
        return None
    with open(table, newline="") as file:
        rows = [r for r in csv.DictReader(file) if r.get("weights_sha256") == certificate["weights_sha256"]]
    full = [r for r in rows if r["unreadable"] == "0"]
    return full[-1] if full else None


def published_row(name):
    """The published accuracies of a tagged name, or None."""
    with resources.files("swins").joinpath("published.csv").open(newline="") as file:
        return next((row for row in csv.DictReader(file) if row["variant"] == name), None)


def accuracy(name, certificate):
    """The card's paragraph on accuracy: measured for these weights, else published, else said to be missing."""
    row = certificate.get("measured")
    if row:
        return (
            f"Measured with these weights: top-1 {float(row['top1']):.2%}, top-5 {float(row['top5']):.2%} on "
            f"{row['images']} images of {row['dataset']} ({row['protocol']} protocol, {row['image_size']} pixels, "
            f"{row['backend']}, {row['date'][:10]})."
        )
    row = published_row(name)
    if row:
        return (
            f"Published for `{name}`, not measured here with these weights (from `{certificate['source']['file']}`): "
            f"ImageNet-1k top-1 {row['timm_top1']}%, top-5 {row['timm_top5']}%, timm's protocol. "
            "`swins eval ARTEFACT --data IMAGENET_VAL` measures it."
        )
    return "Not measured, and nothing is published under this name. `swins eval` measures it."


def target_row(name, record):
    """A file for another runtime, as a row of the card's table."""
    worst = max(record["difference"].values())
    form = "deployed " if record.get("deployed") else ""
    form += record["precision"]
    text = f"{record['target']}, {form}: differs from Keras by at most {worst:.1e} of the largest output"
    if record["images"]:
        text += f", same top-1 on {record['top1_agreement']:.1%} of {record['images']} images"
    return f"| `{name}` | {text} ({', '.join(record['versions'])}) |"


def card(model, certificate):
    """The model card's text, of an artefact that has SavedModels."""
    exports = certificate["exports"]
    name, architecture = certificate["name"], certificate["architecture"]
    _, _, _, weights = find(name)
    tagged = "." in name
    headless = not model.variant.num_classes
    archives = [f"{part}/`, `{archive_name(part)}" for part in exports]
    template = string.Template(resources.files("swins.export").joinpath("card.md").read_text())
    variant, output = model.variant, "features" if headless else "logits"
    decodes = "serving_bytes" in next(iter(exports.values()))
    height, width = ("height", "width") if variant.image_size == ANY else variant.image_size
    return template.substitute(
        handle=name.replace(".", "_"),
        title=f"`{name}`",
        dataset=weights.dataset if tagged else "not stated",
        license=weights.license if tagged else "not stated",
        parameters=f"{certificate['parameters']['keras']:,}",
        image_size="any number of" if variant.image_size == ANY else f"{height}x{width}",
        height=height,
        width=width,
        channels=variant.in_chans,
        size_rule=variant.size_rule,
        classes=f"{variant.num_classes:,} classes" if variant.num_classes else "no classifier",
        features=variant.embed_dim * 2 ** (len(variant.depths) - 1),
        s3=" and Chen et al., [S3](https://arxiv.org/abs/2111.14725)" if "_s3_" in architecture else "",
        source=certificate["source"]["file"],
        sha256=certificate["source"]["sha256"],
        timm=certificate["versions"]["timm"],
        logits_diff=f"{certificate['logits']['relative']:.1e}",
        count=certificate["images"][0],
        blocks=len(certificate["blocks"]),
        worst_block=f"{certificate['worst_block']:.1e}",
        hub_diff=f"{max(e['call'] for e in exports.values()):.1e}",
        accuracy=accuracy(name, certificate),
        bytes=BYTES.substitute(output=output) if decodes else "",
        prepare=PREPARE.substitute(mean=weights.mean, std=weights.std) if decodes else "No preprocessing is published.",
        files="\n".join(
            [
                *(
                    f"| `{a}` | {USES[part]}: images to {e['output']} |"
                    for a, (part, e) in zip(archives, exports.items(), strict=True)
                ),
                *(target_row(*item) for item in certificate.get("targets", {}).items()),
            ]
        ),
        part=next(iter(exports)),
        archive=archive_name(next(iter(exports))),
        output=output,
    )


def collection(folders, title, place):
    """A page that lists exported artefacts, in the format of TF-Hub's and Kaggle's collections -> text.

    Args:
        folders: the artefacts.
        title: of the page.
        place: the folder where the page will lie, from which it links.

    Raises:
        SwinsError: for a folder without exports.
    """
    rows = []
    for folder in sorted(map(pathlib.Path, folders)):
        certificate = read_certificate(folder)
        if "exports" not in certificate:
            raise SwinsError(f"{folder}: has no exports to list; run `swins export {folder}` first")
        name, link = certificate["name"], pathlib.Path(os.path.relpath(folder, place)).as_posix()
        published, measured = published_row(name), certificate.get("measured")
        top1 = "not measured"
        if published:
            top1 = f"{published['timm_top1']} (published)"
        if measured:
            top1 = f"{float(measured['top1']):.2%} ({measured['dataset']}, measured)"
        size = "any" if None in certificate["image_size"] else "x".join(map(str, certificate["image_size"]))
        links = " ".join(f"[{EXPORTED[part]}]({link}/{archive_name(part)})" for part in certificate["exports"])
        rows.append(f"| `{name}` | {size} | {certificate['parameters']['keras'] / 1e6:.1f} | {top1} | {links} |")
    text = resources.files("swins.export").joinpath("collection.md").read_text()
    return string.Template(text).substitute(title=title, rows="\n".join(rows))
