"""How classifiers are opened, prepared for and evaluated."""

import dataclasses
import json
import pathlib

from swins.data.labelled import Classes, find_dataset, find_part
from swins.data.run_parts import require_part
from swins.errors import SwinsError, first_line
from swins.images import preparation_of, preprocess, stated_preparation
from swins.labels import known_classes
from swins.results import MOST
from swins.tags import look_up, variant_name
from swins.task import Prepared
from swins.tasks.classification_report import class_names, probability

AS_STATED = "stated"  # the protocol of images that are prepared as the converted file, or one beside it, says
AS_TRAINED = "run"  # the protocol of images that are prepared as a training run validated with
OPTIONS = ("model", "protocol", "split", "labels", "class_order", "real")


def known(opened):
    """The names of a model's classes, where they are known."""
    return {"classes": list(known_classes(opened.path, opened.model, opened.certificate))}


def remembered(model):
    """The Preprocess of what a model remembers of its weights; None where it remembers none, or none that is known."""
    if not {"name", "preparation"} & getattr(model, "origin", {}).keys():
        return None
    try:
        return preprocess(model)
    except SwinsError:
        return None


def prepare(opened, options):
    """How a model's images are prepared.

    The model of a training run is prepared for as the run did, and one whose file stated it, or that remembers it, so,
    unless a name or a protocol is given.

    Args:
        opened: an Opened; options: "model", a variant's name; "protocol", "timm" or "ms".

    Raises:
        SwinsError: if the model is none of the name's, has no classifier, or is a training run's and a protocol is
            given.
    """
    path, model, certificate, name = opened.path, opened.model, opened.certificate, options.get("model")
    protocol, trained = options.get("protocol"), None if name else opened.training
    name = name or certificate.get("name") or (trained and trained["recipe"]["model.name"]) or variant_name(model)
    kept = None if options or trained or "blocks" in certificate else remembered(model)
    if kept and model.variant.num_classes:
        return Prepared(
            model.origin.get("name") or name, AS_STATED if model.origin.get("preparation") else "timm", kept
        )
    numbers = look_up(name).variant
    if not trained and (
        type(numbers).NAMED != type(model.variant).NAMED
        or any(getattr(numbers, part) != getattr(model.variant, part) for part in numbers.NAMED)
    ):
        raise SwinsError(f"{path} is no {name}: channels, blocks or heads differ; pass its own name with -m")
    if not model.variant.num_classes:
        raise SwinsError(f"{path} has no classifier (num_classes is 0), so there is nothing to score")
    if trained and protocol:
        raise SwinsError(f"{path}: images are prepared as its training run did; leave --protocol out, or pass -m")
    if trained:
        return Prepared(name, AS_TRAINED, preparation_of(trained))
    facts = {} if protocol else certificate.get("preparation") or {}
    stated = stated_preparation(facts, model.variant.image_size)
    if stated and len(stated.mean) == model.variant.in_chans:
        return Prepared(name, AS_STATED, stated)
    protocol = protocol or "timm"
    return Prepared(name, protocol, preprocess(name, protocol, model.variant.image_size, model.variant.in_chans))


def dataset(source, opened, facts, options):
    """Labelled images, whose labels are the model's classes; options["split"]: those of one part of the data."""
    part = options.get("split")
    require_part(part)
    if options.get("real"):
        read_real(options["real"])
    count = opened.model.variant.num_classes
    if part and options.get("labels"):
        raise SwinsError("--labels are of all images in a folder, and --split is of a part of them; leave one out")
    if part:
        classes = Classes(count, tuple(facts["classes"]), options.get("class_order"))
        images = find_part(source, part, classes, opened.path, opened.training)
    else:
        images = find_dataset(source, count, options.get("labels"), facts["classes"], options.get("class_order"))
    if not options.get("real"):
        return images
    name = f"{images.name} ({pathlib.Path(options['real']).stem})"
    return dataclasses.replace(images, name=name, count_scored=None)


def read_real(path):
    """Other sets of right answers, as ImageNet-ReaL's JSON has them. Raises SwinsError if the file has none."""
    try:
        real = json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError) as error:
        raise SwinsError(f"{path}: no JSON of labels ({first_line(error)})") from error
    if not (
        isinstance(real, dict | list)
        and all(isinstance(x, list) for x in (real.values() if isinstance(real, dict) else real))
    ):
        raise SwinsError(f"{path}: must be a list of lists of classes, or {{file name: list of classes}}")
    return real


def revise(rows, options):
    """Records with the labels of options["real"], if there are any."""
    return relabelled(rows, read_real(options["real"])) if options.get("real") else rows


def relabelled(rows, real):
    """Records with other sets of right answers, as ImageNet-ReaL has them -> records, one label each.

    A prediction is right if any of an image's labels is; images without a label are left out. The label given back is
    the best placed of them.

    Args:
        rows: [(name of an image, record)].
        real: a list of lists of classes in the order of the images' names, or {name: list of classes}.

    Raises:
        SwinsError: if it has no labels for an image, or is a list of another length.
    """
    names = [pathlib.PurePath(name).name for name, _ in rows]
    if isinstance(real, list):
        if len(real) != len(names):
            raise SwinsError(
                f"--real: a list must have labels of every image, and every image be readable; got {len(real)} and "
                f"{len(names)} images"
            )
        real = dict(zip(sorted(names), real, strict=True))
    missing = [name for name in names if name not in real]
    if missing:
        raise SwinsError(
            f"--real: must have a list of classes for every image; {len(missing)} have none: {missing[:3]}"
        )

    def best(labels, top):
        return next((label for label in top if label in labels), labels[0])

    return [
        (image, {**record, "label": best(real[name], record["top"])})
        for (image, record), name in zip(rows, names, strict=True)
        if real[name]
    ]


def columns(records, facts):
    """A table's header, and its rows: an image's label, and its five classes, or all where there are fewer, as numbers.

    After these the names of the label and of the first class, and the probability of that.
    """
    most = max((len(record["top"]) for record in records), default=MOST)
    names = class_names(records, facts)
    header = ["label", *(f"top{i + 1}" for i in range(most)), "is", "said", "probability"]
    return header, [
        [row["label"], *row["top"], names[row["label"]], names[row["top"][0]], probability(row, row["top"][0])]
        for row in records
    ]


FUNCTIONS = {
    "known": known,
    "prepare": prepare,
    "dataset": dataset,
    "options": OPTIONS,
    "revise": revise,
    "columns": columns,
}
