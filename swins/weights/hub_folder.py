"""Folders that `save_pretrained`, a Trainer and timm's hub write: where the weights lie, and what config.json says."""

import json
import math
import pathlib
import re

from swins.errors import SwinsError
from swins.layers import NORM_EPSILON
from swins.model_configs import VARIANTS
from swins.plans import Variant, VariantV2, with_overrides
from swins.weights import exported
from swins.weights.facts import NOTHING, Facts

CONFIG, PREPARATION, INDEX = "config.json", "preprocessor_config.json", ".index.json"
WEIGHTS = (  # in transformers' order
    *("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}"),
)
COMPANY = re.compile(r"(?:optimizer|scheduler|scaler|rng_state|random_states|training_args)")  # of a Trainer's folder
LARGEST = 2**24  # bytes of a JSON file that is read; the names of 22k classes take 1.5 million
MOST = 32  # numbers of a list
V1, V2 = Variant(), VariantV2(image_size=224, window_size=7)  # with transformers' defaults
HUGGING_FACE = {"swin": V1, "swinv2": V2, "donut-swin": V1, "maskformer-swin": V1}  # model_type
INSIDE = ("backbone_config", "encoder", "vision_config")  # where a model of several parts keeps its Swin's
THEIRS = {  # our number -> its names in transformers and in timm
    "image_size": ("image_size", "img_size"),
    "patch_size": ("patch_size",),
    "in_chans": ("num_channels", "in_chans"),
    "embed_dim": ("embed_dim",),
    "depths": ("depths",),
    "num_heads": ("num_heads",),
    "window_size": ("window_size",),
    "mlp_ratio": ("mlp_ratio",),
    "pretrained_windows": ("pretrained_window_sizes",),
}
ONLY = {  # what this package's models compute: other values would load and give other numbers
    "hidden_act": (None, "gelu"),
    "act_layer": (None, "gelu"),
    "layer_norm_eps": (None, NORM_EPSILON),
    "global_pool": (None, "avg", ""),
}
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers


def weights_of(folder, endings):
    """The file of a folder that holds its weights, or the index of their parts -> path.

    Raises:
        SwinsError: if there is none, as in an exported model, or several of which none has the name that transformers
            and timm give.
    """
    folder = pathlib.Path(folder)
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    files = sorted(p for p in folder.iterdir() if p.name.lower().endswith(endings) and p.is_file())
    files = [path for path in files if not COMPANY.match(path.name)]
    if len(files) == 1:
        return files[0]
    if not files:
        exported.refuse(folder)
    names = ", ".join(path.name for path in files[:5]) or "none"
    raise SwinsError(
        f"{folder}: must hold {WEIGHTS[0]}, {WEIGHTS[2]} or one checkpoint, or be an artefact, with model.keras; "
        f"got {names}; name the file"
    )


