"""SwinUNet: a U-shaped Swin that says what of a noisy image is noise.

The shape is that of RuslanGreenhead/swin_transformer's diffusion: a Swin as encoder, blocks in the middle, a decoder
that expands patches and sees the encoder's maps again, and an output that enlarges to pixels.

Letters: B images, (H, W) cells of a map, C channels, D channels of the condition, K classes.
"""

import math
from dataclasses import asdict

import keras
from keras import layers

from swins import v1, v2
from swins.changes import Recorded
from swins.checked_numbers import natural
from swins.diffusion.conditioning import AdaptiveBlock, AdaptiveBlockV2, Added, ClassMaps, TimeEmbedding, embedding
from swins.diffusion.dual_upsampling import DualUpsampling, NormedConvMerging, conv
from swins.errors import SwinsError
from swins.layers import PatchEmbed, gelu, layer_norm
from swins.patch_expanding import PatchExpanding
from swins.plans import plan_stages
from swins.swin_unet_numbers import swin_unet_numbers

PAPERS = {"v1": v1, "v2": v2}
ADAPTIVE = {"v1": AdaptiveBlock, "v2": AdaptiveBlockV2}
IMAGES, TIME, CLASSES = "images", "time", "classes"  # inputs


class Additive:
    """The reference's conditioning: time is added before each stage of the encoder, the class lies beside the image."""

    def __init__(self, numbers, inputs, policy):
        self.numbers, self.policy = numbers, policy
        self.images = inputs[IMAGES]
        if numbers.num_classes:
            count = numbers.num_classes + numbers.null_class
            maps = ClassMaps(count, numbers.class_dim, numbers.class_maps, name="class_maps", dtype=policy)
            self.images = maps([inputs[IMAGES], inputs[CLASSES]])
        self.condition = TimeEmbedding(numbers.time_dim, name="time_embedding", dtype="float32")(inputs[TIME])

    def before_stage(self, x, index):
        """The map that a stage of the encoder begins with."""
        return Added(name=f"stages_{index}_time", dtype=self.policy)([x, self.condition])

    def block(self, x, **options):
        """A block of the paper, applied to x."""
        return PAPERS[self.numbers.paper].Block(**options)(x)


class AdaptiveNorms:
    """Conditioning of every block's norms by time and class together."""

    def __init__(self, numbers, inputs, policy):
        self.numbers, self.images = numbers, inputs[IMAGES]
        self.condition = TimeEmbedding(numbers.time_dim, name="time_embedding", dtype="float32")(inputs[TIME])
        if numbers.num_classes:
            count = numbers.num_classes + numbers.null_class
            classes = embedding(count, numbers.time_dim, "class_embedding", "float32")(inputs[CLASSES])
            self.condition = layers.Add(name="condition", dtype="float32")([self.condition, classes])

    def before_stage(self, x, index):
        """The map that a stage of the encoder begins with."""
        return x

    def block(self, x, **options):
        """A block of the paper, applied to x."""
        return ADAPTIVE[self.numbers.paper](**options)([x, self.condition])


CONDITIONING = {"additive": Additive, "adaptive": AdaptiveNorms}


def text(shape):
    """A size for people."""
    return "x".join(map(str, shape))


