"""Optimisers as PyTorch has them, with a decay and a rate for each variable."""

import types
from dataclasses import dataclass

import keras
from keras import ops

from swins import recipes
from swins.train.schedules import ByUpdates, rates_of


@dataclass(frozen=True)
class Group:
    """How a variable is optimised: its weight decay, and its learning rate over the others'."""

    weight_decay: float
    rate_scale: float


def groups(variables, optim, depths: dict | None = None) -> dict[str, Group]:
    """{path: Group} of trainable variables, by the numbers of a recipe's optimiser.

    Variables of one axis do not decay, nor do those that `no_decay` names, unless all do: timm's rule. With
    `decay_biases` those of one axis do, which is mmcv's.

    Args:
        variables: of a model; optim: AdamW or Sgd of `swins.recipes`.
        depths: {path: depth of its layer}, the last of which has the whole rate; None: all have.
    """
    depths = depths or {}
    last = max(depths.values(), default=0)
    table = {}
    for variable in variables:
        bare = len(variable.shape) <= 1 and not optim.decay_biases
        bare = bare or any(part in variable.path for part in optim.no_decay)
        decay = optim.weight_decay if optim.decay_all or not bare else 0.0
        table[variable.path] = Group(decay, optim.layer_decay ** (last - depths.get(variable.path, last)))
    return table


def replicas():
    """Devices that TensorFlow's strategy divides a batch among."""
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


class Grouped(keras.optimizers.Optimizer):
    """What these optimisers have in common: groups of variables, clipping over devices, an average over updates.

    Args:
        learning_rate: a number or a schedule.
        groups: {path of a variable: Group}; others do not decay and have the whole rate.
        **options: keras.optimizers.Optimizer's: global_clipnorm, use_ema, gradient_accumulation_steps, ...
    """

    moments = ()  # names of what is kept for each variable

    def __init__(self, learning_rate, groups=None, *, name, **options):
        together = None
        if keras.backend.backend() == "tensorflow" and replicas() > 1:  # Keras would clip each replica's part by itself
            together, options = options.get("global_clipnorm"), {**options, "global_clipnorm": None}
        super().__init__(learning_rate=learning_rate, name=name, **options)
        self.clip_together = together
        self.scratch = types.SimpleNamespace()  # what an update computes once for all variables
        self.groups = {path: g if isinstance(g, Group) else Group(*g) for path, g in (groups or {}).items()}

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.kept = self.add_optimizer_variables(variables, list(self.moments)) if self.moments else ()
        fallback = Group(0.0, 1.0)
        self.group_by_index = [self.groups.get(variable.path, fallback) for variable in variables]

    def apply(self, grads, trainable_variables=None):
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # a bias table's gradient is IndexedSlices, a row for each reading, whose norm is not that of their sum
            grads = [g if g is None else tf.convert_to_tensor(g) for g in grads]
            if self.clip_together:
                total = tf.distribute.get_replica_context().all_reduce("sum", grads)
                scale = self.clip_together / tf.maximum(tf.linalg.global_norm(total), self.clip_together)
                grads = [g * scale for g in grads]
        self.prepare()
        return super().apply(grads, trainable_variables)

    def prepare(self):
        """Put into `scratch` what does not depend on a variable: each would add its nodes to TensorFlow's graph."""

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        group, moments = self.group_by_index[index], [moment[index] for moment in self.kept]
        rate = ops.cast(learning_rate, variable.dtype)
        rate = rate if group.rate_scale == 1 else rate * group.rate_scale
        self.update(ops.cast(gradient, variable.dtype), variable, moments, rate, group.weight_decay)

    def _update_model_variables_moving_average(self, trainable_variables):
        """Average after an update; Keras does after every part of one too, and keeps the first weights for long.

        The momentum grows with the updates n that were averaged, min(ema_momentum, (1 + n) / (10 + n)): diffusers'
        EMAModel. Of 1,500 updates the last 150 then count most, and not the first.
        """
        micro, averaged = self.gradient_accumulation_steps or 1, ops.cast(self.iterations, "float32")
        momentum = ops.minimum(self.ema_momentum, (1 + averaged) / (10 + averaged))
        if micro > 1:
            momentum = ops.where(ops.equal((self._iterations + 1) % micro, 0), momentum, 1.0)
        momentum = ops.where(ops.equal(self.iterations, 0), 0.0, momentum)
        rest = 1 - momentum
        for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
            if average is not None:
                old, new = (ops.cast(share, variable.dtype) for share in (momentum, rest))
                average.assign(old * average + new * variable)

    def finalize_variable_values(self, variables):
        """Does nothing: Keras would put the averages in the weights' place after each of a run's several fits."""

    def average_into(self, variables):
        """Give variables the values of their moving averages."""
        super().finalize_variable_values(variables)

    def get_config(self):
        pairs = {path: [g.weight_decay, g.rate_scale] for path, g in self.groups.items()}
        config = {**super().get_config(), "groups": pairs}
        return {**config, "global_clipnorm": self.clip_together or config["global_clipnorm"]}


