"""A training run as numbers: frozen dataclasses whose types choose what is done, read from recipes/*.py, set by --set.

A Recipe's class is its kind of work (`Classification` of `swins.tasks.classification`), a section's class a choice:
`optim` is AdamW or Sgd, `schedule` Cosine, Steps or Poly.
"""

import ast
import importlib.util
import pathlib
import traceback
import typing
from dataclasses import dataclass, fields, is_dataclass, replace

from swins import settings
from swins.errors import SwinsError, unknown_name
from swins.renamed import renamed, renamed_settings
from swins.settings import Section, above, at_least, finite, one_of, setting

FREE = ("data.threads", "data.cache", "checkpoint_steps", "model.remat", "model.compile")  # which change no result
TUNED = (  # which may change on the way
    *("optim.learning_rate", "optim.clip_norm"),
    *("schedule.warmup_rate", "schedule.min_rate"),
    *("patience", "keep"),
)
KEPT = (None, "best")  # epochs whose weights a finished run keeps
DTYPES = ("float32", "mixed_bfloat16")  # float16 would need its loss scaled


@dataclass(frozen=True)
class Model(Section):
    """What is trained, whatever it is. name: of its network; weights: "" for fresh ones, "pretrained" for published
    ones, or a path; dtype: "float32" or "mixed_bfloat16"; remat: gradient checkpointing; compile: whether XLA compiles
    the step, None for Keras' choice.
    """

    name: str = setting("network", "a name", bool)
    weights: str = ""
    dtype: str = one_of("float32", DTYPES)
    remat: bool = False
    compile: bool | None = None


@dataclass(frozen=True)
class Data(Section):
    """How samples are read. batch: images a step, of all devices together; they are dealt out evenly.

    held_out: part of the training images that is kept for validation where the data set has none; threads: that decode
    and augment, 0 for as many as there are cores.
    """

    batch: int = at_least(1024, 1)
    held_out: float = setting(0.1, "above 0, below 1", lambda v: 0 < v < 1)
    threads: int = setting(0, "from 0 to 1024", lambda v: 0 <= v <= 1024)


@dataclass(frozen=True)
class Optimiser(Section):
    """What the optimisers have in common.

    learning_rate: the peak; if per_images is not 0, for batches of so many images, and scaled linearly to the batch, as
    all rates are. weight_decay is not of variables of one axis, nor of those whose path has a part of no_decay, unless
    decay_all; with decay_biases it is also of variables of one axis that no_decay does not name, as with mmcv's
    custom_keys. layer_decay: each layer learns this times as fast as the next. clip_norm: largest norm of all
    gradients, 0 for none. ema: momentum of the average of the weights that is evaluated and kept, 0 for none; after n
    updates it is (1 + n) / (10 + n) at most, so that the first weights are soon forgotten.
    accumulate: micro-batches that a batch is computed in, one after the other, for want of memory; validation takes as
    few images.
    """

    learning_rate: float = above(5e-4, 0)
    per_images: int = at_least(512, 0)
    weight_decay: float = at_least(0.05, 0)
    no_decay: tuple = setting(
        ("relative_position_bias_table", "cpb_mlp", "logit_scale"),
        "texts, none empty",
        lambda v: all(isinstance(part, str) and part for part in v),
    )
    decay_all: bool = False
    decay_biases: bool = False
    layer_decay: float = setting(1.0, "above 0, at most 1", lambda v: 0 < v <= 1)
    clip_norm: float = at_least(5.0, 0)
    ema: float = settings.rate(0.0)
    accumulate: int = at_least(1, 1)


@dataclass(frozen=True)
class AdamW(Optimiser):
    """Adam with decoupled decay (arXiv:1711.05101), step for step PyTorch's. beta_1, beta_2: decay of the moments."""

    beta_1: float = settings.rate(0.9)
    beta_2: float = settings.rate(0.999)
    epsilon: float = above(1e-8, 0)


@dataclass(frozen=True)
class Sgd(Optimiser):
    """Gradient descent with momentum, whose decay is added to the gradient, step for step PyTorch's.

    nesterov: whether the momentum looks ahead.
    """

    learning_rate: float = above(0.01, 0)
    per_images: int = at_least(0, 0)
    weight_decay: float = at_least(1e-4, 0)
    momentum: float = settings.rate(0.9)
    nesterov: bool = False

    def conflicts(self):
        return {"optim.nesterov needs optim.momentum above 0; got 0": self.nesterov and self.momentum == 0}


@dataclass(frozen=True)
class WarmUp(Section):
    """Before a schedule the rate grows linearly from warmup_rate to the peak, over warmup_epochs and warmup_updates.

    Both belong to the run's epochs; where they do not fit it, the rate grows over a tenth of it. warmup_rate is scaled
    to the batch as optim.learning_rate is.
    """

    warmup_rate: float = at_least(5e-7, 0)
    warmup_epochs: float = at_least(20, 0)
    warmup_updates: int = at_least(0, 0)


@dataclass(frozen=True)
class Cosine(WarmUp):
    """Half a cosine from the peak to min_rate at the run's end."""

    min_rate: float = at_least(5e-6, 0)


