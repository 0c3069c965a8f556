"""The numbers that define a SwinUNet, checked. Without Keras, as rows of variants are made of them."""

import math
from dataclasses import dataclass, fields

from swins.checked_numbers import natural
from swins.errors import SwinsError, unknown_name
from swins.plans import StagePlan, Variant, VariantV2, plan_stages

CHOICES = {
    "paper": ("v1", "v2"),
    "merging": ("swin", "convolution"),
    "skips": ("outputs", "inputs"),
    "decoder_order": ("mirrored", "encoder"),
    "conditioning": ("adaptive", "additive"),
}
OF_SWIN = (  # numbers of the encoder, as a Variant has them
    *("image_size", "patch_size", "embed_dim", "depths", "num_heads", "window_size", "mlp_ratio", "size_rule"),
    "drop_path_rate",
)


@dataclass(frozen=True)
class SwinUNetVariant:
    """What a SwinUNet is made of.

    Of the encoder as a Swin's Variant has them: image_size in pixels, (None, None) for any; patch_size, a power of 2;
    embed_dim, depths, num_heads, window_size, mlp_ratio, drop_path_rate, size_rule; pretrained_windows of V2.

    in_chans: channels of the images; num_classes: what images are of, 0 for no classes; null_class: whether there is
    one more, which stands for none, as classifier-free guidance needs;
    paper: whose blocks: "v1" or "v2"; mid_depth: blocks between encoder and decoder;
    merging: "swin", the paper's, or "convolution", RuslanGreenhead/swin_transformer's, which normalises first;
    skips: what of an encoder's stage the decoder sees again: its "outputs", or its "inputs" as there;
    decoder_order: depths and heads of the decoder's stages, those of the encoder's stages of the same maps
    ("mirrored"), or of the first, the second, ... as there ("encoder");
    conditioning: how time and class come in: "adaptive" norms in every block (arXiv:2212.09748), or "additive" as
    there: time added before each stage of the encoder, class as class_maps channels beside the image;
    time_dim: channels of the embedded time; class_dim: of an embedded class, where it is additive.
    """

    image_size: int | tuple = 224
    patch_size: int = 4
    in_chans: int = 3
    num_classes: int = 10
    null_class: bool = True
    embed_dim: int = 96
    depths: tuple = (2, 2, 6, 2)
    num_heads: tuple = (3, 6, 12, 24)
    window_size: int | tuple = 7
    mlp_ratio: float = 4.0
    drop_path_rate: float = 0.0
    size_rule: str = "timm"
    pretrained_windows: int | tuple = 0
    paper: str = "v1"
    mid_depth: int = 2
    merging: str = "swin"
    skips: str = "outputs"
    decoder_order: str = "mirrored"
    conditioning: str = "adaptive"
    time_dim: int = 128
    class_dim: int = 32
    class_maps: int = 4

    def __post_init__(self):
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown_name(name, str(getattr(self, name)), list(known))
        for name in ("num_classes", "mid_depth", "time_dim", "class_dim", "class_maps", "patch_size"):
            object.__setattr__(self, name, natural(name, getattr(self, name)))
        if not isinstance(self.null_class, bool):
            raise SwinsError(f"null_class must be True or False; got {self.null_class!r}")
        if self.paper == "v1" and self.pretrained_windows not in (0, None):
            raise SwinsError(f'pretrained_windows are of paper="v2"; got {self.pretrained_windows!r}; leave them out')
        if min(self.class_dim, self.class_maps) < 1 or self.time_dim < 2:
            raise SwinsError(
                f"class_dim and class_maps must be at least 1, time_dim at least 2; got {self.class_dim}, "
                f"{self.class_maps} and {self.time_dim}"
            )
        swin = self.swin  # which checks its own
        for name in ("image_size", "depths", "num_heads", "window_size"):
            object.__setattr__(self, name, getattr(swin, name))
        if self.patch_size & (self.patch_size - 1) or self.embed_dim % self.patch_size:
            raise SwinsError(
                "patch_size must be a power of 2 that divides embed_dim, for the output is doubled step by step; got "
                f"{self.patch_size} and {self.embed_dim}; choose 2 or 4"
            )
        if self.decoder_order == "encoder" and any(
            plan.dim % self.num_heads[self.decoder_stage(plan.index)] for plan in plan_stages(swin)[:-1]
        ):
            raise SwinsError(
                f'decoder_order="encoder" needs heads that divide the decoder\'s channels; got {self.num_heads}; use '
                '"mirrored"'
            )
        self.check_size(self.image_size)

    @property
    def swin(self) -> Variant:
        """The encoder as a Variant."""
        numbers = {name: getattr(self, name) for name in OF_SWIN} | {"in_chans": self.channels_in, "num_classes": 0}
        if self.paper == "v1":
            return Variant(**numbers)
        return VariantV2(**numbers, pretrained_windows=self.pretrained_windows)

    @property
    def channels_in(self) -> int:
        """Channels of what is cut into patches: the image's, and those that say its class."""
        beside = self.class_maps if self.num_classes and self.conditioning == "additive" else 0
        return self.in_chans + beside

    @property
    def null(self) -> int | None:
        """The number of the class that stands for none: K; None where there is none."""
        return self.num_classes if self.num_classes and self.null_class else None

    @property
    def stride(self) -> tuple:
        """(vertical, horizontal) pixels of which images must be multiples: windows of every stage tile its map."""
        axes = zip(*self.swin.windows, strict=True)
        return tuple(
            math.lcm(*(self.patch_size * 2**s * window for s, window in enumerate(windows))) for windows in axes
        )

    def decoder_stage(self, index: int) -> int:
        """Of which stage of the encoder the decoder's stage on the maps of stage `index` has its depth and heads."""
        return index if self.decoder_order == "mirrored" else len(self.depths) - 2 - index

    @property
    def decoder(self) -> list[StagePlan]:
        """The decoder's stages, coarse to fine, as plans whose index and maps are those of the encoder's stages."""
        plans = plan_stages(self.swin)
        stages = []
        for plan in reversed(plans[:-1]):
            like = plans[self.decoder_stage(plan.index)]
            same = {name: getattr(plan, name) for name in ("index", "dim", "grid", "window_size", "shift_size")}
            stages.append(StagePlan(**same, num_heads=like.num_heads, drop_path=like.drop_path))
        return stages

    @property
    def middle(self) -> StagePlan:
        """The stage between encoder and decoder, of the coarsest maps; nothing is dropped in it."""
        last = plan_stages(self.swin)[-1]
        same = {field.name: getattr(last, field.name) for field in fields(StagePlan)}
        return StagePlan(**{**same, "drop_path": (0.0,) * self.mid_depth})

    def check_size(self, size: tuple) -> None:
        """Raise SwinsError if images of this (height, width) are not cut into whole windows at every stage."""
        axes = [(side, step) for side, step in zip(size, self.stride, strict=True) if side is not None]
        if all(side and side % step == 0 for side, step in axes):
            return
        counts = [dict.fromkeys((max(side // step, 1), max(math.ceil(side / step), 1))) for side, step in axes]
        nearest = [tuple(count * step for count in some) for some, (_, step) in zip(counts, axes, strict=True)]
        square = len(set(nearest)) == 1 and len(set(size)) == 1
        text = " or ".join(map(str, nearest[0])) if square else " by ".join("/".join(map(str, n)) for n in nearest)
        step = self.stride[0] if len(set(self.stride)) == 1 else self.stride
        raise SwinsError(
            f"images must be whole windows of {self.window_size} tokens at each of {len(self.depths)} stages of "
            f"patches of {self.patch_size}, multiples of {step} pixels; got {tuple(size)}; the nearest are {text}, or "
            "choose other windows"
        )


def swin_unet_numbers(options: dict) -> SwinUNetVariant:
    """The SwinUNetVariant of {name: value}. Raises SwinsError for names that are none."""
    known = [field.name for field in fields(SwinUNetVariant)]
    for name in options:
        if name not in known:
            raise unknown_name("option of a SwinUNet", name, known)
    return SwinUNetVariant(**options)
