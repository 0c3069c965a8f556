"""AdamW as PyTorch has it, with a decay and a rate for each variable, and the schedule of the learning rate."""

import re
from dataclasses import dataclass

import keras
from keras import ops


@dataclass(frozen=True)
class Group:
    """How a variable is optimised: its weight decay, and its learning rate over the others'."""

    weight_decay: float
    rate_scale: float


def layer_of(path, depths):
    """Depth of a variable's layer, by timm's grouping: 0 for the patch embedding, then the blocks, then the head.

    A merging is of the layer of the block after it, the last norm of that of the block before it.
    """
    part = path.split("/")[0] if path.startswith(("patch_embed", "norm", "head", "stages_")) else path.split("/")[1]
    blocks = re.fullmatch(r"stages_(\d+)_blocks_(\d+)(_norm3)?", part)
    merging = re.fullmatch(r"stages_(\d+)_downsample", part)
    if part == "patch_embed":
        return 0
    if blocks:
        stage, block = int(blocks[1]), int(blocks[2])
        return 1 + sum(depths[:stage]) + block
    if merging:
        return 1 + sum(depths[: int(merging[1])])
    return sum(depths) + (part == "head")


def groups(model, optim):
    """{path: Group} of a model's trainable variables, by the numbers of an Optim.

    Variables of one axis do not decay, nor do those that `no_decay` names, unless all do: timm's rule.
    """
    depths = model.variant.depths
    last = sum(depths) + 1
    found = {}
    for variable in model.trainable_variables:
        bare = len(variable.shape) <= 1 or any(part in variable.path for part in optim.no_decay)
        decay = optim.weight_decay if optim.decay_all or not bare else 0.0
        found[variable.path] = Group(decay, optim.layer_decay ** (last - layer_of(variable.path, depths)))
    return found


def scale_of(optim, batch):
    """What the learning rates are multiplied with for a batch."""
    return batch / optim.per_images if optim.per_images else 1.0


def peak_rate(recipe):
    """The highest learning rate of a run."""
    return recipe.optim.learning_rate * scale_of(recipe.optim, recipe.data.batch)


def schedule(optim, batch, epochs, steps_per_epoch):
    """Learning rate by step: linear from warmup_rate to learning_rate, then a cosine to min_rate at the end."""
    scale = scale_of(optim, batch)
    peak, total = optim.learning_rate * scale, epochs * steps_per_epoch
    warmup = round(optim.warmup_epochs * steps_per_epoch)
    options = {"warmup_target": peak, "warmup_steps": warmup} if warmup else {}
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=optim.warmup_rate * scale if warmup else peak,
        decay_steps=max(total - warmup, 1),
        alpha=optim.min_rate / optim.learning_rate,
        **options,
    )


