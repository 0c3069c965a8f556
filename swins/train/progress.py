"""What watches a run while Keras' fit trains: the state saved, the log kept, the end heeded."""

import math
import os
import signal
import threading
import time

import keras

from swins.errors import SwinsError
from swins.score import logged, read_score
from swins.train.checkpoints import mean_variables
from swins.train.pace import Pace
from swins.train.phases import phase_of_state

SAY_EVERY = 30.0  # seconds
READ_EVERY = 10  # steps from one look at the loss to the next: each waits for the device


class Ending:
    """Whether this process was asked to end: by SIGTERM, as SLURM sends before it takes a machine away, or by Ctrl-C.

    As a context it heeds the signals between batches instead of at once; a second one ends the process. Several
    processes of JAX are told by its own service, at the same step in each.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, share):
        self.several, self.asked = share.count > 1, None
        self.heeds = not self.several and threading.current_thread() is threading.main_thread()

    def __enter__(self):
        if self.heeds:
            self.before = {number: signal.signal(number, self.ask) for number in self.SIGNALS}
        return self

    def __exit__(self, *_):
        if self.heeds:
            for number, handler in self.before.items():
                signal.signal(number, handler or signal.SIG_DFL)  # None: it was not Python's

    def ask(self, number, _):
        if self.asked:
            self.end()
        self.asked = number
        if number == signal.SIGINT:  # in a handler nothing else is safe to print with
            os.write(2, b"\nending after this batch, which is saved; once more ends at once, and loses it\n")

    def end(self):
        """Leave as the signal would have."""
        if self.asked == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)

    def reached(self, step):
        """Whether to end after this step, counted from 1 since the process began; several must ask at every step."""
        if not self.several:
            return self.asked is not None
        import jax
        from jax.experimental import multihost_utils

        return jax.config.jax_enable_preemption_service and multihost_utils.reached_preemption_sync_point(step)


class EveryBatch(keras.callbacks.CallbackList):
    """Keras' list of callbacks, which hands a batch's results on as they are: Keras waits for the device to print them.

    Args: keras.callbacks.CallbackList's.
    """

    def on_train_batch_end(self, batch, logs=None):
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)

    def on_test_batch_end(self, batch, logs=None):
        for callback in self.callbacks:
            callback.on_test_batch_end(batch, logs)


class Progress(keras.callbacks.Callback):
    """Counts batches, saves the state, keeps the log, says how far it is, and stops when the loss is no number.

    An epoch is saved before it is validated, so that nothing that happens then loses it; what is known of its row is
    saved with it, and `validated` completes it, after a kill too.

    Args:
        run: the Run; recipe: its Recipe; per_epoch: batches.
        validate: (model, stop) -> a Validation; stop is called after each of its batches; unreadable: the Unreadable of
            training images.
        ending: an Ending.
        writes: whether this process writes files.
    """

    def __init__(self, run, recipe, per_epoch, validate, unreadable, ending, writes):
        super().__init__()
        self.run, self.recipe, self.per_epoch, self.writes = run, recipe, per_epoch, writes
        self.validate, self.unreadable, self.ending = validate, unreadable, ending
        self.before, self.begun, self.first = run.seconds, time.perf_counter(), run.step
        self.said, self.so_far, self.losses = self.begun, None, []
        self.pace, self.estimated = Pace(), False

    def seconds(self):
        """Of the whole run, its earlier parts too."""
        return self.before + time.perf_counter() - self.begun

    def save(self):
        if self.writes:
            self.run.save(self.model, self.seconds())

    def on_train_begin(self, logs=None):
        if self.run.step % self.per_epoch:  # fit forgets what an epoch's means were when the run was killed
            self.so_far = [keras.ops.convert_to_numpy(v) for v in mean_variables(self.model)]

    def on_epoch_begin(self, epoch, logs=None):
        if self.so_far:
            for variable, value in zip(mean_variables(self.model), self.so_far, strict=True):
                variable.assign(value)
            self.so_far = None

    def on_train_batch_end(self, batch, logs=None):
        self.run.step += 1
        self.losses.append((self.run.step, logs["loss"]))
        every, inside = self.recipe.checkpoint_steps, self.run.step % self.per_epoch  # else the epoch's end saves
        leaves = inside and self.ending.reached(self.run.step - self.first)
        if leaves or (every and self.run.step % every == 0 and inside):
            self.look()
            self.save()
        if leaves:
            self.leave()
        if self.run.step % READ_EVERY == 0:  # at the same step in every process
            self.look()
        if time.perf_counter() - self.said > SAY_EVERY:
            self.said = time.perf_counter()
            self.run.say(self.how_far(float(logs["loss"])))

    def look(self):
        """Stop if the loss, an epoch's mean so far, has become NaN or infinite since the last look."""
        losses, self.losses = self.losses, []
        if losses and not math.isfinite(float(losses[-1][1])):
            step, loss = next((step, float(loss)) for step, loss in losses if not math.isfinite(float(loss)))
            self.stop(f"the loss is {loss} at step {step}", self.updated(step))
        if losses:
            self.pace.waited(self.run.step)
            if not self.estimated and self.pace.steps:
                self.estimated = True
                measured = f"{self.pace.of_a_step:.2g} s a step, of {self.pace.steps} measured"
                self.run.say("; ".join(filter(None, (measured, self.left()))))

    def leave(self):
        """End the process, which was asked to."""
        saved = f"the state after step {self.run.step} is saved"
        if self.ending.asked != signal.SIGINT:  # else the command line says how to go on
            saved = f"asked to end: {saved}; the same command, without --overwrite, goes on"
        self.run.say(saved)
        self.ending.end()

    def updated(self, step):
        """The step after which the weights are those that a step computes with."""
        return (step - 1) // self.recipe.optim.accumulate * self.recipe.optim.accumulate

    def stop(self, reason, updated):
        """Raise SwinsError, with what to do about a loss that is NaN or infinite, which the update after a step gave.

        Checkpoints from within that update are deleted: their weights, or sums of gradients, hold NaN.
        """
        checkpoints, first = self.run.checkpoints, updated - self.recipe.optim.accumulate + 1
        if self.writes:
            checkpoints.drop(first)
        raise SwinsError(f"{reason}; {checkpoints.remedy(first)}")

    def how_far(self, loss):
        """A line about the running epoch."""
        batch = self.recipe.data.batch // self.recipe.optim.accumulate
        speed = 1 / (self.pace.of_a_step or (time.perf_counter() - self.begun) / (self.run.step - self.first))
        epoch, step = divmod(self.run.step - 1, self.per_epoch)
        parts = (
            f"epoch {epoch + 1} of {self.recipe.epochs}",
            f"step {step + 1} of {self.per_epoch}",
            f"loss {loss:.4f}",
            f"{speed * batch:.{0 if speed * batch >= 10 else 1}f} images/s",
            self.left(),
        )
        return ", ".join(filter(None, parts))

    def begins_phase(self):
        """Measure anew: steps of another phase are compiled anew, and take another time."""
        self.pace, self.estimated = Pace(), False

    def left(self):
        """How long the rest of the run will take, in words; before its last phase, the rest of the phase."""
        phase = phase_of_state(self.recipe, self.run.step, self.per_epoch)
        steps = phase.end * self.per_epoch - self.run.step
        left = self.pace.left(steps, -(-steps // self.per_epoch))
        if left is None or (not steps and phase.end < self.recipe.epochs):
            return ""
        if phase.end < self.recipe.epochs:  # which patience does not end
            return f"about {left} left to the end of epoch {phase.end}"
        return f"{'at most' if self.recipe.patience else 'about'} {left} left"

    def on_epoch_end(self, epoch, logs=None):
        getattr(self.model, "jax_state_sync", lambda: None)()
        self.look()
        self.run.unvalidated = {
            "epoch": epoch + 1,
            "learning_rate": f"{float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)):.3e}",
            **{name: f"{float(logs[name]):.6f}" for name in ("loss", *self.run.task.measures)},
            "unreadable": self.unreadable.of_all(),
        }
        self.save()
        row = self.validated()
        if logs is not None:  # for the callbacks after this one
            names = ("loss", *(score.name for score in self.run.scores))
            known = {f"val_{name}": read_score(row[f"val_{name}"]) for name in names}
            logs.update({name: value for name, value in known.items() if value is not None})
        if self.run.ended(self.recipe, self.per_epoch):
            self.model.stop_training = True
        elif self.ending.reached(self.run.step - self.first):
            self.leave()

    def heed(self):
        """End the process between batches of a validation, where a signal asked for it; several processes heed none."""
        if self.ending.asked:
            self.leave()

    def validated(self):
        """Validate the epoch that is saved, and log it -> its row."""
        self.pace.begins_validation()
        epoch, validation = self.run.unvalidated, self.validate(self.model, self.heed)
        if not math.isfinite(validation.loss):
            self.stop(f"the validation loss is {validation.loss} after step {self.run.step}", self.run.step)
        row = {
            **{key: value for key, value in epoch.items() if key != "unreadable"},
            "val_loss": f"{validation.loss:.6f}",
            **{f"val_{name}": logged(value) for name, value in validation.scores.items()},
            "val_images": validation.images,
            "unreadable": epoch["unreadable"] + validation.unreadable,
            "seconds": round(self.seconds()),
        }
        self.run.keep_best(self.model, row, self.writes)
        self.run.rows, self.run.unvalidated = [*self.run.rows, row], None
        self.save()
        if self.writes:
            self.run.write_log()
        self.pace.validated(self.run.step)
        best, left = self.run.best, self.left()
        words = [f"{key} {value}" for key, value in row.items()]
        if best and best["epoch"] != row["epoch"]:
            words.append(f"best epoch {best['epoch']}")
        self.run.say(
            ", ".join([*words, left] if left and self.run.step < self.recipe.epochs * self.per_epoch else words)
        )
        return row
