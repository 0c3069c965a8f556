"""The command line: arguments in, exit code out (0 done, 1 could not, 2 not understood)."""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import sys
import tempfile

import swins
from swins.errors import SwinsError
from swins.plans import ANY, RULES, with_overrides
from swins.tags import find, list_variants

LIGHT = ("list", "describe")  # commands that need no Keras
SETTINGS = {  # of TensorFlow, made before it is imported unless the user has
    "TF_CPP_MIN_LOG_LEVEL": "3",  # no lines of its own on standard error, once it is there
    "TF_ENABLE_ONEDNN_OPTS": "1",  # which it leaves off on processors without AVX-512: a third slower
}
NOTICE = re.compile(rb"[IW]\d{4} |WARNING: All log messages before absl|To enable the following instructions")
PUBLISHED = "swin_tiny_patch4_window7_224.ms_in1k"  # what explain takes where nothing is named


def list_command(args):
    for name in list_variants(args.pattern, args.pretrained):
        print(name)


def describe_command(args):
    from swins.describe import describe

    _, _, variant, _ = find(args.name)
    overrides = {"image_size": args.image_size, "num_classes": args.num_classes}
    print(describe(args.name, with_overrides(variant, overrides)))


def convert_command(args):
    from swins.convert import artefact, certificate, load, run

    if args.to_torch:
        if not args.output:
            raise SwinsError("--to-torch needs -o FILE.safetensors")
        count = load.export_torch(args.to_torch, args.output, args.overwrite)
        print(f"{args.output}: {count} tensors in timm's names")
        return
    folder, proof = run.convert(
        args.model,
        args.checkpoint,
        args.output,
        overwrite=args.overwrite,
        image_size=args.image_size,
        size_rule=args.size_rule,
        weights_key=args.weights_key,
        say=say,
    )
    print(certificate.summary(proof))
    print(f"wrote {folder / artefact.MODEL} and {folder / artefact.CERTIFICATE}")
    if args.export:
        export_folder(folder, None, False, args.results, False)


def inspect_command(args):
    from swins.convert import inspection

    found = inspection.inspect(args.file, args.weights_key)
    print(json.dumps(found, indent=1) if args.json else inspection.text(found))
    return 1 if found["problems"] else 0


def verify_command(args):
    from swins.convert import run

    recorded, result = run.verify(args.folder, args.checkpoint)
    print(run.summary({**recorded, **result}))
    if result:
        print(f"  recorded      logits {recorded['logits']['relative']:.1e}, worst block {recorded['worst_block']:.1e}")
    if "exports" in recorded:
        from swins.export.run import verify_exports

        for part, record in verify_exports(args.folder).items():
            print(f"  {part:<18} relative {record['call']:.1e}")
    if recorded.get("targets"):
        from swins.export import targets

        for name, record in targets.verify(args.folder).items():
            print(f"  {name}: {target_text(record) if record else 'its bytes are those certified; not run again'}")


def eval_command(args):
    from swins import devices
    from swins.evaluate import artefacts, datasets, results, run

    datasets.require_source(args.data)
    if args.real:
        run.read_real(args.real)
    if args.all and (args.predictions or args.model):
        raise SwinsError("--all evaluates many artefacts, so it takes no --predictions and no --model")
    results.check_targets(args.results, args.predictions)
    scope, _, count = devices.start(join=False)
    devices.check_batch("--batch", args.batch, count)
    found = artefacts.artefacts_in(args.artefact) if args.all else [args.artefact]
    failed = []
    for path in found:
        if len(found) > 1:
            say(f"{path}:")
        try:
            with scope():
                artefacts.evaluate(
                    path,
                    args.data,
                    name=args.model,
                    protocol=args.protocol,
                    labels=args.labels,
                    class_order=args.class_order,
                    real=args.real,
                    batch=args.batch,
                    table=args.results,
                    predictions=args.predictions,
                    only_new=args.all,
                    skip_unreadable=args.skip_unreadable,
                    progress=not args.quiet,
                    several=count > 1,
                    show=lambda row: print(json.dumps(dataclasses.asdict(row), indent=1)),
                    say=say,
                )
        except SwinsError as error:
            if not args.all:
                raise
            say(error)
            failed.append(path)
    if failed:
        raise SwinsError(f"{len(failed)} of {len(found)} could not be evaluated: {', '.join(map(str, failed))}")


