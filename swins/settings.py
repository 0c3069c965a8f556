"""Settings of a recipe that check themselves: their type, their range, and the name that was meant by another."""

import dataclasses
import difflib
import re
import types
import typing

LARGEST = 3.4e38  # of float32, in which training computes
WHOLE = 2**32  # integers are below it, as seeds must be

ALIASES = {  # what other programs call a setting
    "batch_size": "batch",
    "clip_grad": "clip_norm",
    "dropout": "drop_rate",
    "ema_decay": "ema",
    "amp": "dtype",
    "grad_accum_steps": "accumulate",
    "gradient_accumulation_steps": "accumulate",
    "hflip": "flip",
    "input_size": "image_size",
    "label_smoothing": "smoothing",
    "mixed_precision": "dtype",
    "nb_classes": "num_classes",
    "num_workers": "threads",
    "pretrained": "weights",
    "reprob": "erase",
    "resolution": "image_size",
    "aa": "rand_augment",
    "bs": "batch",
    "decay": "weight_decay",
    "warmup": "warmup_epochs",
}


def setting(default, rule, holds):
    """A field of a recipe whose values must be as a rule says, in words and as a function of a value of its type."""
    return dataclasses.field(default=default, metadata={"rule": rule, "holds": holds})


def at_least(default, least):
    return setting(default, f"at least {least}", lambda value: value >= least)


def above(default, limit):
    return setting(default, f"above {limit}", lambda value: value > limit)


def probability(default):
    return setting(default, "a probability, from 0 to 1", lambda value: 0 <= value <= 1)


def rate(default):
    """A part of a whole, which it never is itself."""
    return setting(default, "from 0 to below 1", lambda value: 0 <= value < 1)


def one_of(default, choices):
    return setting(default, f"one of {', '.join(map(str, choices))}", lambda value: value in choices)


def finite(value):
    """Whether a value is a number that float32 can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def whole(value, least=0):
    """Whether a value is an integer from a least one on."""
    return type(value) is int and least <= value < WHOLE


def all_whole(values, least=1):
    """Whether a value is a tuple of integers, at least one."""
    return isinstance(values, tuple) and bool(values) and all(whole(value, least) for value in values)


def sides(value, least=1):
    """Whether a value is an integer from a least one on, or a pair of them."""
    return whole(value, least) or (all_whole(value, least) and len(value) == 2)


def ascending(pair):
    """Whether a value is a pair of numbers above 0, the smaller first."""
    return len(pair) == 2 and all(map(finite, pair)) and 0 < pair[0] <= pair[1]


def tuples(value):
    """Lists, as JSON and people write them, as tuples."""
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value


def kinds_of(hint):
    """The types that an annotation allows."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def is_of(value, kind):
    """Whether a value is of a type: an integer is a float too, True is no integer, and no number is infinite."""
    if kind is float:
        return finite(value)
    if kind is int:
        return type(value) is int and abs(value) < WHOLE
    return type(value) is kind


def names_of(kinds):
    """Types in words."""
    words = {types.NoneType: "None", float: "float (finite)", int: "int (below 2**32)"}
    return " or ".join(words.get(kind, kind.__name__) for kind in kinds)


def shown(value):
    """A value for an error, on one line of reasonable length, whatever it is."""
    try:
        text = repr(value)
    except Exception:  # an object of the user's
        text = f"a {type(value).__name__}"
    return text if len(text) < 80 else f"{text[:80]}..."


class Section:
    """What the sections of a recipe have in common: frozen dataclasses whose fields are `setting`s."""

    def __post_init__(self):
        for name, value in vars(self).items():
            object.__setattr__(self, name, tuples(value))

    def conflicts(self) -> dict[str, bool]:
        """{error: whether it holds} for settings that are right by themselves and cannot go together."""
        return {}


def problems(section, prefix: str = "") -> list[str]:
    """What is wrong with the fields of a recipe or a part of one -> texts, each with a field's name."""
    wrong, hints = [], typing.get_type_hints(type(section))
    for field in dataclasses.fields(section):
        name, value, kinds = f"{prefix}{field.name}", getattr(section, field.name), kinds_of(hints[field.name])
        if dataclasses.is_dataclass(kinds[0]):
            same = type(value) in kinds
            names = " or ".join(kind.__name__ for kind in kinds)
            wrong += problems(value, f"{name}.") if same else [f"{name} takes {names}; got {shown(value)}"]
        elif not any(is_of(value, kind) for kind in kinds):
            wrong.append(f"{name} takes {names_of(kinds)}; got {shown(value)}")
        elif value is not None and field.metadata and not field.metadata["holds"](value):
            wrong.append(f"{name} must be {field.metadata['rule']}; got {shown(value)}")
    return wrong or [text for text, conflict in section.conflicts().items() if conflict]


def likeness(name, known):
    """How probable it is that a name of a setting means a known one; more is likelier."""
    (section, leaf), (other, known_leaf) = (n.rpartition(".")[::2] for n in (name.lower(), known))
    words, others = (re.findall("[a-z0-9]+", text) for text in (leaf, known_leaf.replace("_", " ")))
    words = [word for text in words for word in text.split("_")]
    shared = sum(any(w == o or (len(min(w, o, key=len)) > 2 and w[:3] == o[:3]) for o in others) for w in words)
    same = known_leaf in (leaf, ALIASES.get(leaf)) or (len(leaf) > 1 and leaf == "".join(o[0] for o in others))
    ratio = difflib.SequenceMatcher(None, leaf, known_leaf).ratio()
    return 4 * same + 2 * shared / max(len(words), len(others), 1) + ratio + 0.3 * (section == other)


def closest(name, known):
    """The three known settings that a name most probably means, the likeliest first."""
    return sorted(known, key=lambda other: -likeness(name, other))[:3]
