"""What was done to a model's layers after they were made: what is frozen, other rates, low-rank adapters, quantization.

A Swin's config holds it, so that every copy has it: a file's, a clone, a resized model, a run's. Paths are names of
layers from the model down, as "stages_0_blocks_1/attn/qkv"; "" is the model itself.
"""

import keras
from keras import ops

from swins.errors import SwinsError, unknown_name

# attributes of layers that act when they are set later
NUMBERS = ("rate", "epsilon", "momentum", "remat", "query_chunk")
EXACT = ("int8", "int4", "float8")  # quantizations that come back to the bit; others were calibrated on data


def walk(layer, path=""):
    """Pairs (path, layer) of a model or layer and all that is in it, parents first."""
    yield path, layer
    for part in layer._flatten_layers(include_self=False, recursive=False):
        yield from walk(part, f"{path}/{part.name}".lstrip("/"))


def own(layer, path):
    """{path: variable} of a layer's own weights."""
    return {f"{path}/{v.name}": v for v in (*layer._trainable_variables, *layer._non_trainable_variables)}


def variables(model):
    """{path: variable} of a model's weights, adapters and scales of quantized kernels among them."""
    return {name: v for path, layer in walk(model) for name, v in own(layer, path).items()}


def adapted(layer):
    """Whether a layer has a low-rank adapter (`enable_lora`)."""
    return getattr(layer, "lora_enabled", False)


def quantization(layer):
    """How a layer is quantized, as the constructor takes it again; None if it is not."""
    mode = layer.quantization_mode
    config = getattr(layer, "quantization_config", None)
    return mode and [mode, config and keras.saving.serialize_keras_object(config)]


def facts(layer):
    """What is recorded of a layer where it is other than it was made: a dict that JSON can hold."""
    numbers = {name: getattr(layer, name) for name in NUMBERS if name in vars(layer)}
    if isinstance(layer, keras.Model):
        return numbers
    quantized = quantization(layer)
    return {**numbers, "quantized": quantized} if quantized else {**numbers, "dtype": layer.dtype_policy.name}


def snapshot(model):
    """What a model's layers are when it is made: {path: (class, facts)}, for `changes` to compare with."""
    return {path: (type(layer), facts(layer)) for path, layer in walk(model)}


def known(model, made):
    """{path: layer} of a model and what it was made of; what a class of the user's has attached is the user's."""
    return {path: layer for path, layer in walk(model) if path.partition("/")[0] in made}


def refuse(model, made):
    """Raise SwinsError if there is something that a copy could not have."""
    layers = known(model, made)
    replaced = [path for path in {**made, **layers} if path not in made or made[path][0] is not type(layers.get(path))]
    calibrated = [path for path, layer in layers.items() if layer.quantization_mode not in (None, *EXACT)]
    both = [path for path, layer in layers.items() if adapted(layer) and layer.quantization_mode]
    problems = {
        "layers that were put in place of the model's own cannot be copied or saved; got {}; save their weights apart, "
        "and put the model's own back": replaced,
        f"only quantization to {', '.join(EXACT)} can be copied or saved; got {{}}; quantize the copy": calibrated,
        "a quantized layer with a low-rank adapter cannot be copied or saved exactly, for merging them rounds anew; "
        "got {}; adapt and save the model first, then quantize": both,
    }
    if any(problems.values()):
        told = (text.format(f"{p[0]} ({len(p)} in all)") for text, p in problems.items() if p)
        raise SwinsError(f"{model.name}: {'; '.join(told)}")


def changes(model, made):
    """What a model or layer is beyond what it was made as -> {path: facts}, which JSON can hold.

    A fact is a number of NUMBERS, "dtype", "quantized", or "trainable" where a layer or variable is not as the layer
    that it is in. Adapters are not told: `values` merges them.

    Args:
        made: its snapshot.

    Raises:
        SwinsError: layers that were replaced, or quantized in a way that no copy can have.
    """
    refuse(model, made)
    found, trains = {}, {}
    for path, layer in known(model, made).items():
        told = {key: value for key, value in facts(layer).items() if made[path][1].get(key) != value}
        trains[path] = layer.trainable
        if layer.trainable != (trains[path.rpartition("/")[0]] if path else True):
            told["trainable"] = layer.trainable
        found[path] = told
        if not (adapted(layer) or layer.quantization_mode):  # whose kernels Keras freezes
            weights = own(layer, path).items()
            found |= {name: {"trainable": v.trainable} for name, v in weights if v.trainable != layer.trainable}
    return {path: told for path, told in found.items() if told}


