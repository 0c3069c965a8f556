"""The model that Keras' fit trains: a network, and the losses of its kind of work."""

import keras

from swins.task import shared


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
        self.built = True

    def call(self, images, training=None):
        return self.network(images, training=training)

    def losses_of(self, truths, outputs) -> dict:
        """{name: scalar} of a batch, each a mean over its images."""
        return self.task.losses(self.recipe, self.network, truths, self.task.named(self.network, outputs))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The sum of the task's losses, and of what layers add."""
        total = sum(self.losses_of(y, y_pred).values())
        for extra in self.losses:
            total = total + shared(extra)
        return total
