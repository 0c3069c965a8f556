"""The family's public models: functional Keras models inside classes, and their names.

A model takes normalised images (B, height, width, in_chans) and returns float32 logits (B, num_classes), or pooled
features (B, C) when num_classes is 0.
"""

import math
from dataclasses import asdict

import keras
from keras import layers

from swins import deformable, v1, v2, v2_cr
from swins.changes import Recorded
from swins.checked_numbers import natural
from swins.layers import PadToPatches, PatchEmbed, dense, layer_norm
from swins.plans import Variant, VariantV2, VariantV2CR, plan_stages, with_overrides
from swins.size_rules import SIZE_RULES


@keras.saving.register_keras_serializable("swins")
class SwinTransformer(Recorded):
    """Swin V1 (arXiv:2103.14030), S3 (arXiv:2111.14725): images (B, height, width, C) -> logits (B, num_classes).

    Layers are named as in timm: `patch_embed`, `stages_{s}_blocks_{b}`, `stages_{s}_downsample`, `norm`, `head`.

    Args:
        image_size: pixels, an integer or (height, width); (None, None) for any size, whose maps are padded to windows.
        patch_size: pixels of a patch side.
        in_chans: channels of the images.
        num_classes: logits; 0 returns pooled features.
        embed_dim: channels of stage 0; each later stage has twice as many.
        depths: blocks of each stage.
        num_heads: heads of each stage; must divide its channels.
        window_size: tokens of a window side, one integer, one per stage (S3), or a (height, width) pair per stage.
        mlp_ratio: hidden channels of the MLP over the stage's channels.
        size_rule: whose way with sizes that windows do not tile, a row of `swins.size_rules`: each gives other numbers.
        final_norm: whether the last map is normalised, before it is pooled.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth of the last block; grows linearly from 0.
        dtype: a Keras dtype policy such as "mixed_bfloat16"; the head stays in float32.
        frozen: names of layers that do not train, or paths of what is in them, as "stages_0_blocks_1/mlp".
        remat: gradient checkpointing: blocks compute their branches again for gradients: less memory, more time.
        query_chunk: queries of a window whose attention weights exist at a time, 0 for all: less memory, more time.
        changed: what was done to layers later, as `get_config` tells it: {path: facts}, see `swins.changes`.
        origin: what is known of its weights: `swins.weights.facts.origin`.

    Raises:
        SwinsError: if the numbers cannot make a model; the message has all reasons.

    Example:
    >>> model = SwinTransformer(image_size=56, embed_dim=24, depths=(1, 1), num_heads=(1, 2), num_classes=5)
    >>> model(keras.ops.zeros((1, 56, 56, 3))).shape
    TensorShape([1, 5])
    """

    paper, numbers = v1, Variant

    def __init__(
        self, *, name=None, dtype=None, frozen=(), changed=None, origin=None, remat=False, query_chunk=0, **numbers
    ):
        variant = with_overrides(self.numbers(), numbers)
        options = {"remat": bool(remat), "query_chunk": natural("query_chunk", query_chunk)}
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy()).name
        images = keras.Input((*variant.image_size, variant.in_chans), name="images")
        padded = SIZE_RULES[variant.rule].edge == "padded"
        x = PadToPatches(variant.patch_size, name="pad_images", dtype=policy)(images) if padded else images
        x = PatchEmbed(variant.embed_dim, variant.patch_size, name="patch_embed", dtype=policy)(x)
        pyramid, merged = {}, {}
        for plan in plan_stages(variant):
            level = f"P{round(math.log2(variant.patch_size)) + plan.index}"
            if plan.index:
                x = merged[level] = self.paper.PatchMerging(name=f"stages_{plan.index}_downsample", dtype=policy)(x)
            x = pyramid[level] = self.stage(plan, variant, {**options, "dtype": policy}, x)
        x = self.paper.FINAL_NORM("norm", policy)(x) if variant.final_norm else x
        x = layers.GlobalAveragePooling2D(name="pool", data_format="channels_last", dtype="float32")(x)
        if variant.drop_rate:
            x = layers.Dropout(variant.drop_rate, name="head_drop", dtype="float32")(x)
        if variant.num_classes:
            x = dense(variant.num_classes, "head", "float32")(x)
        super().__init__(inputs=images, outputs=x, name=name)
        self.variant, self.policy, self.options, self.pyramid, self.merged = variant, policy, options, pyramid, merged
        self.record(frozen, changed, origin)

    def stage(self, plan, variant, options, x):
        """The blocks of one stage, applied to x."""
        for b, (shift, rate) in enumerate(zip(plan.shifts, plan.drop_path, strict=True)):
            x = self.block(
                plan,
                variant,
                num_heads=plan.num_heads,
                window_size=plan.window_size,
                shift_size=shift,
                mlp_ratio=variant.mlp_ratio,
                drop_path=rate,
                size_rule=variant.rule,
                **options,
                name=f"stages_{plan.index}_blocks_{b}",
            )(x)
            x = self.after_block(plan, variant, b, options, x)
        return x

    def block(self, plan, variant, **options):
        """A block of the paper."""
        return self.paper.Block(**options)

    def after_block(self, plan, variant, b, options, x):
        """What lies between blocks."""
        return x

    def __call__(self, images, *args, **kwargs):
        self.variant.check_images(self.name, getattr(images, "shape", ()))
        return super().__call__(images, *args, **kwargs)

    def get_config(self):
        config = {**asdict(self.variant), **self.options, "name": self.name, "dtype": self.policy}
        return {**config, **self.get_changes()}


