"""Proof that a Keras model computes what the program computes that wrote the checkpoint."""

import collections
import datetime
import math
import platform
from dataclasses import dataclass

import keras
import numpy as np

from swins.checked_numbers import ANY
from swins.convert import programs
from swins.errors import SwinsError
from swins.one_program import one_program
from swins.reference import oracle
from swins.tags import look_up
from swins.task import task_named, task_of
from swins.weights import artefacts, checkpoint_files, facts
from swins.weights.dialects import ELSEWHERE

PASS = "pass"
SEED = 0
IMAGES = 4
OUTPUT_TOLERANCE = 2e-5  # of an output's largest value
BLOCK_TOLERANCE = 1e-5  # of the largest value of the block's output
ROUNDING = 1e-4  # largest difference that float32 alone may make: processors round in other orders


def normal_images(shape, count=IMAGES, seed=SEED):
    """Standard normal images of a shape (H, W, C) -> (count, H, W, C) float32."""
    return np.random.default_rng(seed).standard_normal((count, *shape), dtype="float32")


def seeded_images(variant, count=IMAGES, seed=SEED, open_size=(224, 224)):
    """Standard normal images of a variant's size -> (count, H, W, in_chans) float32; `open_size` if it takes any."""
    size = open_size if variant.image_size == ANY else variant.image_size
    return normal_images((*size, variant.in_chans), count, seed)


def native_size(name):
    """(height, width) in pixels of a variant by name, at which its models of open size are compared."""
    return look_up(name).variant.image_size


def difference(ours, theirs):
    """{"max_abs", "relative"}: the largest difference, and that over the reference's largest value.

    Raises:
        SwinsError: other shapes, which NumPy might stretch over each other.
    """
    if np.shape(ours) != np.shape(theirs):
        raise SwinsError(
            f"outputs must have the shape of the reference's; got {np.shape(ours)} and {np.shape(theirs)}; the files "
            "are of another model, or their runtime computes something else"
        )
    largest = float(np.max(np.abs(theirs)))
    worst = float(np.max(np.abs(ours - theirs)))
    return {"max_abs": worst, "relative": worst / max(largest, np.finfo("float32").tiny)}


def parameters_of(model):
    """How many numbers of a model are trained: moving statistics are not."""
    moving = (weight for weight in model.weights if weight.name.startswith("moving_"))
    return model.count_params() - sum(math.prod(weight.shape) for weight in moving)


def like(theirs, ours):
    """A program's output (B, H, W, C) or (B, H*W, C) in the shape of ours."""
    return theirs.reshape(ours.shape) if theirs.size == ours.size else theirs


def worst_output(result):
    """The largest relative difference among the outputs; NaN if any is."""
    return float(np.max([each["relative"] for each in result["outputs"].values()]))


def within(result, outputs, block):
    """Whether the outputs and every block of a result differ by no more than these; NaN is not."""
    return worst_output(result) <= outputs and result["worst_block"] <= block


@dataclass(frozen=True)
class Reference:
    """What ran beside a model.

    program: its name; versions: {package: version}, the program's among them; parameters: how many numbers it trains;
    unproven: what the comparison leaves open; size_rule: that it followed, None where there is none; precision: in
    which both computed.
    """

    program: str
    versions: dict
    parameters: int
    unproven: tuple = ()
    size_rule: str | None = None
    precision: str = "float32"


def judged(model, reference: Reference, images, seed: int, blocks: dict, outputs: dict, agreement: dict) -> dict:
    """The part of a certificate that can be recomputed, with its verdict.

    Args:
        model: the model; reference: what it was compared with.
        images: (B, H, W, C) that both were given; seed: of them.
        blocks: {block: difference}; outputs: {output: difference and "largest"}; agreement: {answer: share}.
    """
    variant = getattr(model, "variant", None)  # of a Swin or ResNet
    parameters = {"keras": parameters_of(model), "torch": reference.parameters}
    result = {
        "compared_with": {
            "program": reference.program,
            "version": reference.versions[reference.program],
            "size_rule": reference.size_rule,
            "unproven": list(reference.unproven),
        },
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "numpy": np.__version__,
            **reference.versions,
        },
        "seed": seed,
        "precision": reference.precision,
        "images": list(images.shape),
        "image_size": list((variant or model).image_size),  # nulls: any
        "size_rule": getattr(variant, "size_rule", None),
        "parameters": parameters,
        "blocks": blocks,
        "worst_block": float(np.max([each["relative"] for each in blocks.values()])),  # NaN if any is
        "outputs": outputs,
        "agreement": agreement,
        "tolerance": {"outputs": OUTPUT_TOLERANCE, "block": BLOCK_TOLERANCE},
    }
    good = within(result, **result["tolerance"]) and len(set(parameters.values())) == 1
    return {**result, "verdict": "; ".join([PASS, *reference.unproven]) if good else "fail"}