def train_command(args):
    from swins.train import recipe, run

    chosen = recipe.with_settings(recipe.load(args.recipe), args.set)
    folder = args.output or pathlib.Path("runs") / pathlib.Path(args.recipe).stem
    if args.print:
        print(json.dumps(recipe.as_json(chosen), indent=1))
        return
    if not args.data:
        raise SwinsError("train needs --data: a folder of images, or tfds:NAME")
    result = run.train(chosen, args.data, folder, overwrite=args.overwrite, tensorboard=args.tensorboard, say=say)
    if result:
        print(f"top-1 {result['top1']:.4f} of {result['images']} images after {result['hours']} hours")
        print(f"wrote {pathlib.Path(folder, 'model.keras')}, log.csv and curves.png")


def export_command(args):
    from swins import files
    from swins.export import targets

    others = [target for target in args.to if target != "saved_model"]
    if not others and (args.images or args.precision):
        raise SwinsError("--images and --precision are for --to onnx, litert or openvino; a SavedModel has one form")
    if args.results and "saved_model" not in args.to:
        raise SwinsError("--results is for SavedModels, whose card quotes it")
    precisions = args.precision or ["float32"]
    wanted = targets.plan(others, precisions, args.images)
    files.tidy(args.artefact, say)
    todo = targets.missing(wanted, args.artefact, args.output, args.overwrite, args.deploy)
    source, output = args.artefact, args.output
    if "saved_model" in args.to:
        source, output = export_folder(source, output, args.overwrite, args.results, args.deploy), None
    if todo or (others and "saved_model" not in args.to):
        folder, certificate = targets.export(
            source,
            others,
            precisions,
            args.images,
            output,
            deployed=args.deploy,
            overwrite=args.overwrite,
            say=say,
        )
        made = [targets.files_of(*pair, args.deploy)[0] for pair in todo]
        for name, record in certificate["targets"].items():
            if name in made:
                print(f"{folder / name}: {target_text(record)}")


def export_folder(source, output, overwrite, results, deployed):
    from swins.export import run

    folder, certificate = run.export(source, output, deployed=deployed, overwrite=overwrite, results=results, say=say)
    for part, record in certificate["exports"].items():
        print(
            f"{folder / part}: {record['output']} run without swins differ from Keras by {record['call']:.1e}; "
            f"{record['trainable_variables']} trainable variables"
        )
    return folder


def target_text(record):
    """What a target's record says, in a line."""
    worst = max(record["difference"].values())
    text = f"{record['bytes'] / 2**20:.1f} MiB; {record['versions'][-1]} differs from Keras by {worst:.1e}"
    if record["images"]:
        text += f"; the same top-1 on {record['top1_agreement']:.1%} of {record['images']} images"
    return text


def collection_command(args):
    from swins import files
    from swins.export.card import collection

    page = pathlib.Path(args.output or "README.md")
    if args.output and page.exists() and not page.read_text(errors="replace").startswith("# Collection "):
        raise SwinsError(f"{page} is no collection page, so it is not replaced; choose another with -o")
    text = collection(args.artefacts, args.title, page.absolute().parent)
    if args.output:
        files.write(page, text)
        print(f"wrote {page}")
    else:
        print(text, end="")


def explain_command(args):
    from swins import explain
    from swins.images import preprocess, readable

    out = pathlib.Path(args.output)
    if out.suffix.lower() != ".png" or not out.absolute().parent.is_dir():
        raise SwinsError(f"-o must name a .png in a folder that exists; got {out}")
    if len(args.images) > explain.MOST:
        raise SwinsError(f"at most {explain.MOST} images fit in a picture; got {len(args.images)}; draw several")
    model, name = explained(args)
    if args.kind == ["grad_cam"] and not model.variant.num_classes:
        raise SwinsError(f"{args.weights or name} has no classifier, so there is no class for Grad-CAM to explain")
    prepare = preprocess(name, image_size=model.variant.image_size, in_chans=model.variant.in_chans)
    good, unreadable = readable(args.images)
    for text in unreadable:
        say(f"unreadable: {text}")
    if not good or (unreadable and not args.skip_unreadable):
        raise SwinsError(
            f"{len(unreadable)} of {len(args.images)} images cannot be read (listed above); nothing was drawn; mend or "
            "remove them, or pass --skip-unreadable"
        )
    for title in explain.draw_files(model, name, prepare, good, args.output, args.kind):
        print(" | ".join(title.splitlines()))
    print(f"wrote {args.output}")


