"""Load SavedModels where swins is not, run them and save what they give. Imports nothing of swins or Keras.

Usage: python -P run_saved_models.py SECONDS, as swins/processes/forked_answers.py describes. A request names the
`parts` (SavedModels) of a `folder`, the folder of their `inputs` with a PART.npz each (its inputs by name, images alone
or others too) and `encoded`, a JSON list of base64 files. For each, PART.npz in the folder `out` gets the outputs of
the call and of all signatures, and how many trainable variables have a gradient in training mode.
"""

import base64
import json
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "processes"))
from forked_answers import serve

sys.path.pop(0)


def arrays(signature, outputs):
    """{"signature/name": array} of named outputs, texts as UTF-8's."""
    values = {f"{signature}/{name}": y.numpy() for name, y in outputs.items()}
    return {key: np.char.decode(y.astype("S"), "utf-8") if y.dtype == object else y for key, y in values.items()}


def run(folder, inputs, encoded, out):
    """One SavedModel -> its .npz."""
    import tensorflow as tf

    with np.load(inputs) as file:
        inputs = {name: tf.constant(array) for name, array in file.items()}
    images = inputs["images"] if list(inputs) == ["images"] else inputs  # what the model is called with
    encoded = [base64.b64decode(text) for text in json.loads(pathlib.Path(encoded).read_text())]
    model = tf.saved_model.load(folder)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
    default = model.signatures["serving_default"](**inputs)
    results = arrays("serving_default", default)
    if "serving_bytes" in model.signatures:
        results |= arrays("serving_bytes", model.signatures["serving_bytes"](image_bytes=tf.constant(encoded)))
    if "all_outputs" in model.signatures:
        results |= arrays("all_outputs", model.signatures["all_outputs"](images=images[:1]))
    # what a server runs is optimised; the other graphs run once, for which that takes too long
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    called = model(images)
    results |= arrays("call", called if isinstance(called, dict) else dict.fromkeys(default, called))
    model(images, training=True)
    trained = model.trainable_variables
    np.savez(
        out,
        trainable=len(trained),
        gradients=gradients_of(model, images, trained) if trained else 0,
        swins="swins" in sys.modules,
        **results,
    )


def gradients_of(model, images, variables):
    """How many variables the outputs in training mode have a gradient of; its graph is built and not run."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def gradients():
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(model(images, training=True))
            loss = tf.add_n([tf.reduce_mean(tf.square(y)) for y in outputs if y.dtype.is_floating])
        return [gradient for gradient in tape.gradient(loss, variables) if gradient is not None]

    return len(gradients.get_concrete_function().structured_outputs)


def answer(request):
    """Run every SavedModel of a request."""
    for part in request["parts"]:
        inputs, out = (f"{request[place]}/{part}.npz" for place in ("inputs", "out"))
        run(f"{request['folder']}/{part}", inputs, request["encoded"], out)


if __name__ == "__main__":
    serve(answer, *(["tensorflow"] if sys.platform == "linux" else []))  # elsewhere its plugins bear no fork