@dataclass(frozen=True)
class Steps(WarmUp):
    """The peak, times `factor` from each of `epochs` on, which are counted from the run's beginning.

    Those that the run does not reach have no effect.
    """

    epochs: tuple = setting(
        (),
        "epochs at least 0, each later than the one before",
        lambda v: all(finite(e) and e >= 0 for e in v) and list(v) == sorted(set(v)),
    )
    factor: float = setting(0.1, "above 0, at most 1", lambda v: 0 < v <= 1)


@dataclass(frozen=True)
class Poly(WarmUp):
    """From the peak to min_rate as (1 - t)**power, t from 0 after the warm-up to 1 at the run's end."""

    min_rate: float = at_least(0.0, 0)
    power: float = setting(1.0, "above 0, at most 10", lambda v: 0 < v <= 10)


@dataclass(frozen=True)
class Frozen(Section):
    """A first part of a run, in which the backbone keeps its weights and what is on top of it alone learns.

    It is cheaper, and fresh weights of a head do not pull a backbone about that knows more than they. Each part has an
    optimiser and the whole schedule, with its warm-up, of its own. epochs: how many of the run's epochs, None for none;
    learning_rate: the peak in these, scaled as optim.learning_rate, None for that one. Norms of batches follow these.
    """

    epochs: int | None = at_least(None, 1)
    learning_rate: float | None = above(None, 0)


@dataclass(frozen=True)
class Recipe:
    """A whole run, of any kind of work.

    epochs: how often all images are seen; or, if updates_per_epoch is not 0, how often so many updates are done, each
    of which ends with a validation and a row of the log: for runs that are counted in updates. checkpoint_steps:
    batches between checkpoints, besides those at the ends of epochs; 0 for none; a part of a batch counts as one where
    optim.accumulate divides them.

    deterministic: the same sums in the same order every time, at some cost in speed: asked of TensorFlow, given by JAX
    on CPUs; GPUs under JAX want XLA_FLAGS=--xla_gpu_deterministic_ops=true.

    patience: how many epochs may pass without one better than the best before the run ends early, None for all. An
    epoch is better by the first score of its kind of work, such as top-1, and of equal scores by the validation loss.
    keep: whose weights model.keras has at the end: None for the last epoch's, "best" for those of the best one, which
    best.keras always has.
    """

    model: Model = Model()
    data: Data = Data()
    optim: AdamW | Sgd = AdamW()
    schedule: Cosine | Steps | Poly = Cosine()
    epochs: int = at_least(300, 1)
    updates_per_epoch: int = at_least(0, 0)
    seed: int = at_least(0, 0)
    checkpoint_steps: int = at_least(500, 0)
    deterministic: bool = False
    patience: int | None = at_least(None, 1)
    frozen: Frozen = Frozen()
    keep: str | None = setting(None, "None or best", lambda v: v in KEPT)

    def __post_init__(self):
        if wrong := settings.problems(self):
            raise SwinsError("; ".join(wrong))

    def conflicts(self) -> dict[str, bool]:
        """{error: whether it holds} for settings that are right by themselves and cannot go together."""
        optim, schedule, batch = self.optim, self.schedule, self.data.batch
        scale, lowest = batch / (optim.per_images or batch), getattr(schedule, "min_rate", 0.0)
        rates = [rate * scale for rate in (optim.learning_rate, schedule.warmup_rate, lowest)]
        return {
            "learning rates, scaled to the batch, and schedule.min_rate over optim.learning_rate must be finite; got "
            f"{optim.learning_rate}, {schedule.warmup_rate}, {lowest} and {batch} images for {optim.per_images}": not (
                all(map(finite, (*rates, lowest / optim.learning_rate)))
            ),
            f"data.batch must be a multiple of optim.accumulate; got {batch} and {optim.accumulate}": batch
            % optim.accumulate
            != 0,
        }


