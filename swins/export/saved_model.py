"""Reusable, fine-tunable SavedModels: what `hub.load` and `hub.KerasLayer(trainable=True)` expect.

TensorFlow only. Keras' own `Model.export` gives a SavedModel that is not callable, so the root object is built here.
"""

import functools

import keras

from swins.attention import blocks_of
from swins.errors import SwinsError


def require_tensorflow(target="SavedModel"):
    """Raise SwinsError unless Keras runs on TensorFlow, which writes SavedModels and what is made from them."""
    if keras.backend.backend() != "tensorflow":
        raise SwinsError(
            f"{target} is written under TensorFlow; Keras runs on {keras.backend.backend()}; "
            "set KERAS_BACKEND=tensorflow (a .keras file moves between backends)"
        )


def features(model):
    """The model without its head: images -> pooled features (B, C)."""
    return keras.Model(model.input, model.get_layer("pool").output, name=f"{model.name}_fe")


def everything(model):
    """All outputs of a classifier in one pass -> a function of images.

    images (B, H, W, C) -> {"logits": (B, classes), "features": (B, C'), "attention_stage0_block0": (B, K, heads, N, N),
    ...}; without logits where the model has no classifier.
    """
    blocks = blocks_of(model)
    inputs = [block.input for block in blocks.values()]
    trunk = keras.Model(model.input, [model.output, model.get_layer("pool").output, *inputs])

    def call(images):
        logits, pooled, *maps = trunk(images, training=False)
        outputs = {"logits": logits} if model.variant.num_classes else {}
        outputs["features"] = pooled
        for (name, block), x in zip(blocks.items(), maps, strict=True):
            key = "attention_" + name.replace("stage_", "stage").replace("/block_", "_block")
            outputs[key] = keras.ops.cast(block.scores(x), "float32")
        return outputs

    return call


def decoder(preprocess):
    """The Preprocess as a TensorFlow function: one scalar of JPEG or PNG bytes -> (H, W, C) float32.

    Resampling is TensorFlow's antialiased bicubic, on average 0.3/255 from Pillow's.
    """
    import tensorflow as tf

    height, width = preprocess.image_size
    channels = len(preprocess.mean)

    def decode(data):
        image = tf.io.decode_image(data, channels=channels, expand_animations=False)
        h, w = tf.shape(image)[0], tf.shape(image)[1]
        th, tw = size = preprocess.resize
        if preprocess.keep_ratio and th == tw:
            size = tf.cond(h <= w, lambda: (th, th * w // h), lambda: (tw * h // w, tw))
        elif preprocess.keep_ratio:
            ratio = tf.minimum(h / th, w / tw)
            size = [tf.cast(tf.round(tf.cast(side, "float64") / ratio), "int32") for side in (h, w)]
        image = tf.image.resize(image, size, method="bicubic", antialias=True)
        image = tf.clip_by_value(tf.round(image), 0.0, 255.0)
        top, left = (tf.cast(size[i] - side, "float32") / 2 for i, side in enumerate((height, width)))
        image = tf.image.crop_to_bounding_box(
            image, tf.cast(tf.round(top), "int32"), tf.cast(tf.round(left), "int32"), height, width
        )
        image = (image / 255.0 - preprocess.mean) / preprocess.std
        return tf.ensure_shape(image, (height, width, channels))

    return decode


def save(model, preprocess, folder, output, complete=None):
    """Write a model as a reusable SavedModel.

    The root is callable as `root(images, training=False)` and has `variables`, `trainable_variables` and
    `regularization_losses`. Signatures: `serving_default` takes `images` (B, H, W, C) float32, normalised;
    `serving_bytes` takes `image_bytes` (B,), JPEG or PNG. Both give {output: ...}. With `complete`, `all_outputs` takes
    `images` and gives logits, features and each block's attention, as `everything` does.

    Args:
        model: images -> one tensor.
        preprocess: the Preprocess that `serving_bytes` applies; None leaves that signature out.
        folder: where the SavedModel is written.
        output: name of the signatures' output, "logits" or "features".
        complete: the whole Swin whose outputs `all_outputs` gives; None leaves that signature out.
    """
    require_tensorflow()
    import tensorflow as tf

    images = tf.TensorSpec((None, *model.input.shape[1:]), tf.float32, name="images")
    graph = functools.partial(tf.function, autograph=False)  # layers and decoder need no rewriting

    @graph
    def call(images, training=False):
        return model(images, training=training)

    infer, _ = (call.get_concrete_function(images, training=training) for training in (False, True))

    @graph(input_signature=[images])
    def serving_default(images):
        return {output: infer(images)}

    signatures = {"serving_default": serving_default}
    if complete:
        signatures["all_outputs"] = graph(everything(complete), input_signature=[images])
    if preprocess:
        decode = decoder(preprocess)

        @graph(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
        def serving_bytes(image_bytes):
            return {output: infer(tf.map_fn(decode, image_bytes, fn_output_signature=tf.float32))}

        signatures["serving_bytes"] = serving_bytes
    # concrete ones: while it saves, TensorFlow would trace any other anew
    signatures = {name: function.get_concrete_function() for name, function in signatures.items()}
    root = tf.train.Checkpoint()  # the public trackable whose attributes may be set freely
    root.__call__ = call
    root.variables = [v.value for v in model.variables]
    root.trainable_variables = [v.value for v in model.trainable_variables]
    root.regularization_losses = []
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # not where it lies on its way to its place
    try:
        tf.saved_model.save(root, str(folder), signatures=signatures)
    finally:
        logger.setLevel(level)
