"""Fresh weights as a reference project's modules begin with, where that is not as ours do."""

import math

import numpy as np

from swins.errors import SwinsError
from swins.models import SwinTransformerV2CR


def fan_in(shape):
    """Inputs of a unit of a kernel: (in, out), (height, width, in, out), or depthwise (height, width, channels, 1)."""
    depthwise = len(shape) == 4 and shape[-1] == 1
    return math.prod(shape[:2] if depthwise else shape[:-1])


def begin_as_torch(model, seed):
    """Give a V2-CR the weights that ChristophReich1996/Swin-Transformer-V2 begins with, in place.

    Dense layers and convolutions have the numbers that torch.nn gives them, uniform within 1 / sqrt(inputs of a unit);
    norms scale by 1, so that a block is no identity at first; cosines are scaled by 1 instead of 10; and the position
    network has no dropout.

    Args:
        model: a SwinTransformerV2CR with fresh weights.
        seed: of the numbers, which are the same on every backend.

    Raises:
        SwinsError: another family.
    """
    if not isinstance(model, SwinTransformerV2CR):
        raise SwinsError(f'model.start="torch" is for V2-CR, such as swin_transformer_v2_t; got {model.name}; leave it')
    rng = np.random.default_rng((seed, 2))
    inputs = {w.path.removesuffix("/kernel"): fan_in(w.shape) for w in model.weights if w.name == "kernel"}
    for weight in model.trainable_variables:
        owner = weight.path.rpartition("/")[0]
        if owner in inputs:
            weight.assign(rng.uniform(-1, 1, weight.shape).astype("float32") / math.sqrt(inputs[owner]))
        elif weight.name in ("gamma", "logit_scale"):
            weight.assign(np.full(weight.shape, weight.name == "gamma", "float32"))
    for block in model.layers:
        if hasattr(block, "attn"):
            block.attn.meta_drop.rate = 0.0
