"""Inference-only twins of the family's models, made of the layers in fused.py."""

import functools
import platform
import sys
import warnings

import keras
from keras import layers

from swins import deformable, v1, v2, v2_cr
from swins.build import model_name
from swins.changes import adapted, changes, copy, floats, walk
from swins.errors import SwinsError
from swins.fused import NORMS, Block, BlockV2, DeformableBlock, PatchMerging, PatchMergingV2
from swins.layers import PadToPatches, PatchEmbed
from swins.models import SwinTransformer

DTYPES = ("float32", "bfloat16", "float16")


def block_twin(form):
    """How the twin of a block is made, as a Block of this form."""

    def twin(block, norm_form, dtype):
        yield (
            form(
                block.num_heads,
                block.window_size,
                block.shift_size,
                block.mlp.hidden_dim,
                block.size_rule,
                block.query_chunk,
                norm_form=norm_form,
                dtype=dtype,
                name=block.name,
            ),
            block,
        )

    return twin


def merging_twin(form):
    """How the twin of a merging is made, as a PatchMerging of this form."""
    return lambda merging, norm_form, dtype: [(form(norm_form=norm_form, dtype=dtype, name=merging.name), merging)]


def norm_twin(norm, norm_form, dtype):
    yield NORMS[norm_form](dtype=dtype, name=norm.name), norm


def embedding_twin(embed, norm_form, dtype):
    yield same(embed.proj, dtype, f"{embed.name}_proj"), embed.proj
    yield NORMS[norm_form](dtype=dtype, name=f"{embed.name}_norm"), embed.norm


def same_twin(layer, norm_form, dtype):
    yield same(layer, layer.dtype_policy.name, layer.name), layer


def no_twin(layer, norm_form, dtype):
    return ()


def same(layer, dtype, name):
    """A fresh layer of the same class and configuration, in a type."""
    return type(layer).from_config({**layer.get_config(), "dtype": dtype, "name": name})


TWINS = {  # of the layers that models are made of: (layer, norm_form, dtype) -> pairs of a new layer and its source
    PadToPatches: same_twin,
    PatchEmbed: embedding_twin,
    v1.Block: block_twin(Block),
    v2.Block: block_twin(BlockV2),
    v2_cr.Block: block_twin(BlockV2),
    deformable.Block: block_twin(DeformableBlock),
    v1.PatchMerging: merging_twin(PatchMerging),
    v2.PatchMerging: merging_twin(PatchMergingV2),
    layers.LayerNormalization: norm_twin,
    layers.Identity: no_twin,
    layers.Dropout: no_twin,
    layers.GlobalAveragePooling2D: same_twin,
    layers.Dense: same_twin,
}


def without_onednn():
    """Whether TensorFlow runs on an x86 processor without the oneDNN operations that it has."""
    if keras.backend.backend() != "tensorflow" or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    import tensorflow as tf

    if sys.platform == "darwin" or tf.config.list_physical_devices("GPU"):  # where there are none, or not needed
        return False
    try:
        from tensorflow.python.util import _pywrap_util_port  # no public name says what TensorFlow decided
    except ImportError:
        return False
    return not _pywrap_util_port.IsMklEnabled()


@functools.cache
def warn_without_onednn():
    """Warn, once a process, that deployed models are slow."""
    if without_onednn():
        warnings.warn(
            "TensorFlow runs without oneDNN, whose operations make deployed models fast; set TF_ENABLE_ONEDNN_OPTS=1 "
            "in the environment before TensorFlow is imported",
            stacklevel=3,
        )


def deploy(model, *, dtype=None, portable=False, name=None):
    """A model for inference only, with the numbers of a Swin of this package and less work -> keras.Model.

    It takes and gives what the model does, is saved as `.keras`, and has no trainable variables. Open sizes stay open.
    A block's table has a number for each pair of a window's tokens, head and kind of window: with 12 heads 0.1 MB for
    windows of 7, 16 MB for windows of 24, and four times that where windows are shifted.

    On TensorFlow its operations are oneDNN's, which TensorFlow leaves off on Windows and on x86 processors without the
    newer parts of AVX-512: set TF_ENABLE_ONEDNN_OPTS=1 in the environment before TensorFlow is imported, as the command
    line does, or it is slower than PyTorch. A warning says so, once a process.

    Args:
        model: a SwinTransformer, SwinTransformerV2 or SwinTransformerV2CR.
        dtype: what its layers store and compute in, but for the head: "float32", "bfloat16" or "float16"; None for
            what the model's layers compute in.
        portable: use operations that ONNX, LiteRT and OpenVINO know and fuse, not those that TensorFlow does.
        name: of the new model; None keeps the model's.

    Low-rank adapters are merged into their kernels.

    Raises:
        SwinsError: if the model is not one of these classes, or the type not one of these; for layers that were
            quantized, replaced, or given another epsilon.

    Example:
    >>> import swins
    >>> model = swins.create("swin_tiny_patch4_window7_224", image_size=64, num_classes=5)
    >>> fast = swins.deploy(model)
    >>> tuple(fast(keras.ops.zeros((1, 64, 64, 3))).shape)
    (1, 5)
    """
    if not isinstance(model, SwinTransformer):
        raise SwinsError(f"deploy takes a Swin of this package, as `create` makes; got {type(model).__name__}")
    given, dtype = dtype, dtype or keras.dtype_policies.get(model.policy).compute_dtype
    if dtype not in DTYPES:
        raise SwinsError(f"a deployed model is float32, bfloat16 or float16; got {dtype}")
    floats(model, "deploy")
    own = {"epsilon"} if given else {"epsilon", "dtype"}
    other = [path for path, told in changes(model, model.made).items() if own & told.keys()]
    if other:
        raise SwinsError(
            f"deployed layers have one dtype and the papers' epsilon; got others in {', '.join(other[:3])}; set them "
            "back, or for dtypes pass dtype="
        )
    if any(adapted(layer) for _, layer in walk(model)):
        model = copy(model)
    unknown = [layer for layer in model.layers[1:] if type(layer) not in TWINS]
    if unknown:
        raise SwinsError(f"deploy knows the layers that `create` makes; got {unknown[0].name}, {type(unknown[0])}")
    if not portable:
        warn_without_onednn()
    images = keras.Input(model.input.shape[1:], name="images")
    x = images
    for layer in model.layers[1:]:
        for twin, source in TWINS[type(layer)](layer, "portable" if portable else "fused", dtype):
            x = twin(x)
            if hasattr(twin, "take_over"):
                twin.take_over(source)
            else:
                twin.set_weights(source.get_weights())
    deployed = keras.Model(images, x, name=model_name(name) or model.name)
    deployed.trainable = False
    return deployed
