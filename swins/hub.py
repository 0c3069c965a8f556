"""Exported SavedModels as layers of Keras 3."""

import re

import keras
from keras import layers, ops

from swins.archives import find_saved_model
from swins.errors import SwinsError, first_line

INTERFACE = ("variables", "trainable_variables", "regularization_losses")


def load(handle):
    """The root object of a reusable SavedModel. Raises SwinsError if it is not one, or not under TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise SwinsError(
            f"SavedModels run under TensorFlow; Keras runs on {keras.backend.backend()}; "
            "set KERAS_BACKEND=tensorflow, or load the .keras file, which runs on all"
        )
    import tensorflow as tf

    folder = find_saved_model(handle)
    try:
        root = tf.saved_model.load(str(folder))
    except Exception as error:  # TensorFlow raises whatever a broken file leads it to
        raise SwinsError(f"{handle}: not a SavedModel that can be read ({first_line(error)[:300]})") from error
    if not (callable(root) and all(hasattr(root, name) for name in INTERFACE)):
        raise SwinsError(
            f"{handle}: not a reusable SavedModel (a callable with {', '.join(INTERFACE)}); `swins export` writes one"
        )
    return root


@keras.saving.register_keras_serializable("swins")
class HubLayer(layers.TFSMLayer):
    """An exported Swin as a layer: images (B, H, W, C), float32 and normalised -> logits or features, float32.

    Needs TensorFlow. All variables belong to the layer, so that it trains, and a `.keras` file keeps their values; what
    they mean it loads again through its handle. As that runs a graph of somebody's making, such files are opened with
    `keras.saving.load_model(path, safe_mode=False)` alone.

    Args:
        handle: a SavedModel's folder, its tar.gz, or the tar.gz's http(s) address, fetched once
            (cache: $SWINS_CACHE_DIR, else ~/.cache/swins). The last two may end in #sha256=DIGEST, which is checked.
        trainable: False runs it as in inference always.

    Raises:
        SwinsError: nothing there, or not a reusable SavedModel.
    """

    def __init__(self, handle, trainable=True, **kwargs):
        # of TFSMLayer only the safe mode is wanted: its variables have names that Adam refuses
        layers.Layer.__init__(self, trainable=trainable, autocast=False, **kwargs)
        self.handle = str(handle)
        self.root = load(handle)
        trained = {id(variable) for variable in self.root.trainable_variables}
        self.parameters = [
            keras.Variable(v, dtype=v.dtype.name, trainable=id(v) in trained, name=f"{i}_{re.sub('[/:]', '_', v.name)}")
            for i, v in enumerate(self.root.variables)
        ]
        self.built = True

    def call(self, images, training=False):
        return self.root(ops.cast(images, "float32"), training=bool(training and self.trainable))

    def get_config(self):
        config = layers.Layer.get_config(self)
        return {**{key: config[key] for key in ("name", "dtype", "trainable")}, "handle": self.handle}
