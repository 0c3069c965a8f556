"""`swins train` and `swins eval`: models on data sets."""

import contextlib
import functools
import json
import pathlib

from swins.cli.arguments import add_sampling, positive, say
from swins.cli.many_machines import add_engine, engine_of
from swins.errors import SwinsError

SCORING = ("classifier", "count", "seed", "steps", "guidance", "sampler", "eta")  # of a diffusion model's samples
EVALUATING = (  # options of one kind of work or another
    "model",
    "protocol",
    "split",
    "inference",
    "labels",
    "class_order",
    "real",
    *SCORING,
)


def train_command(args):
    from swins import recipe_files

    if args.list:  # before Keras is imported
        print("\n".join(recipe_files.listing()))
        return
    from swins import recipes, run_result
    from swins.score import NONE
    from swins.task import task_of_recipe
    from swins.train import loop, run_plan

    if not args.recipe:
        raise SwinsError("train needs a recipe: a file, or a name such as finetune; --list names all")
    chosen = recipes.with_settings(recipes.load(recipe_files.find(args.recipe)), args.set)
    folder = args.output or pathlib.Path("runs") / pathlib.Path(args.recipe).stem
    if args.print:
        print(json.dumps(recipes.as_json(chosen), indent=1))
        return
    if not args.data:
        raise SwinsError("train needs --data: a folder of images, or tfds:NAME")
    before = run_result.training_of(folder)
    result = loop.train(chosen, args.data, folder, overwrite=args.overwrite, tensorboard=args.tensorboard, say=say)
    if result:
        headline = task_of_recipe(chosen).headline
        value = result[headline.name]
        shown = NONE if value is None else f"{value:.4f}"
        print(f"{headline.words} {shown} of {result['images']} images after {result['hours']} hours")
        epoch, best = result.get("epoch"), result.get("best") or {}  # runs of before do not say which
        which = f", of epoch {epoch}" if epoch else ""
        drawn = " and curves.png" if pathlib.Path(folder, "curves.png").is_file() else ""  # if there is matplotlib
        verb = "nothing was written; there are" if result == before else "wrote"
        print(f"{verb} {pathlib.Path(folder, 'model.keras')}{which}, log.csv{drawn}")
        if epoch and best.get("epoch") not in (None, epoch):
            score = f"{headline.words} {best[headline.name]:.4f}"
            print(f"best.keras is of epoch {best['epoch']}: {score}{run_plan.chance_in(int(result['images']))}")


def eval_command(args):
    from swins import devices
    from swins.evaluate import evaluation, reports, result_tables

    if args.all and (args.predictions or args.model or args.report):
        raise SwinsError("--all evaluates many artefacts, so it takes no --predictions, no --report and no --model")
    result_tables.check_writable([args.results, args.predictions])
    if args.report:
        reports.check_folder(args.report)
    if args.results:
        result_tables.check_table(args.results)
    engine = engine_of(args, {})
    scope, _, count = devices.start(join=False) if not engine else (contextlib.nullcontext, None, 1)
    devices.check_batch("--batch", args.batch, count)
    how = evaluation.Evaluation(
        batch=args.batch,
        several=count > 1,
        table=args.results,
        only_new=args.all,
        predictions=args.predictions,
        skip_unreadable=args.skip_unreadable,
        progress=not args.quiet,
        report=args.report,
        engine=engine,
    )
    options = {name: getattr(args, name) for name in EVALUATING}
    paths = evaluation.artefacts_in(args.artefact) if args.all else [args.artefact]
    failed = []
    for path in paths:
        if len(paths) > 1:
            say(f"{path}:")
        show = functools.partial(print_row, path)
        try:
            with scope():
                evaluation.evaluate(path, args.data, options, how, show=show, say=say)
        except SwinsError as error:
            if not args.all:
                raise
            say(error)
            failed.append(path)
    if failed:
        raise SwinsError(f"{len(failed)} of {len(paths)} could not be evaluated: {', '.join(map(str, failed))}")


def print_row(path, row):
    """Print what an evaluation measured, as JSON, and of which path: "model" in it is a variant's name."""
    print(json.dumps({"path": str(path), **row}, indent=1))


def add(commands):
    """Add these commands to the parser's."""
    sub = commands.add_parser("train", help="train a recipe on labelled images; started again, it goes on")
    sub.add_argument(
        "recipe",
        nargs="?",
        help="a name of --list, such as finetune, or a Python file that defines RECIPE, which is executed",
    )
    sub.add_argument("--list", action="store_true", help="print the recipes that come with swins, and end")
    sub.add_argument(
        "--data",
        help="class folders, train/ and val/ of them, CIFAR-10's *.bin, IDX files (idx_test:DIR: t10k-* alone), Tiny "
        "ImageNet, or tfds:NAME; for detectors COCO, VOC or YOLO folders; for segmenters images/ and masks/, ADE20K, "
        "CamVid or Cityscapes",
    )
    sub.add_argument("-o", "--output", metavar="DIR", help="the run's folder (default runs/RECIPE)")
    sub.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting, as --set optim.ema=0.999"
    )
    sub.add_argument("--print", action="store_true", help="print all settings and end")
    sub.add_argument("--tensorboard", action="store_true", help="write TensorBoard's events too")
    sub.add_argument("--overwrite", action="store_true", help="begin again, and delete the run in the folder")
    sub.set_defaults(run=train_command)

    sub = commands.add_parser(
        "eval", help="scores of an artefact on labelled images: top-1 and top-5, COCO's AP, or mIoU"
    )
    sub.add_argument("artefact", help="artefact folder, .keras file or run's folder; with --all, a folder of these")
    sub.add_argument(
        "--all", action="store_true", help="every artefact in the folder but those with a row in --results"
    )
    sub.add_argument(
        "--data",
        required=True,
        help="class folders, images with labels.csv, IDX files, tfds:imagenet2012; boxes in COCO, VOC or YOLO folders; "
        "folders of images and masks; of a diffusion model the data that it was trained on",
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
        "r_ssd; of segmenters mmseg, which keeps proportions, or hf, which squashes (default a run's own, or mmseg)",
    )
    sub.add_argument(
        "--split",
        metavar="NAME",
        help="train, val or test, of data that has these (default val, or all that there is); of other data val or "
        "train are the images that a training run held out, or trained on",
    )
    sub.add_argument(
        "--inference",
        metavar="NAME",
        help="of segmenters whole (default), slide: window by window, or averaged: over sizes and mirror images",
    )
    sub.add_argument(
        "--classifier",
        metavar="PATH",
        help="of a diffusion model: a classifier trained apart, whose features and classes count",
    )
    sub.add_argument("--count", type=positive, help="of a diffusion model: samples to score (default 1000)")
    add_sampling(sub)
    sub.add_argument("-m", "--model", metavar="NAME", help="variant whose preprocessing applies (default: recorded)")
    sub.add_argument("--batch", type=positive, default=32)
    sub.add_argument("--results", metavar="CSV", help="table to add a row to")
    sub.add_argument(
        "--predictions", metavar="CSV", help="write what the model says of every image; ended half way, the run goes on"
    )
    sub.add_argument(
        "--report",
        metavar="DIR",
        help="a folder for the table of classes and, of classifiers, the confusion matrix and the worst mistakes",
    )
    sub.add_argument("--skip-unreadable", action="store_true", help="score what can be read, count the rest")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")
    add_engine(sub)
    sub.set_defaults(run=eval_command)
