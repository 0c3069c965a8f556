"""`swins export` and `swins collection`: files for other programs, and pages about them."""

import pathlib

from swins.cli.arguments import positive, say
from swins.errors import SwinsError


def page_command(args):
    from swins.exports.adopt import places
    from swins.exports.web import export_page

    options = (args.precision, args.images, args.deploy, args.serving, args.classes, args.data, args.license)
    if args.to != ["web"] or any(options):
        raise SwinsError("--to web is a command of its own, with -o and --overwrite alone; export the rest before it")
    target = places(args.artefact)[1]
    folder = export_page(args.artefact, args.output or target.with_name(f"{target.name}_web"), args.overwrite, say)
    print(f"{folder}: look at it: python -m http.server --directory {folder}")


def export_command(args):
    if "web" in args.to:
        return page_command(args)
    from swins.exports.order import Order, fill, unnamed
    from swins.exports.rest_server import model_name
    from swins.exports.statements import Statement, read_names

    names = read_names(args.classes) if args.classes else None
    order = Order(
        tuple(args.to),
        tuple(args.precision or ()),
        args.images,
        args.deploy,
        args.serving,
        Statement(args.data, args.license, names, args.results),
        args.overwrite,
    )
    folder, certificate, made = fill(order, args.artefact, args.output, say)
    report(folder, certificate, made)
    if text := unnamed(folder, certificate):
        say(text)
    if args.serving:
        path, name = folder.resolve(), model_name(folder)
        print(f"{folder / str(args.serving)}: for TF Serving: --model_base_path={path} --model_name={name}")


def report(folder, certificate, made):
    """Say of each export that was made how far it is from the model."""
    from swins.task import task_named

    task = task_named(certificate.get("task"))
    for part, record in certificate.get("exports", {}).items():
        if part in made:
            print(
                f"{folder / part}: {record['output']} run without swins differ from Keras by {record['call']:.1e}; "
                f"{record['trainable_variables']} trainable variables"
            )
    for name, record in certificate.get("targets", {}).items():
        if name in made:
            print(f"{folder / name}: {target_text(task, record)}")


def target_text(task, record):
    """What a target's record says, in a line."""
    from swins.exports.card import agreement_text

    worst = max(record["difference"].values())
    text = f"{record['bytes'] / 2**20:.1f} MiB; {record['versions'][-1]} differs from Keras by {worst:.1e}"
    return text + agreement_text(task, record, "; the same {} on {} of {} images")


def collection_command(args):
    from swins import files
    from swins.exports.card import collection

    page = pathlib.Path(args.output or "README.md")
    if args.output and page.exists() and not page.read_text(errors="replace").startswith("# Collection "):
        raise SwinsError(f"{page} is no collection page, so it is not replaced; choose another with -o")
    text = collection(args.artefacts, args.title, page.absolute().parent)
    if args.output:
        files.write(page, text)
        print(f"wrote {page}")
    else:
        print(text, end="")


def add(commands):
    """Add these commands to the parser's."""
    sub = commands.add_parser("export", help="add SavedModels and a model card, or files for other runtimes")
    sub.add_argument("artefact", help="artefact folder, folder of a training run, or .keras file")
    sub.add_argument(
        "--to",
        nargs="+",
        default=["saved_model"],
        choices=("saved_model", "onnx", "litert", "openvino", "web"),
        metavar="TARGET",
        help="saved_model (the default), onnx, litert, openvino; several may be given; or web: a page, in NAME_web",
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
    sub.add_argument(
        "--serving",
        nargs="?",
        const=1,
        type=positive,
        metavar="N",
        help="write the SavedModel in a numbered folder too, FOLDER/1/, for TF Serving; with --deploy, the faster one",
    )
    sub.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="names of the classes, in the model's order; or a file, a name a line or a JSON list (default: as known)",
    )
    sub.add_argument("--data", metavar="TEXT", help="what the card says that the model was trained on")
    sub.add_argument("--license", metavar="TEXT", help="what the card says of its licence, such as apache-2.0")
    sub.add_argument("--overwrite", action="store_true", help="replace existing exports")
    sub.add_argument("--results", metavar="CSV", help="results table that the model card quotes")
    sub.set_defaults(run=export_command)

    sub = commands.add_parser("collection", help="a page that lists artefacts, in the format of TF-Hub and Kaggle")
    sub.add_argument("artefacts", nargs="+", metavar="ARTEFACT")
    sub.add_argument("--title", default="Swin Transformers")
    sub.add_argument("-o", "--output", metavar="FILE", help="default: standard output")
    sub.set_defaults(run=collection_command)
