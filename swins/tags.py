"""Published weights: which tags a variant has, how their images are prepared, and names looked up.

Tags and their order are timm's (1.0.31); the test suite compares them. Of ResNets those that torchvision trained.
"""

import fnmatch
import pathlib
import re
from dataclasses import dataclass, replace

from swins.denoiser_configs import DENOISERS
from swins.detector_configs import DETECTORS, RCNNVariant, SSDVariant
from swins.errors import SwinsError, unknown_name
from swins.model_configs import VARIANTS
from swins.plans import Variant
from swins.resnet_plan import VariantResNet
from swins.run_result import require_finished, training_of
from swins.segmenter_configs import SEGMENTERS, UPerNetVariant
from swins.swin_unet_numbers import SwinUNetVariant

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Weights:
    """A published set of weights: classes, image statistics on a 0..1 scale, training data, licence, resampling."""

    num_classes: int = 1000
    mean: tuple = IMAGENET_MEAN
    std: tuple = IMAGENET_STD
    dataset: str = "imagenet"
    license: str = "mit"
    interpolation: str = "bicubic"


TAGS = {
    "ms_in1k": Weights(),
    "ms_in22k": Weights(num_classes=21841),
    "ms_in22k_ft_in1k": Weights(),
    "sw_in1k": Weights(license="apache-2.0"),
    "fashion_mnist": Weights(10, (0.2860,), (0.3530,), "fashion-mnist", "apache-2.0"),
    "tv2_in1k": Weights(license="bsd-3-clause", interpolation="bilinear"),
    "tv_in1k": Weights(license="bsd-3-clause", interpolation="bilinear"),
}

V1_TAGS = ("ms_in1k", "ms_in22k_ft_in1k", "ms_in22k")
FT_FIRST = ("ms_in22k_ft_in1k", "ms_in1k", "ms_in22k")
PRETRAINED = {  # the first tag is the one an untagged name means, in timm's order
    **dict.fromkeys(VARIANTS, ()),  # nothing published, but for these
    "swin_tiny_patch4_window7_224": V1_TAGS,
    "swin_small_patch4_window7_224": FT_FIRST,
    "swin_base_patch4_window7_224": FT_FIRST,
    "swin_base_patch4_window12_384": FT_FIRST,
    "swin_large_patch4_window7_224": ("ms_in22k_ft_in1k", "ms_in22k"),
    "swin_large_patch4_window12_384": ("ms_in22k_ft_in1k", "ms_in22k"),
    "swin_s3_tiny_224": ("ms_in1k",),
    "swin_s3_small_224": ("ms_in1k",),
    "swin_s3_base_224": ("ms_in1k",),
    "swinv2_tiny_window8_256": ("ms_in1k",),
    "swinv2_tiny_window16_256": ("ms_in1k",),
    "swinv2_small_window8_256": ("ms_in1k",),
    "swinv2_small_window16_256": ("ms_in1k",),
    "swinv2_base_window8_256": ("ms_in1k",),
    "swinv2_base_window16_256": ("ms_in1k",),
    "swinv2_base_window12_192": ("ms_in22k",),
    "swinv2_base_window12to16_192to256": ("ms_in22k_ft_in1k",),
    "swinv2_base_window12to24_192to384": ("ms_in22k_ft_in1k",),
    "swinv2_large_window12_192": ("ms_in22k",),
    "swinv2_large_window12to16_192to256": ("ms_in22k_ft_in1k",),
    "swinv2_large_window12to24_192to384": ("ms_in22k_ft_in1k",),
    "swinv2_cr_tiny_ns_224": ("sw_in1k",),
    "swinv2_cr_small_224": ("sw_in1k",),
    "swinv2_cr_small_ns_224": ("sw_in1k",),
    "swin_mini_patch2_window4_28": ("fashion_mnist",),
    "resnet50": ("tv2_in1k", "tv_in1k"),
    "resnet101": ("tv2_in1k", "tv_in1k"),
}

DENSE = {
    (SSDVariant, RCNNVariant): DETECTORS,
    (UPerNetVariant,): SEGMENTERS,
    (SwinUNetVariant,): DENOISERS,
}  # classes of rows, and where they are


def list_variants(pattern="*", pretrained=False):
    """Names that match a shell pattern; with `pretrained`, one name per published set of weights ("name.tag")."""
    tagged = [f"{name}.{tag}" for name, tags in PRETRAINED.items() for tag in tags]
    names = tagged if pretrained else [*VARIANTS, *DETECTORS, *SEGMENTERS, *DENOISERS]
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


@dataclass(frozen=True)
class Named:
    """What a name stands for: its architecture, its tag (None where nothing is published), their numbers."""

    architecture: str
    tag: str | None
    variant: Variant | VariantResNet
    weights: Weights

    @property
    def full_name(self) -> str:
        """ "architecture.tag", or the architecture where there is no tag."""
        return f"{self.architecture}.{self.tag}" if self.tag else self.architecture