def explained(args):
    """The model that `explain` is asked for, and its name -> (model, name)."""
    from swins.convert.load import create
    from swins.evaluate.artefacts import find_model

    name = args.model or PUBLISHED
    if args.weights:
        if not pathlib.Path(args.weights).exists():
            raise SwinsError(f"{args.weights}: no such artefact, run or file; for published weights -m NAME alone")
        return find_model(args.weights, args.model)
    if name.partition(".")[0] not in list_variants() and pathlib.Path(name).exists():
        raise SwinsError(f"-m names a variant, as in convert and eval; a folder or a file is --weights {name}")
    find(name)
    return create(name, weights="pretrained"), name


def say(text):
    """What long work is at, on standard error."""
    print(text, file=sys.stderr, flush=True)


def positive(text):
    """An integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1; got {value}")
    return value


def size(text):
    """ "224", "192x320" (height x width) or "any" -> pixels, an integer or a pair, or ANY."""
    if text == "any":
        return ANY
    sides = [positive(side) for side in text.split("x")]
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"must be PIXELS, HEIGHTxWIDTH or any; got {text}")
    return sides[0] if len(sides) == 1 else tuple(sides)


def add_weights_key(sub):
    sub.add_argument(
        "--weights-key", metavar="KEY", help="which weights, where a file holds several, such as model beside model_ema"
    )


def start():
    """Make TensorFlow's settings and import what commands need; a user who sets its log level sees its lines."""
    quiet = "TF_CPP_MIN_LOG_LEVEL" not in os.environ and "tensorflow" not in sys.modules
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    with without_notices() if quiet else contextlib.nullcontext():
        swins.import_all()


@contextlib.contextmanager
def without_notices():
    """Hold back what is written to standard error, also by C++, and then write it but for TensorFlow's notices."""
    try:
        stderr = os.dup(2)
    except OSError:  # there is none
        yield
        return
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            for line in written:
                if not NOTICE.match(line):
                    os.write(2, line)


