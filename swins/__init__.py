"""swins: the Swin Transformer family for Keras 3, converted from PyTorch and proven equal to it."""

from swins.attention import attention_maps, stitched_attention
from swins.build import backbone
from swins.convert.load import create
from swins.deploy import deploy
from swins.errors import SwinsError
from swins.explain import attention_rollout, grad_cam
from swins.hub import HubLayer
from swins.images import preprocess
from swins.labels import class_names, select_classes
from swins.models import SwinTransformer, SwinTransformerV2, SwinTransformerV2CR
from swins.plans import Variant, VariantV2, VariantV2CR, plan_stages
from swins.resize import resize
from swins.tags import list_variants

__version__ = "0.1.0"
__all__ = [
    "HubLayer",
    "SwinTransformer",
    "SwinTransformerV2",
    "SwinTransformerV2CR",
    "SwinsError",
    "Variant",
    "VariantV2",
    "VariantV2CR",
    "attention_maps",
    "attention_rollout",
    "backbone",
    "class_names",
    "create",
    "deploy",
    "grad_cam",
    "list_variants",
    "plan_stages",
    "preprocess",
    "resize",
    "select_classes",
    "stitched_attention",
]
