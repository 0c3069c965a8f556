"""`swins train` and `swins eval`: models on data sets."""

import json
import pathlib

from swins.cli.arguments import positive, say
from swins.errors import SwinsError

EVALUATING = ("model", "protocol", "split", "labels", "class_order", "real")  # options of one kind of work or another


def train_command(args):
    from swins import recipes
    from swins.task import NONE, task_of_recipe
    from swins.train import loop

    chosen = recipes.with_settings(recipes.load(args.recipe), args.set)
    folder = args.output or pathlib.Path("runs") / pathlib.Path(args.recipe).stem
    if args.print:
        print(json.dumps(recipes.as_json(chosen), indent=1))
        return
    if not args.data:
        raise SwinsError("train needs --data: a folder of images, or tfds:NAME")
    result = loop.train(chosen, args.data, folder, overwrite=args.overwrite, tensorboard=args.tensorboard, say=say)
    if result:
        headline = task_of_recipe(chosen).headline
        value = result[headline.name]
        shown = NONE if value is None else f"{value:.4f}"
        print(f"{headline.words} {shown} of {result['images']} images after {result['hours']} hours")
        print(f"wrote {pathlib.Path(folder, 'model.keras')}, log.csv and curves.png")


def eval_command(args):
    from swins import devices
    from swins.evaluate import evaluation, result_tables

    if args.all and (args.predictions or args.model):
        raise SwinsError("--all evaluates many artefacts, so it takes no --predictions and no --model")
    result_tables.check_writable([args.results, args.predictions])
    if args.results:
        result_tables.check_table(args.results)
    scope, _, count = devices.start(join=False)
    devices.check_batch("--batch", args.batch, count)
    how = evaluation.Evaluation(
        batch=args.batch,
        several=count > 1,
        table=args.results,
        only_new=args.all,
        predictions=args.predictions,
        skip_unreadable=args.skip_unreadable,
        progress=not args.quiet,
    )
    options = {name: getattr(args, name) for name in EVALUATING}
    paths = evaluation.artefacts_in(args.artefact) if args.all else [args.artefact]
    failed = []
    for path in paths:
        if len(paths) > 1:
            say(f"{path}:")
        try:
            with scope():
                evaluation.evaluate(path, args.data, options, how, show=print_json, say=say)
        except SwinsError as error:
            if not args.all:
                raise
            say(error)
            failed.append(path)
    if failed:
        raise SwinsError(f"{len(failed)} of {len(paths)} could not be evaluated: {', '.join(map(str, failed))}")


def print_json(row):
    """Print a dict."""
    print(json.dumps(row, indent=1))


def add(commands):
    """Add these commands to the parser's."""
    sub = commands.add_parser("train", help="train a recipe on labelled images; started again, it goes on")
    sub.add_argument("recipe", help="a Python file that defines RECIPE, such as recipes/finetune.py; it is executed")
    sub.add_argument(
        "--data",
        help="class folders, train/ and val/ of them, CIFAR-10's *.bin, IDX files, Tiny ImageNet, or tfds:NAME; for "
        "detectors COCO, VOC or YOLO folders",
    )
    sub.add_argument("-o", "--output", metavar="DIR", help="the run's folder (default runs/RECIPE)")
    sub.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting, as --set optim.ema=0.999"
    )
    sub.add_argument("--print", action="store_true", help="print all settings and end")
    sub.add_argument("--tensorboard", action="store_true", help="write TensorBoard's events too")
    sub.add_argument("--overwrite", action="store_true", help="begin again, and delete the run in the folder")
    sub.set_defaults(run=train_command)

    sub = commands.add_parser("eval", help="scores of an artefact on labelled images: top-1 and top-5, or COCO's AP")
    sub.add_argument("artefact", help="artefact folder, .keras file or run's folder; with --all, a folder of these")
    sub.add_argument(
        "--all", action="store_true", help="every artefact in the folder but those with a row in --results"
    )
    sub.add_argument(
        "--data",
        required=True,
        help="class folders, images with labels.csv, IDX files, tfds:imagenet2012; boxes in COCO, VOC or YOLO folders",
    )
    sub.add_argument("--labels", metavar="CSV", help="file names and class numbers (default: DATA/labels.csv if there)")
    sub.add_argument(
        "--class-order",
        metavar="ORDER",
        help="natural (timm's), sorted (ImageFolder's), or a file of the model's class names in order; by default "
        "class folders are matched by name with the classes that the model knows, and sorted if it knows none",
    )
    sub.add_argument(
        "--real", metavar="JSON", help="other labels, as ImageNet-ReaL's: a list of classes for each image"
    )
    sub.add_argument(
        "--protocol",
        metavar="NAME",
        help="of classifiers timm or ms (default timm, or the training run's own); of detectors coco (default) or "
        "r_ssd",
    )
    sub.add_argument(
        "--split", metavar="NAME", help="of a detector's data train, val or test (default val, or all that there is)"
    )
    sub.add_argument("-m", "--model", metavar="NAME", help="variant whose preprocessing applies (default: recorded)")
    sub.add_argument("--batch", type=positive, default=32)
    sub.add_argument("--results", metavar="CSV", help="table to add a row to")
    sub.add_argument(
        "--predictions", metavar="CSV", help="write what the model says of every image; ended half way, the run goes on"
    )
    sub.add_argument("--skip-unreadable", action="store_true", help="score what can be read, count the rest")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")
    sub.set_defaults(run=eval_command)
