"""Peak memory of exports: what the exporting process had resident, at most -> lines on standard output.

Each number is a process of its own, which exports a .keras file of the variant, on weights moved at random, to one kind
of file; the processes that try the file are not counted.
Command: python in1k_eval/export_memory.py [NAME] (default swin_tiny_patch4_window7_224; about 5 minutes).
"""

import os
import pathlib
import subprocess
import sys
import tempfile

TARGETS = ("onnx", "litert", "openvino", "saved_model")
MAKE = """
import sys
import numpy as np
import swins

model, rng = swins.create(sys.argv[1]), np.random.default_rng(0)
for variable in model.trainable_variables:
    variable.assign_add(0.02 * rng.standard_normal(variable.shape, dtype="float32"))
model.save(sys.argv[2])
"""
EXPORT = """
import resource, sys
from swins.cli import main

code = main(["export", sys.argv[1], "--to", sys.argv[2], "-o", sys.argv[3]])
print(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
sys.exit(code)
"""


def run(script, *arguments):
    """Standard output of a script in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return done.stdout


def main(name="swin_tiny_patch4_window7_224"):
    with tempfile.TemporaryDirectory() as temporary:
        place = pathlib.Path(temporary)
        run(MAKE, name, place / "model.keras")
        for target in TARGETS:
            lines = run(EXPORT, place / "model.keras", target, place / target).splitlines()
            print(f"{name}, {target}: {int(lines[-1]):,} MiB; {lines[0].partition(': ')[2]}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
