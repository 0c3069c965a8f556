"""Runs of the same recipe, one undisturbed, one killed again and again: python tests/killed.py DATA OUT SEED.

Each part of a run is a fork of this process, which has imported what it needs and computed nothing. Prints both logs.
"""

import json
import os
import pathlib
import random
import signal
import sys

from swins.train import run
from swins.train.recipe import Augment, Data, Model, Optim, Recipe

KILLS = 5
RECIPE = Recipe(
    model=Model(
        "swin_mini_patch2_window4_28.fashion_mnist", depths=(1, 1), embed_dim=24, drop_rate=0.1, drop_path_rate=0.2
    ),
    data=Data(batch=50, crop=1.0, threads=2),
    augment=Augment(scale=(0.5, 1.0), pad=1, rand_augment="rand-m5-mstd0.5-inc1", erase=0.1, mixup=0.2, cutmix=0.2),
    optim=Optim(learning_rate=1e-3, per_images=0, warmup_epochs=1, ema=0.9, clip_norm=1.0),
    epochs=4,
    checkpoint_steps=2,
    deterministic=True,
)


class Killed(run.Progress):
    """Progress that ends the process, as a power cut would, after so many batches."""

    after = None

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        Killed.after -= 1
        if not Killed.after:
            os.kill(os.getpid(), signal.SIGKILL)


def part(data, out, after):
    """Train in a fork -> how it ended."""
    child = os.fork()
    if not child:
        if after:
            run.Progress, Killed.after = Killed, after
        run.train(RECIPE, data, out, say=lambda text: None)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(data, out, seed):
    rng, out = random.Random(int(seed)), pathlib.Path(out)
    ends = [part(data, out / "whole", None)]
    ends += [part(data, out / "killed", rng.randint(1, 3)) for _ in range(KILLS)]
    ends.append(part(data, out / "killed", None))
    rows = [(out / name / "log.csv").read_text() for name in ("whole", "killed")]
    print(json.dumps({"ends": ends, "logs": rows}))


if __name__ == "__main__":
    main(*sys.argv[1:])