def look_up(name: str) -> Named:
    """What "architecture" or "architecture.tag" stands for; an untagged name means its first tag.

    Raises:
        SwinsError: an unknown name, with the closest ones.
    """
    architecture, _, tag = name.partition(".")
    if architecture in DETECTORS:
        raise SwinsError(
            f"{architecture} is a detector, on {DETECTORS[architecture].backbone}; here the name of what classifies is "
            "wanted; make the detector with swins.create"
        )
    if architecture in SEGMENTERS:
        raise SwinsError(
            f"{architecture} is a segmenter, on {SEGMENTERS[architecture].backbone}; here the name of what classifies "
            "is wanted; make the segmenter with swins.create"
        )
    if architecture in DENOISERS:
        raise SwinsError(
            f"{architecture} is a network of diffusion; here the name of what classifies is wanted; make the network "
            "with swins.create"
        )
    if architecture not in VARIANTS or name.endswith("."):
        error = unknown_name("variant", name, list_variants())
        if "/" not in name:
            raise error
        place = "no model that is known here" if pathlib.Path(name).exists() else "no such file or folder"
        raise SwinsError(f"{name}: {place}; as a name: {error}")
    tags = PRETRAINED[architecture]
    if tag and tag not in tags:
        raise unknown_name("variant", name, list_variants(f"{architecture}.*", pretrained=True) or [architecture])
    tag = tag or next(iter(tags), None)
    weights = TAGS.get(tag, Weights())
    variant = VARIANTS[architecture]
    if tag:
        variant = replace(variant, num_classes=weights.num_classes)
    return Named(architecture, tag, variant, weights)


def register_variant(
    name: str,
    variant: Variant | VariantResNet | SSDVariant | RCNNVariant | UPerNetVariant | SwinUNetVariant,
    tags: dict[str, Weights] | None = None,
) -> None:
    """Add a variant, which `create`, `swins list`, recipes and, but of an SSD, the converter know by its name.

    Args:
        name: of letters, digits and _; not one that is known.
        variant: its numbers.
        tags: {tag: Weights} of published weights, the first of which an untagged name means; `create` is given their
            file. Detectors, segmenters and networks of diffusion have none.

    Raises:
        SwinsError: a name that is taken or is none, a tag that is known as other weights.
    """
    tags = dict(tags or {})
    if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z]\w*", name)):
        raise SwinsError(f"a variant's name begins with a letter and is of letters, digits and _; got {name!r}")
    dense = next((rows for kinds, rows in DENSE.items() if isinstance(variant, kinds)), None)
    if dense is None and not isinstance(variant, Variant | VariantResNet):
        kinds = (
            "Variant, VariantV2, VariantV2CR, VariantResNet, SSDVariant, RCNNVariant, UPerNetVariant or SwinUNetVariant"
        )
        raise SwinsError(f"{name}: a variant is a {kinds}; got {type(variant).__name__}")
    if {**VARIANTS, **DETECTORS, **SEGMENTERS, **DENOISERS}.get(name, variant) != variant:
        raise SwinsError(f"{name} is a variant already, with other numbers; choose another name")
    clashes = [tag for tag, weights in tags.items() if TAGS.get(tag, weights) != weights]
    if clashes:
        raise SwinsError(f"{name}: the tags {', '.join(clashes)} are of other weights already; choose others")
    if dense is not None:
        if tags:
            kinds = ("detectors", DETECTORS), ("segmenters", SEGMENTERS), ("networks of diffusion", DENOISERS)
            kind = next(kind for kind, rows in kinds if rows is dense)
            raise SwinsError(f"{name}: weights of {kind} have no tags; got {', '.join(tags)}; leave them out")
        dense[name] = variant
        return
    VARIANTS[name], PRETRAINED[name] = variant, tuple(tags)
    TAGS.update(tags)


def variant_name(model):
    """The variant that a model is of: its own name, or if that is none, the one variant that has its numbers."""
    if model.name in VARIANTS:
        return model.name
    free = {part: getattr(model.variant, part) for part in model.variant.FREE}
    alike = [
        name for name, v in VARIANTS.items() if type(v) is type(model.variant) and replace(v, **free) == model.variant
    ]
    return alike[0] if len(alike) == 1 else model.name


def names_variant(source):
    """Whether a text is a variant's name, with or without tag. A folder of that name is given as ./NAME."""
    try:
        return isinstance(source, str) and bool(look_up(source))
    except SwinsError:
        return False


def training_run(source):
    """The result.json of the training run that a path is of; None for other paths, and for a variant's name.

    Raises:
        SwinsError: a run that has not ended.
    """
    if names_variant(source):
        return None
    require_finished(source)
    return training_of(source)
