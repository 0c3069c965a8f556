"""From PyTorch checkpoints to Keras models and back, with proof."""
