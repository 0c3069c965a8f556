"""The folder of a training run: what it is of, how far it has come, its log and its curves."""

import csv
import errno
import io
import json
import pathlib
import shutil

import keras

from swins.changes import Recorded, RecordedParts, copy
from swins.devices import agreed
from swins.errors import SwinsError
from swins.files import replacing, write
from swins.recipes import TUNED, as_json, differences, today
from swins.score import NONE, read_score
from swins.train.checkpoints import Checkpoints
from swins.train.phases import phases

DRAWN = 3  # scores in the curves
AFTER = ("val_images", "unreadable", "seconds")  # columns of a log, after those of the scores
WRITTEN = (
    "checkpoints",
    "tensorboard",
    "log.csv",
    "curves.png",
    "model.keras",
    "best.keras",
    "result.json",
    "facts.json",
    "annotations_*.txt",
    "unreadable*.txt",
    "pictures",
)


class Run:
    """A folder, and how far the run in it has come."""

    def __init__(self, folder, task, say):
        self.folder, self.task, self.say = pathlib.Path(folder), task, say
        self.scores = task.scores  # of which columns are
        self.checkpoints = Checkpoints(self.folder / "checkpoints")
        self.rows, self.step, self.seconds = [], 0, 0.0
        self.unvalidated = self.best = self.record = self.lock = None
        self.unreadable = self.not_scored = None
        self.remarks = []  # on the last validation

    def open(self, recipe, splits, overwrite):
        """Make the folder, or find that it is of the same recipe and data, and take it for this process alone.

        Raises:
            SwinsError: if it is of others, or another process trains in it.
        """
        path, settings = self.folder / "recipe.json", as_json(recipe)
        for part, split in zip(("training", "validation"), splits, strict=True):
            settings[f"{part} data"] = split.summary()
        self.folder.mkdir(parents=True, exist_ok=True)
        if not path.is_file() and any(not p.name.startswith(".") for p in self.folder.iterdir()):
            raise SwinsError(f"{self.folder} holds other files and no run; choose another folder with -o")
        self.take()
        for ending in (".partial.keras", ".partial"):  # of this run, when it was killed
            for partial in self.folder.glob(f".*{ending}"):
                partial.unlink()
        if path.is_file() and overwrite:
            self.clear(path)
        elif path.is_file():
            record = recorded(path)
            kinds = record.get("recipe"), settings["recipe"]
            if kinds[0] != kinds[1]:
                raise SwinsError(
                    f"{self.folder} holds a run of another kind of work ({kinds[0]}, now {kinds[1]}); choose another "
                    "folder with -o"
                )
            changed = differences({k: v for k, v in record.items() if k != "changes"}, settings)
            if set(changed) - set(TUNED):
                raise SwinsError(
                    f"{self.folder} holds a run of other settings ({'; '.join(changed.values())}); go on with the same "
                    "ones, choose another folder with -o, or begin again with --overwrite; on the way only "
                    f"{', '.join(TUNED)} may change"
                )
            if changed:
                self.say(f"going on with other settings: {'; '.join(changed.values())}")
            self.record = with_changes(record, settings)
            return
        write(path, json.dumps(settings, indent=1) + "\n")

    def take(self):
        """Keep other processes out of the folder until this one closes it or ends, where the file system has locks."""
        from filelock import FileLock, Timeout

        self.lock = FileLock(self.folder / ".lock", fallback_to_soft=False)  # a soft one outlives a killed process
        try:
            self.lock.acquire(timeout=0)
        except Timeout as error:
            raise SwinsError(
                f"{self.folder}: another process trains in it; wait for its end, or choose another folder with -o"
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise

    def close(self):
        """Let other processes into the folder."""
        if self.lock:
            self.lock.release()

    def clear(self, path):
        """Delete what a run wrote, its record last, and nothing else. Raises SwinsError if it is no run's."""
        if path.stat().st_size:
            recorded(path)
        for name in WRITTEN:
            for found in self.folder.glob(name):
                shutil.rmtree(found) if found.is_dir() else found.unlink()
        path.unlink()

    def restore(self, model, share, begin=lambda step: None):
        """Go on from the newest sound checkpoint, if there is one: the one that the first process finds.

        Args:
            begin: called with the step of that, or 0, compiles the model for it.
        """
        step = agreed(share, lambda: self.checkpoints.sound(self.say))
        begin(step or 0)
        if step is not None:
            facts = self.checkpoints.load(model, step)
            self.step, self.rows, self.seconds = facts["step"], facts["rows"], facts["seconds"]
            self.unvalidated, self.best = facts.get("unvalidated"), facts.get("best")
            self.say(f"going on after step {self.step}, of {self.folder}")
        if self.record:
            for change in self.record.get("changes", []):
                change.setdefault("step", self.step)  # from which on it holds
            write(self.folder / "recipe.json", json.dumps(self.record, indent=1) + "\n")

    def save(self, model, seconds):
        """Save the state after the step that the run is at, and what is known of its epochs."""
        facts = {"rows": self.rows, "seconds": seconds, "unvalidated": self.unvalidated, "best": self.best}
        self.checkpoints.save(model, self.step, facts)

    def better(self, row, other) -> bool:
        """Whether the epoch of a row is better than another's: by its score, of equal ones by the validation loss."""
        name = f"val_{self.task.headline.name}"
        value, before = read_score(row[name]), read_score(other[name])
        if value is None or value != before:
            return self.task.headline.better(value, before)
        return float(row["val_loss"]) < float(other["val_loss"])

    def keep_best(self, model, row, writes):
        """Remember the epoch of a row if it is better than the best before it and its score a number; write best.keras.

        It is compared with the epoch that best.keras is of, in runs of before as well, which took the first of equals.
        """
        name = self.task.headline.name
        value = read_score(row[f"val_{name}"])
        others = [other for other in self.rows if not self.best or other["epoch"] == self.best["epoch"]]
        if value is not None and all(self.better(row, other) for other in others):
            if writes:
                save_model(model, self.folder / "best.keras")
            self.best = {"epoch": row["epoch"], name: value}

    def waited(self, recipe) -> int:
        """Epochs since the best one, of those in which all weights learn; 0 where none has a score."""
        if not (self.best and self.rows):
            return 0
        return self.rows[-1]["epoch"] - max(self.best["epoch"], phases(recipe)[-1].first)

    def ended(self, recipe, per_epoch) -> bool:
        """Whether nothing is left to train: all epochs are done, or `patience` of them were no better than the best."""
        early = recipe.patience is not None and not self.unvalidated and self.waited(recipe) >= recipe.patience
        return early or self.step >= recipe.epochs * per_epoch

    def last_row(self, recipe) -> dict:
        """The row of the epoch whose weights model.keras has."""
        best = self.best if recipe.keep == "best" else None
        return next(row for row in self.rows[::-1] if not best or row["epoch"] == best["epoch"])

    def draw(self, pictures):
        """Write {name: PIL image} into pictures/."""
        for name, picture in pictures.items():
            (self.folder / "pictures").mkdir(exist_ok=True)
            with replacing(self.folder / "pictures" / f"{name}.png") as partial:
                picture.save(partial, "PNG")

    def changes(self):
        """What was changed on the way, of recipe.json."""
        return recorded(self.folder / "recipe.json").get("changes", [])

    def write_log(self):
        """log.csv and curves.png of the rows so far."""
        lines = io.StringIO()
        writer = csv.DictWriter(lines, self.columns(), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write(self.folder / "log.csv", lines.getvalue())
        names = [f"val_{score.name}" for score in self.scores[:DRAWN]]
        draw(self.rows, [*self.task.measures, *names], self.folder / "curves.png")

    def columns(self):
        """Columns of the log."""
        means = ("loss", *self.task.measures)
        scores = ("loss", *(score.name for score in self.scores))
        return ["epoch", "learning_rate", *means, *(f"val_{name}" for name in scores), *AFTER]


def recorded(path):
    """The settings and data of a run's recipe.json. Raises SwinsError if it is something else."""
    try:
        record = json.loads(path.read_text())
        if {"model.name", "training data"} <= record.keys():
            return record
    except (ValueError, AttributeError):
        pass
    raise SwinsError(f"{path} is no record of a run; choose another folder with -o, or move it away")


def with_changes(record, now):
    """The record of a run that goes on with other settings; a change whose step is not known yet has none."""
    apart, record = ("changes", "training data", "validation data"), today(record)
    changed = [name for name in now if name not in apart and record.get(name) != now[name]]
    changes = [{"setting": name, "from": record.get(name), "to": now[name]} for name in changed]
    changes = [*record.get("changes", []), *changes]
    return {**now, "changes": changes} if changes else now


def save_model(model, path):
    """Write the network of a Trainee, whole or not at all, not compiled; of averaged weights, the averages.

    One process does: nothing in it may wait for the others.
    """
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        learning = [variable.trainable for variable in model.network.variables]
        with model.trunk.thawed():
            plain = copy_of(model.network)
        if model.optimizer.use_ema:
            pairs = zip(plain.variables, learning, strict=True)
            model.optimizer.average_into([variable for variable, learns in pairs if learns])
        partial = path.with_name(f".{path.stem}.partial.keras")
        plain.save(partial)
        partial.replace(path)
    finally:
        keras.distribution.set_distribution(distribution)


def copy_of(network):
    """A network of its own with the same weights, as Keras or this package copies one."""
    if isinstance(network, Recorded | RecordedParts):
        return copy(network)
    twin = keras.models.clone_model(network)
    twin.set_weights(network.get_weights())
    return twin


def draw(rows, scores, path):
    """A picture of losses, some scores and the learning rate over the epochs; scores are columns of the rows."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return  # log.csv has the numbers
    figure = Figure((12, 3.2), layout="constrained")
    panels = {"loss": ["loss", "val_loss"], "score": scores, "learning rate": ["learning_rate"]}
    for axis, (title, names) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for name in names:
            known = [row for row in rows if row.get(name, NONE) != NONE]
            points = [row["epoch"] for row in known], [float(row[name]) for row in known]
            axis.plot(*points, label=name, marker="." if len(rows) < 40 else "")
        axis.set(title=title, xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend()
    figure.savefig(path, dpi=100)
