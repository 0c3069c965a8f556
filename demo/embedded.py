"""The embedded networks on what none was trained on: their results, and how good these are.

`make demo` prints the scores; it and `make front` draw the results (demo/front.py).
"""

import pathlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pictures import CANVASES, SOURCE

import swins
from swins.data.detection_layouts import find_evaluation_split
from swins.data.segmentation_layouts import find_segmentation_split
from swins.samples import Samples
from swins.tasks.diffusion_sampling import ImageSampler

HERE = pathlib.Path(__file__).parent
CLASSIFIER = "swin_mini_patch2_window4_28.fashion_mnist"
CHECKPOINT = SOURCE / f"{CLASSIFIER}.safetensors"
SAMPLER = HERE / "swin_unet_mini_patch2_window7_28"
COUNT = 96  # canvases: three batches
SAMPLES, STEPS = 80, 20  # images of all classes together; of DDIM


@dataclass(frozen=True)
class Network:
    """An embedded network that is asked of canvases.

    folder: its run's; title: of what it does; truths: gives the Split of canvases with what is there; scores: {name of
    one of its kind of work's: what the demo calls it}.
    """

    folder: pathlib.Path
    title: str
    truths: Callable
    scores: dict

    def found(self, images: list) -> list:
        """Its result of each image."""
        return swins.load(self.folder)(images)


def with_masks(source):
    """Canvases with boxes, classes and masks of what is there."""
    return find_evaluation_split(source, masks=True)


NETWORKS = (
    Network(
        HERE / "ssd64_swin_mini",
        "Detect: boxes, classes, scores (SSD)",
        with_masks,
        {"AP50": "box_AP50", "AR100": "box_recall"},
    ),
    Network(
        HERE / "mask_rcnn_swin_mini_fpn",
        "Outline: a mask of each object (Mask R-CNN)",
        with_masks,
        {"mask_AP50": "mask_AP50", "mask_AR100": "mask_recall"},
    ),
    Network(
        HERE / "upernet_swin_mini",
        "Segment: the class of each pixel (UPerNet)",
        find_segmentation_split,
        {"mIoU": "mIoU", "aAcc": "right_pixels"},
    ),
)


def scored(network: Network) -> tuple[list, list, dict]:
    """What a network makes of the first canvases to validate on -> (images, results, {name: score})."""
    split, predictor = network.truths(CANVASES), swins.load(network.folder)
    _, images, truths = zip(*(split[i] for i in range(COUNT)), strict=True)
    results, task = predictor(list(images)), predictor.task
    scores = task.score([task.record(*pair) for pair in zip(results, truths, strict=True)])
    return list(images), results, {ours: scores[name] for name, ours in network.scores.items()}


def sampled() -> tuple[Samples, dict]:
    """Images that the sampler makes, and what the classifier takes them for -> (Samples, {name: score}).

    recognised: those taken for the class that was asked for; recognised_least: of the class with the fewest.
    """
    sampler: ImageSampler = swins.load(SAMPLER)
    samples = sampler(count=SAMPLES, steps=STEPS)
    answers = swins.load(CHECKPOINT, variant=CLASSIFIER)(list(samples.images))
    right = np.array([answer.names[0] == name for answer, name in zip(answers, samples.names, strict=True)])
    least = min(right[samples.labels == label].mean() for label in np.unique(samples.labels))
    return samples, {"recognised": right.mean(), "recognised_least": least}
