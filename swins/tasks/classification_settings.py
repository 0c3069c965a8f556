"""The recipe of a classifier: `Classification`, and its sections."""

from dataclasses import asdict, dataclass

from swins import recipes, settings
from swins.data.class_weights import weights_of_classes
from swins.plans import RULES
from swins.settings import Section, all_whole, ascending, at_least, finite, probability, setting, sides, whole

STARTS = (None, "torch")
PAIR = "a pair of numbers above 0, the smaller first"


def windows(value):
    """Whether a value can be the windows of a model's stages."""
    return whole(value) or (isinstance(value, tuple) and bool(value) and all(sides(side, 0) for side in value))


@dataclass(frozen=True)
class Model(recipes.Model):
    """A Swin. None leaves the variant's value.

    name: a variant, with or without tag; weights: "" for fresh ones, "pretrained" for timm's published ones, or a path;
    start: "torch" for fresh weights of V2-CR as ChristophReich1996/Swin-Transformer-V2 begins, None for timm's;
    num_classes: None for as many as the data has; image_size in pixels; deformable: stages of V2-CR with deformable
    blocks; dtype, remat, compile: as in `swins.recipes.Model`.
    """

    name: str = setting("swin_tiny_patch4_window7_224", "a variant's name", bool)
    start: str | None = setting(None, "None or torch, of fresh weights", lambda v: v in STARTS)
    num_classes: int | None = at_least(None, 1)
    image_size: int | tuple | None = setting(None, "pixels or a pair of them, at least 1", sides)
    patch_size: int | None = at_least(None, 1)
    in_chans: int | None = at_least(None, 1)
    embed_dim: int | None = at_least(None, 1)
    depths: tuple | None = setting(None, "integers of at least 1, one a stage", all_whole)
    num_heads: tuple | None = setting(None, "integers of at least 1, one a stage", all_whole)
    window_size: int | tuple | None = setting(None, "an integer or, for each stage, one or a pair", windows)
    size_rule: str | None = setting(None, f"None or one of {', '.join(RULES)}", lambda v: v in RULES)
    deformable: tuple | None = setting(None, "stages, counted from 0", lambda v: all(map(whole, v)))
    drop_rate: float | None = settings.rate(None)
    drop_path_rate: float | None = settings.rate(None)

    def conflicts(self):
        text = f"model.start is of fresh weights; got {self.start} and model.weights={self.weights!r}"
        return {text: bool(self.start and self.weights)}

    def options(self) -> dict:
        """What `swins.create` takes of it, but what the variant decides."""
        apart = ("name", "weights", "start", "compile", "num_classes")
        return {k: v for k, v in asdict(self).items() if k not in apart and v is not None}


@dataclass(frozen=True)
class Data(recipes.Data):
    """How images are read: `swins.recipes.Data`, and

    crop: side of validation's centre crop over the side that the image is scaled to; mean, std: per channel, 0..1, None
    for those that the variant was published with.
    """

    crop: float = setting(0.875, "above 0, at most 1", lambda v: 0 < v <= 1)
    mean: tuple | None = setting(None, "numbers, one a channel", lambda v: bool(v) and all(map(finite, v)))
    std: tuple | None = setting(
        None, "numbers above 0, one a channel", lambda v: bool(v) and all(finite(x) and x > 0 for x in v)
    )


@dataclass(frozen=True)
class Augment(Section):
    """What training images undergo, in this order; timm's meaning of every number.

    scale, ratio: random resized crop, area and aspect ratio of what is cut; scale None for none.
    pad: pixels of black around the image before a random crop of its own size; 0 for none.
    flip: probability of a horizontal flip.
    rand_augment: timm's text, such as "rand-m9-mstd0.5-inc1"; "" for none.
    color_jitter: largest change of brightness, contrast and saturation; 0 for none (timm leaves it out beside
        rand_augment, unless forced).
    erase: probability of random erasing, with a normal number for each pixel.
    mixup, cutmix: alpha of their beta distributions, 0 for none; mix: probability that a batch is mixed at all; switch:
        probability of CutMix, where both are on.
    smoothing: label smoothing.
    """

    scale: tuple | None = setting((0.08, 1.0), PAIR, ascending)
    ratio: tuple = setting((3 / 4, 4 / 3), PAIR, ascending)
    pad: int = at_least(0, 0)
    flip: float = probability(0.5)
    rand_augment: str = "rand-m9-mstd0.5-inc1"
    color_jitter: float = at_least(0.0, 0)
    erase: float = probability(0.25)
    mixup: float = at_least(0.8, 0)
    cutmix: float = at_least(1.0, 0)
    mix: float = probability(1.0)
    switch: float = probability(0.5)
    smoothing: float = probability(0.1)


@dataclass(frozen=True)
class Loss(Section):
    """What is minimised: cross entropy.

    class_weights: by how much an image of each class counts in training, so that few are not overlooked: "balanced" for
    the mean number of images of a class over the class's own, or a number a class; None for all alike. An image that is
    mixed of several counts as its parts do. Validation counts all alike.
    """

    class_weights: str | tuple | None = setting(
        None, 'None, "balanced", or numbers of at least 0, one a class', weights_of_classes
    )


@dataclass(frozen=True)
class Classification(recipes.Recipe):
    """The training of a classifier."""

    model: Model = Model()
    data: Data = Data()
    augment: Augment = Augment()
    loss: Loss = Loss()

    def __post_init__(self):
        super().__post_init__()
        if self.augment.rand_augment:
            from swins.data.augment import rand_augment  # which needs Pillow, as training does

            rand_augment(self.augment.rand_augment)

    def conflicts(self):
        micro = self.data.batch // self.optim.accumulate
        return {
            **super().conflicts(),
            f"augment.mixup and cutmix mix an image with another of its batch, which must be even; got {micro}": bool(
                self.augment.mixup or self.augment.cutmix
            )
            and micro % 2 == 1,
        }
