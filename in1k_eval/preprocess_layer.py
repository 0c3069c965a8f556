"""Preprocess as a layer beside Pillow and timm, wherever it runs -> in1k_eval/preprocess_layer.csv.

Command: make preprocessing, or python in1k_eval/preprocess_layer.py FOLDER_OF_IMAGES. Differences are of pixels, in
units of 1/255: normalised values are scaled back by the standard deviation. Pillow's way is that of files.
"""

import csv
import os
import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np

from swins.image_files import open_image
from swins.images import preprocess
from swins.reference import oracle

TABLE = pathlib.Path(__file__).with_name("preprocess_layer.csv")
NAME = "swin_tiny_patch4_window7_224"


def arrays(files):
    """The photographs' pixels, (h, w, 3) uint8 each."""
    return [np.asarray(open_image(file).convert("RGB")) for file in files]


def layer(prepare, files):
    """The layer on a backend's tensors, an image at a time."""
    return [keras.ops.convert_to_numpy(prepare(keras.ops.convert_to_tensor(pixels))) for pixels in arrays(files)]


def grain_map(prepare, files):
    """In grain's map."""
    import grain

    return list(grain.MapDataset.source(arrays(files)).map(prepare))


def tf_data(prepare, files):
    """In tf.data's map, files decoded there."""
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices([str(file) for file in files])
    data = data.map(lambda file: tf.io.decode_image(tf.io.read_file(file), channels=3, expand_animations=False))
    return list(data.map(prepare).as_numpy_iterator())


def passing(prepare):
    """A model that gives the images that it is given."""
    images = keras.Input((*prepare.image_size, len(prepare.mean)))
    return keras.Model(images, keras.layers.Identity()(images))


def saved_model(prepare, files):
    """In a SavedModel's serving_bytes."""
    import tensorflow as tf

    from swins.exports import saved_model_writer

    with tempfile.TemporaryDirectory() as folder:
        saved_model_writer.save(passing(prepare), prepare, folder, "images")
        root = tf.saved_model.load(folder)
        serve = root.signatures["serving_bytes"]
        return [serve(image_bytes=tf.constant([file.read_bytes()]))["images"].numpy()[0] for file in files]


def exported(prepare, files):
    """In a Keras model that its own `export` wrote."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        keras.Sequential([keras.Input((None, None, 3), dtype="uint8"), prepare]).export(folder, verbose=False)
        root = tf.saved_model.load(folder)
        return [root.serve(pixels[None]).numpy()[0] for pixels in arrays(files)]


WAYS = {  # (title, backend): function
    ("files", "tensorflow"): lambda prepare, files: prepare(list(files)),
    ("layer", "tensorflow"): layer,
    ("layer", "jax"): layer,
    ("layer", "torch"): layer,
    ("grain", "tensorflow"): grain_map,
    ("tf.data", "tensorflow"): tf_data,
    ("tf.data", "jax"): tf_data,
    ("SavedModel, serving_bytes", "tensorflow"): saved_model,
    ("Keras' export", "tensorflow"): exported,
}


def difference(ours, theirs, std):
    """(mean, largest) in units of 1/255."""
    apart = np.abs(ours - theirs) * np.float32(std) * 255
    return f"{float(apart.mean()):.1g}", f"{float(apart.max()):.1g}"


def main(folder, only=None, target=None):
    files = sorted(p for p in pathlib.Path(folder).iterdir() if p.suffix in (".png", ".jpg"))
    prepare = preprocess(NAME)
    if only:  # one way, under the backend of this process
        np.save(target, np.stack(WAYS[only, keras.backend.backend()](prepare, files)))
        return
    with oracle.ask("transform", architecture=NAME, protocol="timm", files=[str(f) for f in files]) as results:
        timm = np.load(results / "images.npy")
    pillow = prepare(list(files))
    rows = [["where", "backend", "images", "mean", "largest", "timm_mean", "timm_largest"]]
    with tempfile.TemporaryDirectory() as scratch:
        for title, backend in WAYS:
            path = pathlib.Path(scratch) / "images.npy"
            environment = {**os.environ, "KERAS_BACKEND": backend}
            subprocess.run([sys.executable, __file__, folder, title, str(path)], check=True, env=environment)
            ours = np.load(path)
            apart = [*difference(ours, pillow, prepare.std), *difference(ours, timm, prepare.std)]
            rows.append([title, backend, len(files), *apart])
            print(*rows[-1], sep="\t", flush=True)
    with open(TABLE, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