def load(path) -> Recipe:
    """The RECIPE of a Python file, which is executed: it is the user's own.

    Raises:
        SwinsError: if there is no such file, or it defines no RECIPE.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise SwinsError(f"{path}: no such recipe; `swins train --list` has those of this project")
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    if spec is None:
        raise SwinsError(f"{path}: a recipe is a Python file, *.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (TypeError, NameError, ImportError, SyntaxError) as error:  # what a mistyped setting leads to
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f", line {lines[-1]}" if lines else ""
        raise SwinsError(f"{path}{place}: {error}; `swins train RECIPE --print` prints what can be set") from error
    recipe = getattr(module, "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise SwinsError(
            f"{path}: a recipe defines RECIPE = Classification(...), or another kind of Recipe; got "
            f"{type(recipe).__name__}"
        )
    return recipe


def flat_settings(recipe) -> dict:
    """{dotted name: value} of everything that can be set; a section that has several classes is named by its own."""
    flat, hints = {}, typing.get_type_hints(type(recipe))
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if not is_dataclass(value):
            flat[field.name] = value
            continue
        if len(settings.kinds_of(hints[field.name])) > 1:
            flat[field.name] = type(value).__name__
        flat |= {f"{field.name}.{name}": leaf for name, leaf in flat_settings(value).items()}
    return flat


def with_settings(recipe: Recipe, texts: list[str]) -> Recipe:
    """The recipe with "name=value" texts applied, such as "optim.learning_rate=5e-4" or "schedule=Steps".

    A section whose class changes begins with that class' values, but for those that were set and both have.

    Raises:
        SwinsError: an unknown name, with the known ones, or a value of another type.

    Example:
    >>> with_settings(Recipe(), ["epochs=30", "optim=Sgd", "optim.momentum=0.8"]).optim.momentum
    0.8
    """
    pairs = [text.partition("=") for text in texts]
    if bare := [text for text, (_, equals, _) in zip(texts, pairs, strict=True) if not equals]:
        raise SwinsError(f"--set takes NAME=VALUE; got {bare[0]!r}")
    hints, sections = typing.get_type_hints(type(recipe)), {}
    for name, _, value in pairs:
        if name in hints and len(kinds := settings.kinds_of(hints[name])) > 1 and is_dataclass(kinds[0]):
            sections[name] = of_class(getattr(recipe, name), kinds, name, value)
    known, changes = known_settings(recipe, sections), {}
    for name, _, value in pairs:
        if name not in known:
            likely = ", ".join(settings.closest(name, known))
            section = [k for k in known if k.startswith(name.partition(".")[0] + ".")] or list(known)
            raise SwinsError(f"unknown setting {name!r}: the closest are {likely}; known: {', '.join(section)}")
        changes[name] = value
    top = {}
    for name, text in changes.items():
        section, _, leaf = name.rpartition(".")
        if name not in sections:
            owner = sections.get(section, getattr(recipe, section)) if section else recipe
            top.setdefault(section, {})[leaf] = parsed(name, text, typing.get_type_hints(type(owner))[leaf])
    for name, values in top.items():
        if name:
            sections[name] = replace(sections.get(name, getattr(recipe, name)), **values)
    return replace(recipe, **sections, **top.get("", {}))


def known_settings(recipe, sections) -> list[str]:
    """Dotted names of everything that can be set of a recipe, some of whose sections are of another class."""
    flat = {}
    for field in fields(recipe):
        value = sections.get(field.name, getattr(recipe, field.name))
        inner = flat_settings(value) if is_dataclass(value) else {}
        flat |= {f"{field.name}.{name}": None for name in inner} or {field.name: None}
    several = [name for name, hint in typing.get_type_hints(type(recipe)).items() if is_choice(hint)]
    return [*flat, *several]


def is_choice(hint) -> bool:
    """Whether an annotation is of several sections."""
    kinds = settings.kinds_of(hint)
    return len(kinds) > 1 and is_dataclass(kinds[0])


def of_class(section, kinds, name, wanted):
    """A section of the class of a name, with the values that it shares with another."""
    classes = {kind.__name__: kind for kind in kinds}
    if wanted not in classes:
        raise unknown_name(name, wanted, list(classes))
    if type(section) is classes[wanted]:
        return section
    own, theirs = classes[wanted](), type(section)()
    shared = {f.name for f in fields(own)} & {f.name for f in fields(theirs)}
    changed = {leaf: value for leaf in shared if (value := getattr(section, leaf)) != getattr(theirs, leaf)}
    return replace(own, **changed)


def parsed(name, text, kind):
    """The value that a text stands for, of a type or one of several."""
    kinds = settings.kinds_of(kind)
    try:
        value = settings.tuples(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        value = text
    if float in kinds and finite(value):
        return float(value)
    if str in kinds and not any(type(value) is one for one in kinds):
        return text
    if not any(settings.is_of(value, one) for one in kinds):
        raise SwinsError(f"{name} takes {settings.names_of(kinds)}; got {settings.shown(text)}")
    return value


def today(recorded: dict) -> dict:
    """Settings of a recipe.json or result.json under the names that they have today."""
    recorded = renamed_settings(recorded)
    model, prefix = {}, "model."
    for name, value in recorded.items():
        if name.startswith(prefix):
            model[name.removeprefix(prefix)] = value
    others = {name: value for name, value in recorded.items() if not name.startswith(prefix)}
    return {**{prefix + name: value for name, value in renamed(model).items()}, **others}


def differences(old: dict, new: dict) -> dict:
    """{name: text} of the settings of two flat dicts that are not the same, but those that change no result."""
    old = today(old)
    names = [k for k in sorted(set(old) | set(new)) if k not in FREE and old.get(k) != new.get(k)]
    return {k: f"{k}: {old.get(k)!r}, now {new.get(k)!r}" for k in names}


def as_json(recipe: Recipe) -> dict:
    """Settings as JSON can hold them: tuples become lists; "recipe" is the class."""
    flat = {"recipe": type(recipe).__name__, **flat_settings(recipe)}
    return {name: lists(value) for name, value in flat.items()}


def lists(value):
    """Tuples, however deep, as JSON gives them back."""
    return [lists(part) for part in value] if isinstance(value, list | tuple) else value
