"""Reusable, fine-tunable SavedModels: what `hub.load` and `hub.KerasLayer(trainable=True)` expect.

TensorFlow only. Keras' own `Model.export` gives a SavedModel that is not callable, so the root object is built here.
"""

import functools

import keras

from swins.errors import SwinsError
from swins.exports.image_scaling import scaling
from swins.task import Part


def require_tensorflow(target="SavedModel"):
    """Raise SwinsError unless Keras runs on TensorFlow, which writes SavedModels and what is made from them."""
    if keras.backend.backend() != "tensorflow":
        raise SwinsError(
            f"{target} is written under TensorFlow; Keras runs on {keras.backend.backend()}; "
            "set KERAS_BACKEND=tensorflow (a .keras file moves between backends)"
        )


def decode_rgb(data):
    """A scalar of JPEG, PNG, WebP or 24-bit BMP bytes -> (H, W, 3) uint8, equal to Pillow's `convert("RGB")`.

    TensorFlow reads other files in ways of its own (GIF's transparency, BMP's palettes, 16-bit grey), so they are
    refused, as is a WebP with transparency: InvalidArgumentError.
    """
    import tensorflow as tf

    head = tf.strings.join([tf.strings.substr(data, 0, 32), bytes(32)])  # an end that every slice lies before
    jpeg = tf.io.is_jpeg(data)
    png = tf.equal(tf.strings.substr(head, 0, 4), b"\x89PNG")
    deep = png & tf.equal(tf.strings.substr(head, 24, 2), b"\x10\x00")  # 16 bits, grey
    webp = tf.equal(tf.strings.substr(head, 0, 4), b"RIFF")
    bmp = tf.equal(tf.strings.substr(head, 0, 2), b"BM") & tf.equal(tf.strings.substr(head, 28, 2), b"\x18\x00")
    exact = jpeg | (png & ~deep) | webp | bmp
    rule = "image_bytes must be JPEG, PNG, WebP or 24-bit BMP, and not 16-bit grey; save the image as 8-bit PNG"
    with tf.control_dependencies([tf.debugging.Assert(exact, [rule])]):
        data = tf.identity(data)
    return tf.cond(
        jpeg,
        lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),  # Pillow's; the default is faster
        lambda: tf.io.decode_image(data, channels=3, expand_animations=False),
    )


def decoder(preprocess, sized=False):
    """A preparation as a TensorFlow function: one scalar of image bytes -> (H, W, C) float32.

    If `sized`, -> (that, (height, width) of the image in the file, int32).

    Decoding is Pillow's to the bit (measured: JPEG baseline and progressive, with every subsampling, grey, CMYK; PNG of
    every colour type; transparency is dropped and EXIF's rotation ignored, as there). So is grey of RGB. How images are
    scaled is `swins.exports.image_scaling`'s.

    Raises:
        SwinsError: for other channels than grey or RGB.
    """
    import tensorflow as tf

    height, width = preprocess.image_size
    channels, scale = len(preprocess.mean), scaling(preprocess)
    if channels not in (1, 3):
        raise SwinsError(f"image files are served as grey or RGB, 1 or 3 channels; got {channels}; leave them out")

    def decode(data):
        image = decode_rgb(data)
        if channels == 1:  # Pillow's integers
            image = tf.reduce_sum(tf.cast(image, "int32") * (19595, 38470, 7471), -1, keepdims=True)
            image = tf.bitwise.right_shift(image + 0x8000, 16)
        size = tf.shape(image)[:2]
        image, shown = scale(image, preprocess)
        image = tf.where(shown, (image / 255.0 - preprocess.mean) / preprocess.std, 0.0)
        image = tf.ensure_shape(image, (height, width, channels))
        return (image, size) if sized else image

    return decode


def specs_of(model, size=None):
    """TensorFlow's specs of a model's inputs: of images alone, or {name: spec} of more.

    size: (height, width) in pixels that all images have; None for what the model takes.
    """
    import tensorflow as tf

    if not isinstance(model.input, dict):
        *sides, channels = model.input.shape[1:]
        return tf.TensorSpec((None, *(size or sides), channels), tf.float32, name="images")
    return {name: tf.TensorSpec((None, *x.shape[1:]), x.dtype, name=name) for name, x in model.input.items()}


def save(model, preprocess, folder, part, size=None):
    """Write a model as a reusable SavedModel.

    The root is callable as `root(images, training=False)` and has `variables`, `trainable_variables` and
    `regularization_losses`. Signatures: `serving_default` takes `images` (B, H, W, C) float32, normalised;
    `serving_bytes` takes `image_bytes` (B,), files that `decode_rgb` reads. Both give {name: output}, of files as the
    Part says. A model of more than images is called with {name: tensor}, and so is `serving_default`. Further
    signatures are the Part's: `all_outputs` of images, where there is `everything`, and those of `further`.

    Args:
        model: images, or {name: tensor} -> a tensor, or {name: tensor}.
        preprocess: the preparation that `serving_bytes` applies; None leaves that signature out.
        folder: where the SavedModel is written.
        part: the Part that it is, or a trainable model's output name; a Part that does not train has no trainable
            variable.
        size: (height, width) in pixels that all images have; None for what the model takes.
    """
    require_tensorflow()
    import tensorflow as tf

    part = Part(part, lambda: model) if isinstance(part, str) else part
    images = specs_of(model, size)
    # signatures are concrete: while it saves, TensorFlow would trace any other anew
    graph = functools.partial(tf.function, autograph=False)  # layers and decoder need no rewriting

    infer = graph(lambda images: model(images, training=False)).get_concrete_function(images)
    train = graph(lambda images: model(images, training=True)).get_concrete_function(images) if part.trains else infer

    @graph
    def call(images, training=False):  # while it is saved, TensorFlow traces it anew: it only calls
        return train(images) if training else infer(images)

    for training in (False, True):
        call.get_concrete_function(images, training=training)

    def named(outputs):
        return dict(outputs) if isinstance(outputs, dict) else {part.output: outputs}

    @graph
    def serving_default(**inputs):
        return named(infer(inputs if isinstance(images, dict) else inputs["images"]))

    of_name = images if isinstance(images, dict) else {"images": images}
    signatures = {"serving_default": serving_default.get_concrete_function(**of_name)}
    if part.everything:
        signatures["all_outputs"] = graph(part.everything(), input_signature=[images]).get_concrete_function()
    for name, (function, specs) in (part.further(model) if part.further else {}).items():
        specs = {key: tf.TensorSpec(shape, dtype, name=key) for key, (shape, dtype) in specs.items()}
        signatures[name] = graph(function).get_concrete_function(**specs)
    if preprocess:
        decode = decoder(preprocess, sized=True)

        @graph(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
        def serving_bytes(image_bytes):
            images, sizes = tf.map_fn(decode, image_bytes, fn_output_signature=(tf.float32, tf.int32))
            outputs = named(infer(images))
            return part.of_files(outputs, sizes) if part.of_files else outputs

        signatures["serving_bytes"] = serving_bytes.get_concrete_function()
    root = tf.train.Checkpoint()  # the public trackable whose attributes may be set freely
    root.__call__ = call
    root.variables = [v.value for v in model.variables]
    root.trainable_variables = [v.value for v in model.trainable_variables] if part.trains else []
    root.regularization_losses = []
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # not where it lies on its way to its place
    try:
        tf.saved_model.save(root, str(folder), signatures=signatures)
    finally:
        logger.setLevel(level)
