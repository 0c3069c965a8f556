"""The recipe of a detector: `Detection`, and its sections."""

from dataclasses import asdict, dataclass

from swins import recipes, settings
from swins.data.box_augment import Pattern1, Resize, SsdPaper
from swins.detection.ssd_loss import LossRule
from swins.settings import Section, above, at_least, finite, one_of, probability, setting, sides

REDUCTIONS = ("mean", "sum_per_box")


def levels(default: tuple):
    """The field of means of channels."""
    return setting(default, "numbers, one a channel", lambda v: bool(v) and all(map(finite, v)))


def spreads(default: tuple):
    """The field of standard deviations of channels."""
    rule = "numbers above 0, one a channel"
    return setting(default, rule, lambda v: bool(v) and all(finite(x) and x > 0 for x in v))


def of_classifiers(optim) -> dict:
    """{what is wrong: whether it is} of an optimiser's settings that detectors have no use for."""
    decay = optim.layer_decay
    return {f"optim.layer_decay is of classifiers; got {decay}; leave it out": decay != 1}


@dataclass(frozen=True)
class Model(recipes.Model):
    """A detector. None leaves the variant's value.

    name: a variant, as "ssd336_swin_tiny_b_fpn"; weights: "" for fresh ones, "pretrained" for the backbone's published
    ones, or a path: a detector's, whose heads are made anew for another number of classes, or a backbone's, which fills
    that alone; num_classes: None for as many as the data has; image_size in pixels; in_chans, drop_path_rate: of the
    backbone.
    """

    name: str = setting("ssd300_resnet50_b", "a variant's name", bool)
    num_classes: int | None = at_least(None, 1)
    image_size: int | tuple | None = setting(None, "pixels or a pair of them, at least 1", sides)
    in_chans: int | None = at_least(None, 1)
    drop_path_rate: float | None = settings.rate(None)

    def options(self) -> dict:
        """What `swins.create` takes of it, but what the variant decides."""
        apart = ("name", "weights", "compile", "num_classes")
        return {k: v for k, v in asdict(self).items() if k not in apart and v is not None and v is not False}


@dataclass(frozen=True)
class Data(recipes.Data):
    """How images are read: `swins.recipes.Data`, and

    objects: places for the objects of an image; where one has more, the largest are kept. cache: MiB of memory for
    decoded images, 0 for none. mean, std: per channel, 0..1.
    """

    batch: int = at_least(32, 1)
    objects: int = setting(100, "from 1 to 10000", lambda v: 1 <= v <= 10000)
    cache: int = at_least(0, 0)
    mean: tuple = levels((0.485, 0.456, 0.406))
    std: tuple = spreads((0.229, 0.224, 0.225))

    def conflicts(self):
        channels = len(self.mean), len(self.std)
        return {
            f"data.mean and data.std need as many numbers; got {channels[0]} and {channels[1]}": len(set(channels)) > 1
        }


@dataclass(frozen=True)
class Loss(Section):
    """What is minimised: RuslanGreenhead/swin_transformer's losses; torchvision's with least_matches=0 and
    loc_reduction="sum_per_box". The numbers are `swins.detection.ssd_loss.LossRule`'s.
    """

    threshold: float = setting(0.5, "above 0, at most 1", lambda v: 0 < v <= 1)
    negatives: float = above(3.0, 0)
    least_matches: int = at_least(1, 0)
    loc_reduction: str = one_of("mean", REDUCTIONS)
    box_weight: float = above(1.0, 0)

    @property
    def rule(self) -> LossRule:
        """The same as the loss takes it."""
        return LossRule(**asdict(self))


@dataclass(frozen=True)
class Selection(Section):
    """What of a detector's boxes is an answer: those of a score above min_score, of a class and overlapping by more
    than max_overlap the best, of at most so many candidates a class, and at most so many in all (boxes)."""

    min_score: float = probability(0.05)
    max_overlap: float = probability(0.45)
    candidates: int = at_least(400, 1)
    boxes: int = at_least(200, 1)


@dataclass(frozen=True)
class Detection(recipes.Recipe):
    """The training of a detector."""

    model: Model = Model()
    data: Data = Data()
    augment: Pattern1 | SsdPaper | Resize = Pattern1()  # noqa: RUF009 (frozen)
    loss: Loss = Loss()
    selection: Selection = Selection()

    def conflicts(self):
        return {**super().conflicts(), **of_classifiers(self.optim)}
