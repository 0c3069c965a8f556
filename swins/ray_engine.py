"""Predictions and evaluations on the machines of a Ray cluster: `--engine ray` of `swins predict` and `swins eval`.

The process that gives the command lists the images, and cuts the list into parts of some hundreds. Ray Data hands the
parts to workers, one a machine or graphics card, each with the model; it replaces a worker that dies, and gives its
part to another. What a part gives comes back to the first process, which alone writes: each part once, whole
(swins/part_files.py). A part whose file is there is not handed out again, so that the same command goes on.

Ray is imported by `connect` and `on_ray` alone; Keras by workers, not by this module: a worker's settings come first.
"""

import contextlib
import functools
import logging
import os
import pathlib
import pickle
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from swins import files
from swins.errors import SwinsError, first_line, missing_package
from swins.part_files import KEYS, LINES, Parts

LEAST = 256  # images of a part, at least, but for the last
HELD = 2  # parts that a worker has: the one that it works on, and the next
PATIENCE = 10  # seconds for a machine that is named to answer
NAMESPACE = "swins"  # of clusters that we join
START = "start one on a machine, ray start --head, and join others to it, ray start --address=HOST:6379"
SETTINGS = {  # of the first process: cards are left to workers on the same machine, and Ray's own lines out
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
PASSED_ON = ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS")  # settings that workers have as the first process does


def run_alike(run, images, alone):
    """What a Predictor runs, as `records.answered` calls it."""
    return run(images)


@dataclass(frozen=True)
class Predicting:
    """What a worker of `swins predict` does: rows of images, by a Predictor.

    source, variant: as `predictor.load` takes them; options: of prediction; batch: images at a time.
    """

    source: str
    variant: str | None
    options: dict
    batch: int

    def begin(self) -> Callable:
        """Load the model -> a function: [(name, image)] -> (rows, kinds of their columns or {} if none is known)."""
        from swins import predictor

        return functools.partial(self.rows, predictor.load(self.source, variant=self.variant))

    def rows(self, predict, samples):
        from swins.evaluate.records import answered_batches

        rows, kinds, samples = [], {}, [(name, image, None) for name, image in samples]
        run = functools.partial(run_alike, predict.run)
        for group in answered_batches(predict.preparation, samples, self.batch, 1, run, predict.task, predict.facts):
            for sample, result in group:
                if sample.error:
                    rows.append({"image": sample.name, "unreadable": sample.error})
                    continue
                result = predict.task.select(result, self.options) if self.options else result
                rows.append({"image": sample.name, "unreadable": None, **result.to_json()})
                kinds = kinds or getattr(result, "kinds", {})
        return rows, kinds


@dataclass(frozen=True)
class Scoring:
    """What a worker of `swins eval` does: records of labelled images.

    path: of the model; weights: their digest, which must be the same on every machine; preparation, facts, batch: as
    the first process has them.
    """

    path: str
    weights: str
    preparation: object
    facts: dict = field(repr=False)
    batch: int

    def begin(self) -> Callable:
        """Load the model -> a function: [(name, image, truth)] -> (rows, {})."""
        from swins.evaluate.evaluation import Evaluation
        from swins.evaluate.records import Recorder
        from swins.opening import open_saved

        opened = open_saved(self.path)
        if opened.certificate["weights_sha256"] != self.weights:
            raise SwinsError(f"{self.path}: every machine must have the same model there; weights differ; copy it anew")
        return functools.partial(
            self.rows, Recorder(opened, self.preparation, self.facts, Evaluation(batch=self.batch))
        )

    def rows(self, recorder, samples):
        rows = [row for group in recorder(samples) for row in group]
        kinds = {True: "unreadable", False: "record"}
        return [
            {"image": name, "truth": truth, kinds[isinstance(record, str)]: record} for name, truth, record in rows
        ], {}


class Worker:
    """What Ray Data starts on a machine: parts in, rows out. The model is loaded when the first part comes.

    Args:
        work: a Predicting or a Scoring.
        settings: of its environment, made before Keras is imported.
    """

    def __init__(self, work, settings):
        self.work, self.function = work, None
        os.environ.update(settings)

    def __call__(self, batch):
        """{"part": numbers, "samples": pickled} -> {"part": numbers, "rows": pickled (rows, kinds, seconds) or error}.

        The seconds are without the loading of the model.
        """
        rows = []
        for samples in batch["samples"]:
            try:
                self.function = self.function or self.work.begin()
                start = time.perf_counter()
                answer = self.function(pickle.loads(samples))
                rows.append(pickle.dumps((*answer, time.perf_counter() - start)))
            except SwinsError as error:  # said by the first process; others are Ray's to tell
                rows.append(pickle.dumps(SwinsError(f"{socket.gethostname()}: {error}")))
        return {"part": batch["part"], "rows": rows}


@dataclass(frozen=True)
class Share:
    """How a cluster is divided: workers, each with so many CPUs and graphics cards."""

    workers: int
    cpus: int
    gpus: int = 0


def divided(machines, workers=None) -> Share:
    """The Share of a cluster: a worker a graphics card where there are such, else one a machine, as large ones count
    several times; or as many as are asked for.

    Args:
        machines: {"CPU": number, "GPU": number} of each.

    Raises:
        SwinsError: if there is no place for so many.
    """
    machines = [(int(m.get("CPU", 0)), int(m.get("GPU", 0))) for m in machines]
    with_cards = [(cpus, gpus) for cpus, gpus in machines if cpus and gpus]
    cpus = [count for count, _ in machines if count]
    most = sum(gpus for _, gpus in with_cards) or sum(cpus)
    if not most:
        raise SwinsError(
            "a Ray cluster needs a machine with CPUs to work on; this one has none: ray start --num-cpus=N"
        )
    if workers and workers > most:
        raise SwinsError(f"--workers: at most {most} have a CPU, or a graphics card, each; got {workers}")
    if with_cards:
        return Share(workers or most, min(max(1, count // gpus) for count, gpus in with_cards), 1)
    if not workers:
        return Share(sum(count // min(cpus) for count in cpus), min(cpus))
    each = next(n for n in range(max(cpus), 0, -1) if sum(count // n for count in cpus) >= workers)
    return Share(workers, each)


def connect(address=None):
    """Join a Ray cluster that runs -> the module ray.

    Args:
        address: HOST:PORT of its head, or None for what RAY_ADDRESS says, or the one on this machine.

    Raises:
        SwinsError: if Ray is missing, or there is no such cluster.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise missing_package("--engine ray", "Ray", "ray") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    if ray.is_initialized():  # of several models
        return ray
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():  # Ray itself would wait for minutes
        try:
            socket.create_connection((host.removeprefix("ray://"), int(port)), timeout=PATIENCE).close()
        except OSError as error:
            raise SwinsError(f"{address}: no Ray cluster answers there ({error}); {START}") from error
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SwinsError(f"{address}: no Ray cluster that can be joined ({first_line(error)}); {START}") from error
    return ray


@contextlib.contextmanager
def lines_apart():
    """What Ray prints goes to standard error, as results are printed where it does.

    A thread prints of machines that died until the cluster is left: one that `connect` joined is left here.
    """
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield
        finally:
            ray = sys.modules.get("ray")
            if ray and ray.is_initialized() and ray.get_runtime_context().namespace == NAMESPACE:
                ray.shutdown()


def on_ray(address, work, parts, workers, say):
    """Have parts worked on by a cluster -> (words on it, what comes of them as it comes: an iterator of (part's number,
    rows, kinds, seconds)).

    Args:
        parts: an iterator of (number, samples); work: what workers do with them.

    Raises:
        SwinsError: what a worker raises, or Ray's own errors.
    """
    ray = connect(address)
    import pyarrow

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    share = divided(machines, workers)
    columns = pyarrow.schema([("part", pyarrow.int64()), ("samples", pyarrow.large_binary())])
    references = [
        ray.put(pyarrow.table({"part": [number], "samples": [pickle.dumps(samples)]}, columns))
        for number, samples in parts
    ]
    return f"Ray, {share.workers} workers", worked_on(ray, share, work, references, len(machines), say)


def worked_on(ray, share, work, references, machines, say):
    """(part's number, rows, kinds, seconds) of parts that lie in Ray's store, as they come."""
    from keras.backend import backend

    if not references:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    threads = {name: str(share.cpus) for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")}
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    compute = ray.data.ActorPoolStrategy(size=min(share.workers, len(references)), max_tasks_in_flight_per_actor=HELD)
    try:
        rows = ray.data.from_arrow_refs(references).map_batches(
            Worker,
            batch_size=None,
            compute=compute,
            fn_constructor_args=(work, {"KERAS_BACKEND": backend(), **threads, **passed_on}),
            num_cpus=share.cpus,
            num_gpus=share.gpus,
        )
        for row in rows.iter_rows():
            answer = pickle.loads(row["rows"])
            if isinstance(answer, SwinsError):
                raise answer
            left = sum(node["Alive"] for node in ray.nodes())
            if left < machines:
                say(f"{machines - left} of {machines} machines were lost; others do what these had begun")
            machines = left
            yield row["part"], *answer
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1:]
        raise SwinsError(f"Ray ended the work: {' '.join(last)}; each machine needs swins and the model") from error


def everywhere(sample):
    """A sample whose file has the name that it has on every machine."""
    name, image, *truth = sample
    return name, os.path.abspath(image) if isinstance(image, str | os.PathLike) else image, *truth


def beside(predictions) -> pathlib.Path:
    """The folder beside a table of predictions that has what is known of it while it is made."""
    path = pathlib.Path(predictions)
    return path.with_name(f".{path.name}{LINES}")


@dataclass(frozen=True)
class Engine:
    """A Ray cluster on which models are run.

    address: HOST:PORT of its head; by default RAY_ADDRESS, or the one on this machine. workers: how many; by default
    one a machine or graphics card. say: called with a line of text on what is noticed.
    """

    address: str | None = None
    workers: int | None = None
    say: Callable = lambda text: None

    def predict(self, work: Predicting, samples, count, parts: Parts, skip_unreadable=False, progress=True):
        """Write a row for each of some images -> (how many, texts on those that cannot be read, words on the pace).

        Args:
            samples: (name, image), `count` of them.
        """
        with files.lock(parts.folder):
            numbers, rate, words = self.work_through(parts, work, samples, count, progress, skip_unreadable)
        rows = [row for number in range(numbers) for row in parts.read(number, list(KEYS))]
        unreadable = [row["unreadable"] for row in rows if row.get("unreadable")]
        return len(rows), unreadable, f"{rate or 0:.1f} images/s, {words}"

    def score(self, opened, preparation, dataset, facts, how, identity):
        """What `swins.evaluate.records.run` gives, an Evaluation's `engine`: the same rows, in the same order."""
        from swins.evaluate.records import scored

        weights, path = opened.certificate["weights_sha256"], os.path.abspath(opened.path)
        work = Scoring(path, weights, preparation, facts, how.batch)
        with contextlib.ExitStack() as stack:
            if how.predictions:
                folder = beside(how.predictions)
                stack.enter_context(files.lock(folder))
            else:
                folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(suffix=LINES)))
            parts = Parts(folder, [identity, how.batch], overwrite=True)
            numbers, rate, words = self.work_through(
                parts, work, dataset.samples, dataset.count, how.progress, how.skip_unreadable
            )
            rows = [row for number in range(numbers) for row in parts.read(number)]
        return scored([(r["image"], r["truth"], r.get("record", r.get("unreadable"))) for r in rows], rate, words)

    def forget(self, predictions) -> None:
        """Remove what was kept beside a table of predictions, which is there now."""
        shutil.rmtree(beside(predictions))

    def work_through(self, parts, work, samples, count, progress, skip_unreadable):
        """Have every sample worked on that has no row yet -> (number of parts, images a second, words on the cluster).

        Args:
            parts: where the rows go; work: what workers do; samples: (name, image, ...), `count` of them.
            skip_unreadable: whether what could not be read stays so; it is tried again otherwise.
        """
        from swins.evaluate.records import bar, batches, plain

        size = -(-LEAST // work.batch) * work.batch  # batches are those of one process
        lengths, missing = [], []

        def waiting():
            for number, part in enumerate(batches(iter(map(everywhere, samples)), size)):
                lengths.append(len(part))
                named = [(name, *map(plain, truth)) for name, _, *truth in part]
                if not parts.holds(number, named, skip_unreadable):
                    missing.append(len(part))
                    yield number, part

        with lines_apart():
            words, answers = on_ray(self.address, work, waiting(), self.workers, self.say)
            done = sum(lengths) - sum(missing)
            if done:
                self.say(f"going on after {done} of {count} images")
            start = None  # of the work on the first part that came, without the loading of a model
            with bar(count, progress) as shown:
                shown.update(done)
                for rows, seconds in written(parts, answers):
                    shown.update(rows)
                    start = start or time.perf_counter() - seconds
        rate = sum(missing) / (time.perf_counter() - start) if start else None
        parts.trim(len(lengths))
        wrong = [n for n, length in enumerate(lengths) if len(parts.read(n, list(KEYS[:1]))) != length]
        if wrong:
            raise SwinsError(f"{parts.folder}: parts must have a row an image; {wrong} have not; remove these files")
        return len(lengths), rate, words


def written(parts, answers):
    """Write parts as they come, (number, rows, kinds, seconds) -> (how many images, seconds) of each."""
    held, kinds = [], {}
    for number, rows, own, seconds in answers:
        kinds = own or kinds
        held.append((number, rows))
        if kinds or parts.ending == LINES:  # else no image was read yet, and the columns are not known
            for part in held:
                parts.write(*part, kinds)
            held = []
        yield len(rows), seconds
    for part in held:
        parts.write(*part, kinds)
