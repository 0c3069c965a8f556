"""The model that Keras' fit trains: a network, and the losses of its kind of work."""

import contextlib

import keras

from swins.task import shared
from swins.train.phases import Trunk

LENGTHS = 10  # a run is at least so many times as long as what its statistics are averaged over


def momentum_of_statistics(ema: float, updates: int, accumulate: int = 1) -> float:
    """Momentum of batch norms' moving statistics where weights are averaged with `ema`: over as many updates as those.

    Statistics of the last steps alone do not fit weights that are averages over a thousand. A short run's, which begin
    at 0 and 1 and not at the first weights', are averaged over a tenth of its updates at most.

    >>> momentum_of_statistics(0.999, 4500), momentum_of_statistics(0.999, 100), momentum_of_statistics(0.0, 100)
    (0.9977777777777778, 0.9, 0.0)
    """
    return max(0.0, min(ema, 1 - LENGTHS / updates)) ** (1 / accumulate)


class Trainee(keras.Model):
    """A network under training: images -> outputs, whose losses are its task's.

    Args:
        network: images -> a tensor or {name: tensor}.
        task: a Task.
        recipe: the Recipe, which may say what losses.
    """

    def __init__(self, network, task, recipe):
        super().__init__(name=network.name)
        self.network, self.task, self.recipe = network, task, recipe
        self.trunk = Trunk(task.trunk(network))
        self.means = {name: keras.metrics.Mean(name=name) for name in task.measures}
        self.statistics_momentum = 0.0  # of batch norms at least, in training
        self.built = True

    def call(self, images, training=None):
        if not training:
            return self.network(images, training=training)
        with self.averaged_statistics():
            return self.network(images, training=True)

    @contextlib.contextmanager
    def averaged_statistics(self):
        """Batch norms average their statistics as weights are averaged; a network's own settings stay what they are."""
        layers = self.network._flatten_layers(include_self=False)
        norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
        own = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = max(norm.momentum, self.statistics_momentum)
        try:
            yield
        finally:
            for norm, momentum in zip(norms, own, strict=True):
                norm.momentum = momentum

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Build the optimiser alone, as all else is; Keras' own adds up truths of several devices, also booleans."""
        if self._distribute_strategy is not None and self.optimizer is not None and not self.optimizer.built:
            with self._distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def losses_of(self, truths, outputs, training=False) -> dict:
        """{name: scalar} of a batch, each a mean over its images."""
        named = self.task.named(self.network, outputs)
        return self.task.losses(self.recipe, self.network, truths, named, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The sum of the task's losses, and of what layers add."""
        total = sum(self.losses_of(y, y_pred, training).values())
        for extra in self.losses:
            total = total + shared(extra)
        return total

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Beside the loss, the means over an epoch's images so far of what the task measures of a batch."""
        named = self.task.named(self.network, y_pred)
        for name, measure in self.task.measures.items():
            self.means[name].update_state(measure(y, named))
        return super().compute_metrics(x, y, y_pred, sample_weight)


class Examined(keras.Model):
    """A Trainee's losses and what answers are made of, in one graph, where the network's outputs do not tell these.

    {"images": (b, ...), "truths": {name: (b, ...)}} -> {"losses": {name: (b,)}, "outputs": {name: (b, ...)}}; an image
    has the losses of its batch.

    Args:
        trainee: a Trainee, whose weights are shared.
        facts: of the model, for its answers.
    """

    def __init__(self, trainee, facts):
        super().__init__(name="examined")
        self.network = trainee.network
        self.losses_of = trainee.losses_of
        self.decide = lambda images, outputs: trainee.task.decide(trainee.network, facts, images, outputs)
        self.built = True

    def call(self, inputs):
        images, truths = inputs["images"], inputs["truths"]
        outputs = self.network(images, training=False)
        losses = {
            name: keras.ops.broadcast_to(keras.ops.reshape(value, (1,)), keras.ops.shape(images)[:1])
            for name, value in self.losses_of(truths, outputs).items()
        }
        return {"losses": losses, "outputs": self.decide(images, outputs)}
