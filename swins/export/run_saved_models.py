"""Load SavedModels where swins is not, run them and save what they give. Imports nothing of swins or Keras.

Run as a script: python -P run_saved_models.py FOLDER IMAGES.npy BYTES.json OUT SAVED_MODEL...
IMAGES is a batch; BYTES a JSON list of base64 files. For each SAVED_MODEL below FOLDER, OUT/SAVED_MODEL.npz gets the
outputs of the call and all signatures, and how many trainable variables have a gradient in training mode.
"""

import base64
import json
import pathlib
import sys

import numpy as np
import tensorflow as tf


def run(folder, images, encoded, out):
    """One SavedModel -> its .npz."""
    images = tf.constant(np.load(images))
    encoded = [base64.b64decode(text) for text in json.loads(pathlib.Path(encoded).read_text())]
    model = tf.saved_model.load(folder)
    (default,) = model.signatures["serving_default"](images=images).values()
    served = []
    if "serving_bytes" in model.signatures:
        served = [y.numpy() for y in model.signatures["serving_bytes"](image_bytes=tf.constant(encoded)).values()]
    complete = {}
    if "all_outputs" in model.signatures:
        complete = {
            f"all_outputs/{k}": y.numpy() for k, y in model.signatures["all_outputs"](images=images[:1]).items()
        }
    gradients, trained = [], model.trainable_variables
    if trained:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(images, training=True)))
        gradients = tape.gradient(loss, trained)
    else:
        model(images, training=True)
    np.savez(
        out,
        call=model(images).numpy(),
        serving_default=default.numpy(),
        serving_bytes=served[0] if served else [],
        trainable=len(trained),
        gradients=sum(g is not None for g in gradients),
        swins="swins" in sys.modules,
        **complete,
    )


if __name__ == "__main__":
    folder, images, encoded, out, *parts = sys.argv[1:]
    for part in parts:
        run(f"{folder}/{part}", images, encoded, f"{out}/{part}.npz")
