"""Where the public names of swins are. To import this registers every class that `.keras` files hold with Keras."""
# ruff: noqa: F401

from swins.attention import attention_maps, stitched_attention
from swins.backbone import backbone
from swins.creation import create
from swins.deploy import deploy
from swins.detection.mask_rcnn import CascadeMaskRCNN, MaskRCNN
from swins.detection.ssd import SSD
from swins.detector_configs import RCNNVariant, SSDVariant
from swins.diffusion.swin_unet import SwinUNet
from swins.errors import SwinsError
from swins.explain import attention_rollout, grad_cam
from swins.exports.order import export
from swins.hub import HubLayer
from swins.images import Preprocess, preprocess
from swins.labels import class_names, select_classes
from swins.models import SwinTransformer, SwinTransformerV2, SwinTransformerV2CR
from swins.pixel_classifier import PixelClassifier
from swins.plans import Variant, VariantV2, VariantV2CR, plan_stages
from swins.predictor import Predictor, load
from swins.resize import resize
from swins.resnet import ResNet
from swins.resnet_plan import VariantResNet
from swins.segmentation.upernet import UPerNet
from swins.segmenter_configs import UPerNetVariant
from swins.swin_unet_numbers import SwinUNetVariant
from swins.tags import list_variants, register_variant
