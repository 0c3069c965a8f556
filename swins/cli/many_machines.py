"""`--engine ray` of `swins predict` and `swins eval`: over the machines of a Ray cluster."""

import hashlib
import os
import pathlib

from swins.cli.arguments import positive, say
from swins.errors import SwinsError

SHOWN = 20  # images that cannot be read, that are named
OF_ENGINE = ("address", "workers", "rows")


def add_engine(sub):
    """Arguments of where a model is run."""
    sub.add_argument(
        "--engine", choices=("ray",), help="run on the machines of a Ray cluster, which was started before"
    )
    sub.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="of the cluster's head (default: RAY_ADDRESS, or the one on this machine)",
    )
    sub.add_argument("--workers", type=positive, metavar="N", help="(default: one a machine, or a graphics card)")


def engine_of(args, needless):
    """The Engine that is asked for, its cluster joined; None for this process.

    Args:
        needless: {option: value} of those that do not go with an engine.

    Raises:
        SwinsError: for options that do not go together, no Ray or no cluster.
    """
    if not args.engine:
        if given := [f"--{name}" for name in OF_ENGINE if getattr(args, name, None)]:
            raise SwinsError(f"{', '.join(given)}: of many machines; add --engine ray, or leave out")
        return None
    if given := [name for name, value in needless.items() if value]:
        raise SwinsError(f"--engine ray does not go with {', '.join(given)}; leave out one or the other")
    from swins import ray_engine

    ray_engine.connect(args.address)
    return ray_engine.Engine(args.address, args.workers, say)


def model_stamp(source) -> list:
    """What tells whether a model is the same: where it is, and a digest of its files' sizes and times; or its name."""
    from swins.images import files_below

    path = pathlib.Path(source)
    if not path.exists():
        return [source]
    below = files_below(path) if path.is_dir() else [path]
    facts = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in below]
    return [str(path.resolve()), hashlib.sha256(repr(facts).encode()).hexdigest()]


def predict_on_machines(args, engine, source, samples, options):
    """Write a row an image into the folder --rows.

    Args:
        engine: an Engine; source: the model; samples: [(name, image)]; options: of prediction.
    """
    from swins import part_files, predictor, ray_engine
    from swins.cli.picture_commands import require_predictor

    if not args.rows:
        raise SwinsError(
            "--engine ray needs --rows DIR: a folder of Parquet files, or of lines of JSON: --rows NAME.jsonl"
        )
    identity = [
        model_stamp(source),
        args.variant,
        options,
        args.batch,
        [os.path.realpath(name) for name in args.images],
    ]
    parts = part_files.Parts(args.rows, identity, args.overwrite)
    require_predictor(predictor.load(source, variant=args.variant), source, options)
    source = os.path.abspath(source) if os.path.exists(source) else source
    work = ray_engine.Predicting(source, args.variant, options, args.batch)
    count, unreadable, pace = engine.predict(work, samples, len(samples), parts, args.skip_unreadable)
    for text in unreadable[:SHOWN]:
        say(f"unreadable: {text}")
    print(f"{count} images, {len(unreadable)} unreadable, {pace}: wrote {args.rows}")
    if unreadable and not args.skip_unreadable:
        raise SwinsError(
            f"{len(unreadable)} of {count} images cannot be read (listed above, at most {SHOWN}); their rows say so; "
            "mend or remove them and give the same command, or pass --skip-unreadable"
        )
