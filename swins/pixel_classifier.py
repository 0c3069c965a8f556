"""One Keras model from pixels to probabilities: preparation, a classifier, and softmax."""

import keras

from swins.errors import SwinsError
from swins.pixel_tensors import recoloured, require_pixels


@keras.saving.register_keras_serializable("swins")
class PixelClassifier(keras.Model):
    """Photographs of any size, (B, h, w, C) uint8, to probabilities (B, num_classes), as one model that is saved.

    Args:
        classifier: prepared images (B, H, W, C) -> logits.
        preparation: a Preprocess.
        class_names: a name a class, in their order, or none.

    Raises:
        SwinsError: a model without a classifier, names of another number of classes; when called, pixels that are not
            uint8.

    Example:
    >>> from swins.creation import create
    >>> from swins.images import preprocess
    >>> swin = create("swin_mini_patch2_window4_28")
    >>> model = PixelClassifier(swin, preprocess(swin))
    >>> tuple(model(keras.ops.zeros((2, 100, 60, 1), "uint8")).shape)
    (2, 10)
    """

    def __init__(self, classifier, preparation, class_names=(), name=None):
        if len(getattr(classifier, "output_shape", ())) != 2:
            raise SwinsError(f"a classifier gives logits (B, classes); got {classifier!r}")
        count = classifier.output_shape[-1]
        if len(class_names) not in (0, count):
            raise SwinsError(f"class_names must be as many as logits; got {len(class_names)} and {count}")
        pixels = keras.Input((None, None, len(preparation.mean)), dtype="uint8", name="pixels")
        logits = classifier(preparation(pixels))
        probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(logits)
        super().__init__(pixels, probabilities, name=name or f"{classifier.name}_of_pixels")
        self.classifier, self.preparation, self.class_names = classifier, preparation, tuple(class_names)

    def __call__(self, images, *args, **kwargs):
        if not keras.utils.is_keras_tensor(images):
            images = keras.ops.convert_to_tensor(images)
        return super().__call__(self.coloured(images), *args, **kwargs)

    def call(self, images, training=None, mask=None):
        return super().call(self.coloured(images), training=training)  # which JAX's `predict` calls alone

    def coloured(self, images):
        """Pixels of as many channels as the model has. Raises SwinsError if they are no pixels."""
        require_pixels(images)
        return recoloured(images, len(self.preparation.mean))

    def get_config(self):
        parts = {"classifier": self.classifier, "preparation": self.preparation}
        parts = {key: keras.saving.serialize_keras_object(part) for key, part in parts.items()}
        return {**parts, "class_names": list(self.class_names), "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {key: keras.saving.deserialize_keras_object(config[key]) for key in ("classifier", "preparation")}
        return cls(**{**config, **parts})
