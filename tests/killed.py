"""Runs of the same recipe, one undisturbed, one killed again and again: python tests/killed.py DATA OUT SEED.

Each part of a run is a fork of this process, which has imported what it needs and computed nothing. Prints both logs.
"""

import json
import os
import pathlib
import random
import signal
import sys

import keras

from swins.recipes import AdamW, Cosine
from swins.tasks.classification import Augment, Classification, Data, Model
from swins.train import loop

KILLS = 5
RECIPE = Classification(
    model=Model(
        "swin_mini_patch2_window4_28.fashion_mnist",
        depths=(2,),
        num_heads=(1,),
        embed_dim=16,
        drop_rate=0.1,
        drop_path_rate=0.2,
        compile=False,  # ten processes would wait for XLA
    ),
    data=Data(batch=50, crop=1.0, threads=2),
    augment=Augment(scale=(0.5, 1.0), pad=1, rand_augment="rand-m5-mstd0.5-inc1", erase=0.1, mixup=0.2, cutmix=0.2),
    optim=AdamW(learning_rate=1e-3, per_images=0, ema=0.9, clip_norm=1.0),
    schedule=Cosine(warmup_epochs=1),
    epochs=4,
    checkpoint_steps=2,
    deterministic=True,
)


def die():
    """End as by a power cut."""
    os.kill(os.getpid(), signal.SIGKILL)


class Killed(loop.Progress):
    """Progress that ends the process after so many batches."""

    after = None

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        Killed.after -= 1
        if not Killed.after:
            die()


def killed_while_writing(start):
    """Keras' saving, which ends the process when half a file of a name is written."""
    save = keras.Model.save

    def half(self, path, **options):
        save(self, path, **options)
        if path.name.startswith(start):
            os.truncate(path, path.stat().st_size // 2)
            die()

    keras.Model.save = half


def part(data, out, when=None):
    """Train in a fork, which is killed -> how it ended.

    Args:
        when: after so many batches, in a "validation", or while a file is written, by the start of its name.
    """
    child = os.fork()
    if not child:
        if isinstance(when, int):
            loop.Progress, Killed.after = Killed, when
        elif when == "validation":
            loop.Progress.heed = lambda progress: die()  # after the first batch of a validation
        elif when:
            killed_while_writing(when)
        loop.train(RECIPE, data, out, say=lambda text: None)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(data, out, seed):
    rng, out = random.Random(int(seed)), pathlib.Path(out)
    ends = [part(data, out / "whole")]
    batches = [rng.randint(1, 3) for _ in range(KILLS)]
    ends += [part(data, out / "killed", when) for when in ("validation", ".best", *batches, ".model")]
    made = sorted(path.name for path in (out / "killed").glob("[!.]*.keras"))
    ends.append(part(data, out / "killed"))
    rows = [(out / name / "log.csv").read_text() for name in ("whole", "killed")]
    results = [json.loads((out / name / "result.json").read_text()) for name in ("whole", "killed")]
    print(json.dumps({"ends": ends, "made": made, "logs": rows, "results": results}))


if __name__ == "__main__":
    main(*sys.argv[1:])
