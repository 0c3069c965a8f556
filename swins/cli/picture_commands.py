"""`swins predict` and `swins explain`: what a model says of pictures, and what it looks at."""

import json
import os
import pathlib
import time

from swins.cli.arguments import positive, say, share
from swins.cli.many_machines import add_engine, engine_of, predict_on_machines
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


def what_predict_loads(args) -> str:
    """What `predict` loads, said before it takes seconds. Raises SwinsError for arguments that do not go together."""
    if not args.demo:
        if args.images:
            return args.model or PUBLISHED
        raise SwinsError("predict needs pictures: files, or folders of them; --demo brings its own, and small models")
    own = {"pictures": args.images, "-m": args.model, "--variant": args.variant, "--json": args.json}
    own |= {"--engine": args.engine}
    if given := [name for name, value in own.items() if value]:
        raise SwinsError(
            f"--demo brings its models and pictures; got {', '.join(given)} too; leave out one or the other"
        )
    return "the models that come with swins"


def predict_command(args):
    from swins import files, predictor
    from swins.data.oddities import notes_on_files
    from swins.images import find_images

    if args.demo:
        from swins.cli.demonstration import demonstrate

        demonstrate(args)
        return
    engine = engine_of(args, {"-o": args.output, "--json": args.json})
    options = {name: value for name in OPTIONS if (value := getattr(args, name)) is not None}
    paths = [path for name in args.images for path in (find_images(name) if pathlib.Path(name).is_dir() else [name])]
    if engine:
        samples = [(shown(image, i), image) for i, image in enumerate(paths)]
        predict_on_machines(args, engine, args.model or PUBLISHED, samples, options)
        return
    good = readable_images(paths, args.skip_unreadable, "nothing was predicted")
    names = [shown(image, i) for i, image in enumerate(good)]
    pairs = zip(names, good, strict=True)
    for line in notes_on_files([(name, path, None) for name, path in pairs if isinstance(path, str | os.PathLike)]):
        say(line)
    if args.json:
        refuse_existing([pathlib.Path(args.json)], args.overwrite)
    if args.output:  # what one kind of work draws of each, and others with an ending; before a model is loaded
        refuse_existing([path for (path,) in drawings(names, args.output)], args.overwrite)
    predict, lines = predictor.load(args.model or PUBLISHED, variant=args.variant), []
    require_predictor(predict, args.model, options)
    if predict.task.name == "classification" and not predict.facts.get("classes"):
        say("the model's classes have no names: class 0 is the first; an export has those that --classes gives it")
    targets = drawings(names, args.output, predict.task.pictures) if args.output else []
    outputs = [*(path for paths in targets for path in paths), *filter(None, [args.json and pathlib.Path(args.json)])]
    refuse_existing(outputs, args.overwrite)
    for i, result, shown_result in answers(predict, good, args.batch, options):
        if args.json:  # at once, for masks are large and their run lengths are not
            lines += predict.task.listing([(names[i], shown_result if options else result)], predict.facts)
        print(f"{names[i]}: {shown_result}", flush=True)
        if targets:
            draw_result(predict.task, shown_result, good[i], targets[i])
    if args.json:
        files.write(args.json, json.dumps(lines, indent=1) + "\n")
    for path in filter(None, (args.output, args.json)):
        say(f"wrote {path}")


def require_predictor(predict, model, options):
    """Raise SwinsError if what was loaded says nothing of images, or does not take these options."""
    from swins.predictor import Predictor
    from swins.task import refuse_options

    if not isinstance(predict, Predictor):
        raise SwinsError(f"{model}: makes images, and says nothing of them; draw some: swins sample -m {model}")
    refuse_options(predict.task, options, predict.task.predict_options)


def answers(predict, images, batch, options):
    """What a Predictor says of images, batch by batch: (number, result, the part of it that the options want)."""
    for start in range(0, len(images), batch):
        results = predict(images[start : start + batch], batch=batch)
        for i, result in enumerate(results, start):
            yield i, result, predict.task.select(result, options)