def compare(model, subject, architecture, seed=SEED):
    """Run a reference program on a checkpoint and Keras on the model, on the same images, and compare block by block.

    Both compute in float32. Where they differ by more than the tolerance and by less than rounding can make, they
    compute again in float64 on TensorFlow, which decides by the same tolerance. V2's cosines, networks of positions and
    heads stay in float32 there, as transformers' tables do, so that their rounding remains.

    Args:
        model: a SwinTransformer or ResNet in float32.
        subject: a programs.Subject; or a file that timm loads by its own rules.
        architecture: timm's name of the model.
        seed: of the images.

    Returns:
        The part of a certificate that can be recomputed: versions, blocks, outputs, agreement, tolerances, verdict.
    """
    result = compare_in("float32", model, subject, architecture, seed)
    rounding = within(result, ROUNDING, ROUNDING) and not within(result, **result["tolerance"])
    if not rounding or keras.backend.backend() != "tensorflow":  # JAX and Apple's GPUs have no float64
        return result
    exact = type(model).from_config({**model.get_config(), "dtype": "float64"})
    exact.set_weights(model.get_weights())
    in_float32 = {"outputs": worst_output(result), "worst_block": result["worst_block"]}
    return {**compare_in("float64", exact, subject, architecture, seed), "in_float32": in_float32}


def compare_in(precision, model, subject, architecture, seed):
    """`compare` once, in a precision, which is the model's."""
    variant, program = model.variant, getattr(subject, "program", "timm")
    own_rule = getattr(variant, "size_rule", None)  # a ResNet has no windows
    size = native_size(architecture) if variant.image_size == ANY else None
    images = seeded_images(variant, seed=seed, open_size=size).astype(precision)
    pairs = programs.outputs(program, variant, getattr(subject, "kind", "classifier"))
    theirs = oracle.forward(subject, architecture, variant, images, [t for _, t in pairs], batch=1)
    run = one_program(keras.Model(model.input, [*(model.get_layer(k).output for k, _ in pairs), model.output]))
    parts = [run(images[i : i + 1]) for i in range(len(images))]
    *ours, last = (np.concatenate(values) for values in zip(*parts, strict=True))
    task = task_of(model)
    ours_named, theirs_named = (task.named(model, output) for output in (last, theirs[oracle.OUTPUT]))
    blocks = {k: difference(y, like(theirs[t], y)) for (k, t), y in zip(pairs, ours, strict=True)}
    reference = Reference(
        program,
        {program: str(theirs[program]), "torch": str(theirs["torch"])},
        int(theirs["parameters"]),
        tuple(getattr(subject, "unproven", ())),
        getattr(subject, "size_rule", own_rule),
        precision,
    )
    outputs = {
        name: {**difference(ours_named[name], y), "largest": float(np.abs(y).max())} for name, y in theirs_named.items()
    }
    return judged(model, reference, images, seed, blocks, outputs, task.ordered(ours_named, theirs_named))


def passed(verdict):
    """Whether a verdict is good; it may go on with what was not proven."""
    return verdict == PASS or verdict.startswith(f"{PASS}; ")


def require_pass(result, name):
    """Raise SwinsError, naming the first block out of tolerance, unless the verdict is "pass"."""
    if passed(result["verdict"]):
        return
    first = next((k for k, d in result["blocks"].items() if not d["relative"] <= BLOCK_TOLERANCE), "the output")
    raise SwinsError(
        f"{name}: Keras and {result['compared_with']['program']} must agree within {BLOCK_TOLERANCE:g} at every block "
        f"and {OUTPUT_TOLERANCE:g} at the output; got {result['worst_block']:.1e} and "
        f"{worst_output(result):.1e}, parameters {result['parameters']}; the first to differ is {first}"
    )


