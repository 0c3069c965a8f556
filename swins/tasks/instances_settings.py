"""The recipe of a Mask R-CNN, a Cascade Mask R-CNN or a Faster R-CNN: `Instances`, and its sections."""

from dataclasses import asdict, dataclass

from swins import recipes
from swins.data.instance_augment import CropOrScale, KeepRatio
from swins.detection.mask_rcnn_losses import SamplingRule
from swins.settings import Section, at_least, probability, setting
from swins.tasks import detection_settings

MEAN, STD = (123.675 / 255, 116.28 / 255, 103.53 / 255), (58.395 / 255, 57.12 / 255, 57.375 / 255)


@dataclass(frozen=True)
class Model(detection_settings.Model):
    """A Mask R-CNN, by the name of its variant. None leaves the variant's value.

    weights: "" for fresh ones, "pretrained" for the backbone's published ones, or a path: a detector's, a checkpoint of
    mmdetection's or Swin-Transformer-Object-Detection's among them, whose heads are made anew for another number of
    classes, or a backbone's, which fills that alone; image_size: None for any, as canvases are of several; masks: False
    for boxes alone, a Faster R-CNN.
    """

    name: str = setting("mask_rcnn_swin_tiny_fpn", "a variant's name", bool)
    masks: bool = True

    def options(self) -> dict:
        """What `swins.create` takes of it, but what the variant decides."""
        given = super().options()
        return {**given, "masks": False} if not self.masks else {k: v for k, v in given.items() if k != "masks"}


@dataclass(frozen=True)
class Data(detection_settings.Data):
    """How images are read: as a detector's, with mmdetection's mean and std."""

    batch: int = at_least(16, 1)
    mean: tuple = detection_settings.levels(MEAN)
    std: tuple = detection_settings.spreads(STD)


@dataclass(frozen=True)
class Loss(Section):
    """How much is looked at in training, with mmdetection's numbers: `SamplingRule`'s.

    proposals: None for 1000, and 2000 of a cascade.
    """

    candidates: int = at_least(2000, 1)
    proposals: int | None = at_least(None, 1)
    anchors: int = at_least(256, 2)
    anchor_share: float = setting(0.5, "above 0, at most 1", lambda v: 0 < v <= 1)
    regions: int = at_least(512, 2)
    region_share: float = setting(0.25, "above 0, at most 1", lambda v: 0 < v <= 1)
    sampling: int = at_least(0, 0)

    def conflicts(self):
        few = {name: int(getattr(self, f"{name}s") * getattr(self, f"{name}_share")) for name in ("anchor", "region")}
        return {
            f"loss.{name}s times loss.{name}_share must be at least 1; got {count}": count < 1
            for name, count in few.items()
        }

    def rule(self, stages: int) -> SamplingRule:
        """The same as the losses take it, of a network of so many stages."""
        numbers = asdict(self)
        return SamplingRule(**{**numbers, "proposals": self.proposals or (1000 if stages == 1 else 2000)})


@dataclass(frozen=True)
class Selection(Section):
    """What of a network's boxes is an answer: those of a score above min_score, of a class and overlapping by no more
    than max_overlap a better one, and at most so many (boxes) of an image. What is looked at: the best candidates of
    each map, and so many proposals of an image."""

    min_score: float = probability(0.05)
    max_overlap: float = probability(0.5)
    boxes: int = at_least(100, 1)
    candidates: int = at_least(1000, 1)
    proposals: int = at_least(1000, 1)

    @property
    def rule(self) -> dict:
        """The same as `MaskRCNN.detect` takes it."""
        proposals = {"candidates": self.candidates, "most": self.proposals}
        answers = {"min_score": self.min_score, "max_overlap": self.max_overlap, "most": self.boxes}
        return {**answers, "proposals": proposals}


@dataclass(frozen=True)
class Instances(recipes.Recipe):
    """The training of a Mask R-CNN or one of its kind: objects' boxes, classes and masks."""

    model: Model = Model()
    data: Data = Data()
    augment: KeepRatio | CropOrScale = KeepRatio()  # noqa: RUF009 (frozen)
    loss: Loss = Loss()
    selection: Selection = Selection()

    def conflicts(self):
        return {**super().conflicts(), **detection_settings.of_classifiers(self.optim)}
