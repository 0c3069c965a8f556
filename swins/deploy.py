"""Inference-only twins of models: Swin layers as those in fused.py, batch norms in the convolutions before them."""

import functools
import platform
import sys
import warnings

import keras
from keras import layers

from swins import deformable, v1, v2, v2_cr
from swins.build import model_name
from swins.changes import Recorded, RecordedParts, adapted, changes, copy, floats, walk
from swins.errors import SwinsError
from swins.fused import NORMS, Block, BlockV2, DeformableBlock, PatchMerging, PatchMergingV2, numbers
from swins.layers import PatchEmbed

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


def no_twin(layer, norm_form, dtype):
    return ()


def same(layer, dtype, name):
    """A fresh layer of the same class and configuration, in a type."""
    return type(layer).from_config({**layer.get_config(), "dtype": dtype, "name": name})


TWINS = {  # of the layers that models are made of: (layer, norm_form, dtype) -> pairs of a new layer and its source
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
}  # of other layers it is the layer again


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


def folded(conv, norm):
    """A convolution that gives what a batch norm makes of this one's output, by the norm's moving statistics."""
    twin = type(conv).from_config({**conv.get_config(), "use_bias": True})
    twin.build(conv.input.shape)
    scale = numbers(norm.moving_variance + norm.epsilon) ** -0.5 * (numbers(norm.gamma) if norm.scale else 1.0)
    shift = (numbers(norm.beta) if norm.center else 0.0) - numbers(norm.moving_mean) * scale
    twin.set_weights([numbers(conv.kernel) * scale, shift + (numbers(conv.bias) * scale if conv.use_bias else 0.0)])
    return twin


def norms_after(model):
    """{name of a convolution: the batch norm over channels that alone takes what it gives}."""
    takers = {}
    for layer in model.layers:
        for x in keras.tree.flatten(layer.input):
            takers.setdefault(id(x), []).append(layer)
    given = {id(x) for x in keras.tree.flatten(model.output)}
    pairs = {}
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D) and id(layer.output) not in given:
            alone = takers.get(id(layer.output), ())
            if len(alone) == 1 and isinstance(alone[0], layers.BatchNormalization) and alone[0].axis in (-1, 3):
                pairs[layer.name] = alone[0]
    return pairs


def with_twins(model, norm_form, dtype):
    """A functional model again, of twins of its layers, and so with the models in it."""
    norms = norms_after(model)
    gone = {norm.name for norm in norms.values()}

    def call(layer, *args, **_):  # the rest is masks and flags of training
        if isinstance(layer, keras.Model):
            return with_twins(layer, norm_form, dtype)(*args)
        if layer.name in gone:
            return args[0]
        if layer.name in norms:
            return folded(layer, norms[layer.name])(*args)
        if type(layer) not in TWINS:
            twin = same(layer, layer.dtype_policy.name, layer.name)
            outputs = twin(*args)
            twin.set_weights(layer.get_weights())
            return outputs
        (x,) = args
        for twin, source in TWINS[type(layer)](layer, norm_form, dtype):
            x = twin(x)
            if hasattr(twin, "take_over"):
                twin.take_over(source)
            else:
                twin.set_weights(source.get_weights())
        return x

    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)


def on_twins(model, norm_form, dtype):
    """A model that calls its parts itself again, on its pyramid of twins."""
    numbers = {key: value for key, value in model.get_config().items() if key not in ("frozen", "changed")}
    made = type(model)(**{**numbers, "pyramid": with_twins(model.backbone, norm_form, dtype)})
    for part, source in zip(made.layers, model.layers, strict=True):
        if source is not model.backbone:
            part.set_weights(source.get_weights())
    return made


def require_deployable(model, dtype):
    """Raise SwinsError unless `deploy` can make this model, in a type of its layers; None is their own."""
    if not (isinstance(model, Recorded | RecordedParts) and hasattr(model, "policy")):
        raise SwinsError(
            "deploy takes a Swin, ResNet, SSD, UPerNet or Mask R-CNN of this package, as `create` makes; got "
            f"{type(model).__name__}"
        )
    floats(model, "deploy")
    own = {"epsilon"} if dtype else {"epsilon", "dtype"}
    other = [path for path, told in changes(model, model.made).items() if own & told.keys()]
    if other:
        raise SwinsError(
            f"deployed layers have one dtype and the papers' epsilon; got others in {', '.join(other[:3])}; set them "
            "back, or for dtypes pass dtype="
        )


def deploy(model, *, dtype=None, portable=False, name=None):
    """A model for inference only, with the numbers of a model of this package and less work -> keras.Model.

    It takes and gives what the model does, is saved as `.keras`, and has no trainable variables. Open sizes stay open.
    A block's table has a number for each pair of a window's tokens, head and kind of window: with 12 heads 0.1 MB for
    windows of 7, 16 MB for windows of 24, and four times that where windows are shifted.

    On TensorFlow its operations are oneDNN's, which TensorFlow leaves off on Windows and on x86 processors without the
    newer parts of AVX-512: set TF_ENABLE_ONEDNN_OPTS=1 in the environment before TensorFlow is imported, as the command
    line does, or it is slower than PyTorch. A warning says so, once a process.

    Args:
        model: a SwinTransformer, SwinTransformerV2 or SwinTransformerV2CR; a ResNet; an SSD, UPerNet,
            MaskRCNN or CascadeMaskRCNN on either, of which the latter two stay of their class.
        dtype: what its Swin's layers store and compute in, but for the head: "float32", "bfloat16" or "float16"; None
            for what the model's layers compute in. Other layers keep theirs.
        portable: use operations that ONNX, LiteRT and OpenVINO know and fuse, not those that TensorFlow does.
        name: of the new model; None keeps the model's.

    Low-rank adapters are merged into their kernels, and batch norms into the convolutions before them.

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
    require_deployable(model, dtype)
    dtype = dtype or keras.dtype_policies.get(model.policy).compute_dtype
    if dtype not in DTYPES:
        raise SwinsError(f"a deployed model is float32, bfloat16 or float16; got {dtype}")
    if any(adapted(layer) for _, layer in walk(model)):
        model = copy(model)
    if not portable:
        warn_without_onednn()
    form = "portable" if portable else "fused"
    if isinstance(model, RecordedParts):
        deployed = on_twins(model, form, dtype)
        deployed.trainable = False
        return deployed
    made = with_twins(model, form, dtype)
    outputs = made.output
    if isinstance(outputs, dict):  # without those that only training has
        outputs = {name: outputs[name] for name in model.compute_output_spec(model.inputs[0], training=False)}
    deployed = keras.Model(made.inputs[0], outputs, name=model_name(name) or model.name)
    deployed.trainable = False
    return deployed
