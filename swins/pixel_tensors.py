"""Tensors of 8-bit pixels (h, w, c) or (B, h, w, c), that models' images are made of: checked, recoloured."""

from keras import ops

from swins.errors import SwinsError
from swins.pillow_resampling import of_tensorflow

LUMA = (19595, 38470, 7471)  # of red, green and blue in grey, of 65536: Pillow's integers
TAKES = {1: (1, 3, 4), 3: (1, 3, 4)}  # channels that are made into so many; of others only the same


def require_pixels(images):
    """Raise SwinsError unless a tensor is of uint8 pixels (h, w, c) or (B, h, w, c), with at least one in it."""
    dtype, shape = getattr(images.dtype, "name", str(images.dtype).rpartition(".")[2]), images.shape
    if dtype != "uint8":
        raise SwinsError(
            f"a tensor of pixels must be uint8, from 0 to 255; got {dtype}; round and cast levels from 0 to 255, after "
            "those from 0 to 1 were multiplied with 255"
        )
    if getattr(shape, "rank", 3) is None or len(shape) not in (3, 4) or 0 in tuple(shape):
        raise SwinsError(
            f"a tensor of pixels must be (height, width, channels), or such with a batch before, none of them 0; got "
            f"{shape}; tf.io.decode_image needs expand_animations=False"
        )


def require_channels(channels, wanted):
    """Raise SwinsError unless images of so many channels become images of as many as are wanted."""
    takes = TAKES.get(wanted, (wanted,))
    if channels not in takes and not (channels is None and wanted in TAKES):
        raise SwinsError(
            f"pixels for a model of {wanted} channels must have {' or '.join(map(str, takes))}, the last axis; got "
            f"{channels}; decode files with channels={wanted}"
        )


def known_channels(images):
    """Pixels uint8 of 3 channels, of a TensorFlow graph's that does not know yet which of TAKES they have."""
    import tensorflow as tf

    count = tf.shape(images)[-1]
    right = tf.reduce_any(tf.equal(count, TAKES[3]))
    with tf.control_dependencies([tf.debugging.Assert(right, ["pixels must have 1, 3 or 4 channels; got", count])]):
        return tf.gather(images, tf.where(tf.equal(count, 1), [0, 0, 0], [0, 1, 2]), axis=-1)


def recoloured(images, channels):
    """Pixels uint8 with so many channels, as Pillow makes grey and RGB of each other; transparency is dropped."""
    require_channels(images.shape[-1], channels)
    if images.shape[-1] is None:
        return recoloured(known_channels(images), channels)
    if images.shape[-1] == channels:
        return images
    colours = images[..., :3] if images.shape[-1] == 4 else images
    if channels == colours.shape[-1]:
        return colours
    if of_tensorflow(images):
        import tensorflow as tf

        if channels == 3:
            return tf.repeat(colours, 3, -1)
        levels = tf.reduce_sum(tf.cast(colours, "int32") * LUMA, -1, keepdims=True)
        return tf.cast(tf.bitwise.right_shift(levels + 0x8000, 16), "uint8")
    if channels == 3:
        return ops.repeat(colours, 3, -1)
    levels = ops.sum(ops.cast(colours, "int32") * ops.convert_to_tensor(LUMA, "int32"), -1, keepdims=True)
    return ops.cast(ops.right_shift(levels + 0x8000, 16), "uint8")
