"""What a file says of its model besides its tensors: numbers that give weights their meaning travel with them."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Facts:
    """What is known of a model beyond its weights; empty where nothing is.

    Args:
        numbers: fields of a Variant and their values, such as {"window_size": 8, "pretrained_windows": 12,
            "image_size": (256, 256), "size_rule": "huggingface"}: what tensors do not tell.
        class_names: a name per logit, in their order.
        preparation: how images are prepared: {"image_size", "crop", "mean", "std", "interpolation"}, as far as known.
        architecture: the variant's name.
        source: the file that says so, for messages.
    """

    numbers: dict = field(default_factory=dict)
    class_names: tuple = ()
    preparation: dict = field(default_factory=dict)
    architecture: str | None = None
    source: str | None = None


NOTHING = Facts()
