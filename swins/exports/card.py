"""The model card of an artefact, in the format of Kaggle Models and TF-Hub, and the page that lists several."""

import csv
import os
import pathlib
import string
from importlib import resources

from swins import files
from swins.convert.certificate import comparison
from swins.errors import SwinsError
from swins.run_result import when_scored
from swins.score import NONE
from swins.task import task_named
from swins.weights.artefacts import CARD, archive_name, read_certificate

BYTES = string.Template(
    '$output = model.signatures["serving_bytes"](image_bytes=files)["$output"]  # JPEG or PNG files, prepared inside\n'
)
PARITY = string.Template(
    "Converted from `$source` (sha256 `$sha256`).\n"
    "Keras and PyTorch ($program $version, size rule `$size_rule`) differ by at most $output_diff of the largest\n"
    "output over $count seeded images; the worst of $blocks compared layers by $worst_block of its largest value."
    "$unproven"
)
NO_PARITY = string.Template(
    "Made of `$source` (sha256 `$sha256`)$begun.\n"
    "No PyTorch was involved: the Keras model is the original, and no comparison with another program stands behind it."
)
EXPORTED = {"saved_model": "classifier", "saved_model_fe": "feature vector", "saved_model_deploy": "for inference"}
USED = "reusable, fine-tunable SavedModel"
INFERENCE = "SavedModel for inference only"
USES = {"saved_model_deploy": f"{INFERENCE}, faster"}


def use_of(part, record):
    """What a SavedModel is for, of its name and its record in the certificate."""
    return USES.get(part, USED if record["trainable_variables"] else INFERENCE)


def measured_row(table, certificate):
    """The newest full row of a results table for these very weights, or None."""
    if not table:
        return None
    with open(table, newline="") as file:
        rows = [r for r in csv.DictReader(file) if r.get("weights_sha256") == certificate["weights_sha256"]]
    full = [r for r in rows if r["unreadable"] == "0"]
    return full[-1] if full else None


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
                output_diff=f"{max(d['relative'] for d in certificate['outputs'].values()):.1e}",
                count=certificate["images"][0],
                blocks=len(certificate["blocks"]),
                worst_block=f"{certificate['worst_block']:.1e}",
            ),
        }
    training = certificate.get("training")
    begun = f", trained by `swins train`, begun as `{training['begun_as']}`" if training else ""
    row = "\n| `result.json` | the training run: what it learnt, preparation, scores |"
    return {
        "origin": "trained here." if training else "of a `.keras` file.",
        "compared": "what was compared: the exports with the Keras model",
        "result": row if training else "",
        "parity": NO_PARITY.substitute(source=source["file"], sha256=source["sha256"], begun=begun),
    }


def target_row(task, name, record):
    """A file for another runtime, as a row of the card's table."""
    worst = max(record["difference"].values())
    form = "deployed " if record.get("deployed") else ""
    form += record["precision"]
    text = f"{record['target']}, {form}: differs from Keras by at most {worst:.1e} of the largest output"
    text += agreement_text(task, record, ", same {} on {} of {} images")
    return f"| `{name}` | {text} ({', '.join(record['versions'])}) |"


def agreement_text(task, record, form):
    """How often a file's answers are the model's, in a form with places for what, how often, of how many."""
    words = {score.name: score.words for score in task.scores}
    pairs = record["agreement"].items() if record["images"] else ()
    return "".join(form.format(words.get(name, name), f"{share:.1%}", record["images"]) for name, share in pairs)


def rated(task, certificate):
    """The card's line on how good a model is, where its kind of work has no words of its own."""
    scores, training, row = list(task.scores), certificate.get("training", {}), certificate.get("measured")
    if row:
        known = [(score, row[score.name]) for score in scores if row.get(score.name) not in (None, "", NONE)]
        numbers = ", ".join(f"{score.words} {score.text(float(value))}" for score, value in known)
        return (
            f"Measured with these weights: {numbers} on {row['images']} images of {row['dataset']} ({row['protocol']})."
        )
    numbers = [f"{score.words} {score.text(training[score.name])}" for score in scores if score.name in training]
    if not numbers:
        return "Not measured. `swins eval` measures it."
    return f"{when_scored(training)}: {', '.join(numbers)} on {training['images']} validation images."


def card(task, model, certificate):
    """The model card's text, of an artefact that has SavedModels."""
    exports, name = certificate["exports"], certificate["name"]
    title = certificate.get("title", name)
    archives = [f"{part}/`, `{archive_name(part)}" for part in exports]
    output = next(iter(exports.values()))["output"]
    own = task.card(model, certificate)
    decodes = "serving_bytes" in next(iter(exports.values()))
    template = own.pop("template", None) or resources.files("swins.exports").joinpath("card.md").read_text()
    texts = {
        "task": task.name,
        "handle": title.replace(".", "_"),
        "title": f"`{title}`" if title == name else f"`{title}`, a `{name}`",
        "parameters": f"{certificate['parameters']['keras']:,}",
        **origin(certificate),
        "hub_diff": f"{max(e['call'] for e in exports.values()):.1e}",
        "accuracy": rated(task, certificate),
        "bytes": BYTES.substitute(output=output) if decodes else "",
        "files": "\n".join(
            [
                *(
                    f"| `{a}` | {use_of(part, e)}: images to {e['output']} |"
                    for a, (part, e) in zip(archives, exports.items(), strict=True)
                ),
                *(
                    f"| `{number}/` | a copy of `{copy['part']}` for TF Serving and `swins serve` |"
                    for number, copy in certificate.get("served", {}).items()
                ),
                *(target_row(task, *item) for item in certificate.get("targets", {}).items()),
            ]
        ),
        "part": next(iter(exports)),
        "archive": archive_name(next(iter(exports))),
        "output": output,
    }
    channels = own.get("channels")
    counted = f"{channels} channel{'' if channels == 1 else 's'}"
    return string.Template(template).substitute({**texts, **own}, counted_channels=counted)


def write_card(folder, task, model, certificate):
    """Write the model card of an artefact into a folder, and its digest into the certificate."""
    path = pathlib.Path(folder, CARD)
    files.write(path, card(task, model, certificate))
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
    rows, but, tags = [], "", {}
    for folder in sorted(map(pathlib.Path, folders)):
        certificate = read_certificate(folder)
        if "exports" not in certificate:
            raise SwinsError(f"{folder}: has no exports to list; run `swins export {folder}` first")
        task, link = task_named(certificate.get("task")), pathlib.Path(os.path.relpath(folder, place)).as_posix()
        size = "any" if None in certificate["image_size"] else "x".join(map(str, certificate["image_size"]))
        parts = certificate["exports"]
        links = " ".join(f"[{EXPORTED.get(part, part)}]({link}/{archive_name(part)})" for part in parts)
        label = f"`{certificate.get('title', certificate['name'])}`"
        if not compared(certificate):
            label, but = f"{label} (no PyTorch)", ", but for those marked so, which have none behind them"
        tags |= {f"<!-- task: {task.tag} -->\n": None} if task.tag else {}
        parameters = f"{certificate['parameters']['keras'] / 1e6:.1f}"
        rows.append(f"| {label} | {size} | {parameters} | {task.rating(certificate)} | {links} |")
    text = resources.files("swins.exports").joinpath("collection.md").read_text()
    return string.Template(text).substitute(title=title, but=but, tags="".join(tags), rows="\n".join(rows))
