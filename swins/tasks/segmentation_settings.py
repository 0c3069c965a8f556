"""The recipe of a segmenter: `Segmentation`, and its sections."""

from dataclasses import dataclass

from swins import recipes
from swins.data.class_weights import weights_of_classes
from swins.data.segment_augment import ScaleAndCrop, Squash
from swins.data.segmentation_layouts import MaskValues
from swins.segmentation.segmentation_loss import AUXILIARY_WEIGHT, MEANS
from swins.settings import Section, above, at_least, one_of, setting, sides
from swins.tasks import detection_settings
from swins.tasks.instances_settings import MEAN, STD

CROP = 512  # pixels of a side, of published weights


def pair_of(sides_of: int | tuple) -> tuple[int, int]:
    """(height, width) of pixels, or of a pair of them."""
    return tuple(sides_of) if isinstance(sides_of, tuple) else (sides_of, sides_of)


@dataclass(frozen=True)
class Model(detection_settings.Model):
    """A segmenter, by the name of its variant. None leaves the variant's value.

    weights: "" for fresh ones, "pretrained" for the backbone's published ones, or a path: a UPerNet's of any program,
    whose classifiers are made anew for another number of classes, or a backbone's, which fills that alone; image_size:
    None for any; width: channels of the decoder's maps; auxiliary: of the head that helps in training, 0 for none.
    """

    name: str = setting("upernet_swin_tiny", "a variant's name", bool)
    width: int | None = at_least(None, 1)
    auxiliary: int | None = at_least(None, 0)


@dataclass(frozen=True)
class Data(recipes.Data, MaskValues):
    """How images and masks are read: `swins.recipes.Data`, what the masks' values mean, and

    size: pixels of the images that are trained on, a side or (height, width); validation: of those that are validated
    on, which are squashed to it, None for the same; cache: MiB of memory for decoded images, 0 for none; mean, std: per
    channel, 0..1.
    """

    batch: int = at_least(16, 1)
    size: int | tuple = setting(CROP, "pixels or a pair of them, at least 1", sides)
    validation: int | tuple | None = setting(None, "pixels or a pair of them, at least 1", sides)
    cache: int = at_least(0, 0)
    mean: tuple = detection_settings.levels(MEAN)
    std: tuple = detection_settings.spreads(STD)

    def conflicts(self):
        channels = len(self.mean), len(self.std)
        return {
            **super().conflicts(),
            f"data.mean and data.std need as many numbers; got {channels[0]} and {channels[1]}": len(set(channels)) > 1,
        }

    @property
    def values(self) -> MaskValues:
        """What the masks' values mean."""
        return MaskValues(self.classes, self.void, self.reduce_zero_label)


@dataclass(frozen=True)
class Loss(Section):
    """What is minimised: cross entropy of pixels, that of the auxiliary head times auxiliary_weight beside it.

    mean: over the "valid" pixels, or "all", ignored ones too, as mmsegmentation's; class_weights: "" for all alike,
    "balanced" so that classes count alike however many pixels they have, or a number a class.
    """

    mean: str = one_of("valid", MEANS)
    auxiliary_weight: float = above(AUXILIARY_WEIGHT, 0)
    class_weights: str | tuple = setting(
        "", '"", "balanced", or numbers of at least 0, one a class', weights_of_classes
    )


@dataclass(frozen=True)
class Segmentation(recipes.Recipe):
    """The training of a segmenter: the class of each pixel."""

    model: Model = Model()
    data: Data = Data()
    augment: ScaleAndCrop | Squash = ScaleAndCrop()  # noqa: RUF009 (frozen)
    loss: Loss = Loss()

    def conflicts(self):
        return {**super().conflicts(), **detection_settings.of_classifiers(self.optim)}
