"""Proof that a Mask R-CNN computes what plain PyTorch computes with the same file, step by step.

The reference is `swins/reference/detector_models.py`, which loads the file strictly under its own names. It is compared
with mmdet itself in tests/reference/mask_rcnn_reference.py.
"""

import numpy as np

from swins import detector_checkpoints, detectors
from swins.convert import certificate, programs
from swins.detector_configs import DETECTORS, RCNNVariant
from swins.errors import SwinsError
from swins.one_program import Computation, one_program
from swins.reference import oracle
from swins.weights import detector_layouts

CANVAS = (224, 352)  # pixels of the padded images
SIZES = ((200, 333), (224, 256))  # and of the images in them
REGIONS = 50  # proposals that heads are compared on
PIXELS = 1e-2  # two boxes are one if no side is farther apart
PROGRAM = "torch"
RAW = ("state_dict", "backbone.")  # what the reference itself takes off


def padded_images(channels: int, seed: int):
    """Standard normal images with zeros beside them: (B, H, W, channels) float32."""
    images = certificate.normal_images((*CANVAS, channels), len(SIZES), seed)
    for image, (height, width) in zip(images, SIZES, strict=True):
        image[height:], image[:, width:] = 0, 0
    return images


def steps_of(model, arrays: dict) -> dict:
    """{name: tensor} of a network's steps on "images", as the reference names them; its heads' on "regions"."""
    outputs, regions, steps = model(arrays["images"], training=False), arrays["regions"], {}
    for i, (x, scores, deltas) in enumerate(zip(*(outputs[k] for k in ("maps", "objectness", "deltas")), strict=True)):
        steps |= {f"map_{i}": x, f"objectness_{i}": scores, f"deltas_{i}": deltas}
    for k in range(len(model.box_heads)):
        steps[f"class_{k}"], steps[f"box_{k}"] = model.classify(outputs, regions, k)
    for k in range(len(model.mask_heads)):
        steps[f"mask_{k}"] = model.segment(outputs, regions, k)
    return steps


def own_steps(model, images, theirs: list) -> list:
    """[{name: array}] of a network's steps on each image, in the shapes of the reference's; heads on its proposals."""
    run, steps = one_program(Computation(model, steps_of)), []
    for image, reference in zip(images, theirs, strict=True):
        own = run({"images": image[None], "regions": reference["proposals"][None]})
        order = sorted(own, key=list(reference).index)  # JAX' are by the alphabet
        steps.append({name: own[name].reshape(reference[name].shape) for name in order})
    return steps


def detected(model, arrays: dict) -> dict:
    """What a network detects in "images" of "sizes"."""
    return model.detect(arrays["images"], arrays["sizes"])


def same_objects(model, images, theirs: list) -> float:
    """Share of the reference's objects that the network has too: the same class, the box as far as PIXELS apart."""
    found = one_program(Computation(model, detected))({"images": images, "sizes": np.float32(SIZES)})
    alike, count = 0, 0
    for i, reference in enumerate(theirs):
        apart = np.abs(reference["found_boxes"][:, None] - found["boxes"][i][None]).max(-1)
        label = reference["found_labels"][:, None] == found["labels"][i][None]
        alike += int(((apart <= PIXELS) & label).any(1).sum())
        count += len(label)
    return alike / count if count else 1.0


def worst(differences: list) -> dict:
    """The largest of several differences of one step."""
    return max(differences, key=lambda each: each["relative"])


def compare(model, file, seed: int = certificate.SEED, unproven: tuple = ()) -> dict:
    """The part of a detector's certificate that can be recomputed, as `certificate.compare` gives it.

    Args:
        model: a MaskRCNN in float32, of three channels.
        file: of its weights, which the reference loads strictly.
        seed: of the images.
        unproven: what the comparison leaves open.
    """
    images = padded_images(model.in_chans, seed)
    outputs = oracle.detect(file, images, SIZES, REGIONS)
    theirs = [
        {name.partition("/")[2]: x for name, x in outputs.items() if name.startswith(f"{i}/")}
        for i in range(len(images))
    ]
    steps = own_steps(model, images, theirs)
    everything = {
        name: worst(
            [certificate.difference(own[name], reference[name]) for own, reference in zip(steps, theirs, strict=True)]
        )
        for name in steps[0]
    }
    last = {"classes": "class_", "boxes": "box_", "masks": "mask_"}
    stage = len(model.box_heads) - 1
    heads = {name: f"{step}{stage}" for name, step in last.items() if f"{step}{stage}" in everything}
    largest = {name: float(max(np.abs(reference[step]).max() for reference in theirs)) for name, step in heads.items()}
    versions = {name: str(outputs[name]) for name in ("torchvision", PROGRAM)}
    reference = certificate.Reference(PROGRAM, versions, int(outputs["parameters"]), tuple(unproven))
    found = {name: {**everything[step], "largest": largest[name]} for name, step in heads.items()}
    agreement = {"objects": same_objects(model, images, theirs)}
    return certificate.judged(model, reference, images, seed, everything, found, agreement)


def written(model, layout: str):
    """A context: a file of a network's weights in a layout."""
    state = detector_layouts.in_layout(detector_checkpoints.state_dict(model), layout)
    return programs.written(state)


def lies_as(checkpoint) -> bool:
    """Whether the reference loads the file itself."""
    return set(checkpoint.wrappers) <= set(RAW) and checkpoint.path.is_file()


def converted(name: str, checkpoint) -> tuple:
    """A detector of a variant with a Checkpoint's weights, and its certificate.

    Raises:
        SwinsError: a variant whose files no program writes, a file of no detector, or of another.
    """
    if not isinstance(DETECTORS[name], RCNNVariant):
        raise SwinsError(f"{name} is converted from no file; train it: swins train, or choose a mask_rcnn_ variant")
    if not checkpoint.inside:
        raise SwinsError(
            f"{checkpoint.path} holds no detector, which {name} is; make one of its backbone's weights with "
            f"swins.create({name!r}, weights=FILE), and train it"
        )
    model, _ = detectors.with_checkpoint(name, checkpoint, {"dtype": "float32"})
    if lies_as(checkpoint):
        result = compare(model, checkpoint.path)
    else:
        with written(model, checkpoint.dialect) as file:
            result = compare(model, file, unproven=(f"translation not proven: {checkpoint.path.name} was not run",))
    return model, certificate.certified(model, name, name, checkpoint, checkpoint.facts, result)


def compare_again(model, recorded: dict, checkpoint=None) -> dict:
    """`compare` of an artefact's model, with the file that it was made from or, by default, its own weights."""
    if checkpoint is not None:
        return compare(model, checkpoint, recorded["seed"])
    with written(model, recorded["source"]["dialect"]) as file:
        return compare(model, file, recorded["seed"], tuple(recorded["compared_with"]["unproven"]))
