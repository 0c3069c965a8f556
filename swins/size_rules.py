"""How programs handle sizes that windows do not tile, a row each. With the same weights, each gives other numbers."""

from dataclasses import dataclass

MASKED = -100.0  # added to the logits of forbidden pairs: the references' value, and safe in float16


@dataclass(frozen=True)
class SizeRule:
    """What a program does.

    stops: where one window covers an axis, the shift along that axis ("each"), along "both", or along "none" is 0;
    order: "roll_then_pad", or "pad_then_roll", where zeros move around the edges too;
    small: of a map smaller than its window: the window is "clipped", or "squared" too, the map "padded" or "refused";
    edge: of images that patches do not tile: "dropped" or "padded";
    decided: at each "call", or, by the maps' heights, when a model is "made" for images of a size;
    masked: added to the logits of forbidden pairs.
    """

    stops: str
    order: str
    small: str
    edge: str = "dropped"
    decided: str = "call"
    masked: float = MASKED

    def shift(self, covered, shift):
        """A (vertical, horizontal) shift, for a map of which one window covers these axes (1) or not (0)."""
        either = covered[0] + covered[1] - covered[0] * covered[1]
        stopped = {"each": covered, "both": (either, either), "none": (0, 0)}[self.stops]
        return tuple(s * (1 - c) for c, s in zip(stopped, shift, strict=True))


SIZE_RULES = {
    "timm": SizeRule("each", "roll_then_pad", "clipped"),
    "microsoft": SizeRule("both", "pad_then_roll", "squared"),  # classifiers, whose maps windows tile
    "torchvision": SizeRule("each", "pad_then_roll", "padded"),
    "huggingface": SizeRule("both", "pad_then_roll", "refused", "padded"),  # classifiers of V1
    "huggingface_v2": SizeRule("none", "pad_then_roll", "clipped", "padded", "made", 2 * MASKED),  # which masks twice
    "mmpretrain": SizeRule("both", "pad_then_roll", "refused", "padded"),
    "open_mmlab": SizeRule("none", "pad_then_roll", "padded", "padded"),  # detectors, segmenters; Hugging Face's too
}
