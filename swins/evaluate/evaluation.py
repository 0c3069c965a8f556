"""Models by what people have of them: an artefact, a training run, a file; and their evaluation, from data to rows."""

import dataclasses
import pathlib

from swins.build import variant_name
from swins.data import labelled
from swins.data.layouts import left_out
from swins.errors import SwinsError
from swins.evaluate import results, scoring
from swins.images import preparation_of, preprocess, stated_preparation
from swins.labels import known_classes
from swins.tags import look_up, names_variant
from swins.trained import model_file, require_finished, training_of
from swins.weights import artefacts, checkpoint_files, identify
from swins.weights.load import create

AS_STATED = "stated"  # the protocol of images that are prepared as the converted file, or one beside it, says
AS_TRAINED = "run"  # the protocol of images that are prepared as a training run validated with


def artefacts_in(folder):
    """Artefact folders and .keras files in a folder, by name. Raises SwinsError if there are none."""
    if not pathlib.Path(folder).is_dir():
        raise SwinsError(f"{folder}: no such folder of artefacts")
    paths = sorted(p for p in pathlib.Path(folder).iterdir() if not p.name.startswith("."))  # those are being written
    found = [model_file(p) for p in paths if p.suffix == ".keras" or (p / "model.keras").is_file()]
    if not found:
        raise SwinsError(f"{folder} holds no artefacts: folders with a model.keras, or .keras files")
    return found


def find_model(path, name=None):
    """A model and its name, by what people have of it -> (model, name).

    Args:
        path: an artefact, a training run, a .keras file, a checkpoint of any dialect or a folder of one, or the name of
            published weights: a name means these, whatever folder is called so, which is given as ./NAME.
        name: the variant; by default the one recorded or recognised.

    Raises:
        SwinsError: if it is none of these, or a training run that has not ended.
    """
    if names_variant(path):
        return create(path, weights="pretrained"), path
    file = pathlib.Path(path)
    require_finished(file)
    if (file.is_file() and file.suffix != ".keras") or (file.is_dir() and not (file / artefacts.MODEL).is_file()):
        name = name or identify.the_variant(checkpoint_files.read(file))
        return create(name, weights=file), name
    if file.exists():
        model, certificate = artefacts.open_evaluated(model_file(file))
        run = str(file) if not names_variant(str(file)) else str(file.absolute())
        return model, name or (run if training_of(file) else certificate.get("name")) or variant_name(model)
    if len(file.parts) > 1:
        raise SwinsError(f"{path}: neither an artefact, nor a file, nor a variant's name")
    return create(path, weights="pretrained"), path  # which lists the closest names


def preparation(path, model, certificate, name=None, protocol=None):
    """(variant's name, protocol, Preprocess) of a model.

    The model of a training run is prepared for as the run did, and one whose file stated it as stated, unless a name or
    a protocol is given.

    Raises:
        SwinsError: if the model is none of the name's, has no classifier, or is a training run's and a protocol is
            given.
    """
    trained = training_of(path) if not name else None
    name = name or certificate.get("name") or (trained and trained["recipe"]["model.name"]) or variant_name(model)
    if not trained and any(
        getattr(look_up(name).variant, part) != getattr(model.variant, part)
        for part in ("embed_dim", "depths", "num_heads")
    ):
        raise SwinsError(f"{path} is no {name}: channels, blocks or heads differ; pass its own name with -m")
    if not model.variant.num_classes:
        raise SwinsError(f"{path} has no classifier (num_classes is 0), so there is nothing to score")
    if trained and protocol:
        raise SwinsError(f"{path}: images are prepared as its training run did; leave --protocol out, or pass -m")
    if trained:
        return name, AS_TRAINED, preparation_of(trained)
    facts = {} if protocol else certificate.get("preparation") or {}
    stated = stated_preparation(facts, model.variant.image_size)
    if stated and len(stated.mean) == model.variant.in_chans:
        return name, AS_STATED, stated
    protocol = protocol or "timm"
    return name, protocol, preprocess(name, protocol, model.variant.image_size, model.variant.in_chans)


def evaluate(
    path, source, *, name=None, protocol=None, labels=None, class_order=None, real=None, batch=32, table=None,
    predictions=None, only_new=False, skip_unreadable=False, progress=True, several=False, show=lambda row: None,
    say=lambda text: None,
):  # fmt: skip
    """Evaluate one model on a data set -> the Result, or None where its row is in the table.

    Args:
        path: an artefact, a .keras file or the folder of a training run.
        source: a data set, as `find_dataset` takes it; labels: its table of labels; class_order: of its class folders,
            where the names that the model knows are not theirs.
        name: the variant whose preparation holds; by default the one recorded.
        protocol: "timm" or "ms"; by default timm's, or the training run's own.
        real: a file of other labels, as ImageNet-ReaL's.
        batch: images at a time.
        table: the CSV that the row is added to; only_new: unless it has it.
        predictions: a CSV of the answers to each image; while it is made, an evaluation that is ended goes on.
        skip_unreadable: score what can be read, where some cannot.
        several: whether the model is divided among devices.
        show: called with the Result before anything is written.
        say: called with a line of text on what is noticed.

    Raises:
        SwinsError: bad data, a model that is none of the name's, or files that are no images.
    """
    require_finished(path)
    path = model_file(path)
    model, certificate = artefacts.open_evaluated(path)
    name, protocol, prepare = preparation(path, model, certificate, name, protocol)
    classes = known_classes(path, model, certificate)
    dataset = labelled.find_dataset(source, model.variant.num_classes, labels, classes, class_order)
    if real:
        dataset = dataclasses.replace(dataset, name=f"{dataset.name} ({pathlib.Path(real).stem})")
    if dataset.strays:
        say(left_out(source, dataset.strays))
    for note in dataset.notes:
        say(note)
    count = None if real else dataset.count
    if only_new and results.has_row(table, certificate, dataset, protocol, prepare.image_size, count):
        say(f"{table} has its row")
        return None
    journal = None
    if predictions:
        sources = [str(path and pathlib.Path(path).resolve()) for path in (source, labels)]
        identity = [certificate["weights_sha256"], *sources, dataset.count, dataclasses.asdict(prepare)]
        journal = scoring.Journal(scoring.journal_of(predictions), identity, skip_unreadable)
        if journal.rows:
            say(f"going on after {len(journal.rows)} of {dataset.count} images")
    found, unreadable, speed = scoring.evaluate(model, prepare, dataset, batch, progress, several, journal)
    for text in unreadable[:20]:
        say(f"unreadable: {text}")
    if not found:
        raise SwinsError(f"{source}: none of its {len(unreadable)} files is an image that can be read")
    if real:
        found = scoring.relabelled(found, scoring.read_real(real))
    row = results.result_row(name, dataset, protocol, prepare.image_size, (found, unreadable, speed), certificate)
    show(row)
    if unreadable and not skip_unreadable:
        raise SwinsError(
            f"{source}: every file must be a readable image; {len(unreadable)} of {dataset.count} are not (listed "
            "above, at most 20); nothing was written; mend or remove them, or pass --skip-unreadable"
        )
    if predictions:
        results.write_predictions(found, predictions)
    if table:
        results.append_row(row, table)
        say(f"added a row to {table}")
    if journal:
        journal.path.unlink()
    return row
