"""Evaluations: from a model and a data set to rows of tables."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable
from dataclasses import dataclass

from swins.data.run_parts import trained_on_too
from swins.data.split import left_out
from swins.errors import SwinsError
from swins.evaluate import records, reports, result_tables, sample_evaluation
from swins.opening import open_saved
from swins.run_result import model_file
from swins.task import refuse_options

SHOWN = 20  # files that are no images, that are named


@dataclass(frozen=True)
class Evaluation:
    """How a model is evaluated.

    batch: images at a time; several: whether the model is divided among devices; table: the CSV that the row is added
    to; only_new: unless it has it; predictions: a CSV of the answers to each image, beside which other tables may lie:
    while it is made, an evaluation that is ended goes on; skip_unreadable: score what can be read, where some cannot;
    progress: whether a bar is drawn; report: a folder for tables, figures and the worst mistakes; engine: what runs the
    model over the images in place of this process, such as `swins.ray_engine.Engine`: None for this process.
    """

    batch: int = 32
    several: bool = False
    table: str | pathlib.Path | None = None
    only_new: bool = False
    predictions: str | pathlib.Path | None = None
    skip_unreadable: bool = False
    progress: bool = True
    report: str | pathlib.Path | None = None
    engine: object = None


def artefacts_in(folder) -> list[pathlib.Path]:
    """Artefact folders and .keras files in a folder, by name. Raises SwinsError if there are none."""
    if not pathlib.Path(folder).is_dir():
        raise SwinsError(f"{folder}: no such folder of artefacts")
    paths = sorted(p for p in pathlib.Path(folder).iterdir() if not p.name.startswith("."))  # those are being written
    kept = [model_file(p) for p in paths if p.suffix == ".keras" or (p / "model.keras").is_file()]
    if not kept:
        raise SwinsError(f"{folder} holds no artefacts: folders with a model.keras, or .keras files")
    return kept


def evaluate(
    path,
    source,
    options: dict | None = None,
    how: Evaluation = Evaluation(),
    show: Callable = lambda row: None,
    say: Callable = lambda text: None,
):
    """Evaluate one model on a data set -> its row as a dict, or None where the table has it.

    Args:
        path: an artefact, a .keras file or the folder of a training run.
        source: a data set, as the model's kind of work takes it.
        options: what else the model's kind of work takes, by the names in its Task's `options`.
        how: an Evaluation.
        show: called with the row before anything is written.
        say: called with a line of text on what is noticed.

    Raises:
        SwinsError: bad data, a model that is none of the name's, or files that are no images.
    """
    opened = open_saved(path)
    task, options = opened.task, {k: v for k, v in (options or {}).items() if v is not None}
    refuse_options(task, options, task.options)
    if task.evaluate and how.report:
        raise SwinsError(f"--report: not of {task.name}; leave out")
    if task.evaluate and how.engine:
        raise SwinsError(
            f"--engine: scores of {task.name} are of all its samples together, and not image by image; leave out"
        )
    if task.evaluate:
        return sample_evaluation.evaluate(opened, source, options, how, show, say)
    prepared = task.prepare(opened, options)
    facts = {**task.known(opened), **prepared.facts}
    dataset = task.dataset(source, opened, facts, options)
    if dataset.strays:
        say(left_out(source, dataset.strays))
    trained_on = None if options.get("split") else trained_on_too(path, dataset.count)
    for note in (*dataset.notes, *filter(None, [trained_on])):
        say(note)
    if how.table:
        result_tables.check_table(how.table, result_tables.columns_of(task))
    if how.only_new and result_tables.has_row(how.table, opened.certificate, dataset, prepared):
        say(f"{how.table} has its row")
        return None
    identity = identity_of(opened, source, options, dataset, prepared) if how.predictions else []
    if how.engine:
        scored = how.engine.score(opened, prepared.preparation, dataset, facts, how, identity)
    else:
        journal = None
        if how.predictions:
            journal = records.Journal(records.journal_of(how.predictions), identity, how.skip_unreadable)
        if journal and journal.rows:
            say(f"going on after {len(journal.rows)} of {dataset.count} images")
        scored = records.run(opened, prepared.preparation, dataset, facts, how, journal)
    for text in scored.unreadable[:SHOWN]:
        say(f"unreadable: {text}")
    if not scored.rows:
        raise SwinsError(f"{source}: none of its {len(scored.unreadable)} files is an image that can be read")
    scored = dataclasses.replace(scored, rows=task.revise(scored.rows, options))
    if not scored.rows:
        raise SwinsError(f"{source}: no image is left to score with these options; choose others")
    row = result_tables.row_of(opened, prepared, dataset, scored, facts)
    silent = {score.name for score in task.scores} - {score.name for score in task.scores_of(facts)}
    show({name: value for name, value in row.items() if name not in silent})
    if scored.unreadable and not how.skip_unreadable:
        raise SwinsError(
            f"{source}: every file must be a readable image; {len(scored.unreadable)} of {dataset.count} are not "
            f"(listed above, at most {SHOWN}); nothing was written; mend or remove them, or add --skip-unreadable to "
            f"the command, which then writes what it finds of the other {len(scored.rows)}"
        )
    if how.predictions:
        for written in result_tables.write_predictions(task, scored.rows, facts, how.predictions):
            say(f"wrote {written}")
    if how.report:
        again = task.dataset(source, opened, facts, options).samples
        for written in reports.write(task, scored.rows, facts, again, how.report, say):
            say(f"wrote {written}")
    if how.table:
        result_tables.append_row(row, how.table)
        say(f"added a row to {how.table}")
    if how.predictions:
        (how.engine or records).forget(how.predictions)
    return row


def identity_of(opened, source, options, dataset, prepared) -> list:
    """What is evaluated, by what: results of another evaluation are not gone on with. As JSON has it."""
    places = {k: str(pathlib.Path(v).resolve()) if pathlib.Path(v).exists() else v for k, v in options.items()}
    preparation, config = dataclasses.asdict(prepared.preparation), repr(opened.model.get_config())
    made = [opened.task.name, opened.certificate["weights_sha256"], hashlib.sha256(config.encode()).hexdigest()]
    return [*made, str(pathlib.Path(source).resolve()), places, dataset.count, preparation]
