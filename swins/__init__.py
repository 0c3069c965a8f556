"""swins: the Swin Transformer family for Keras 3, converted from PyTorch and proven equal to it."""

from swins.attention import attention_maps
from swins.build import backbone
from swins.convert.load import create
from swins.errors import SwinsError
from swins.images import preprocess
from swins.models import SwinTransformer, SwinTransformerV2, SwinTransformerV2CR
from swins.plans import Variant, VariantV2, VariantV2CR, plan_stages
from swins.resize import resize
from swins.tags import list_variants

__version__ = "0.1.0"
__all__ = [
    "SwinTransformer",
    "SwinTransformerV2",
    "SwinTransformerV2CR",
    "SwinsError",
    "Variant",
    "VariantV2",
    "VariantV2CR",
    "attention_maps",
    "backbone",
    "create",
    "list_variants",
    "plan_stages",
    "preprocess",
    "resize",
]
