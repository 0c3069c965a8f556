"""Proof that a Keras model computes what timm computes from the same checkpoint."""

import datetime
import platform

import keras
import numpy as np

from swins.convert import checkpoint as checkpoints
from swins.convert import oracle, rules
from swins.errors import SwinsError
from swins.plans import ANY
from swins.tags import find

SEED = 0
IMAGES = 4
LOGITS_TOLERANCE = 2e-5  # of the largest logit
BLOCK_TOLERANCE = 1e-5  # of the largest value of the block's output


def seeded_images(variant, count=IMAGES, seed=SEED, open_size=(224, 224)):
    """Standard normal images of a variant's size -> (count, H, W, in_chans) float32; `open_size` if it takes any."""
    size = open_size if variant.image_size == ANY else variant.image_size
    return np.random.default_rng(seed).standard_normal((count, *size, variant.in_chans), dtype="float32")


def native_size(name):
    """(height, width) in pixels of a variant by name, at which its models of open size are compared."""
    return find(name)[2].image_size


def difference(ours, theirs):
    """{"max_abs", "relative"}: the largest difference, and that over the reference's largest value."""
    largest = float(np.max(np.abs(theirs)))
    worst = float(np.max(np.abs(ours - theirs)))
    return {"max_abs": worst, "relative": worst / max(largest, np.finfo("float32").tiny)}


def top5_agreement(ours, theirs):
    """Fraction of images whose ordered five largest logits are the same in both."""
    count = min(5, ours.shape[1])
    same = [np.argsort(-a, kind="stable")[:count].tolist() == np.argsort(-b, kind="stable")[:count].tolist()
            for a, b in zip(ours, theirs, strict=True)]  # fmt: skip
    return float(np.mean(same))


def compare(model, checkpoint, architecture, seed=SEED):
    """Run timm on the checkpoint file and Keras on the model, on the same images, and compare block by block.

    Args:
        model: a SwinTransformer in float32.
        checkpoint: the file the reference loads by its own rules.
        architecture: timm's name of the model.
        seed: of the images.

    Returns:
        The part of a certificate that can be recomputed: versions, blocks, logits, agreement, tolerances, verdict.
    """
    size = native_size(architecture) if model.variant.image_size == ANY else None
    images = seeded_images(model.variant, seed=seed, open_size=size)
    pairs = rules.outputs(model.variant)
    theirs = oracle.forward(checkpoint, architecture, model.variant, images, [t for _, t in pairs], batch=1)
    tap = keras.Model(model.input, [*(model.get_layer(k).output for k, _ in pairs), model.output])
    parts = [[*map(keras.ops.convert_to_numpy, tap(images[i : i + 1], training=False))] for i in range(len(images))]
    *ours, logits = (np.concatenate(values) for values in zip(*parts, strict=True))
    blocks = {k: difference(y, theirs[t]) for (k, t), y in zip(pairs, ours, strict=True)}
    parameters = {"keras": model.count_params(), "torch": int(theirs["parameters"])}
    result = {
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "numpy": np.__version__,
            "timm": str(theirs["timm"]),
            "torch": str(theirs["torch"]),
        },
        "seed": seed,
        "images": list(images.shape),
        "image_size": list(model.variant.image_size),  # nulls: any
        "pad_order": model.variant.pad_order,
        "parameters": parameters,
        "blocks": blocks,
        "worst_block": float(np.max([d["relative"] for d in blocks.values()])),  # NaN if any is
        "logits": {**difference(logits, theirs["logits"]), "largest": float(np.abs(theirs["logits"]).max())},
        "top5_agreement": top5_agreement(logits, theirs["logits"]),
        "tolerance": {"logits": LOGITS_TOLERANCE, "block": BLOCK_TOLERANCE},
    }
    good = result["logits"]["relative"] <= LOGITS_TOLERANCE and result["worst_block"] <= BLOCK_TOLERANCE
    good = good and len(set(parameters.values())) == 1
    return {**result, "verdict": "pass" if good else "fail"}


def require_pass(result, name):
    """Raise SwinsError, naming the first block out of tolerance, unless the verdict is "pass"."""
    if result["verdict"] == "pass":
        return
    first = next((k for k, d in result["blocks"].items() if not d["relative"] <= BLOCK_TOLERANCE), "the logits")
    raise SwinsError(
        f"{name}: Keras and timm must agree within {BLOCK_TOLERANCE:g} at every block and {LOGITS_TOLERANCE:g} at the "
        f"logits; got {result['worst_block']:.1e} and {result['logits']['relative']:.1e}, parameters "
        f"{result['parameters']}; the first to differ is {first}"
    )


def certify(model, name, architecture, checkpoint):
    """The certificate of a converted checkpoint, as written to certificate.json.

    timm runs the file itself, by its own loading rules. A file that those do not take is given to timm translated, and
    the certificate says so: it then proves the model, and the tests prove the translation.

    Args:
        checkpoint: a Checkpoint whose state was assigned to the model.
    """
    with checkpoints.as_timm_reads(checkpoint) as file:
        result = compare(model, file, architecture)
    return {
        "name": name,
        "architecture": architecture,
        "source": {
            "file": checkpoint.path.name,
            "sha256": checkpoints.sha256(checkpoint.path),
            "dialect": checkpoint.dialect,
            "wrappers": list(checkpoint.wrappers),
            "translated": checkpoint.translated,
        },
        "weights_sha256": checkpoints.digest(rules.state_dict(model)),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **result,
    }


def summary(certificate):
    """The certificate in five lines, for people."""
    c = certificate
    worst = max(c["blocks"], key=lambda k: c["blocks"][k]["relative"])
    dialect = c["source"]["dialect"] + ", translated for timm" * c["source"].get("translated", False)
    return "\n".join(
        (
            f"{c['name']}: {c['verdict']}, {c['parameters']['keras']:,} parameters",
            f"  source        {c['source']['file']} ({dialect}), sha256 {c['source']['sha256'][:16]}",
            f"  logits        {c['logits']['max_abs']:.1e} of {c['logits']['largest']:.3g} "
            f"(relative {c['logits']['relative']:.1e}, tolerance {c['tolerance']['logits']:g})",
            f"  worst block   {worst}, relative {c['blocks'][worst]['relative']:.1e} "
            f"(tolerance {c['tolerance']['block']:g}), of {len(c['blocks'])} compared",
            f"  top-5         same on {c['top5_agreement']:.0%} of {c['images'][0]} images",
        )
    )
