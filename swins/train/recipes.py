"""A training run as numbers: frozen dataclasses, read from recipes/*.py, changed by --set."""

import ast
import importlib.util
import pathlib
import typing
from dataclasses import asdict, dataclass, fields, is_dataclass, replace

from swins.errors import SwinsError
from swins.plans import RULES
from swins.renamed import renamed
from swins.train import checked_fields
from swins.train.augment import rand_augment
from swins.train.checked_fields import (
    above,
    all_whole,
    ascending,
    at_least,
    finite,
    one_of,
    probability,
    setting,
    sides,
    whole,
)

FREE = ("data.threads", "checkpoint_steps", "model.remat", "model.compile")  # which change no result
TUNED = ("optim.learning_rate", "optim.warmup_rate", "optim.min_rate", "optim.clip_norm")  # may change on the way
STARTS = (None, "torch")
DTYPES = ("float32", "mixed_bfloat16")  # float16 would need its loss scaled
PAIR = "a pair of numbers above 0, the smaller first"


def windows(value):
    """Whether a value can be the windows of a model's stages."""
    return whole(value) or (isinstance(value, tuple) and bool(value) and all(sides(side, 0) for side in value))


class Section:
    """What the sections have in common."""

    def __post_init__(self):
        for name, value in vars(self).items():
            object.__setattr__(self, name, checked_fields.tuples(value))


@dataclass(frozen=True)
class Model(Section):
    """What is trained. None leaves the variant's value.

    name: a variant, with or without tag; weights: "" for fresh ones, "pretrained" for timm's published ones, or a path;
    start: "torch" for fresh weights of V2-CR as ChristophReich1996/Swin-Transformer-V2 begins, None for timm's;
    num_classes: None for as many as the data has; image_size in pixels; deformable: stages of V2-CR with deformable
    blocks; dtype: "float32" or "mixed_bfloat16"; remat: gradient checkpointing; compile: whether XLA compiles the step,
    None for Keras' choice.
    """

    name: str = setting("swin_tiny_patch4_window7_224", "a variant's name", bool)
    weights: str = ""
    start: str | None = setting(None, "None or torch, of fresh weights", lambda v: v in STARTS)
    num_classes: int | None = at_least(None, 1)
    image_size: int | tuple | None = setting(None, "pixels or a pair of them, at least 1", sides)
    patch_size: int | None = at_least(None, 1)
    in_chans: int | None = at_least(None, 1)
    embed_dim: int | None = at_least(None, 1)
    depths: tuple | None = setting(None, "integers of at least 1, one a stage", all_whole)
    num_heads: tuple | None = setting(None, "integers of at least 1, one a stage", all_whole)
    window_size: int | tuple | None = setting(None, "an integer or, for each stage, one or a pair", windows)
    size_rule: str | None = setting(None, f"None or one of {', '.join(RULES)}", lambda v: v in RULES)
    deformable: tuple | None = setting(None, "stages, counted from 0", lambda v: all(map(whole, v)))
    drop_rate: float | None = checked_fields.rate(None)
    drop_path_rate: float | None = checked_fields.rate(None)
    dtype: str = one_of("float32", DTYPES)
    remat: bool = False
    compile: bool | None = None


@dataclass(frozen=True)
class Data(Section):
    """How images are read. batch: images a step, of all devices together; they are dealt out evenly.

    crop: side of validation's centre crop over the side that the image is scaled to; mean, std: per channel, 0..1, None
    for those that the variant was published with; held_out: part of the training images that is kept for validation
    where the data set has none; threads: that decode and augment, 0 for as many as there are cores.
    """

    batch: int = at_least(1024, 1)
    crop: float = setting(0.875, "above 0, at most 1", lambda v: 0 < v <= 1)
    mean: tuple | None = setting(None, "numbers, one a channel", lambda v: bool(v) and all(map(finite, v)))
    std: tuple | None = setting(
        None, "numbers above 0, one a channel", lambda v: bool(v) and all(finite(x) and x > 0 for x in v)
    )
    held_out: float = setting(0.1, "above 0, below 1", lambda v: 0 < v < 1)
    threads: int = setting(0, "from 0 to 1024", lambda v: 0 <= v <= 1024)


