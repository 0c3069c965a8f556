"""`swins convert`, `inspect` and `verify`: weights, and the proof of them."""

import json

from swins.cli.arguments import add_weights_key, say, size
from swins.cli.export_commands import report, target_text
from swins.errors import SwinsError
from swins.plans import RULES


def convert_command(args):
    from swins.convert import certificate, conversion, to_torch
    from swins.weights import artefacts

    if args.to_torch:
        if not args.output:
            raise SwinsError("--to-torch needs -o FILE.safetensors")
        count, program = to_torch.export_torch(args.to_torch, args.output, args.overwrite)
        print(f"{args.output}: {count} tensors in the names of {program}")
        return
    folder, proof = conversion.convert(
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
    print(f"wrote {folder / artefacts.MODEL} and {folder / artefacts.CERTIFICATE}")
    if args.export:
        from swins.exports.order import Order, fill
        from swins.exports.statements import Statement

        report(*fill(Order(statement=Statement(results=args.results)), folder, say=say))


def inspect_command(args):
    from swins.convert import inspection

    found = inspection.inspect(args.file, args.weights_key)
    print(json.dumps(found, indent=1) if args.json else inspection.text(found))
    return 1 if found["problems"] else 0


def verify_command(args):
    from swins.convert import conversion

    recorded, result = conversion.verify(args.folder, args.checkpoint)
    print(conversion.summary({**recorded, **result}))
    if result:
        outputs = ", ".join(f"{name} {each['relative']:.1e}" for name, each in recorded["outputs"].items())
        print(f"  recorded      {outputs}, worst block {recorded['worst_block']:.1e}")
    if "exports" in recorded:
        from swins.exports.saved_models import verify_exports

        for part, record in verify_exports(args.folder).items():
            print(f"  {part:<18} relative {record['call']:.1e}")
    if recorded.get("targets"):
        from swins.exports import targets
        from swins.task import task_named

        task = task_named(recorded.get("task"))
        for name, record in targets.verify(args.folder).items():
            print(
                f"  {name}: {target_text(task, record) if record else 'its bytes are those certified; not run again'}"
            )


def add(commands):
    """Add these commands to the parser's."""
    sub = commands.add_parser("convert", help="convert a PyTorch checkpoint and certify it, or convert back")
    sub.add_argument(
        "-m", "--model", metavar="NAME", help="timm's name, with or without tag; default: the one that FILE fits"
    )
    sub.add_argument(
        "--checkpoint",
        metavar="FILE",
        help=".pth, .pt, .bin, .ckpt or .safetensors, a folder of one, hf:OWNER/NAME; default: timm's, by network",
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
        "--to-torch",
        metavar="KERAS",
        help="write a .keras file or artefact as a state dict to -o FILE: timm's, or of a detector its own file's",
    )
    sub.set_defaults(run=convert_command)

    sub = commands.add_parser(
        "inspect", help="say what a checkpoint is, which variant it fits, and what would not load"
    )
    sub.add_argument(
        "file", help="a checkpoint of any dialect, a folder of one, hf:OWNER/NAME, a .keras file or an artefact"
    )
    add_weights_key(sub)
    sub.add_argument("--json", action="store_true", help="print the same as JSON")
    sub.set_defaults(run=inspect_command)

    sub = commands.add_parser("verify", help="recompute an artefact's certificate")
    sub.add_argument("folder")
    sub.add_argument("--checkpoint", metavar="FILE", help="the file it was made from, to compare with itself")
    sub.set_defaults(run=verify_command)
