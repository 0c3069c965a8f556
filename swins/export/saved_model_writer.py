"""Reusable, fine-tunable SavedModels: what `hub.load` and `hub.KerasLayer(trainable=True)` expect.

TensorFlow only. Keras' own `Model.export` gives a SavedModel that is not callable, so the root object is built here.
"""

import functools

import keras

from swins.errors import SwinsError


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
    """The Preprocess as a TensorFlow function: one scalar of image bytes -> (H, W, C) float32.

    If `sized`, -> (that, (height, width) of the image in the file, int32).

    Decoding is Pillow's to the bit (measured: JPEG baseline and progressive, with every subsampling, grey, CMYK; PNG of
    every colour type; transparency is dropped and EXIF's rotation ignored, as there). So is grey of RGB. Resizing is
    TensorFlow's antialiased bicubic, the width and then the height with 8-bit pixels between, as Pillow's: about one
    pixel in a thousand is 1/255 from Pillow's (mean at most 0.007/255, over 16 sizes). Of some images that it makes
    lower, Pillow 13 scales the height first: mean up to 0.06/255, largest 2/255; of one-bit drawings one pixel in ten.

    Raises:
        SwinsError: for other channels than grey or RGB.
    """
    import tensorflow as tf

    height, width = preprocess.image_size
    channels = len(preprocess.mean)
    if channels not in (1, 3):
        raise SwinsError(f"image files are served as grey or RGB, 1 or 3 channels; got {channels}; leave them out")

    def decode(data):
        image = decode_rgb(data)
        if channels == 1:  # Pillow's integers
            image = tf.reduce_sum(tf.cast(image, "int32") * (19595, 38470, 7471), -1, keepdims=True)
            image = tf.bitwise.right_shift(image + 0x8000, 16)
        h, w = tf.shape(image)[0], tf.shape(image)[1]
        th, tw = size = preprocess.resize
        if preprocess.keep_ratio and th == tw:
            size = tf.cond(h <= w, lambda: (th, th * w // h), lambda: (tw * h // w, tw))
        elif preprocess.keep_ratio:
            ratio = tf.minimum(h / th, w / tw)
            size = [tf.cast(tf.round(tf.cast(side, "float64") / ratio), "int32") for side in (h, w)]
        for sides in ((h, size[1]), size):
            image = tf.image.resize(image, sides, method="bicubic", antialias=True)
            image = tf.clip_by_value(tf.floor(image + 0.5), 0.0, 255.0)
        top, left = (tf.cast(size[i] - side, "float32") / 2 for i, side in enumerate((height, width)))
        image = tf.image.crop_to_bounding_box(
            image, tf.cast(tf.round(top), "int32"), tf.cast(tf.round(left), "int32"), height, width
        )
        image = tf.ensure_shape((image / 255.0 - preprocess.mean) / preprocess.std, (height, width, channels))
        return (image, tf.stack([h, w])) if sized else image

    return decode


def save(model, preprocess, folder, output, everything=None, in_pixels=None, trains=True):
    """Write a model as a reusable SavedModel.

    The root is callable as `root(images, training=False)` and has `variables`, `trainable_variables` and
    `regularization_losses`. Signatures: `serving_default` takes `images` (B, H, W, C) float32, normalised;
    `serving_bytes` takes `image_bytes` (B,), files that `decode_rgb` reads. Both give {name: output}. With `everything`
    `all_outputs` takes `images` and gives what it does.

    Args:
        model: images -> a tensor, or {name: tensor}.
        preprocess: the Preprocess that `serving_bytes` applies; None leaves that signature out.
        folder: where the SavedModel is written.
        output: name of the signatures' output, where the model gives a tensor.
        everything: a function of images -> {name: tensor}; None leaves that signature out.
        in_pixels: ({name: output}, sizes (B, 2) of the images in the files) -> what `serving_bytes` gives; None for
            the outputs as they are.
        trains: whether it can be trained; else no variable is trainable.
    """
    require_tensorflow()
    import tensorflow as tf

    images = tf.TensorSpec((None, *model.input.shape[1:]), tf.float32, name="images")
    graph = functools.partial(tf.function, autograph=False)  # layers and decoder need no rewriting

    @graph
    def call(images, training=False):
        return model(images, training=training)

    infer, _ = (call.get_concrete_function(images, training=training) for training in (False, True))

    def named(outputs):
        return dict(outputs) if isinstance(outputs, dict) else {output: outputs}

    @graph(input_signature=[images])
    def serving_default(images):
        return named(infer(images))

    signatures = {"serving_default": serving_default}
    if everything:
        signatures["all_outputs"] = graph(everything, input_signature=[images])
    if preprocess:
        decode = decoder(preprocess, sized=True)

        @graph(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
        def serving_bytes(image_bytes):
            images, sizes = tf.map_fn(decode, image_bytes, fn_output_signature=(tf.float32, tf.int32))
            outputs = named(infer(images))
            return in_pixels(outputs, sizes) if in_pixels else outputs

        signatures["serving_bytes"] = serving_bytes
    # concrete ones: while it saves, TensorFlow would trace any other anew
    signatures = {name: function.get_concrete_function() for name, function in signatures.items()}
    root = tf.train.Checkpoint()  # the public trackable whose attributes may be set freely
    root.__call__ = call
    root.variables = [v.value for v in model.variables]
    root.trainable_variables = [v.value for v in model.trainable_variables] if trains else []
    root.regularization_losses = []
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # not where it lies on its way to its place
    try:
        tf.saved_model.save(root, str(folder), signatures=signatures)
    finally:
        logger.setLevel(level)
