"""Trained models for other images and windows."""

from dataclasses import asdict

from swins import bias_tables
from swins.changes import assign, values
from swins.errors import SwinsError
from swins.models import SwinTransformer
from swins.plans import VariantV2, kept_native_size, remembering, with_overrides


def resize(model, image_size=None, window_size=None, *, size_rule=None, interpolation="timm", name=None):
    """A Swin for other images or windows that carries over a trained one's weights; the given model stays as it is.

    V1's bias tables are interpolated in blocks whose window, as clipped by the map, changes. V2 computes its bias: the
    new model records as `pretrained_windows` the scale of offsets that the weights know. The head, all other weights,
    the dtype and what was done to layers (frozen, quantized, other rates) are kept; low-rank adapters are merged into
    their kernels. With the same sizes the new model is a copy.

    Args:
        model: a SwinTransformer, or of a class derived from it.
        image_size: pixels, as the class takes it; None keeps the model's.
        window_size: tokens of a window side, as the class takes it; None keeps the model's. (timm's `set_input_size`
            scales windows with the image then: for 448 pixels after 7 for 224, pass 14.)
        size_rule: what is done about sizes that windows do not tile, as the class takes it; None keeps the model's.
        interpolation: of V1's tables: "timm", or "microsoft", which is the authors' when fine-tuning.
        name: of the new model; None keeps the model's.

    Returns:
        A model of the same class, not compiled.

    Raises:
        SwinsError: not a Swin, sizes that cannot work, or an unknown interpolation.

    Example:
    >>> model = SwinTransformer(image_size=56, embed_dim=24, depths=(1, 1), num_heads=(1, 2), num_classes=5)
    >>> resize(model, image_size=96, window_size=12).input.shape
    (None, 96, 96, 3)
    """
    if not isinstance(model, SwinTransformer):
        raise SwinsError(f"only a Swin of this package is resized; got {model!r}; of a pyramid, resize the Swin itself")
    bias_tables.named(interpolation)
    changes = {"image_size": image_size, "window_size": window_size, "size_rule": size_rule}
    variant = with_overrides(model.variant, {**changes, **kept_native_size(model.variant, changes)})
    if isinstance(variant, VariantV2):
        variant = remembering(variant, model.variant)
    resized = type(model)(**{**model.get_config(), **asdict(variant), "name": name or model.name})
    arrays = values(model)
    for path, value in arrays.items():
        if path.endswith("relative_position_bias_table"):
            old, new = (m.get_layer(path.partition("/")[0]).window_size for m in (model, resized))
            arrays[path] = bias_tables.resize_table(value, old, new, interpolation)
    assign(resized, arrays)
    return resized