@dataclass(frozen=True)
class Augment(Section):
    """What training images undergo, in this order; timm's meaning of every number.

    scale, ratio: random resized crop, area and aspect ratio of what is cut; scale None for none.
    pad: pixels of black around the image before a random crop of its own size; 0 for none.
    flip: probability of a horizontal flip.
    rand_augment: timm's text, such as "rand-m9-mstd0.5-inc1"; "" for none.
    color_jitter: largest change of brightness, contrast and saturation; 0 for none (timm leaves it out beside
        rand_augment, unless forced).
    erase: probability of random erasing, with a normal number for each pixel.
    mixup, cutmix: alpha of their beta distributions, 0 for none; mix: probability that a batch is mixed at all; switch:
        probability of CutMix, where both are on.
    smoothing: label smoothing.
    """

    scale: tuple | None = setting((0.08, 1.0), PAIR, ascending)
    ratio: tuple = setting((3 / 4, 4 / 3), PAIR, ascending)
    pad: int = at_least(0, 0)
    flip: float = probability(0.5)
    rand_augment: str = "rand-m9-mstd0.5-inc1"
    color_jitter: float = at_least(0.0, 0)
    erase: float = probability(0.25)
    mixup: float = at_least(0.8, 0)
    cutmix: float = at_least(1.0, 0)
    mix: float = probability(1.0)
    switch: float = probability(0.5)
    smoothing: float = probability(0.1)


@dataclass(frozen=True)
class Optim(Section):
    """AdamW with warm-up and cosine decay, a step at a time.

    learning_rate, warmup_rate, min_rate: peak, first and last; if per_images is not 0, for batches of so many images,
    and scaled linearly to the batch. warmup_epochs come before the cosine and belong to the epochs. no_decay: parts of
    paths of variables that do not decay, besides those of one axis; decay_all: every variable decays. layer_decay:
    each layer learns this times as fast as the next. clip_norm: largest norm of all gradients, 0 for none. ema:
    momentum of the average of the weights that is evaluated and kept; 0 for none. accumulate: micro-batches that a
    batch is computed in, one after the other, for want of memory; validation takes as few images at a time.
    """

    learning_rate: float = above(5e-4, 0)
    warmup_rate: float = at_least(5e-7, 0)
    min_rate: float = at_least(5e-6, 0)
    per_images: int = at_least(512, 0)
    warmup_epochs: float = at_least(20, 0)
    weight_decay: float = at_least(0.05, 0)
    no_decay: tuple = setting(
        ("relative_position_bias_table", "cpb_mlp", "logit_scale"),
        "texts, none empty",
        lambda v: all(isinstance(part, str) and part for part in v),
    )
    decay_all: bool = False
    layer_decay: float = setting(1.0, "above 0, at most 1", lambda v: 0 < v <= 1)
    beta_1: float = checked_fields.rate(0.9)
    beta_2: float = checked_fields.rate(0.999)
    epsilon: float = above(1e-8, 0)
    clip_norm: float = at_least(5.0, 0)
    ema: float = checked_fields.rate(0.0)
    accumulate: int = at_least(1, 1)


@dataclass(frozen=True)
class Recipe:
    """A whole run. checkpoint_steps: batches between checkpoints, besides those at the ends of epochs; 0 for none; a
    part of a batch counts as one where optim.accumulate divides them.

    deterministic: the same sums in the same order every time, at some cost in speed: asked of TensorFlow, given by JAX
    on CPUs; GPUs under JAX want XLA_FLAGS=--xla_gpu_deterministic_ops=true.
    """

    model: Model = Model()
    data: Data = Data()
    augment: Augment = Augment()
    optim: Optim = Optim()
    epochs: int = at_least(300, 1)
    seed: int = at_least(0, 0)
    checkpoint_steps: int = at_least(500, 0)
    deterministic: bool = False

    def __post_init__(self):
        wrong = checked_fields.problems(self) or [text for text, conflict in self.conflicts().items() if conflict]
        if wrong:
            raise SwinsError("; ".join(wrong))
        if self.augment.rand_augment:
            rand_augment(self.augment.rand_augment)

    def conflicts(self):
        """{text: whether it holds} of what settings, each right by itself, can be to each other."""
        m, a, o, d = self.model, self.augment, self.optim, self.data
        micro, scale = d.batch // o.accumulate, d.batch / (o.per_images or d.batch)
        return {
            f"model.start is of fresh weights; got {m.start} and model.weights={m.weights!r}": bool(
                m.start and m.weights
            ),
            f"optim.warmup_epochs must be from 0 to below epochs; got {o.warmup_epochs} and {self.epochs}; "
            "set both": o.warmup_epochs >= self.epochs,
            "learning rates, scaled to the batch, and optim.min_rate over optim.learning_rate must be finite; got "
            f"{o.learning_rate}, {o.warmup_rate}, {o.min_rate} and {d.batch} images for {o.per_images}": not all(
                map(
                    finite,
                    (*(r * scale for r in (o.learning_rate, o.warmup_rate, o.min_rate)), o.min_rate / o.learning_rate),
                )
            ),
            f"data.batch must be a multiple of optim.accumulate; got {d.batch} and {o.accumulate}": d.batch
            % o.accumulate
            != 0,
            f"augment.mixup and cutmix mix an image with another of its batch, which must be even; got {micro}": bool(
                a.mixup or a.cutmix
            )
            and micro % 2 == 1,
        }