def read_json(path):
    """The object in a JSON file -> dict. Raises SwinsError if it is none, or too large to be one of ours."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"larger than {LARGEST} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"a {type(found).__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise SwinsError(f"{path}: must be a JSON object; got {error}; mend it, or name the weights' file") from error
    return found


def shards(index):
    """The files that an index names, which lie beside it -> paths, in order. Raises SwinsError if they do not."""
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()) or not names:
        raise SwinsError(f"{index}: must have a weight_map of tensors' names and files; save the model again")
    files = [index.parent / name for name in sorted(set(names.values()))]
    strange = [f.name for f in files if f.parent != index.parent or f.name in ("", ".", "..") or "\\" in f.name]
    if strange:
        raise SwinsError(f"{index}: parts must lie beside their index; got {', '.join(strange[:3])}")
    missing = [f.name for f in files if not f.is_file()]
    if missing:
        raise SwinsError(f"{index}: {len(missing)} of {len(files)} parts are missing: {', '.join(missing[:3])}")
    return files


def swin_of(config):
    """What config.json says of its Swin, and who wrote it -> (dict, "huggingface", "timm" or None)."""
    for part in (config, *(config.get(name) for name in INSIDE)):
        if isinstance(part, dict) and isinstance(kind := part.get("model_type"), str) and kind in HUGGING_FACE:
            return part, "huggingface"
    if isinstance(name := config.get("architecture"), str) and name.startswith("swin"):
        return config, "timm"
    return {}, None


def plain(value, path, name):
    """A number or a short list of numbers, as a tuple. Raises SwinsError for anything else."""
    numbers = value if isinstance(value, list) else [value]
    sensible = len(numbers) <= MOST and all(type(n) in (int, float) and 0 <= n <= 2**16 for n in numbers)
    if not sensible:
        raise SwinsError(f"{path}: {name} must be a number, or a few, from 0 to {2**16}; got {str(value)[:80]}")
    return tuple(value) if isinstance(value, list) else value


def numbers_of(config, writer, path):
    """The fields of a Variant that config.json settles -> dict."""
    native = VARIANTS.get(config.get("architecture")) if writer == "timm" else HUGGING_FACE[config["model_type"]]
    arguments = config.get("model_args", {}) if writer == "timm" else config
    if not isinstance(arguments, dict):
        raise SwinsError(f"{path}: model_args must be an object; got {str(arguments)[:80]}")
    told = {}
    for ours, theirs in THEIRS.items():
        value = next((arguments[name] for name in theirs if arguments.get(name) is not None), None)
        if value is None and native is not None and hasattr(native, ours):
            value = getattr(native, ours)
        elif value is not None:
            value = plain(value, path, ours)
        if value is not None:
            told[ours] = value
    if not told.get("window_size"):  # V2-CR's follows from the image
        told.pop("window_size", None)
    if native is not None:
        try:
            with_overrides(native, told)
        except (SwinsError, TypeError, OverflowError) as error:
            raise SwinsError(f"{path}: its numbers make no Swin: {error}") from error
    return {**told, "size_rule": writer}


def require_computed(file):
    """Raise SwinsError if a config.json beside weights, and of their model, says what our models do not compute."""
    path = pathlib.Path(file).with_name(CONFIG)
    config, _ = swin_of(read_json(path))
    arguments = config.get("model_args", {})
    for name, values in ONLY.items():
        value = arguments.get(name, config.get(name)) if isinstance(arguments, dict) else config.get(name)
        if value not in values:
            raise SwinsError(f"{path}: {name} must be {values[1]!r} in this package's models; got {value!r}")


def class_names(config, path):
    """A name per logit, in their order; () where config.json has none, or transformers' LABEL_0, LABEL_1, ..."""
    names = config.get("id2label") or config.get("label_names") or ()
    if isinstance(names, dict):
        try:
            names = {int(number): name for number, name in names.items()}
        except ValueError as error:
            raise SwinsError(f"{path}: classes must be numbered 0, 1, ...; got {str(error)[-60:]}") from error
        if sorted(names) != list(range(len(names))):
            raise SwinsError(f"{path}: {len(names)} classes must be numbered 0 to {len(names) - 1}")
        names = [names[number] for number in range(len(names))]
    if not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
        raise SwinsError(f"{path}: the names of classes must be strings")
    if all(name == f"LABEL_{number}" for number, name in enumerate(names)):
        return ()
    words = config.get("label_descriptions")
    words = words if isinstance(words, dict) else {}
    return tuple(str(words.get(name, name)) for name in names)


def timms_preparation(config):
    """The preparation in timm's config.json -> (image size, the rest of it)."""
    card = config.get("pretrained_cfg")
    card = card if isinstance(card, dict) else {}
    size = card.get("input_size")
    told = {"crop": card.get("crop_pct"), "mean": card.get("mean"), "std": card.get("std")}
    how = card.get("interpolation")
    if (mode := card.get("crop_mode", "center")) not in ("center", None) and card.get("crop_pct") != 1:
        how = f"{how or 'bicubic'}, crop_mode {mode}"  # which this package has not
    elif mode == "squash":
        told["crop"] = None
    return size[1:] if isinstance(size, list) else None, {**told, "interpolation": how}