@keras.saving.register_keras_serializable("swins")
class AdamW(Grouped):
    """Decoupled weight decay (arXiv:1711.05101), step for step PyTorch's.

    Keras' AdamW differs: its epsilon is added before the second moment is corrected, and it has one decay and one rate
    for all variables that are not excluded by their short names.

    Args: Grouped's, and
        beta_1, beta_2: decay of the moments.
        epsilon: added to the corrected second moment's root.
    """

    moments = ("momentum", "velocity")

    def __init__(
        self, learning_rate=1e-3, groups=None, beta_1=0.9, beta_2=0.999, epsilon=1e-8, name="adamw", **options
    ):
        super().__init__(learning_rate, groups, name=name, **options)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def prepare(self):
        step = ops.cast(self.iterations + 1, "float32")
        betas = (ops.cast(beta, "float32") for beta in (self.beta_1, self.beta_2))
        self.scratch.corrections = [1 - ops.power(beta, step) for beta in betas]

    def update(self, gradient, variable, moments, rate, decay):
        m, v = (ops.convert_to_tensor(moment) for moment in moments)
        m = m + (gradient - m) * (1 - self.beta_1)
        v = self.beta_2 * v + (1 - self.beta_2) * gradient * gradient
        for moment, value in zip(moments, (m, v), strict=True):
            self.assign(moment, value)
        first, second = (ops.cast(correction, variable.dtype) for correction in self.scratch.corrections)
        decayed = variable * (1 - rate * decay) if decay else variable
        self.assign(variable, decayed - rate * (m / first) / (ops.sqrt(v / second) + self.epsilon))

    def get_config(self):
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable("swins")
class Sgd(Grouped):
    """Gradient descent with momentum, step for step PyTorch's: decay is added to the gradient, the rate comes last.

    Keras' SGD differs: its momentum holds steps that were multiplied with the rates of their time.

    Args: Grouped's, and
        momentum: decay of the sum of gradients, 0 for none; nesterov: whether it looks ahead.
    """

    moments = ("momentum",)

    def __init__(self, learning_rate=0.01, groups=None, momentum=0.9, nesterov=False, name="sgd", **options):
        super().__init__(learning_rate, groups, name=name, **options)
        self.momentum, self.nesterov = momentum, nesterov

    def update(self, gradient, variable, moments, rate, decay):
        (moment,) = moments
        gradient = gradient + decay * variable if decay else gradient
        m = self.momentum * moment + gradient
        self.assign(moment, m)
        step = gradient + self.momentum * m if self.nesterov else m
        self.assign(variable, variable - rate * step)

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


def optimiser(variables, recipe, updates_per_epoch: int, depths: dict | None = None) -> Grouped:
    """The optimiser of a recipe for a model's trainable variables; depths: see `groups`."""
    optim = recipe.optim
    rates = rates_of(recipe, updates_per_epoch)
    own = {
        recipes.AdamW: lambda: {"beta_1": optim.beta_1, "beta_2": optim.beta_2, "epsilon": optim.epsilon},
        recipes.Sgd: lambda: {"momentum": optim.momentum, "nesterov": optim.nesterov},
    }[type(optim)]()
    return {recipes.AdamW: AdamW, recipes.Sgd: Sgd}[type(optim)](
        ByUpdates(rates, optim.accumulate) if optim.accumulate > 1 else rates,
        groups(variables, optim, depths),
        **own,
        global_clipnorm=optim.clip_norm or None,
        use_ema=optim.ema > 0,
        ema_momentum=optim.ema or 0.99,
        gradient_accumulation_steps=optim.accumulate if optim.accumulate > 1 else None,
    )
