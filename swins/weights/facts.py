"""What a file says of its model besides its tensors: numbers that give weights their meaning travel with them."""

import json
from dataclasses import asdict, dataclass, field, fields, replace

from swins.errors import SwinsError

KEY = "swins"  # of the text in a safetensors header
TRAINING = ("drop_rate", "drop_path_rate")  # fields of a Variant that change no answer


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


def join(general, particular):
    """Facts of two sources; where both tell, those of the second hold."""
    told = {f.name: getattr(particular, f.name) or getattr(general, f.name) for f in fields(Facts)}
    return Facts(**{**told, "numbers": {**general.numbers, **particular.numbers}})


def of_program(translation):
    """What follows from the program that wrote a file, and from what its file lacks -> Facts."""
    if translation.size_rule is None:  # no Swin
        return NOTHING
    norm = {} if translation.final_norm else {"final_norm": False}
    return Facts(numbers={"size_rule": translation.size_rule, **norm})


def of_model(model, given=NOTHING):
    """The Facts of a Swin of this package; names of classes and preparation are those that are given."""
    numbers = {name: value for name, value in asdict(model.variant).items() if name not in TRAINING}
    return replace(given, numbers=numbers, architecture=given.architecture or model.name)


def origin(name, facts, num_classes):
    """What a model remembers of its weights, as JSON: their name, how images are prepared, the classes' names.

    Args:
        name: "architecture" or "architecture.tag".
        facts: what the file says.
        num_classes: the model's; names of as many classes are kept.
    """
    names = facts.class_names if len(facts.class_names) == num_classes else ()
    told = {"name": name, "preparation": facts.preparation, "class_names": list(names)}
    return {key: value for key, value in told.items() if value}


def of_origin(origin):
    """The Facts of what a model remembers."""
    return Facts(class_names=tuple(origin.get("class_names", ())), preparation=dict(origin.get("preparation", {})))


def as_text(facts):
    """Facts for a header or a certificate, as JSON."""
    return json.dumps(asdict(facts))


def from_text(text, path):
    """Facts of what `as_text` gave; NOTHING of None. Raises SwinsError if it is no such text."""
    if text is None:
        return NOTHING
    try:
        content = json.loads(text)
        numbers = {str(name): value for name, value in dict(content["numbers"]).items()}
        return Facts(
            numbers,
            tuple(map(str, content.get("class_names") or ())),
            dict(content.get("preparation") or {}),
            content.get("architecture"),
            str(path),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SwinsError(f"{path}: its header's {KEY!r} is not what swins writes ({error!r}); save it again") from error