def transformers_preparation(card):
    """The preparation in preprocessor_config.json -> (image size, the rest of it)."""

    def size_of(value):
        if isinstance(value, dict):
            sides = [value.get("height"), value.get("width")]
            return sides if None not in sides else value.get("shortest_edge")
        return value

    size, cut = (size_of(card.get(name)) for name in ("size", "crop_size"))
    cut = cut if card.get("do_center_crop") else None
    crop = card.get("crop_pct")
    if isinstance(size, int) and isinstance(cut, list) and cut[0] == cut[1] and type(cut[0]) is int and size:
        crop = cut[0] / size
    normal = card.get("do_normalize", True)
    told = {"crop": crop, "mean": card.get("image_mean") if normal else [0.0] * 3}
    told["std"] = card.get("image_std") if normal else [1.0] * 3
    resample = card.get("resample")
    return cut or size, {**told, "interpolation": RESAMPLING.get(resample) if isinstance(resample, int) else None}


def preparation_of(size, told, path):
    """{"image_size", "crop", "mean", "std", "interpolation"}, as far as a file says, checked."""
    if size is not None:
        size = plain(size, path, "the images' size")
        told = {"image_size": size if isinstance(size, tuple) else (size, size), **told}
    found = {}
    for name, value in told.items():
        if value is None or (name == "interpolation" and isinstance(value, str)):
            found[name] = value
        else:
            found[name] = plain(list(value) if isinstance(value, tuple) else value, path, name)
    return {name: value for name, value in found.items() if value is not None}


def facts_beside(file, strict):
    """What config.json and preprocessor_config.json beside a file of weights say -> Facts.

    Args:
        file: the weights.
        strict: whether a config.json that cannot be read is an error; else it is another's and says nothing.
    """
    path = pathlib.Path(file).with_name(CONFIG)
    if not path.is_file():
        return NOTHING
    try:
        whole = read_json(path)
        config, writer = swin_of(whole)
        if writer is None:
            return NOTHING
        if writer == "timm":
            size, told = timms_preparation(config)
        else:
            card = path.with_name(PREPARATION)
            size, told = transformers_preparation(read_json(card)) if card.is_file() else (None, {})
        return Facts(
            numbers=numbers_of(config, writer, path),
            class_names=class_names(config, path) if config is whole else (),  # a part's are a detector's
            preparation=preparation_of(size, told, path),
            architecture=config["architecture"] if config.get("architecture") in VARIANTS else None,
            source=str(path),
        )
    except SwinsError:
        if strict:
            raise
        return NOTHING


def segmenter_facts(file):
    """What a UPerNet's config.json beside a file of weights says of its head -> Facts; of others, NOTHING."""
    path = pathlib.Path(file).with_name(CONFIG)
    config = read_json(path) if path.is_file() else {}
    if config.get("model_type") != "upernet":
        return NOTHING
    bins = config.get("pool_scales")
    numbers = {"bins": plain(bins, path, "pool_scales")} if bins else {}
    return Facts(numbers=numbers, class_names=class_names(config, path), source=str(path))


def disagreements(facts, identity, num_classes):
    """How what tensors tell differs from what config.json says -> ["embed_dim 24, not 96", ...].

    A window may be as written, or clipped by its map, as timm builds them.
    """
    numbers, found = facts.numbers, []
    for name in ("patch_size", "in_chans", "embed_dim", "depths", "num_heads"):
        told, said = getattr(identity, name), numbers.get(name)
        parts = zip(told, said, strict=False) if isinstance(told, tuple) and isinstance(said, tuple) else [(told, said)]
        lengths = isinstance(told, tuple) and isinstance(said, tuple) and len(told) != len(said)
        if lengths or any(a is not None and b is not None and a != b for a, b in parts):
            found.append(f"{name} {told}, not {said}")
    if windows := window_disagreement(numbers, identity):
        found.append(windows)
    if facts.class_names and num_classes and len(facts.class_names) != num_classes:
        found.append(f"{num_classes} classes, not {len(facts.class_names)} names")
    return found


def window_disagreement(numbers, identity):
    """The windows of bias tables and buffers, where config.json says others; "" where they agree or are silent."""
    said, size, patch = (numbers.get(name) for name in ("window_size", "image_size", "patch_size"))
    if not isinstance(said, int):
        return ""
    side = min(size) if isinstance(size, tuple) and None not in size else size
    for stage, told in enumerate(identity.windows):
        clipped = min(said, math.ceil(side // patch / 2**stage)) if side and patch else said
        if told not in (None, said, clipped):
            return f"windows {identity.windows}, not {said}"
    return ""