def load(path):
    """The RECIPE of a Python file, which is executed: it is the user's own.

    Raises:
        SwinsError: if there is no such file, or it defines no RECIPE.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise SwinsError(f"{path}: no such recipe; recipes/ has those of this project")
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    if spec is None:
        raise SwinsError(f"{path}: a recipe is a Python file, *.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recipe = getattr(module, "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise SwinsError(f"{path}: a recipe defines RECIPE = Recipe(...); got {type(recipe).__name__}")
    return recipe


def settings(recipe):
    """{dotted name: value} of everything that can be set."""
    flat = {}
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if is_dataclass(value):
            flat |= {f"{field.name}.{name}": its for name, its in settings(value).items()}
        else:
            flat[field.name] = value
    return flat


def with_settings(recipe, texts):
    """The recipe with "name=value" texts applied, such as "optim.learning_rate=5e-4".

    Raises:
        SwinsError: an unknown name, with the known ones, or a value of another type.

    Example:
    >>> with_settings(Recipe(), ["epochs=30", "model.window_size=8"]).model.window_size
    8
    """
    known, changes = settings(recipe), {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise SwinsError(f"--set takes NAME=VALUE; got {text!r}")
        if name not in known:
            section = [k for k in known if k.startswith(name.partition(".")[0] + ".")] or list(known)
            likely = ", ".join(checked_fields.closest(name, known))
            raise SwinsError(f"unknown setting {name!r}: the closest are {likely}; known: {', '.join(section)}")
        changes[name] = value
    top = {}
    for name, text in changes.items():
        section, _, leaf = name.rpartition(".")
        owner = getattr(recipe, section) if section else recipe
        top.setdefault(section, {})[leaf] = parsed(name, text, typing.get_type_hints(type(owner))[leaf])
    sections = {name: replace(getattr(recipe, name), **values) for name, values in top.items() if name}
    return replace(recipe, **sections, **top.get("", {}))


def parsed(name, text, kind):
    """The value that a text stands for, of a type or one of several."""
    kinds = checked_fields.kinds_of(kind)
    try:
        value = checked_fields.tuples(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        value = text
    if float in kinds and checked_fields.finite(value):
        return float(value)
    if str in kinds and not any(type(value) is one for one in kinds):
        return text
    if not any(checked_fields.is_of(value, one) for one in kinds):
        raise SwinsError(f"{name} takes {checked_fields.names_of(kinds)}; got {checked_fields.shown(text)}")
    return value


def today(recorded):
    """Settings of a recipe.json or result.json under the names that they have today."""
    model, prefix = {}, "model."
    for name, value in recorded.items():
        if name.startswith(prefix):
            model[name.removeprefix(prefix)] = value
    others = {name: value for name, value in recorded.items() if not name.startswith(prefix)}
    return {**{prefix + name: value for name, value in renamed(model).items()}, **others}


def differences(old, new):
    """{name: text} of the settings of two flat dicts that are not the same, but those that change no result."""
    old = today(old)
    names = [k for k in sorted(set(old) | set(new)) if k not in FREE and old.get(k) != new.get(k)]
    return {k: f"{k}: {old.get(k)!r}, now {new.get(k)!r}" for k in names}


def as_json(recipe):
    """Settings as JSON can hold them: tuples become lists."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in settings(recipe).items()}


def model_options(recipe):
    """What `create` takes of a recipe's model, but what the variant decides."""
    options = asdict(recipe.model)
    apart = ("name", "weights", "start", "compile", "num_classes")
    return {k: v for k, v in options.items() if k not in apart and v is not None}