@keras.saving.register_keras_serializable("swins")
class SwinTransformerV2(SwinTransformer):
    """Swin V2 (arXiv:2111.09883), images to logits as V1: cosine attention, computed position bias, residual post-norm.

    Args: SwinTransformer's, with 256 pixels and windows of 8, and
        pretrained_windows: each stage's window that the weights were first trained with, as window_size; 0 for this
            model's. A wrong value collapses accuracy.
        native_size: pixels that a model of size rule "huggingface" was made for; 0 for image_size.

    Example:
    >>> model = SwinTransformerV2(image_size=64, embed_dim=24, depths=(1, 1), num_heads=(1, 2), num_classes=5)
    >>> tuple(model(keras.ops.zeros((1, 64, 64, 3))).shape)
    (1, 5)
    """

    paper, numbers = v2, VariantV2

    def block(self, plan, variant, **options):
        return v2.Block(pretrained_window=variant.pretrained[plan.index], **options)


@keras.saving.register_keras_serializable("swins")
class SwinTransformerV2CR(SwinTransformer):
    """Swin V2, images to logits, as in ChristophReich1996/Swin-Transformer-V2, timm's swinv2_cr_*: see `swins.v2_cr`.

    Args: SwinTransformer's, with windows that by default are the patch grid over 8, per axis, and
        meta_dim: hidden units of the position network.
        extra_norm: where a norm follows a block: at the end of the "last" stage, of all "stages", or "none".
        extra_norm_period: blocks of a stage from one such norm to the next, besides; 0 for none.
        deformable: stages whose blocks sample their input at learned offsets; see `swins.deformable`.

    Example:
    >>> model = SwinTransformerV2CR(image_size=64, embed_dim=24, depths=(1, 1), num_heads=(1, 2), num_classes=5)
    >>> tuple(model(keras.ops.zeros((1, 64, 64, 3))).shape)
    (1, 5)
    """

    paper, numbers = v2_cr, VariantV2CR

    def block(self, plan, variant, **options):
        block = deformable.Block if plan.index in variant.deformable else v2_cr.Block
        return block(meta_dim=variant.meta_dim, **options)

    def after_block(self, plan, variant, b, options, x):
        if not variant.norm_follows(plan.index, b):
            return x
        return layer_norm(f"stages_{plan.index}_blocks_{b}_norm3", options["dtype"])(x)
