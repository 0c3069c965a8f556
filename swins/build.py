"""Models and feature pyramids by name or Variant."""

from dataclasses import asdict

import keras

from swins.errors import SwinsError
from swins.models import SwinTransformer, SwinTransformerV2, SwinTransformerV2CR
from swins.plans import Variant, with_overrides
from swins.tags import find

FAMILIES = {model.numbers: model for model in (SwinTransformer, SwinTransformerV2, SwinTransformerV2CR)}
OPTIONS = ("dtype", "remat", "query_chunk", "frozen")  # of a model, but not of what it computes


def make(variant, overrides, name=None):
    """A model of a Variant with fresh weights; overrides are the options of the class, None leaves the default."""
    options = {option: overrides[option] for option in OPTIONS if overrides.get(option) is not None}
    variant = with_overrides(variant, {k: v for k, v in overrides.items() if k not in OPTIONS})
    return FAMILIES[type(variant)](**asdict(variant), **options, name=name)


def build(name, **overrides):
    """A model by name with fresh weights; overrides are the options of the class, None leaves the variant's value."""
    architecture, _, variant, _ = find(name)
    return make(variant, overrides, architecture)


def backbone(source, **overrides):
    """Feature pyramid of a name, a Variant or a model -> keras.Model, images to {"P2": (B, H/4, W/4, C), ... "P5"}.

    Level Pn has stride 2**n, for patches whose side is a power of 2. Weights are shared when `source` is a model.

    Example:
    >>> pyramid = backbone("swin_tiny_patch4_window7_224", image_size=64)
    >>> {level: tuple(x.shape) for level, x in pyramid.output.items()}["P5"]
    (None, 2, 2, 768)
    """
    if isinstance(source, Variant):
        source = make(source, overrides)
    elif isinstance(source, str):
        source = build(source, **overrides)
    elif overrides or not hasattr(source, "pyramid"):
        raise SwinsError(
            f"a pyramid is of a name, a Variant or a Swin, and a Swin takes no options; got {source}, {overrides}"
        )
    return keras.Model(source.input, dict(source.pyramid), name=f"{source.name}_pyramid")
