"""ONNX files of a model: the graph is converted without its weights, which then become the file's initializers.

tf2onnx copies every constant for each of its dozen optimizers, again and again, and TensorFlow for each of its own: the
weights of a Swin-T, 113 MB, took 6 GB. No optimizer reads them; what is small, tables and masks, they fold as before.
"""

import contextlib
import os

import keras
import numpy as np

from swins.errors import SwinsError

OPSET = 17  # of ONNX
LARGEST = 2**31 - 1  # bytes of a protocol buffer
LEAST = 2**16  # bytes of a weight that stays outside of the conversion


@contextlib.contextmanager
def uncopied():
    """tf2onnx optimises its graph itself, not a copy for each of its optimizers, which takes half of its time."""
    from tf2onnx.constants import ENV_TF2ONNX_CATCH_ERRORS as NAME

    before = os.environ.get(NAME)
    os.environ[NAME] = "FALSE"
    try:
        yield
    finally:
        del os.environ[NAME]
        if before is not None:
            os.environ[NAME] = before


def converted(function, signature):
    """tf2onnx's graph of a function; where one of its optimizers fails, the one without what that has done."""
    import tf2onnx

    try:
        with uncopied():
            return tf2onnx.convert.from_function(function, signature, opset=OPSET)[0]
    except Exception:  # an optimizer's, whatever it is, or one of the conversion, which is raised again
        return tf2onnx.convert.from_function(function, signature, opset=OPSET)[0]


def graph_of(model, output):
    """(ONNX graph that takes `images` and the large weights by name, {name: array} of these)."""
    import tensorflow as tf

    variables = [*model.trainable_variables, *model.non_trainable_variables]
    arrays = [keras.ops.convert_to_numpy(variable) for variable in variables]
    outside = [i for i, array in enumerate(arrays) if array.dtype == "float32" and array.nbytes >= LEAST]
    names = [variables[i].path for i in outside]

    def call(images, *weights):
        values = [tf.constant(array) if array.nbytes < LEAST else None for array in arrays]
        for i, weight in zip(outside, weights, strict=True):
            values[i] = weight
        count = len(model.trainable_variables)
        outputs, _ = model.stateless_call(values[:count], values[count:], images, training=False)
        return dict(outputs) if isinstance(outputs, dict) else {output: outputs}

    signature = [tf.TensorSpec((None, *model.input.shape[1:]), tf.float32, name="images")]
    signature += [tf.TensorSpec(arrays[i].shape, tf.float32, name=name) for i, name in zip(outside, names, strict=True)]
    function = tf.function(call, input_signature=signature, autograph=False)
    return converted(function, signature), {name: arrays[i] for i, name in zip(outside, names, strict=True)}


def convert(model, output):
    """A model as an ONNX protocol buffer: images -> output, batch and open sides dynamic.

    Raises:
        SwinsError: for a model that is too large for one.
    """
    import onnx

    proto, weights = graph_of(model, output)
    size = proto.ByteSize() + sum(array.nbytes for array in weights.values())
    if size > LARGEST:
        raise SwinsError(f"an ONNX file holds at most 2 GiB; got {size:,} bytes; take a smaller variant")
    images = [value for value in proto.graph.input if value.name not in weights]
    used = {value.name for value in proto.graph.input}
    del proto.graph.input[:]
    proto.graph.input.extend(images)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in weights.items() if name in used
    )
    for value in (*proto.graph.input, *proto.graph.output):
        for side, name in zip(value.type.tensor_type.shape.dim, ("batch", "height", "width"), strict=False):
            if side.dim_param:
                side.dim_param = name
    return proto


def halve(proto, least=256):
    """Store an ONNX graph's float32 constants of at least so many values in float16, each behind a Cast."""
    import onnx

    casts = []
    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < least:
            continue
        name, half = tensor.name, values.astype("float16")
        if not np.isfinite(half).all():
            continue
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}_float16"))
        casts.append(
            onnx.helper.make_node("Cast", [f"{name}_float16"], [name], f"{name}_cast", to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