def parser():
    top = argparse.ArgumentParser(prog="swins", description="Swin Transformers for Keras 3.")
    top.add_argument("--version", action="version", version=f"swins {swins.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    sub = commands.add_parser("list", help="print the names of variants")
    sub.add_argument("pattern", nargs="?", default="*", help="shell pattern, such as 'swin_s3_*'")
    sub.add_argument("--pretrained", action="store_true", help="one name per published set of weights")
    sub.set_defaults(run=list_command)

    sub = commands.add_parser("describe", help="print a variant's stage table")
    sub.add_argument("name")
    sub.add_argument("--image-size", type=size, help="PIXELS or HEIGHTxWIDTH")
    sub.add_argument("--num-classes", type=int)
    sub.set_defaults(run=describe_command)

    sub = commands.add_parser("convert", help="convert a PyTorch checkpoint and certify it, or convert back")
    sub.add_argument(
        "-m", "--model", metavar="NAME", help="timm's name, with or without tag; default: the one that FILE fits"
    )
    sub.add_argument(
        "--checkpoint",
        metavar="FILE",
        help=".pth, .pt, .bin, .ckpt or .safetensors, or a folder of one; default: timm's, by network",
    )
    add_weights_key(sub)
    sub.add_argument("-o", "--output", metavar="DIR", help="the artefact folder (default artefacts/NAME)")
    sub.add_argument("--image-size", type=size, help="PIXELS, HEIGHTxWIDTH or any, when not the variant's")
    sub.add_argument(
        "--size-rule",
        choices=RULES,
        help="about sizes that windows do not tile; default: of the program that wrote FILE",
    )
    sub.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an existing artefact and its exports; your own files in it stay",
    )
    sub.add_argument("--export", action="store_true", help="then export, as `swins export` does")
    sub.add_argument("--results", metavar="CSV", help="with --export: results table that the model card quotes")
    sub.add_argument(
        "--to-torch", metavar="KERAS", help="write a .keras file or artefact as timm's state dict to -o FILE"
    )
    sub.set_defaults(run=convert_command)

    sub = commands.add_parser(
        "inspect", help="say what a checkpoint is, which variant it fits, and what would not load"
    )
    sub.add_argument("file", help="a checkpoint of any dialect, a folder of one, a .keras file or an artefact folder")
    add_weights_key(sub)
    sub.add_argument("--json", action="store_true", help="print the same as JSON")
    sub.set_defaults(run=inspect_command)

    sub = commands.add_parser("verify", help="recompute an artefact's certificate")
    sub.add_argument("folder")
    sub.add_argument("--checkpoint", metavar="FILE", help="the file it was made from, to compare with itself")
    sub.set_defaults(run=verify_command)

    sub = commands.add_parser("eval", help="top-1 and top-5 of an artefact on labelled images")
    sub.add_argument("artefact", help="artefact folder, .keras file or run's folder; with --all, a folder of these")
    sub.add_argument(
        "--all", action="store_true", help="every artefact in the folder but those with a row in --results"
    )
    sub.add_argument(
        "--data", required=True, help="class folders, images with labels.csv, IDX files, or tfds:imagenet2012"
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
    sub.add_argument("--protocol", choices=("timm", "ms"), help="default: timm's; a training run's own for its model")
    sub.add_argument("-m", "--model", metavar="NAME", help="variant whose preprocessing applies (default: recorded)")
    sub.add_argument("--batch", type=positive, default=32)
    sub.add_argument("--results", metavar="CSV", help="table to add a row to")
    sub.add_argument(
        "--predictions", metavar="CSV", help="write the five classes of every image; ended half way, the run goes on"
    )
    sub.add_argument("--skip-unreadable", action="store_true", help="score what can be read, count the rest")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")
    sub.set_defaults(run=eval_command)

    sub = commands.add_parser("train", help="train a recipe on labelled images; started again, it goes on")
    sub.add_argument("recipe", help="a Python file that defines RECIPE, such as recipes/finetune.py; it is executed")
    sub.add_argument(
        "--data",
        help="class folders, train/ and val/ of them, CIFAR-10's *.bin, IDX files, Tiny ImageNet, or tfds:NAME",
    )
    sub.add_argument("-o", "--output", metavar="DIR", help="the run's folder (default runs/RECIPE)")
    sub.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting, as --set optim.ema=0.999"
    )
    sub.add_argument("--print", action="store_true", help="print all settings and end")
    sub.add_argument("--tensorboard", action="store_true", help="write TensorBoard's events too")
    sub.add_argument("--overwrite", action="store_true", help="begin again, and delete the run in the folder")
    sub.set_defaults(run=train_command)

    sub = commands.add_parser("export", help="add SavedModels and a model card, or files for other runtimes")
    sub.add_argument("artefact", help="artefact folder, folder of a training run, or .keras file")
    sub.add_argument(
        "--to",
        nargs="+",
        default=["saved_model"],
        choices=("saved_model", "onnx", "litert", "openvino"),
        metavar="TARGET",
        help="saved_model (the default), onnx, litert, openvino; several may be given",
    )
    sub.add_argument(
        "--precision",
        nargs="+",
        choices=("float32", "float16", "int8_dynamic", "int8"),
        metavar="P",
        help="float32 (the default), float16; for litert int8_dynamic and int8 too",
    )
    sub.add_argument(
        "--deploy",
        action="store_true",
        help="make the faster form for inference: saved_model_deploy too, or model_deploy.onnx ...",
    )
    sub.add_argument("--images", metavar="DIR", help="real images: they calibrate int8, and top-1 is compared on them")
    sub.add_argument(
        "-o", "--output", metavar="DIR", help="write a complete copy there (default: into it; of a run, artefacts/NAME)"
    )
    sub.add_argument("--overwrite", action="store_true", help="replace existing exports")
    sub.add_argument("--results", metavar="CSV", help="results table that the model card quotes")
    sub.set_defaults(run=export_command)

    sub = commands.add_parser("collection", help="a page that lists artefacts, in the format of TF-Hub and Kaggle")
    sub.add_argument("artefacts", nargs="+", metavar="ARTEFACT")
    sub.add_argument("--title", default="Swin Transformers")
    sub.add_argument("-o", "--output", metavar="FILE", help="default: standard output")
    sub.set_defaults(run=collection_command)

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
    return top


def stop(signum, _):
    """Leave through the clean-up of every `with` and `finally`."""
    raise SystemExit(128 + signum)


def main(arguments=None):
    """Run one command -> exit code."""
    args = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):  # names of files may be no UTF-8
        getattr(stream, "reconfigure", dict)(errors="backslashreplace")
    signal.signal(signal.SIGTERM, stop)
    try:
        if args.command not in LIGHT:
            start()
        return args.run(args) or 0
    except (SwinsError, OSError, ModuleNotFoundError) as error:
        print(f"swins {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        more = "; the same command, without --overwrite, goes on" if args.command == "train" else ""
        print(f"swins {args.command}: interrupted; no file was left half written{more}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
