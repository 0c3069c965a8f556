"""SSD's losses (arXiv:1512.02325, section 2.2): boxes of matched priors, classes of these and of the hardest others."""

from dataclasses import dataclass

from keras import ops

from swins.boxes import encode, floats
from swins.detection.prior_matching import match
from swins.errors import SwinsError, unknown_name


@dataclass(frozen=True)
class LossRule:
    """How the losses are put together; by default as RuslanGreenhead/swin_transformer does.

    threshold: least overlap of a prior with its object; negatives: hardest background priors for each matched prior;
    least_matches: matched priors that an image counts as at least, for its negatives and in the divisor of the classes'
    loss; loc_reduction: smooth L1 of a matched prior is the "mean" over its four codes, or their "sum_per_box";
    box_weight: of the boxes' loss.
    """

    threshold: float = 0.5
    negatives: float = 3.0
    least_matches: int = 1
    loc_reduction: str = "mean"
    box_weight: float = 1.0

    def __post_init__(self):
        if self.loc_reduction not in ("mean", "sum_per_box"):
            raise SwinsError(f"loc_reduction is mean or sum_per_box; got {self.loc_reduction!r}; choose one")
        if self.least_matches < 0 or self.negatives < 0:
            raise SwinsError(
                f"least_matches and negatives are 0 or more; got {self.least_matches}, {self.negatives}; raise them"
            )


LOSS_RULES = {
    "r_ssd": LossRule(),
    "torchvision": LossRule(least_matches=0, loc_reduction="sum_per_box"),  # an image without objects: no negatives
}


def smooth_l1(difference):
    """Half the square up to 1, then the distance less a half."""
    distance = ops.abs(difference)
    return ops.where(distance < 1, 0.5 * difference * difference, distance - 0.5)


def divided(total, number):
    """total / number, 0 of nothing."""
    return total / ops.where(number > 0, number, 1.0)


def hardest(entropy, background, counts):
    """How much of each prior is among the background's of largest loss, `counts` of each image, rounded up.

    Nothing is sorted, which compilers are slow at: the smallest loss that belongs to them is found bit by bit, as the
    bits of floats from 0 on are in the floats' order. Of equal losses of which some belong to them, all do in part.

    Args:
        entropy: (B, P) float32, at least 0; background: (B, P) booleans; counts: (B,).

    Returns:
        (B, P) float32 from 0 to 1; an image's sum is its count, or all its background.
    """
    bits = ops.where(background, ops.view(ops.maximum(ops.stop_gradient(entropy), 0.0), "int32"), -1)
    counts = ops.minimum(ops.ceil(counts), ops.sum(floats(background), 1))[:, None]
    least = ops.zeros_like(bits[:, :1])
    for bit in range(30, -1, -1):
        higher = least + 2**bit
        enough = ops.sum(floats(bits >= higher), 1, keepdims=True) >= counts
        least = ops.where(enough, higher, least)
    above, equal = floats(bits > least), floats(bits == least)
    left = counts - ops.sum(above, 1, keepdims=True)
    return ops.where(counts > 0, above + equal * divided(left, ops.sum(equal, 1, keepdims=True)), 0.0)


def ssd_loss(priors, outputs: dict, truths: dict, rule: str | LossRule = "r_ssd") -> dict:
    """The losses of a batch, in float32 -> {"box": scalar, "class": scalar}.

    Each is a sum over the batch divided by its matched priors, not its images, times the share of images that are no
    fillers. So a batch without fillers has the reference's loss; a filler changes nothing but this share, and sums over
    batches of each loss times the batch's size, divided by all images, are means in which a batch counts as its images.
    Where several devices share a batch, a sum over each one's part is divided by that part's matched priors.

    Letters: B images, P priors, K classes, G objects of an image.

    Args:
        priors: (P, 4) cxcywh, shares of the image's sides.
        outputs: "boxes" (B, P, 4) codes, "scores" (B, P, K + 1) before softmax, the background's first.
        truths: "boxes" (B, G, 4) xyxy, shares of the image's sides, "labels" (B, G) from 0 to K - 1, "valid" (B, G);
            perhaps "weight" (B,), what an image's sums count, 0 for fillers.
        rule: a name in LOSS_RULES, or a LossRule.

    Raises:
        SwinsError: an unknown name.
    """
    if not isinstance(rule, LossRule):
        if rule not in LOSS_RULES:
            raise unknown_name("rule of SSD's loss", rule, list(LOSS_RULES))
        rule = LOSS_RULES[rule]
    codes, scores = floats(outputs["boxes"]), floats(outputs["scores"])
    weight = floats(truths["weight"]) if "weight" in truths else ops.ones_like(codes[:, 0, 0])
    labels, index = match(priors, truths["boxes"], truths["labels"], truths["valid"], rule.threshold)
    matched = labels > 0
    counts = ops.sum(floats(matched), 1)  # (B,)

    target = encode(ops.take_along_axis(floats(truths["boxes"]), index[..., None], 1), priors)
    errors = ops.sum(smooth_l1(codes - ops.where(matched[..., None], target, 0.0)), -1)
    box = ops.sum(weight * ops.sum(ops.where(matched, errors, 0.0), 1))
    box = divided(box, ops.sum(weight * counts)) / (4 if rule.loc_reduction == "mean" else 1)

    entropy = ops.sparse_categorical_crossentropy(labels, scores, from_logits=True)  # (B, P)
    least = ops.maximum(counts, rule.least_matches)
    used = floats(matched) + hardest(entropy, ~matched, rule.negatives * least)
    classes = ops.sum(weight * ops.sum(ops.where(used > 0, used * entropy, 0.0), 1))
    classes = divided(classes, ops.sum(weight * least))

    share = ops.mean(floats(weight > 0))
    return {"box": rule.box_weight * box * share, "class": classes * share}
