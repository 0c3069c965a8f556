"""A training run as numbers: frozen dataclasses, read from recipes/*.py, changed by --set."""

import ast
import importlib.util
import pathlib
import types
import typing
from dataclasses import asdict, dataclass, fields, is_dataclass, replace

from swins.errors import SwinsError, unknown_name
from swins.train.augment import rand_augment

FREE = ("data.threads", "checkpoint_steps", "model.remat", "model.compile")  # which change no result
TUNED = ("optim.learning_rate", "optim.warmup_rate", "optim.min_rate", "optim.clip_norm")  # may change on the way
STARTS = (None, "torch")
DTYPES = ("float32", "mixed_bfloat16")  # float16 would need its loss scaled


@dataclass(frozen=True)
class Model:
    """What is trained. None leaves the variant's value.

    name: a variant, with or without tag; weights: "" for fresh ones, "pretrained" for timm's published ones, or a path;
    start: "torch" for fresh weights of V2-CR as ChristophReich1996/Swin-Transformer-V2 begins, None for timm's;
    num_classes: None for as many as the data has; image_size in pixels; deformable: stages of V2-CR with deformable
    blocks; dtype: "float32" or "mixed_bfloat16"; remat: gradient checkpointing; compile: whether XLA compiles the step,
    None for Keras' choice.
    """

    name: str = "swin_tiny_patch4_window7_224"
    weights: str = ""
    start: str | None = None
    num_classes: int | None = None
    image_size: int | tuple | None = None
    patch_size: int | None = None
    in_chans: int | None = None
    embed_dim: int | None = None
    depths: tuple | None = None
    num_heads: tuple | None = None
    window_size: int | tuple | None = None
    size_rule: str | None = None
    deformable: tuple | None = None
    drop_rate: float | None = None
    drop_path_rate: float | None = None
    dtype: str = "float32"
    remat: bool = False
    compile: bool | None = None


@dataclass(frozen=True)
class Data:
    """How images are read. batch: images a step, of all devices together; they are dealt out evenly.

    crop: side of validation's centre crop over the side that the image is scaled to; mean, std: per channel, 0..1, None
    for those that the variant was published with; held_out: part of the training images that is kept for validation
    where the data set has none; threads: that decode and augment, 0 for as many as there are cores.
    """

    batch: int = 1024
    crop: float = 0.875
    mean: tuple | None = None
    std: tuple | None = None
    held_out: float = 0.1
    threads: int = 0


@dataclass(frozen=True)
class Augment:
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

    scale: tuple | None = (0.08, 1.0)
    ratio: tuple = (3 / 4, 4 / 3)
    pad: int = 0
    flip: float = 0.5
    rand_augment: str = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.0
    erase: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    mix: float = 1.0
    switch: float = 0.5
    smoothing: float = 0.1


