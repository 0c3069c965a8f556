"""`swins predict --demo`: the models that come with swins, on the pictures that come with it, without network."""

import importlib.util
import pathlib
import time

from swins import demo_files
from swins.cli.arguments import say
from swins.cli.picture_commands import answers, draw_result, drawings, refuse_existing
from swins.errors import SwinsError, install

NEEDED = {"PIL": "Pillow", "safetensors": "safetensors"}  # modules, and what their packages are called
THRESHOLD = 0.5  # of a detection's score, if none is given
NEXT = (  # a command, and what it is for
    ("swins predict photo.jpg", "your photograph, by published weights, fetched once: swins[pretrained]"),
    ("swins train finetune --data FOLDER", "your own classes, a sub-folder of pictures each: swins[classification]"),
    ("swins doctor", "what this machine has, what is missing for what, and how to get it"),
)


def require_packages():
    """Raise SwinsError that names every missing package and what to type for all."""
    if missing := [package for module, package in NEEDED.items() if not importlib.util.find_spec(module)]:
        raise SwinsError(f"the demo needs {' and '.join(missing)}: {install('eval')}")


def demonstrate(args):
    """Print what each model says of its pictures, draw it if a folder is named, and say what to try next."""
    from swins import predictor

    require_packages()
    shown = [(demo, demo_files.find(demo.model), demo_files.pictures_of(demo)) for demo in demo_files.DEMOS]
    folders = {demo: pathlib.Path(args.output, pathlib.Path(demo.pictures).name) for demo, *_ in shown if args.output}
    targets = {demo: drawings(paths, folders[demo]) if folders else [] for demo, _, paths in shown}
    refuse_existing([path for rows in targets.values() for row in rows for path in row], args.overwrite)
    threshold = THRESHOLD if args.threshold is None else args.threshold
    print("A picture's name says what is on it; none was trained on.\n")
    for demo, model, paths in shown:
        predict = predictor.load(model, variant=demo.variant)
        options = {"threshold": threshold} if "threshold" in predict.task.predict_options else {}
        wide = max(len(path.name) for path in paths)
        print(f"{demo.title}:")
        for i, _, result in answers(predict, paths, args.batch, options):
            print(f"  {paths[i].name:{wide}}  {result}", flush=True)
            if folders:
                draw_result(predict.task, result, paths[i], targets[demo][i])
        print()
    if args.output:
        say(f"wrote {args.output}")
    count, seconds = sum(len(paths) for *_, paths in shown), time.perf_counter() - args.began
    print(f"demo: ok, {len(shown)} models, {count} pictures, {seconds:.1f} s, no network")
    print("Next:")
    for line, purpose in NEXT:
        print(f"  {line:36}{purpose}")
