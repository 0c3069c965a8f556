"""Where the public names of swins are. To import this registers every class that `.keras` files hold with Keras."""
# ruff: noqa: F401

from swins.attention import attention_maps, stitched_attention
from swins.backbone import backbone
from swins.creation import create
from swins.deploy import deploy
from swins.detection.ssd import SSD
from swins.detector_configs import SSDVariant
from swins.errors import SwinsError
from swins.explain import attention_rollout, grad_cam
from swins.hub import HubLayer
from swins.images import preprocess
from swins.labels import class_names, select_classes
from swins.models import SwinTransformer, SwinTransformerV2, SwinTransformerV2CR
from swins.plans import Variant, VariantV2, VariantV2CR, plan_stages
from swins.predictor import Predictor, load
from swins.resize import resize
from swins.resnet import ResNet
from swins.resnet_plan import VariantResNet
from swins.tags import list_variants, register_variant