@dataclass(frozen=True)
class Optim:
    """AdamW with warm-up and cosine decay, a step at a time.

    learning_rate, warmup_rate, min_rate: peak, first and last; if per_images is not 0, for batches of so many images,
    and scaled linearly to the batch. warmup_epochs come before the cosine and belong to the epochs. no_decay: parts of
    paths of variables that do not decay, besides those of one axis; decay_all: every variable decays. layer_decay:
    each layer learns this times as fast as the next. clip_norm: largest norm of all gradients, 0 for none. ema:
    momentum of the average of the weights that is evaluated and kept; 0 for none. accumulate: micro-batches that a
    batch is computed in, one after the other, for want of memory; validation takes as few images at a time.
    """

    learning_rate: float = 5e-4
    warmup_rate: float = 5e-7
    min_rate: float = 5e-6
    per_images: int = 512
    warmup_epochs: float = 20
    weight_decay: float = 0.05
    no_decay: tuple = ("relative_position_bias_table", "cpb_mlp", "logit_scale")
    decay_all: bool = False
    layer_decay: float = 1.0
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    clip_norm: float = 5.0
    ema: float = 0.0
    accumulate: int = 1


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
    epochs: int = 300
    seed: int = 0
    checkpoint_steps: int = 500
    deterministic: bool = False

    def __post_init__(self):
        a, o, d = self.augment, self.optim, self.data
        checks = {
            f"model.dtype must be one of {', '.join(DTYPES)}; got {self.model.dtype}": self.model.dtype not in DTYPES,
            f"model.start must be None or torch, of fresh weights; got {self.model.start} and model.weights="
            f"{self.model.weights!r}": self.model.start not in STARTS or bool(self.model.start and self.model.weights),
            f"epochs and data.batch must be at least 1; got {self.epochs} and {d.batch}": min(self.epochs, d.batch) < 1,
            f"optim.warmup_epochs must be from 0 to below epochs; got {o.warmup_epochs} and {self.epochs}; "
            "set both": not 0 <= o.warmup_epochs < self.epochs,
            f"optim.learning_rate must be above 0; got {o.learning_rate}": not o.learning_rate > 0,
            f"optim.accumulate must be at least 1; got {o.accumulate}": o.accumulate < 1,
            f"optim.ema must be in [0, 1); got {o.ema}": not 0 <= o.ema < 1,
            f"optim.layer_decay must be in (0, 1]; got {o.layer_decay}": not 0 < o.layer_decay <= 1,
            f"data.crop must be in (0, 1]; got {d.crop}": not 0 < d.crop <= 1,
            f"data.held_out must be in (0, 1); got {d.held_out}": not 0 < d.held_out < 1,
            "flip, erase, mix, switch and smoothing are probabilities; "
            f"got {a.flip}, {a.erase}, {a.mix}, {a.switch}, {a.smoothing}": not all(
                0 <= p <= 1 for p in (a.flip, a.erase, a.mix, a.switch, a.smoothing)
            ),
            f"seed must be below 2**32; got {self.seed}": self.seed >= 2**32,
            f"augment.scale and ratio are pairs above 0, the smaller first; got {a.scale} and {a.ratio}": not all(
                pair is None or (len(pair) == 2 and 0 < pair[0] <= pair[1]) for pair in (a.scale, a.ratio)
            ),
            "seed, data.threads, augment.pad, mixup, cutmix, color_jitter, optim.clip_norm, weight_decay, warmup_rate "
            f"and min_rate must be at least 0; got {self.seed}, {d.threads}, {a.pad}, {a.mixup}, {a.cutmix}, "
            f"{a.color_jitter}, {o.clip_norm}, {o.weight_decay}, {o.warmup_rate}, {o.min_rate}": min(
                self.seed,
                d.threads,
                a.pad,
                a.mixup,
                a.cutmix,
                a.color_jitter,
                o.clip_norm,
                o.weight_decay,
                o.warmup_rate,
                o.min_rate,
            )
            < 0,
            f"data.std must be above 0; got {d.std}": d.std is not None and not all(s > 0 for s in d.std),
            f"data.batch must be a multiple of optim.accumulate; got {d.batch} and {o.accumulate}": d.batch
            % max(o.accumulate, 1)
            != 0,
            "augment.mixup and cutmix mix an image with another of its batch, which must be even; "
            f"got {d.batch // max(o.accumulate, 1)}": bool(a.mixup or a.cutmix)
            and d.batch // max(o.accumulate, 1) % 2 == 1,
            f"checkpoint_steps must be at least 0; got {self.checkpoint_steps}": self.checkpoint_steps < 0,
        }
        if any(checks.values()):
            raise SwinsError("; ".join(text for text, wrong in checks.items() if wrong))
        if a.rand_augment:
            rand_augment(a.rand_augment)


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
            raise SwinsError(f"{unknown_name('setting', name, known)}; known: {', '.join(section)}")
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
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    value = tuple(value) if isinstance(value, list) else value
    for one in kinds:
        if one is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if type(value) is one:
            return value
    if str in kinds:
        return text
    names = " or ".join("None" if one is types.NoneType else one.__name__ for one in kinds)
    raise SwinsError(f"{name} takes {names}; got {text!r}")


def differences(old, new):
    """{name: text} of the settings of two flat dicts that are not the same, but those that change no result."""
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
