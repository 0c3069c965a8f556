"""`swins explain`: pictures of what a model looks at."""

import pathlib

from swins.cli.arguments import say
from swins.errors import SwinsError
from swins.tags import list_variants, look_up

PUBLISHED = "swin_tiny_patch4_window7_224.ms_in1k"  # what explain takes where nothing is named


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
    from swins.opening import open_model
    from swins.weights.load import create

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