@keras.saving.register_keras_serializable("swins")
class SwinUNet(Recorded):
    """SwinUNet: {"images": (B, H, W, C), "time": (B,), "classes": (B,)} -> (B, H, W, C) float32.

    Images are noisy, of a range of -1 to 1; time and classes are integers. Of no classes there is no "classes". What
    the output means, how many times there are and how noisy an image then is, is what it was trained for: see
    `swins.diffusion.noise_schedule`. Layers of the encoder are named as a SwinTransformer's.

    Args:
        image_size: pixels, an integer or (height, width), multiples of `numbers.stride`; (None, None) for any of those.
        patch_size: pixels of a patch side, a power of 2.
        in_chans: channels of the images.
        num_classes: K; 0 for none.
        null_class: whether there is a class K that stands for none, which classifier-free guidance needs.
        embed_dim, depths, num_heads, window_size, mlp_ratio, drop_path_rate, size_rule: of the encoder, as a
            SwinTransformer's.
        pretrained_windows: as a SwinTransformerV2's, of paper "v2".
        paper: whose blocks: "v1" or "v2".
        mid_depth: blocks between encoder and decoder.
        merging: "swin", or "convolution" as the reference's.
        skips: whether the decoder sees "outputs" of the encoder's stages or, as the reference's, their "inputs".
        decoder_order: "mirrored", or "encoder" as the reference's: depths and heads of the first stages first.
        conditioning: "adaptive" norms, or "additive" as the reference's.
        time_dim: D.
        class_dim, class_maps: channels of an embedded class, and beside the image, where conditioning is additive.
        dtype: a Keras dtype policy; embeddings and the last convolution stay in float32.
        remat: gradient checkpointing: blocks compute their branches again for gradients: less memory, more time.
        query_chunk: queries of a window whose attention weights exist at a time, 0 for all: less memory, more time.
        frozen: layers that do not train: their names, or paths of what is in them.
        changed: what was done to layers later, as `get_config` tells it.

    Raises:
        SwinsError: numbers that cannot make a network; sizes that windows do not tile, with those that they do.

    Example:
    >>> numbers = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4}
    >>> model = SwinUNet(image_size=16, patch_size=2, in_chans=1, **numbers)
    >>> model.output.shape, model.numbers.null
    ((None, 16, 16, 1), 10)
    """

    def __init__(self, *, name=None, dtype=None, frozen=(), changed=None, remat=False, query_chunk=0, **numbers):
        numbers = swin_unet_numbers(numbers)
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy()).name
        options = {"remat": bool(remat), "query_chunk": natural("query_chunk", query_chunk), "dtype": policy}
        inputs = {
            IMAGES: keras.Input((*numbers.image_size, numbers.in_chans), name=IMAGES),
            TIME: keras.Input((), dtype="int32", name=TIME),
        }
        if numbers.num_classes:
            inputs[CLASSES] = keras.Input((), dtype="int32", name=CLASSES)
        conditioning = CONDITIONING[numbers.conditioning](numbers, inputs, policy)
        x = first = PatchEmbed(numbers.embed_dim, numbers.patch_size, name="patch_embed", dtype=policy)(
            conditioning.images
        )
        x, skips = self.encode(x, numbers, conditioning, options)
        x = self.stage(x, "middle", numbers.middle, numbers, conditioning, options)
        for plan in numbers.decoder:
            begin = f"decoder_{plan.index}"
            x = PatchExpanding(name=f"{begin}_expand", dtype=policy)(x)
            x = layers.Concatenate(name=f"{begin}_concat", dtype=policy)([x, skips[plan.index]])
            x = conv(plan.dim, 3, f"{begin}_fuse", policy)(x)
            x = self.stage(x, begin, plan, numbers, conditioning, options)
        x = layers.Add(name="output_skip", dtype=policy)([x, first])
        for i in range(round(math.log2(numbers.patch_size))):
            x = DualUpsampling(name=f"output_{i}_up", dtype=policy)(x)
            x = layer_norm(f"output_{i}_norm", policy)(x)
            x = layers.Activation(gelu, name=f"output_{i}_gelu", dtype=policy)(x)
        x = conv(numbers.in_chans, 3, "output", "float32")(x)
        super().__init__(inputs=inputs, outputs=x, name=name)
        self.numbers, self.policy, self.options = numbers, policy, options
        self.record(frozen, changed)

    def encode(self, x, numbers, conditioning, options):
        """The encoder's last map, and {stage: map} that the decoder sees again."""
        skips = {}
        for plan in plan_stages(numbers.swin):
            if plan.index:
                merging = {"swin": PAPERS[numbers.paper].PatchMerging, "convolution": NormedConvMerging}
                x = merging[numbers.merging](name=f"stages_{plan.index}_downsample", dtype=options["dtype"])(x)
            begin = x
            x = conditioning.before_stage(x, plan.index)
            x = self.stage(x, f"stages_{plan.index}", plan, numbers, conditioning, options)
            skips[plan.index] = {"inputs": begin, "outputs": x}[numbers.skips]
        return x, skips

    def stage(self, x, begin, plan, numbers, conditioning, options):
        """The blocks of one stage, applied to x; names begin with `begin`."""
        of_paper = {"pretrained_window": numbers.swin.pretrained[plan.index]} if numbers.paper == "v2" else {}
        for b, (shift, rate) in enumerate(zip(plan.shifts, plan.drop_path, strict=True)):
            x = conditioning.block(
                x,
                num_heads=plan.num_heads,
                window_size=plan.window_size,
                shift_size=shift,
                mlp_ratio=numbers.mlp_ratio,
                drop_path=rate,
                size_rule=numbers.swin.rule,
                **of_paper,
                **options,
                name=f"{begin}_blocks_{b}",
            )
        return x

    @property
    def image_size(self) -> tuple:
        """(height, width) of the images, in pixels; (None, None) for any."""
        return self.numbers.image_size

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        return self.numbers.in_chans

    def __call__(self, inputs, *args, **kwargs):
        wanted = [IMAGES, TIME, *([CLASSES] if self.numbers.num_classes else [])]
        if not isinstance(inputs, dict) or sorted(inputs) != sorted(wanted):
            raise SwinsError(
                f"{self.name} takes {{{', '.join(wanted)}}} by these names; got "
                f"{sorted(inputs) if isinstance(inputs, dict) else type(inputs).__name__}"
            )
        shape = tuple(getattr(inputs[IMAGES], "shape", ()))
        if len(shape) == 4:
            self.check_images(shape)
        return super().__call__(inputs, *args, **kwargs)

    def check_images(self, shape: tuple) -> None:
        """Raise SwinsError if images of this shape (B, H, W, C) cannot go through."""
        size, channels = shape[1:3], shape[3]
        if channels not in (None, self.in_chans):
            raise SwinsError(
                f"{self.name} takes images of {self.in_chans} channels; got {channels}; convert them, or make the "
                f"model with in_chans={channels}"
            )
        if any(
            side is not None and fixed not in (None, side) for side, fixed in zip(size, self.image_size, strict=True)
        ):
            raise SwinsError(
                f"{self.name} takes images of the {text(self.image_size)} pixels it was built for; got {text(size)}; "
                f"resize them, or make the model with image_size={size}, or (None, None) for any that windows tile"
            )
        self.numbers.check_size(size)

    def get_config(self):
        config = {**asdict(self.numbers), **self.options, "name": self.name}
        return {**config, **self.get_changes()}
