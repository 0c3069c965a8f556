"""One order of exports, as `swins export` and `swins.export` give it: checked whole, then SavedModels, then others."""

import pathlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import keras

from swins import files
from swins.errors import SwinsError
from swins.exports import adopt, saved_models, targets
from swins.exports.statements import Statement
from swins.exports.steps import on_standard_error
from swins.opening import Opened
from swins.predictor import Predictor
from swins.task import task_named, task_of
from swins.weights import artefacts

SAVED_MODEL = "saved_model"


@dataclass(frozen=True)
class Order:
    """What is to be made of a model.

    targets: of "saved_model", "onnx", "litert", "openvino"; precisions: of the files for other runtimes; images: a
    folder of real ones, on which answers are compared and int8 is calibrated; deployed: the faster forms; number: of
    the folder for TF Serving, or None; statement: what is said of the model; overwrite: replace what is there.
    """

    targets: tuple = (SAVED_MODEL,)
    precisions: tuple = ()
    images: str | pathlib.Path | None = None
    deployed: bool = False
    number: int | None = None
    statement: Statement = field(default_factory=Statement)
    overwrite: bool = False

    @property
    def others(self) -> list:
        """Targets that are no SavedModel."""
        return [target for target in self.targets if target != SAVED_MODEL]

    def check(self) -> None:
        """Raise SwinsError for options of what is not ordered."""
        if not self.others and (self.images or self.precisions):
            raise SwinsError("images and precision are for onnx, litert or openvino; a SavedModel has one form")
        if SAVED_MODEL in self.targets:
            return
        stated = {"the results": self.statement.results, "a statement for the card": self.statement or None}
        for words, value in {**stated, "a numbered folder (--serving, serving=)": self.number}.items():
            if value is not None:
                raise SwinsError(
                    f"{words}: only SavedModels and their card have it; ask for them too: --to saved_model "
                    f"{' '.join(self.targets)}, in Python to={['saved_model', *self.targets]}"
                )


def exported(folder) -> set:
    """Names of what an artefact's certificate says was exported; none of what is no artefact."""
    try:
        certificate = artefacts.read_certificate(folder)
    except SwinsError:
        return set()
    return {name for kind in ("exports", "served", "targets") for name in certificate.get(kind, {})}


def fill(order: Order, source, folder=None, say: Callable = lambda text: None):
    """Make what is ordered of an artefact, a run or a .keras file -> (folder, certificate, [names of what was made]).

    Args:
        source: a path; folder: of the result, by default as `adopt.places` says; say: called with lines on long work.

    Raises:
        SwinsError: for what cannot be made, before anything is; for what does not give the model's numbers.
    """
    order.check()
    others, precisions = order.others, order.precisions or ("float32",)
    wanted = targets.plan(others, precisions, order.images)
    files.tidy(source, say)
    todo = targets.missing(wanted, source, folder, order.overwrite, order.deployed)
    there = [name for pair in wanted if pair not in todo for name in targets.files_of(*pair, order.deployed)[:1]]
    earlier = exported(adopt.places(source, folder)[1])
    made, certificate = [], None
    if SAVED_MODEL in order.targets:
        source, certificate = saved_models.export(
            source,
            folder,
            deployed=order.deployed,
            number=order.number,
            statement=order.statement,
            overwrite=order.overwrite,
            say=say,
        )
        folder, made = None, list(certificate["exports"])
    if todo or SAVED_MODEL not in order.targets:
        source, certificate = targets.export(
            source,
            others,
            precisions,
            order.images,
            folder,
            deployed=order.deployed,
            overwrite=order.overwrite,
            say=say,
        )
        made += [targets.files_of(*pair, order.deployed)[0] for pair in todo]
    if made and there:  # else it is an error
        say(f"kept {', '.join(there)}, which {source} has already; pass --overwrite to make such files again")
    if gone := sorted(earlier - exported(source)):
        say(
            f"{source}: {', '.join(gone)} of the model that was there are gone; --deploy, --serving and --to make them "
            "of this one"
        )
    return pathlib.Path(source), certificate, made


def unnamed(folder, certificate: dict) -> str:
    """What to say of a model whose SavedModels give numbers in place of its classes' names; "" of others."""
    record = next(iter(certificate.get("exports", {}).values()), {})
    if "serving_bytes" not in record:
        return ""
    model, task = artefacts.read_model(folder), task_named(certificate.get("task"))
    if not task.namable(model) or task.known(Opened(folder, model, task, certificate)).get("classes"):
        return ""
    return (
        f"{folder}: nothing tells the names of its classes, so its answers are numbers: class 0, class 1, ...; name "
        "them and make it again: --classes FILE --overwrite, in Python class_names=, overwrite=True"
    )


def export(
    source: str | pathlib.Path | keras.Model,
    folder: str | pathlib.Path | None = None,
    to: str | Sequence[str] = SAVED_MODEL,
    *,
    class_names: Sequence[str] | None = None,
    data: str | None = None,
    license: str | None = None,
    serving: int | bool | None = None,
    deploy: bool = False,
    precision: str | Sequence[str] | None = None,
    images: str | pathlib.Path | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] | None = on_standard_error,
) -> pathlib.Path:
    """Export a model for other programs, as `swins export` does: each file is run and compared before it is kept.

    Args:
        source: a model of this package; or a path: an artefact, a training run's folder, a .keras file.
        folder: of the result; by default an artefact is completed, and others become artefacts/NAME.
        to: of "saved_model", "onnx", "litert", "openvino"; one, or several.
        class_names: a text for each class, which `serving_bytes` answers with, in place of those that are known.
        data, license: what the card says that the model was trained on, and its licence.
        serving: the number of a folder for TF Serving, FOLDER/1/ for 1 or True; None writes none.
        deploy: the faster forms for inference too.
        precision: of files for other runtimes: "float32" (the default), "float16", of LiteRT "int8_dynamic", "int8".
        images: a folder of real images, on which answers are compared; int8 is calibrated on them.
        overwrite: replace an existing folder, or the exports that it has.
        say: called with a line of text on each step that takes long: print for standard output, None for silence; by
            default they go to standard error.

    Returns:
        The folder, which `swins.load` takes too.

    Raises:
        SwinsError: for what cannot be made here, or does not give the model's numbers; then nothing is kept.
    """
    say = say or (lambda text: None)
    order = Order(
        (to,) if isinstance(to, str) else tuple(to),
        () if precision is None else (precision,) if isinstance(precision, str) else tuple(precision),
        images,
        deploy,
        None if serving is None or serving is False else int(serving),
        Statement(data, license, class_names),
        overwrite,
    )
    if isinstance(source, Predictor):
        raise SwinsError("export takes a Keras model or a path; got a Predictor; pass the path that it was loaded of")
    if not isinstance(source, keras.Model):
        return fill(order, source, folder, say)[0]
    try:
        task_of(source)
    except SwinsError as error:
        part = "; pass its .classifier" if hasattr(source, "classifier") else "; Keras' own model.export writes it"
        raise SwinsError(f"export takes a model of this package; got a {type(source).__name__}{part}") from error
    folder = pathlib.Path(folder or pathlib.Path("artefacts", source.name))
    with tempfile.TemporaryDirectory() as temporary:
        file = pathlib.Path(temporary, f"{adopt.name_of(folder.with_name(f'{folder.name}.keras'))}.keras")
        source.save(file)
        return fill(order, file, folder, say)[0]