def now():
    """The time, in UTC, as certificates have it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def left_out(checkpoint):
    """{first words of a name: tensors} of what a Checkpoint holds besides its network, but buffers."""
    buffers = checkpoint.network.buffers
    names = (name for name in sorted(checkpoint.left_out) if name.rpartition(".")[2] not in buffers)
    return dict(
        collections.Counter(name.removeprefix(ELSEWHERE).removeprefix("model.").partition(".")[0] for name in names)
    )


def task_name(model) -> str | None:
    """The name of the kind of work that a network is of; None where none is known."""
    try:
        return task_of(model).name
    except SwinsError:
        return None


def certified(model, name: str, architecture: str, checkpoint, stated, result: dict) -> dict:
    """The whole certificate of a model of a Checkpoint, of what is stated of it (Facts), and of `judged`'s result."""
    return {
        "task": task_name(model),
        "name": name,
        "architecture": architecture,
        "source": {
            "file": checkpoint.path.name,
            "sha256": checkpoint_files.sha256(checkpoint.path),
            "dialect": checkpoint.dialect,
            "wrappers": list(checkpoint.wrappers),
            "translated": checkpoint.translated,
            "left_out": left_out(checkpoint),
        },
        "class_names": list(stated.class_names),
        "preparation": stated.preparation,
        "weights_sha256": artefacts.weights_digest(model),
        "date": now(),
        **result,
    }


def certify(model, name, architecture, checkpoint):
    """The certificate of a converted checkpoint, as written to certificate.json.

    The program that wrote the file runs it, by its own loading rules, where it can be installed. A file of another
    program is given to one that has the model's size rule, translated, and the verdict says what that does not prove.

    Args:
        model: the converted model.
        name: of the variant, with its tag.
        architecture: of the variant, without it.
        checkpoint: a Checkpoint whose state was assigned to the model.
    """
    with programs.subject(checkpoint, model.variant) as subject:
        result = compare(model, subject, architecture)
    return certified(model, name, architecture, checkpoint, facts.of_model(model, checkpoint.facts), result)


def comparison(certificate):
    """{"program", "version", "size_rule", "unproven"}: what a certificate compares with; older ones all with timm."""
    older = {"program": "timm", "version": certificate["versions"].get("timm"), "size_rule": "timm", "unproven": []}
    return certificate.get("compared_with") or older


def summary(certificate):
    """The certificate in lines for people."""
    c = certificate
    worst = max(c["blocks"], key=lambda k: c["blocks"][k]["relative"])
    reference = comparison(c)
    lines = [
        f"{c['name']}: {c['verdict']}, {c['parameters']['keras']:,} parameters",
        f"  source        {c['source']['file']} ({c['source']['dialect']}), sha256 {c['source']['sha256'][:16]}",
        f"  compared with {reference['program']} {reference['version']}, "
        f"{'size rule ' + reference['size_rule'] + ', ' if reference['size_rule'] else ''}"
        f"{'x'.join(map(str, c['images'][1:3]))} pixels",
        *(
            f"  {name:<13} {each['max_abs']:.1e} of {each['largest']:.3g} "
            f"(relative {each['relative']:.1e}, tolerance {c['tolerance']['outputs']:g})"
            for name, each in c["outputs"].items()
        ),
        f"  worst block   {worst}, relative {c['blocks'][worst]['relative']:.1e} "
        f"(tolerance {c['tolerance']['block']:g}), of {len(c['blocks'])} compared",
    ]
    if "in_float32" in c:
        most = max(c["in_float32"].values())
        lines.append(f"  computed in   {c['precision']}: in float32 they differ by up to {most:.1e}")
    words = {score.name: score.words for score in task_named(c.get("task")).scores}
    for name, share in c["agreement"].items():
        lines.append(f"  {words.get(name, name):<13} same on {share:.0%} of {c['images'][0]} images")
    lines += [f"  taken         {text}" for text in c.get("taken", ())]
    if c["source"].get("left_out"):
        parts = ", ".join(f"{part} ({count} tensors)" for part, count in c["source"]["left_out"].items())
        lines.insert(2, f"  left out      {parts}")
    return "\n".join(lines)
