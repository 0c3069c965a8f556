"""`swins export` and `swins collection`: files for other programs, and pages about them."""

import pathlib

from swins.cli.arguments import say
from swins.errors import SwinsError


def export_command(args):
    from swins import files
    from swins.export import targets
    from swins.task import task_named

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
                print(f"{folder / name}: {target_text(task_named(certificate.get('task')), record)}")


def export_folder(source, output, overwrite, results, deployed):
    from swins.export import saved_models

    folder, certificate = saved_models.export(
        source, output, deployed=deployed, overwrite=overwrite, results=results, say=say
    )
    for part, record in certificate["exports"].items():
        print(
            f"{folder / part}: {record['output']} run without swins differ from Keras by {record['call']:.1e}; "
            f"{record['trainable_variables']} trainable variables"
        )
    return folder


def target_text(task, record):
    """What a target's record says, in a line."""
    from swins.export.card import agreement_text

    worst = max(record["difference"].values())
    text = f"{record['bytes'] / 2**20:.1f} MiB; {record['versions'][-1]} differs from Keras by {worst:.1e}"
    return text + agreement_text(task, record, "; the same {} on {} of {} images")


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


def add(commands):
    """Add these commands to the parser's."""
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
