"""The model card of an artefact, in the format of Kaggle Models and TF-Hub, and the page that lists several."""

import csv
import json
import os
import pathlib
import string
from importlib import resources

from swins import files
from swins.convert.certificate import comparison
from swins.errors import SwinsError
from swins.images import preparation_of, stated_preparation
from swins.plans import ANY
from swins.tags import look_up
from swins.weights.artefacts import CARD, archive_name, read_certificate

BYTES = string.Template(
    '$output = model.signatures["serving_bytes"](image_bytes=files)["$output"]  # JPEG or PNG files, prepared inside\n'
)
PARITY = string.Template(
    "Converted from `$source` (sha256 `$sha256`).\n"
    "Keras and PyTorch ($program $version, size rule `$size_rule`) differ by at most $logits_diff of the largest\n"
    "logit over $count seeded images; the worst of $blocks compared layers by $worst_block of its largest value."
    "$unproven"
)
NO_PARITY = string.Template(
    "Made of `$source` (sha256 `$sha256`)$begun.\n"
    "No PyTorch was involved: the Keras model is the original, and no comparison with another program stands behind it."
)
CROPPED = string.Template(
    "Images are scaled so that they cover $resize pixels (height x width), cut to $size in their centre, and\n"
    "normalised with mean $mean and standard deviation $std (pixels from 0 to 1): as $whose."
)
PREPARE = string.Template(
    "Normalise with mean $mean and standard deviation $std (pixels from 0 to 1); sizes and crops are those of timm's\n"
    "evaluation."
)
EXPORTED = {"saved_model": "classifier", "saved_model_fe": "feature vector", "saved_model_deploy": "for inference"}
USES = dict.fromkeys(EXPORTED, "reusable, fine-tunable SavedModel")
USES["saved_model_deploy"] = "SavedModel for inference only, faster"


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
    if training := certificate.get("training"):
        return (
            f"At the end of its training: top-1 {training['top1']:.2%}, top-5 {training['top5']:.2%} on "
            f"{training['images']} validation images."
        )
    row = published_row(name) if compared(certificate) else None
    if row:
        return (
            f"Published for `{name}`, not measured here with these weights (from `{certificate['source']['file']}`): "
            f"ImageNet-1k top-1 {row['timm_top1']}%, top-5 {row['timm_top5']}%, timm's protocol. "
            "`swins eval ARTEFACT --data IMAGENET_VAL` measures it."
        )
    return "Not measured, and nothing is published under this name. `swins eval` measures it."


def compared(certificate):
    """Whether a model was compared with PyTorch."""
    return "blocks" in certificate


def origin(certificate):
    """What the card says of where a model is from and what was compared: placeholders of card.md."""
    source = certificate["source"]
    if compared(certificate):
        reference = comparison(certificate)
        return {
            "origin": "converted from PyTorch and proven equal to it.",
            "compared": "the comparison with PyTorch, block by block",
            "result": "",
            "parity": PARITY.substitute(
                source=source["file"],
                sha256=source["sha256"],
                **{**reference, "unproven": "".join(f"\nNot proven: {text}." for text in reference["unproven"])},
                logits_diff=f"{certificate['logits']['relative']:.1e}",
                count=certificate["images"][0],
                blocks=len(certificate["blocks"]),
                worst_block=f"{certificate['worst_block']:.1e}",
            ),
        }
    training = certificate.get("training")
    begun = f", trained by `swins train`, begun as `{training['begun_as']}`" if training else ""
    row = "\n| `result.json` | the training run: classes, preparation, accuracy |"
    return {
        "origin": "trained here." if training else "of a `.keras` file.",
        "compared": "what was compared: the exports with the Keras model",
        "result": row if training else "",
        "parity": NO_PARITY.substitute(source=source["file"], sha256=source["sha256"], begun=begun),
    }


