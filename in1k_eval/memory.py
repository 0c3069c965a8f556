"""Peak memory of attention in chunks and of gradient checkpointing -> in1k_eval/memory.csv.

Each number is a process of its own: what its resident memory grew by, at most, while one compiled step ran under
TensorFlow, after the model was built.
Command: make memory, or python in1k_eval/memory.py.
"""

import csv
import json
import os
import pathlib
import subprocess
import sys

TABLE = pathlib.Path(__file__).with_name("memory.csv")
LARGE = {"window_size": 32, "image_size": 512, "batch": 1}  # windows of 1,024 tokens
CASES = {
    "window 32": ("SwinTransformerV2CR", LARGE),
    "window 32, query_chunk=64": ("SwinTransformerV2CR", {**LARGE, "query_chunk": 64}),
    "window 32, remat": ("SwinTransformerV2CR", {**LARGE, "remat": True}),
    "window 32, query_chunk=64, remat": ("SwinTransformerV2CR", {**LARGE, "query_chunk": 64, "remat": True}),
    "window 7": ("SwinTransformer", {"batch": 8}),
    "window 7, remat": ("SwinTransformer", {"batch": 8, "remat": True}),
}
STEP = """
import json, resource, sys
import numpy as np, tensorflow as tf, swins

family, options, training = json.loads(sys.argv[1])
batch = options.pop("batch")
model = getattr(swins, family)(**options, drop_path_rate=0.0, num_classes=10)
images = tf.zeros((batch, *model.input.shape[1:]))


@tf.function
def step():
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(model(images, training=training))
    if not training:
        return y
    return sum(tf.reduce_sum(g) for g in tape.gradient(y, model.trainable_variables))  # no gradient outlives its use


run = step.get_concrete_function()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def peak(family, options, training):
    """MiB that one compiled step takes."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STEP, json.dumps([family, options, training])],
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return round(float(done.stdout.split()[-1]))


def main():
    rows = []
    for name, (family, options) in CASES.items():
        rows.append(
            {
                "model": family,
                "case": name,
                "images": options["batch"],
                "forward_MiB": peak(family, options, False),
                "training_step_MiB": peak(family, options, True),
            }
        )
        print(rows[-1], file=sys.stderr)
    with open(TABLE, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
