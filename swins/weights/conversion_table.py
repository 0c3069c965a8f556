"""Conversion as data, for any network: which Keras variable is which tensor, read in both directions and strictly.

CONVOLUTIONS = (Rule("layer{i}_conv/kernel", "layer{i}.conv.weight", "oihw->hwio", over="layers"),)
table = Table(CONVOLUTIONS, {"layers": [{"i": 1}, {"i": 2}]})
assign(model, state, table)
state = state_dict(model, table)
"""

import functools
from collections.abc import Callable, Iterable, KeysView, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from swins.changes import changes, floats, values
from swins.errors import SwinsError, unknown_name
from swins.weights import axes

ONCE = "once"  # the repetition that every table has
SHOWN = 6  # lines of what differs, where all of it would hide what to do


def always(variant, **place) -> bool:
    """The predicate of what every network of a table has."""
    return True


def nothing(name) -> bool:
    """What a table leaves out that takes everything."""
    return False


def no_advice(problems) -> list:
    """The advice of a table that knows none."""
    return []


@dataclass(frozen=True)
class Rule:
    """One Keras variable and the tensor it is made from.

    Args:
        keras_path: the variable's `path`, with a place's numbers in braces: "stages_{s}_blocks_{b}/norm1/gamma".
        torch_name: the tensor's key in a state dict, likewise.
        axes: how the tensor's axes become the variable's, as `axes.permute` reads it; "" keeps them.
        over: the table's repetition whose places the rule is repeated at.
        where: (variant, **place) -> whether the network has such a variable at that place.
    """

    keras_path: str
    torch_name: str
    axes: str = ""
    over: str = ONCE
    where: Callable[..., bool] = always

    def __post_init__(self):
        if self.axes:
            axes.read(self.axes)

    def at(self, place: Mapping[str, int]) -> "Rule":
        """The rule with a place's numbers filled in.

        Raises:
            SwinsError: a number that the place does not have.
        """
        try:
            path, name = self.keras_path.format(**place), self.torch_name.format(**place)
        except (KeyError, IndexError) as error:
            raise SwinsError(
                f"a rule names the numbers of its repetition {self.over!r}, which are {', '.join(place)}; got "
                f"{error} in {self.keras_path} and {self.torch_name}"
            ) from error
        return replace(self, keras_path=path, torch_name=name)


@dataclass(frozen=True)
class Table:
    """The rules of one network.

    Args:
        rules: the Rules.
        repetitions: {name: places}, what rules are repeated over; a place is such as {"s": 0, "b": 1}.
        variant: what predicates are asked about; anything.
        leaves_out: (tensor's name) -> whether the network leaves such a tensor out; any other that it does not take is
            an error.
        advice: (problems) -> lines that an error ends with.

    Raises:
        SwinsError: a repetition that the table does not have, two rules of one variable.
    """

    rules: tuple
    repetitions: Mapping[str, Iterable[Mapping[str, int]]] = field(default_factory=dict)
    variant: Any = None
    leaves_out: Callable[[str], bool] = nothing
    advice: Callable[[list], list] = no_advice

    @functools.cached_property
    def filled(self) -> dict:
        """{Keras path: Rule} of every variable of the network."""
        repetitions, filled = {ONCE: ({},), **self.repetitions}, {}
        for rule in self.rules:
            if rule.over not in repetitions:
                raise unknown_name("repetition", rule.over, list(repetitions))
            for place in repetitions[rule.over]:
                if rule.where(self.variant, **place):
                    one = rule.at(place)
                    if one.keras_path in filled:
                        raise SwinsError(f"a table has one rule for each variable; {one.keras_path} has two")
                    filled[one.keras_path] = one
        return filled

    @functools.cached_property
    def torch_names(self) -> KeysView:
        """The names of all tensors that the network takes, in the rules' order."""
        return {rule.torch_name: rule for rule in self.filled.values()}.keys()


def norm(keras_path, torch_name, over=ONCE, where=always) -> tuple:
    """The rules of a LayerNorm's two vectors."""
    return (
        Rule(f"{keras_path}/gamma", f"{torch_name}.weight", "", over, where),
        Rule(f"{keras_path}/beta", f"{torch_name}.bias", "", over, where),
    )


def dense(keras_path, torch_name, over=ONCE, where=always) -> tuple:
    """The rules of a linear layer's kernel and bias."""
    return (
        Rule(f"{keras_path}/kernel", f"{torch_name}.weight", "oi->io", over, where),
        Rule(f"{keras_path}/bias", f"{torch_name}.bias", "", over, where),
    )