def preparing(certificate, weights, decodes):
    """The card's words on how images are prepared."""
    training = certificate.get("training")
    stated, size = certificate.get("preparation") or {}, tuple(certificate["image_size"])
    if stated and not decodes:
        return f"Prepare images as the converted file says: {json.dumps(stated)}."
    prepare = preparation_of(training) if training else stated_preparation(stated, size)
    if prepare:
        whose = "the training run validated them" if training else "the converted file says"
        size, resize = ("x".join(map(str, pair)) for pair in (prepare.image_size, prepare.resize))
        return CROPPED.substitute(size=size, resize=resize, mean=prepare.mean, std=prepare.std, whose=whose)
    if decodes:
        return PREPARE.substitute(mean=weights.mean, std=weights.std)
    return "No preprocessing is published." if compared(certificate) else "How images were prepared is not recorded."


def class_list(certificate):
    """The card's list of classes, of a training run or as the converted file names them."""
    classes = certificate.get("training", {}).get("classes") or certificate.get("class_names")
    if not (isinstance(classes, list) and classes):
        return ""
    return f"\n\nClasses, in the order of the logits:\n\n```json\n{json.dumps(classes, ensure_ascii=False)}\n```"


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
    weights = look_up(name).weights if compared(certificate) else None
    tagged = weights and "." in name
    title = certificate.get("title", name)
    headless = not model.variant.num_classes
    archives = [f"{part}/`, `{archive_name(part)}" for part in exports]
    template = string.Template(resources.files("swins.export").joinpath("card.md").read_text())
    variant, output = model.variant, "features" if headless else "logits"
    decodes = "serving_bytes" in next(iter(exports.values()))
    height, width = ("height", "width") if variant.image_size == ANY else variant.image_size
    return template.substitute(
        handle=title.replace(".", "_"),
        title=f"`{title}`" if title == name else f"`{title}`, a `{name}`",
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
        **origin(certificate),
        hub_diff=f"{max(e['call'] for e in exports.values()):.1e}",
        accuracy=accuracy(name, certificate),
        bytes=BYTES.substitute(output=output) if decodes else "",
        prepare=preparing(certificate, weights, decodes),
        classes_named=class_list(certificate),
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


def write_card(folder, model, certificate):
    """Write the model card of an artefact into a folder, and its digest into the certificate."""
    path = pathlib.Path(folder, CARD)
    files.write(path, card(model, certificate))
    certificate["card"] = {"sha256": files.sha256(path)}


def collection(folders, title, place):
    """A page that lists exported artefacts, in the format of TF-Hub's and Kaggle's collections -> text.

    Args:
        folders: the artefacts.
        title: of the page.
        place: the folder where the page will lie, from which it links.

    Raises:
        SwinsError: for a folder without exports.
    """
    rows, but = [], ""
    for folder in sorted(map(pathlib.Path, folders)):
        certificate = read_certificate(folder)
        if "exports" not in certificate:
            raise SwinsError(f"{folder}: has no exports to list; run `swins export {folder}` first")
        name, link = certificate["name"], pathlib.Path(os.path.relpath(folder, place)).as_posix()
        published = published_row(name) if compared(certificate) else None
        measured, training = certificate.get("measured"), certificate.get("training")
        top1 = "not measured"
        if published:
            top1 = f"{published['timm_top1']} (published)"
        if training:
            top1 = f"{training['top1']:.2%} (validation images of its run)"
        if measured:
            top1 = f"{float(measured['top1']):.2%} ({measured['dataset']}, measured)"
        size = "any" if None in certificate["image_size"] else "x".join(map(str, certificate["image_size"]))
        links = " ".join(f"[{EXPORTED[part]}]({link}/{archive_name(part)})" for part in certificate["exports"])
        label = f"`{certificate.get('title', name)}`"
        if not compared(certificate):
            label, but = f"{label} (no PyTorch)", ", but for those marked so, which have none behind them"
        rows.append(f"| {label} | {size} | {certificate['parameters']['keras'] / 1e6:.1f} | {top1} | {links} |")
    text = resources.files("swins.export").joinpath("collection.md").read_text()
    return string.Template(text).substitute(title=title, but=but, rows="\n".join(rows))
