"""Time one export where nothing else runs: a process that takes turns. Imports swins for .keras files alone.

Run as a script: python -P timed_export.py FILE IMAGES.npy SECONDS
FILE is a .keras, .onnx, .tflite or .xml file or a SavedModel's folder; IMAGES (B, H, W, C) float32. It prints "ready"
when it has answered once, and for each line that it reads, the median seconds of its calls in a turn.
"""

import pathlib
import statistics
import sys
import time

import numpy as np

sys.path.append(str(pathlib.Path(__file__).parent))


def keras_file(path):
    import keras

    import swins  # noqa: F401 (its classes)

    return keras.saving.load_model(path, compile=False).predict_on_batch


def saved_model(path):
    import tensorflow as tf

    root = tf.saved_model.load(path)
    serve = root.signatures["serving_default"]
    return lambda images: (root, {name: y.numpy() for name, y in serve(images=tf.constant(images)).items()})


def runner(path):
    """A function of images, by what a path is."""
    from runtimes import RUNTIMES  # which lies beside this file

    return {**RUNTIMES, ".keras": keras_file, "": saved_model}[pathlib.Path(path).suffix](path)


def turn(run, images, seconds):
    """The median seconds of calls, of which one at first does not count."""
    run(images)
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        run(images)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    file, images, seconds = sys.argv[1:]
    images, run = np.load(images), runner(file)
    run(images)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(turn(run, images, float(seconds)), flush=True)
