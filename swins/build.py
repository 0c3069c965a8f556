"""Models by name or Variant, with fresh weights."""

from dataclasses import asdict

from swins.errors import SwinsError
from swins.models import SwinTransformer, SwinTransformerV2, SwinTransformerV2CR
from swins.plans import with_overrides
from swins.resnet import ResNet
from swins.tags import look_up

FAMILIES = {model.numbers: model for model in (SwinTransformer, SwinTransformerV2, SwinTransformerV2CR, ResNet)}
OPTIONS = ("dtype", "remat", "query_chunk", "frozen")  # of a model, but not of what it computes


def make(variant, overrides, name=None):
    """A model of a Variant with fresh weights; overrides are the options of the class, None leaves the default."""
    options = {option: overrides[option] for option in OPTIONS if overrides.get(option)}
    variant = with_overrides(variant, {k: v for k, v in overrides.items() if k not in OPTIONS})
    return FAMILIES[type(variant)](**asdict(variant), **options, name=name)


def model_name(name):
    """The name of a Keras model as given, or None. Raises SwinsError where Keras takes none such."""
    if name is None or (isinstance(name, str) and name and "/" not in name):
        return name
    raise SwinsError(f"name must be a string without slashes, of the Keras model; got {name!r}")


def build(variant, /, *, name=None, **overrides):
    """A model by its variant's name with fresh weights; overrides are the class's options, None leaves the variant's.

    The model is called as its architecture, unless another name is given.
    """
    named = look_up(variant)
    return make(named.variant, overrides, name or named.architecture)
