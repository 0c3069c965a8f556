"""What watches a run while Keras' fit trains: the state saved, the log kept, the end heeded."""

import datetime
import math
import signal
import threading
import time

import keras

from swins.errors import SwinsError
from swins.train.checkpoints import loss_variables

SAY_EVERY = 30.0  # seconds


class Ending:
    """Whether this process was asked to end (SIGTERM, as SLURM sends before it takes a machine away).

    As a context it heeds the signal between batches instead of at once; a second one ends the process. Several
    processes of JAX are told by its own service, at the same step in each.
    """

    def __init__(self, share):
        self.several, self.asked = share.count > 1, False
        self.heeds = not self.several and threading.current_thread() is threading.main_thread()

    def __enter__(self):
        if self.heeds:
            self.before = signal.signal(signal.SIGTERM, self.ask)
        return self

    def __exit__(self, *_):
        if self.heeds:
            signal.signal(signal.SIGTERM, self.before or signal.SIG_DFL)  # None: it was not Python's

    def ask(self, *_):
        if self.asked:
            raise SystemExit(128 + signal.SIGTERM)
        self.asked = True

    def reached(self, step):
        """Whether to end after this step, counted from 1 since the process began; several must ask at every step."""
        if not self.several:
            return self.asked
        import jax
        from jax.experimental import multihost_utils

        return jax.config.jax_enable_preemption_service and multihost_utils.reached_preemption_sync_point(step)


class Progress(keras.callbacks.Callback):
    """Counts batches, saves the state, keeps the log, says how far it is, and stops when the loss is no number.

    Args:
        run: the Run; recipe: its Recipe; per_epoch: batches.
        validate: model -> what came of it, a dict; unreadable: the Unreadable of training images.
        ending: an Ending.
        writes: whether this process writes files.
    """

    def __init__(self, run, recipe, per_epoch, validate, unreadable, ending, writes):
        super().__init__()
        self.run, self.recipe, self.per_epoch, self.writes = run, recipe, per_epoch, writes
        self.validate, self.unreadable, self.ending = validate, unreadable, ending
        self.before, self.begun, self.first = run.seconds, time.perf_counter(), run.step
        self.said, self.loss_so_far = self.begun, None

    def seconds(self):
        """Of the whole run, its earlier parts too."""
        return self.before + time.perf_counter() - self.begun

    def save(self):
        if self.writes:
            self.run.checkpoints.save(self.model, self.run.step, {"rows": self.run.rows, "seconds": self.seconds()})

    def on_train_begin(self, logs=None):
        if self.run.step % self.per_epoch:  # fit forgets what an epoch's mean loss was when the run was killed
            self.loss_so_far = [keras.ops.convert_to_numpy(v) for v in loss_variables(self.model)]

    def on_epoch_begin(self, epoch, logs=None):
        if self.loss_so_far:
            for variable, value in zip(loss_variables(self.model), self.loss_so_far, strict=True):
                variable.assign(value)
            self.loss_so_far = None

    def on_train_batch_end(self, batch, logs=None):
        self.run.step += 1
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            self.stop(f"the loss is {loss} at step {self.run.step}", self.updated())
        every, inside = self.recipe.checkpoint_steps, self.run.step % self.per_epoch  # else the epoch's end saves
        if inside and self.ending.reached(self.run.step - self.first):
            self.save()
            self.leave()
        if every and self.run.step % every == 0 and inside:
            self.save()
        if time.perf_counter() - self.said > SAY_EVERY:
            self.said = time.perf_counter()
            self.run.say(self.how_far(loss))

    def leave(self):
        """End the process, which was asked to."""
        saved = f"the state after step {self.run.step} is saved"
        self.run.say(f"asked to end: {saved}; the same command, without --overwrite, goes on")
        raise SystemExit(128 + signal.SIGTERM)

    def updated(self):
        """The step after which the weights are those of the step that is computed."""
        return (self.run.step - 1) // self.recipe.optim.accumulate * self.recipe.optim.accumulate

    def stop(self, reason, updated):
        """Raise SwinsError, with what to do about a loss that is no number, which the update after a step gave.

        The checkpoints within that update go: their sums of gradients are no numbers, or their weights.
        """
        checkpoints, first = self.run.checkpoints, updated - self.recipe.optim.accumulate + 1
        if self.writes:
            checkpoints.drop(first)
        raise SwinsError(f"{reason}; {checkpoints.remedy(first)}")

    def how_far(self, loss):
        """A line about the running epoch."""
        batch = self.recipe.data.batch // self.recipe.optim.accumulate
        speed = (self.run.step - self.first) / (time.perf_counter() - self.begun)
        left = datetime.timedelta(seconds=round((self.recipe.epochs * self.per_epoch - self.run.step) / speed))
        epoch, step = divmod(self.run.step - 1, self.per_epoch)
        return (
            f"epoch {epoch + 1} of {self.recipe.epochs}, step {step + 1} of {self.per_epoch}, loss {loss:.4f}, "
            f"{speed * batch:.0f} images/s, {left} left"
        )

    def on_epoch_end(self, epoch, logs=None):
        getattr(self.model, "jax_state_sync", lambda: None)()
        told = self.validate(self.model)
        if not math.isfinite(told["cross_entropy"]):
            self.stop(f"the validation loss is {told['cross_entropy']} after step {self.run.step}", self.run.step)
        scores = {"loss": float(told["cross_entropy"]), "top1": float(told["top1"]), "top5": float(told["top5"])}
        row = {
            "epoch": epoch + 1,
            "learning_rate": f"{float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)):.3e}",
            "loss": f"{float(logs['loss']):.6f}",
            **{f"val_{key}": f"{value:.6f}" for key, value in scores.items()},
            "val_images": told["images"],
            "unreadable": self.unreadable.of_all() + told["unreadable"],
            "seconds": round(self.seconds()),
        }
        self.run.rows = [*self.run.rows, row]
        self.save()
        if self.writes:
            self.run.write_log()
        self.run.say(", ".join(f"{key} {value}" for key, value in row.items()))
        if logs is not None:
            logs.update({f"val_{key}": value for key, value in scores.items()})  # for the callbacks after this one
        if self.ending.reached(self.run.step - self.first):
            self.leave()