@keras.saving.register_keras_serializable("swins")
class ByUpdates(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule by updates, for an optimiser that accumulates: Keras asks it by micro-batches.

    Args:
        schedule: learning rate by update.
        accumulate: micro-batches that are one update.
    """

    def __init__(self, schedule, accumulate):
        self.schedule, self.accumulate = schedule, accumulate

    def __call__(self, step):
        return self.schedule(ops.floor_divide(step, self.accumulate))

    def get_config(self):
        serialize = keras.optimizers.schedules.serialize
        return {"schedule": serialize(self.schedule), "accumulate": self.accumulate}

    @classmethod
    def from_config(cls, config):
        deserialize = keras.optimizers.schedules.deserialize
        return cls(deserialize(config["schedule"]), config["accumulate"])


def replicas():
    """Devices that TensorFlow's strategy divides a batch among."""
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


@keras.saving.register_keras_serializable("swins")
class AdamW(keras.optimizers.Optimizer):
    """Decoupled weight decay (arXiv:1711.05101), step for step PyTorch's.

    Keras' AdamW differs: its epsilon is added before the second moment is corrected, and it has one decay and one rate
    for all variables that are not excluded by their short names.

    Args:
        learning_rate: a number or a schedule.
        groups: {path of a variable: Group}; others do not decay and have the whole rate.
        beta_1, beta_2: decay of the moments.
        epsilon: added to the corrected second moment's root.
        **options: keras.optimizers.Optimizer's: global_clipnorm, use_ema, gradient_accumulation_steps, ...
    """

    def __init__(
        self, learning_rate=1e-3, groups=None, beta_1=0.9, beta_2=0.999, epsilon=1e-8, name="adamw", **options
    ):
        together = None
        if keras.backend.backend() == "tensorflow" and replicas() > 1:  # Keras would clip each replica's part by itself
            together, options = options.get("global_clipnorm"), {**options, "global_clipnorm": None}
        super().__init__(learning_rate=learning_rate, name=name, **options)
        self.clip_together = together
        self.groups = {path: g if isinstance(g, Group) else Group(*g) for path, g in (groups or {}).items()}
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.first, self.second = self.add_optimizer_variables(variables, ["momentum", "velocity"])
        fallback = Group(0.0, 1.0)
        self.group_by_index = [self.groups.get(variable.path, fallback) for variable in variables]

    def apply(self, grads, trainable_variables=None):
        if keras.backend.backend() == "tensorflow":  # whose gradient of a bias table has a row each time one is read:
            import tensorflow as tf  # the norm of these is not that of their sum

            grads = [g if g is None else tf.convert_to_tensor(g) for g in grads]
            if self.clip_together:
                total = tf.distribute.get_replica_context().all_reduce("sum", grads)
                scale = self.clip_together / tf.maximum(tf.linalg.global_norm(total), self.clip_together)
                grads = [g * scale for g in grads]
        return super().apply(grads, trainable_variables)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        group, m, v = self.group_by_index[index], self.first[index], self.second[index]
        rate = ops.cast(learning_rate, variable.dtype) * group.rate_scale
        gradient, step = ops.cast(gradient, variable.dtype), ops.cast(self.iterations + 1, variable.dtype)
        self.assign(m, m + (gradient - m) * (1 - self.beta_1))
        self.assign(v, self.beta_2 * v + (1 - self.beta_2) * gradient * gradient)
        first = m / (1 - ops.power(ops.cast(self.beta_1, variable.dtype), step))
        second = v / (1 - ops.power(ops.cast(self.beta_2, variable.dtype), step))
        self.assign(
            variable, variable * (1 - rate * group.weight_decay) - rate * first / (ops.sqrt(second) + self.epsilon)
        )

    def _update_model_variables_moving_average(self, trainable_variables):
        """Average after an update; Keras does after every part of one too."""
        momentum, micro = self.ema_momentum, self.gradient_accumulation_steps or 1
        if micro > 1:
            self.ema_momentum = ops.where(ops.equal((self._iterations + 1) % micro, 0), momentum, 1.0)
        super()._update_model_variables_moving_average(trainable_variables)
        self.ema_momentum = momentum

    def finalize_variable_values(self, variables):
        """Nothing: a run is several fits, and the average takes the weights' place at its end alone."""

    def average_into(self, variables):
        """Give variables the values of their moving averages."""
        super().finalize_variable_values(variables)

    def get_config(self):
        own = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
        pairs = {path: [g.weight_decay, g.rate_scale] for path, g in self.groups.items()}
        config = {**super().get_config(), **own, "groups": pairs}
        return {**config, "global_clipnorm": self.clip_together or config["global_clipnorm"]}


def optimizer(model, recipe, steps_per_epoch):
    """The AdamW of a recipe for a model; a step is one update, after `accumulate` batches."""
    optim = recipe.optim
    rates = schedule(optim, recipe.data.batch, recipe.epochs, steps_per_epoch)
    return AdamW(
        ByUpdates(rates, optim.accumulate) if optim.accumulate > 1 else rates,
        groups(model, optim),
        optim.beta_1,
        optim.beta_2,
        optim.epsilon,
        global_clipnorm=optim.clip_norm or None,
        use_ema=optim.ema > 0,
        ema_momentum=optim.ema or 0.99,
        gradient_accumulation_steps=optim.accumulate if optim.accumulate > 1 else None,
    )