def change(model, changed):
    """Do to a new model or layer what `changes` told.

    Raises:
        SwinsError: for paths that it has not.
    """
    layers = dict(walk(model))
    everything = {**layers, **variables(model)}
    for path in changed:
        if path not in everything:
            raise unknown_name("layer", path, list(everything))
    for path, told in changed.items():
        for key, value in told.items():
            if key == "quantized":
                if not layers[path].quantization_mode:  # what a part of the model records itself, it has already
                    quantize(model, layers[path], *value)
            elif key == "dtype":
                layers[path].dtype_policy = value
            elif key in NUMBERS:
                setattr(layers[path], key, value)
    for path in sorted(changed, key=lambda path: path.count("/") if path else -1):  # a flag reaches what is inside
        if "trainable" in changed[path]:
            flag = changed[path]["trainable"]
            everything[path].trainable = not flag  # Keras goes no further than a layer that has its flag already
            everything[path].trainable = flag


def quantize(model, layer, mode, config):
    """Quantize one layer of a model, or of another layer, as a recorded one was."""
    config = config and keras.saving.deserialize_keras_object(config)
    if isinstance(model, keras.Model):  # which has more to do then
        model.quantize(mode, config=config, filters=lambda other: other is layer)
    else:
        layer.quantize(mode, config=config)


class Recorded(keras.Model):
    """A model whose config holds what was done to its layers after it was made."""

    def record(self, frozen, changed, origin=None):
        """Call it when the model is made, with its options: paths that do not train, and what `get_changes` told."""
        self.made, self.origin = snapshot(self), dict(origin or {})
        change(self, {**{path: {"trainable": False} for path in frozen}, **(changed or {})})

    def get_changes(self):
        """The options "frozen", "changed" and "origin" with which a model is made like this one."""
        told = changes(self, self.made)
        frozen = [path for path, facts in told.items() if facts == {"trainable": False} and path]
        changed = {path: facts for path, facts in told.items() if path not in frozen}
        origin = {"origin": dict(self.origin)} if self.origin else {}
        return {"frozen": frozen, **({"changed": changed} if changed else {}), **origin}

    def save(self, *args, **options):
        self.get_config()  # which may refuse: before there is half a file
        super().save(*args, **options)


class RecordedParts(keras.Model):
    """As Recorded, of a model that calls its parts itself: Keras makes all of Recorded functional where one is."""

    record, get_changes = Recorded.record, Recorded.get_changes

    def save(self, *args, **options):
        self.get_config()
        super().save(*args, **options)


def values(model):
    """{path: array} of a model's weights, with low-rank adapters merged into their kernels: the same function."""
    arrays = {}
    for path, layer in walk(model):
        for name, variable in own(layer, path).items():
            arrays[name] = ops.convert_to_numpy(variable)
        if adapted(layer):
            del arrays[f"{path}/lora_kernel_a"], arrays[f"{path}/lora_kernel_b"]
            arrays[f"{path}/kernel"] = ops.convert_to_numpy(layer.kernel)
    return arrays


def assign(model, arrays):
    """Give a model the values of all its weights, by path."""
    for path, variable in variables(model).items():
        variable.assign(arrays[path])


def copy(model, **config):
    """A model of the same class with the same weights and changes, not compiled; config is what differs."""
    made = type(model)(**{**model.get_config(), **config})
    assign(made, values(model))
    return made


def floats(model, purpose):
    """Raise SwinsError if a model has quantized layers, which have no exact floating-point numbers for a purpose."""
    quantized = [path for path, layer in walk(model) if layer.quantization_mode]
    if quantized:
        mode = dict(walk(model))[quantized[0]].quantization_mode
        raise SwinsError(
            f"{purpose} takes a model before it is quantized; got {mode} in {quantized[0]} ({len(quantized)} layers)"
        )


class Composite(keras.layers.Layer):
    """A layer of parts, whose own config holds what was done to them later: for models that others make of it.

    Args:
        changed: as `changes` tells it.
    """

    def __init__(self, changed=None, **kwargs):
        super().__init__(**kwargs)
        self.changed = changed or {}

    def _post_build(self):
        self.made = snapshot(self)
        change(self, self.changed)
        super()._post_build()

    def get_config(self):
        config = {**self._auto_config.config, **super().get_config()}
        changed = changes(self, self.made) if self.built else self.changed
        return {**config, "changed": changed} if changed else config