def batch_norm(keras_path, torch_name, over=ONCE, where=always) -> tuple:
    """The rules of a batch norm's two vectors and of its moving statistics."""
    return (
        *norm(keras_path, torch_name, over, where),
        Rule(f"{keras_path}/moving_mean", f"{torch_name}.running_mean", "", over, where),
        Rule(f"{keras_path}/moving_variance", f"{torch_name}.running_var", "", over, where),
    )


def weights_of(model: keras.Model) -> dict:
    """{path: variable} of what a checkpoint holds: all weights but the seeds of dropout."""
    return {v.path: v for v in model.variables if not v.path.endswith("seed_generator_state")}


def problem(path, shape, tensor, value):
    """What is wrong with the array that a variable of this shape would get, in a line; "" if nothing is."""
    if value.shape != shape:
        return f"  ! {path} {shape}: {tensor} gives {value.shape}"
    if not (finite := np.isfinite(value)).all():
        return f"  ! {path}: {tensor} has {np.size(value) - finite.sum()} values NaN or infinite"
    return ""


def match(variables: Mapping, state: Mapping, table: Table) -> tuple:
    """The arrays that variables get of a state dict -> ({path: float32 array}, lines of what differs)."""
    arrays, problems = {}, []
    for path, variable in variables.items():
        rule, shape = table.filled[path], tuple(variable.shape)
        if rule.torch_name not in state:
            problems.append(f"  - {path} {shape}: no tensor {rule.torch_name}")
            continue
        tensor = np.asarray(state[rule.torch_name])
        if tensor.dtype.kind != "f":
            problems.append(f"  ! {path}: {rule.torch_name} holds {tensor.dtype}, not floating-point numbers")
            continue
        with np.errstate(over="ignore"):
            arrays[path] = axes.permute(tensor.astype("float32", copy=False), rule.axes)
        problems.append(problem(path, shape, rule.torch_name, arrays[path]))
    problems += [
        f"  + {name if name.isprintable() else repr(name)} {np.shape(value)}: not used by the model"
        for name, value in state.items()
        if name not in table.torch_names and not table.leaves_out(name)
    ]
    return arrays, [line for line in problems if line]


def fill(variables: Mapping, state: Mapping, table: Table, name: str, source: str = "the checkpoint") -> None:
    """Copy a state dict into variables, strictly on both sides.

    Args:
        variables: {path: variable}, those of the table and no others.
        state: {torch name: array}.
        table: the Table.
        name: what an error calls the variables' model.
        source: what it calls the state dict.

    Raises:
        SwinsError: listing every variable without a tensor (-), every wrong shape or value that is not finite (!)
            and every tensor without a variable (+). The variables are unchanged then.
    """
    if set(table.filled) != set(variables):
        raise RuntimeError(f"the rules do not cover the model: {sorted(set(table.filled) ^ set(variables))}")
    arrays, problems = match(variables, state, table)
    if problems:
        raise SwinsError("\n".join([f"{name}: {source} and the model differ", *problems, *table.advice(problems)]))
    for path, variable in variables.items():
        variable.assign(arrays[path])


def first_lines(error: SwinsError, advice: str = "", shown: int = SHOWN) -> str:
    """What an error of `fill` says, shortened to its first lines where every tensor differs, and how many more differ.

    Args:
        error: the error.
        advice: what to do, at the end of a text that is shortened.
        shown: lines that stay.
    """
    lines = str(error).splitlines()
    if len(lines) > shown:
        lines[shown:] = [f"  and {len(lines) - shown} more{advice}"]
    return "\n".join(lines)


def assign(model: keras.Model, state: Mapping, table: Table, source: str = "the checkpoint") -> None:
    """Copy a state dict {torch name: array} into a model, strictly on both sides; errors as `fill`'s."""
    fill(weights_of(model), state, table, model.name, source)


def state_dict(model: keras.Model, table: Table) -> dict:
    """A model's weights as a state dict {torch name: array}, the inverse of `assign`.

    Low-rank adapters are merged into their kernels. Raises SwinsError for what tensors do not tell: quantized layers,
    another epsilon of a norm than the model was made with.
    """
    floats(model, "a state dict")
    changed = changes(model, model.made) if hasattr(model, "made") else {}
    if epsilons := [path for path, facts in changed.items() if "epsilon" in facts]:
        raise SwinsError(
            f"a state dict holds tensors alone; {epsilons[0]} has an epsilon of its own ({len(epsilons)} in all)"
        )
    state = {}
    for path, value in values(model).items():
        rule = table.filled[path]
        state[rule.torch_name] = np.ascontiguousarray(axes.permute(value, axes.inverse(rule.axes)))
    return state