def draw_result(task, result, image, paths):
    """Write what is drawn of an image, a file each."""
    from swins import files

    for path, draw in zip(paths, task.pictures.values(), strict=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as partial:
            draw(result, image).save(partial, "PNG")


def refuse_existing(paths, overwrite):
    """Raise SwinsError if a file is there that is not to be replaced."""
    if existing := [path for path in paths if path.exists() and not overwrite]:
        raise SwinsError(f"{existing[0]} exists and would be replaced; pass --overwrite, or choose another place")


def shown(image, number):
    """An image's path as text that every terminal and JSON can hold; of an array, as IDX files have, its number."""
    if isinstance(image, str | os.PathLike):
        return os.fsencode(image).decode("utf-8", "backslashreplace")
    return f"image_{number}"


def drawings(names, folder, ends=("",)):
    """The PNGs that images are drawn on, called as they are, one for each end of a name -> [[path]].

    Of two of one name, the second has a number.
    """
    taken, targets = set(), []
    for name in names:
        stem, number = pathlib.Path(name).stem, 1
        while taken & set(own := [f"{stem}{'' if number == 1 else f'_{number}'}{end}.png" for end in ends]):
            number += 1
        taken.update(own)
        targets.append([pathlib.Path(folder, file) for file in own])
    return targets


def explain_command(args):
    from swins import explain
    from swins.images import find_images

    out = pathlib.Path(args.output)
    each = out.is_dir() or not out.suffix
    if not each and (out.suffix.lower() not in explain.ENDINGS or not out.absolute().parent.is_dir()):
        raise SwinsError(
            f"-o must name a .png, .pdf or .svg in a folder that exists, or a folder for a PNG an image; got {out}"
        )
    if args.shown is not None and "grad_cam" not in args.kind:
        raise SwinsError("--class is what Grad-CAM is of; name grad_cam with --kind, or leave one of them out")
    paths = [path for name in args.images for path in (find_images(name) if pathlib.Path(name).is_dir() else [name])]
    if not each and len(paths) > explain.MOST:
        raise SwinsError(
            f"at most {explain.MOST} images fit in a picture; got {len(paths)}; draw several, or each: -o FOLDER"
        )
    if not each:
        refuse_existing([out], args.overwrite)
    explained = explained_model(args)
    good = readable_images(paths, args.skip_unreadable, "nothing was drawn")
    if not each:
        for title in explain.draw_files(explained, good, out, args.kind):
            print(" | ".join(title.splitlines()))
        print(f"wrote {out}")
        return
    targets = drawings([shown(image, i) for i, image in enumerate(good)], out)
    refuse_existing([path for (path,) in targets], args.overwrite)
    out.mkdir(parents=True, exist_ok=True)
    for image, (path,) in zip(good, targets, strict=True):
        (title,) = explain.draw_files(explained, [image], path, args.kind)
        print(" | ".join(title.splitlines()), flush=True)
    print(f"wrote {len(good)} pictures into {out}")


def is_weights(text) -> bool:
    """Whether a text is the address of a model, in a folder, a file or the hub."""
    return text.startswith(("hf:", "timm/")) or pathlib.Path(text).exists()


def explained_model(args):
    """The model that `explain` is asked for, with its preparation, its names and the class that is shown."""
    from swins import explain
    from swins.images import preprocess
    from swins.opening import open_model
    from swins.weights import pretrained

    path, variant = args.weights, args.model
    if variant and variant.partition(".")[0] not in list_variants() and is_weights(variant):
        if path:
            raise SwinsError(
                f"-m {variant} and --weights {path} are two models; name one of them, or a variant with -m"
            )
        path, variant = variant, None
    name = variant or PUBLISHED
    if path:
        weights = pretrained.local(path)
        if not pathlib.Path(weights).exists():
            raise SwinsError(f"{path}: no such artefact, run or file; for published weights -m NAME alone")
        opened = open_model(weights, variant)
        name = variant or opened.name
    else:
        look_up(name)
        opened = open_model(name)
    model = opened.model
    if args.kind == ["grad_cam"] or args.shown is not None or not hasattr(model, "variant"):
        explain.require_classifier(model, path or name)
    if variant or not model.variant.num_classes:
        prepare = preprocess(name, image_size=model.variant.image_size, in_chans=model.variant.in_chans)
        names = explain.names_of(model, name)
    else:
        prepare = opened.task.prepare(opened, {}).preparation
        names = opened.task.known(opened)["classes"] or explain.names_of(model, name)
    number = None if args.shown is None else explain.class_number(args.shown, names)
    return explain.Explained(name, prepare, tuple(names), model, number)


def add(commands):
    """Add these commands to the parser's."""
    sub = commands.add_parser("predict", help="say what a model sees in pictures, and draw it")
    sub.add_argument("images", nargs="*", metavar="IMAGE", help="files, or folders of them")
    sub.add_argument(
        "--demo", action="store_true", help="show small models on pictures that come with swins; no network is needed"
    )
    sub.add_argument(
        "-m",
        "--model",
        metavar="MODEL",
        help="artefact folder, training run, .keras file, checkpoint, SavedModel, hf:OWNER/NAME, or a name of weights "
        f"(default: {PUBLISHED})",
    )
    sub.add_argument("--variant", metavar="NAME", help="whose preparation applies (default: recorded)")
    sub.add_argument(
        "-o", "--output", metavar="DIR", help="draw each picture with its result there; of a segmenter, its mask too"
    )
    sub.add_argument(
        "--json", metavar="FILE", help="write the results as JSON; of a detector, in COCO's format of results"
    )
    sub.add_argument(
        "--threshold", type=share, metavar="SCORE", help="of a detector: leave out what has a lower score, from 0 to 1"
    )
    sub.add_argument("--batch", type=positive, default=32)
    sub.add_argument("--skip-unreadable", action="store_true", help="take what can be read")
    sub.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_engine(sub)
    sub.add_argument(
        "--rows", metavar="DIR", help="with --engine: a row an image, in Parquet files; NAME.jsonl: in lines of JSON"
    )
    sub.set_defaults(run=predict_command, loads=what_predict_loads, began=time.perf_counter())

    sub = commands.add_parser("explain", help="draw what a model looks at: attention, rollout, Grad-CAM")
    sub.add_argument("images", nargs="+", metavar="IMAGE", help="files, or folders of them")
    sub.add_argument(
        "-m",
        "--model",
        "--name",
        metavar="MODEL",
        help="artefact folder, training run, .keras file, checkpoint, hf:OWNER/NAME, or the name of published weights "
        f"(default: {PUBLISHED}); with --weights, the variant whose preprocessing and class names apply (default: "
        "recorded)",
    )
    sub.add_argument(
        "--weights", metavar="PATH", help="the same as -m of a folder or a file; beside it -m names a variant"
    )
    sub.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help=".png, .pdf or .svg, a row an image; or a folder, for a PNG an image",
    )
    sub.add_argument(
        "--class",
        dest="shown",
        metavar="NAME",
        help="the class that Grad-CAM is of, by its name or number (default: each image's most probable)",
    )
    sub.add_argument(
        "--kind",
        nargs="+",
        default=["attention", "rollout", "grad_cam"],
        choices=("attention", "rollout", "grad_cam"),
        help="what to draw; all by default",
    )
    sub.add_argument("--skip-unreadable", action="store_true", help="draw what can be read")
    sub.add_argument("--overwrite", action="store_true", help="replace existing files")
    sub.set_defaults(run=explain_command, loads=lambda args: args.weights or args.model or PUBLISHED)
