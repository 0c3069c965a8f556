"""A segmenter's losses: cross entropy of pixels, by name.

Letters: B images, (H, W) pixels of a mask, K classes.
"""

from keras import ops

from swins.errors import unknown_name
from swins.segmentation.pyramid_pooling import resized
from swins.segmentation.upernet import AUXILIARY, LOGITS

IGNORED = 255  # of pixels that are of no class
AUXILIARY_WEIGHT = 0.4
MEANS = ("valid", "all")


def pixel_cross_entropy(logits, masks, *, ignore_index=IGNORED, class_weights=None, mean="valid"):
    """Cross entropy of pixels, averaged over a batch -> scalar, float32.

    Logits are enlarged to the masks' size first, as the references do. Without a valid pixel it is 0.

    Args:
        logits: (B, h, w, K) of a map's cells.
        masks: (B, H, W) integers, classes from 0.
        ignore_index: what pixels have that are of no class.
        class_weights: (K,) numbers by which pixels of each class count; None for 1.
        mean: over which pixels: those that are "valid", as Hugging Face's UPerNet does, or "all" of them, those that
            are ignored too, as mmsegmentation's does by default. With class weights both divide by the sum of the
            pixels' weights, as PyTorch does.

    Raises:
        SwinsError: a mean that is none of these.
    """
    if mean not in MEANS:
        raise unknown_name("mean", str(mean), MEANS)
    masks = ops.cast(masks, "int32")
    logits = resized(ops.cast(logits, "float32"), ops.shape(masks)[1:3])
    valid = masks != ignore_index
    classes = ops.where(valid, masks, 0)
    weights = ops.cast(valid, "float32")
    if class_weights is not None:
        weights = weights * ops.take(ops.convert_to_tensor(class_weights, "float32"), classes, axis=0)
    each = ops.sparse_categorical_crossentropy(classes, logits, from_logits=True)
    count = ops.sum(weights)
    if mean == "all" and class_weights is None:
        count = ops.sum(ops.ones_like(weights))
    return ops.sum(each * weights) / ops.maximum(count, 1e-12)


def segmentation_losses(outputs, masks, *, auxiliary_weight=AUXILIARY_WEIGHT, **options) -> dict:
    """{name: scalar} of a UPerNet's outputs in training, "segmentation" and, of an auxiliary head, "auxiliary".

    Their sum is trained.

    Args:
        outputs: {"logits": (B, h, w, K)}, and "auxiliary" beside it where there is such a head.
        masks: (B, H, W) integers.
        auxiliary_weight: of the auxiliary head's loss, which is in what is given.
        options: `pixel_cross_entropy`'s: ignore_index, class_weights, mean.
    """
    losses = {"segmentation": pixel_cross_entropy(outputs[LOGITS], masks, **options)}
    if AUXILIARY in outputs:
        losses[AUXILIARY] = auxiliary_weight * pixel_cross_entropy(outputs[AUXILIARY], masks, **options)
    return losses
