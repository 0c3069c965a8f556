"""`swins predict` and `swins explain`: what a model says of pictures, and what it looks at."""

import json
import os
import pathlib

from swins.cli.arguments import positive, say, share
from swins.errors import SwinsError
from swins.tags import list_variants, look_up

PUBLISHED = "swin_tiny_patch4_window7_224.ms_in1k"  # what explain takes where nothing is named
OPTIONS = ("threshold",)  # of prediction, which not every kind of work takes


def readable_images(images, skip, outcome):
    """Those of some images that can be read; the others are told.

    Raises:
        SwinsError: with what came of it, if there are none, or others that are not to be skipped.
    """
    from swins.images import readable

    good, unreadable = readable(images)
    for text in unreadable:
        say(f"unreadable: {text}")
    if not good or (unreadable and not skip):
        raise SwinsError(
            f"{len(unreadable)} of {len(images)} images cannot be read (listed above); {outcome}; mend or remove them, "
            "or pass --skip-unreadable"
        )
    return good


def predict_command(args):
    from swins import files, predictor
    from swins.images import find_images
    from swins.task import refuse_options

    paths = [path for name in args.images for path in (find_images(name) if pathlib.Path(name).is_dir() else [name])]
    good = readable_images(paths, args.skip_unreadable, "nothing was predicted")
    names = [shown(image, i) for i, image in enumerate(good)]
    targets = drawings(names, args.output) if args.output else []
    outputs = [*targets, *filter(None, [args.json and pathlib.Path(args.json)])]
    if existing := [path for path in outputs if path.exists() and not args.overwrite]:
        raise SwinsError(f"{existing[0]} exists and would be replaced; pass --overwrite, or choose another")
    options = {name: value for name in OPTIONS if (value := getattr(args, name)) is not None}
    predict, lines = predictor.load(args.model or PUBLISHED, variant=args.variant), []
    refuse_options(predict.task, options, predict.task.predict_options)
    for start in range(0, len(good), args.batch):
        results = predict(good[start : start + args.batch], batch=args.batch)
        for i, result in enumerate(results, start):
            shown_result = predict.task.select(result, options)
            if args.json:  # at once, for masks are large and their run lengths are not
                lines += predict.task.listing([(names[i], shown_result if options else result)], predict.facts)
            result = shown_result
            print(f"{names[i]}: {result}", flush=True)
            if targets:
                targets[i].parent.mkdir(parents=True, exist_ok=True)
                with files.replacing(targets[i]) as partial:
                    result.draw(good[i]).save(partial, "PNG")
    if args.json:
        files.write(args.json, json.dumps(lines, indent=1) + "\n")
    for path in filter(None, (args.output, args.json)):
        say(f"wrote {path}")


def shown(image, number):
    """An image's path as text that every terminal and JSON can hold; of an array, as IDX files have, its number."""
    if isinstance(image, str | os.PathLike):
        return os.fsencode(image).decode("utf-8", "backslashreplace")
    return f"image_{number}"


def drawings(names, folder):
    """The PNGs that images are drawn on, called as they are; of two of one name, the second has a number."""
    taken, targets = set(), []
    for name in names:
        stem, number = pathlib.Path(name).stem, 1
        while (file := f"{stem}.png" if number == 1 else f"{stem}_{number}.png") in taken:
            number += 1
        taken.add(file)
        targets.append(pathlib.Path(folder, file))
    return targets


def explain_command(args):
    from swins import explain
    from swins.images import preprocess

    out = pathlib.Path(args.output)
    if out.suffix.lower() != ".png" or not out.absolute().parent.is_dir():
        raise SwinsError(f"-o must name a .png in a folder that exists; got {out}")
    if len(args.images) > explain.MOST:
        raise SwinsError(f"at most {explain.MOST} images fit in a picture; got {len(args.images)}; draw several")
    model, name = explained(args)
    if args.kind == ["grad_cam"] or not hasattr(model, "variant"):
        explain.require_classifier(model, args.weights or name)
    prepare = preprocess(name, image_size=model.variant.image_size, in_chans=model.variant.in_chans)
    good = readable_images(args.images, args.skip_unreadable, "nothing was drawn")
    for title in explain.draw_files(model, name, prepare, good, args.output, args.kind):
        print(" | ".join(title.splitlines()))
    print(f"wrote {args.output}")


def explained(args):
    """The model that `explain` is asked for, and its name -> (model, name)."""
    from swins.creation import create
    from swins.opening import open_model

    name = args.model or PUBLISHED
    if args.weights:
        if not pathlib.Path(args.weights).exists():
            raise SwinsError(f"{args.weights}: no such artefact, run or file; for published weights -m NAME alone")
        opened = open_model(args.weights, args.model)
        return opened.model, args.model or opened.name
    if name.partition(".")[0] not in list_variants() and pathlib.Path(name).exists():
        raise SwinsError(f"-m names a variant, as in convert and eval; a folder or a file is --weights {name}")
    look_up(name)
    return create(name, weights="pretrained"), name


def add(commands):
    """Add these commands to the parser's."""
    sub = commands.add_parser("predict", help="say what a model sees in pictures, and draw it")
    sub.add_argument("images", nargs="+", metavar="IMAGE", help="files, or folders of them")
    sub.add_argument(
        "-m",
        "--model",
        metavar="MODEL",
        help="artefact folder, training run, .keras file, checkpoint, SavedModel, or the name of published weights "
        f"(default: {PUBLISHED})",
    )
    sub.add_argument("--variant", metavar="NAME", help="whose preparation applies (default: recorded)")
    sub.add_argument("-o", "--output", metavar="DIR", help="draw each picture with its result there")
    sub.add_argument(
        "--json", metavar="FILE", help="write the results as JSON; of a detector, in COCO's format of results"
    )
    sub.add_argument(
        "--threshold", type=share, metavar="SCORE", help="of a detector: leave out what has a lower score, from 0 to 1"
    )
    sub.add_argument("--batch", type=positive, default=32)
    sub.add_argument("--skip-unreadable", action="store_true", help="take what can be read")
    sub.add_argument("--overwrite", action="store_true", help="replace existing files")
    sub.set_defaults(run=predict_command)

    sub = commands.add_parser("explain", help="draw what a model looks at: attention, rollout, Grad-CAM")
    sub.add_argument("images", nargs="+", metavar="IMAGE")
    sub.add_argument(
        "-m",
        "--model",
        "--name",
        metavar="NAME",
        help=f"variant: alone, that of published weights (default: {PUBLISHED}); with --weights, the one whose "
        "preprocessing and class names apply (default: recorded)",
    )
    sub.add_argument("--weights", metavar="PATH", help="artefact folder, training run, .keras file or checkpoint")
    sub.add_argument("-o", "--output", required=True, metavar="PNG")
    sub.add_argument(
        "--kind",
        nargs="+",
        default=["attention", "rollout", "grad_cam"],
        choices=("attention", "rollout", "grad_cam"),
        help="what to draw; all by default",
    )
    sub.add_argument("--skip-unreadable", action="store_true", help="draw what can be read")
    sub.set_defaults(run=explain_command)
