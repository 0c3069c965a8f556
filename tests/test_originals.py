"""What mmdet, mmsegmentation, mmpretrain, Microsoft's and C. Reich's programs computed themselves: fixtures that
reference/originals.py made (reference/originals/README.md). Our reading of their files and sizes must give the same.
"""

import json
import pathlib
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
import pytest

import swins
from swins.convert.certificate import ROUNDING
from swins.weights import dialects, swin_rules

FOLDER = pathlib.Path(__file__).parent / "reference" / "originals"
ANY = (None, None)
V1, V2, CR = swins.SwinTransformer, swins.SwinTransformerV2, swins.SwinTransformerV2CR
V1_TOLERANCE, V2_TOLERANCE = 1e-5, 2e-4  # V2's cosines are multiplied by up to 100, and so is float32's rounding


@dataclass(frozen=True)
class Original:
    """A fixture: class, numbers that the file does not tell, the size rule that its tensors do not tell, or None."""

    family: type
    numbers: dict
    rule: str | None = None
    dialect: str = "mmdet, mmseg or mmpretrain"


TWO = {"embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "window_size": 4}
V2_TWO = {**TWO, "num_heads": (2, 4)}
MICROSOFT, DETECTOR = "microsoft or timm before 0.9", "microsoft detector or segmenter"
ORIGINALS = {
    "mmdet": Original(V1, TWO),
    "mmdet_three_stages": Original(V1, {**TWO, "embed_dim": 4, "depths": (2, 1, 2), "num_heads": (1, 2, 4)}),
    "mmseg": Original(V1, {**TWO, "window_size": 3}),
    "mmpretrain": Original(V1, TWO),
    "mmpretrain_padded": Original(V1, TWO, "open_mmlab"),
    "mmpretrain_backbone": Original(V1, TWO),
    "mmpretrain_v2": Original(V2, V2_TWO),
    "mmpretrain_v2_padded": Original(V2, {**V2_TWO, "window_size": (4, 3), "pretrained_windows": (6, 2)}, "open_mmlab"),
    "mmpretrain_v2_backbone": Original(V2, V2_TWO, "mmpretrain"),
    "microsoft": Original(V1, TWO, "microsoft", MICROSOFT),
    "microsoft_v2": Original(V2, V2_TWO, "microsoft", MICROSOFT),
    "microsoft_v2_pretrained": Original(V2, {**V2_TWO, "pretrained_windows": (3, 2)}, "microsoft", MICROSOFT),
    "microsoft_detection": Original(V1, TWO, None, DETECTOR),
    "microsoft_segmentation": Original(V1, {**TWO, "window_size": 3}, None, DETECTOR),
    "christoph": Original(CR, {**TWO, "meta_dim": 256, "extra_norm": "none"}, "microsoft", "C. Reich"),
}
ODD_MERGES = [(12, 12)]  # where C. Reich's merging drops the last row and column, and ours pads, as the papers' do


def load(name):
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file), json.loads(str(file["cases"]))


def state_of(file, i, case):
    """The state dict with which a case was computed: a program that is built for a size has tensors of that size."""
    state = {k.removeprefix("state/"): v for k, v in file.items() if k.startswith("state/")}
    state = {k: v for k, v in state.items() if k not in case.get("without", ())}
    return state | {k.removeprefix(f"state_of/{i}/"): v for k, v in file.items() if k.startswith(f"state_of/{i}/")}


def images_of(case):
    return np.random.default_rng(case["seed"]).standard_normal((1, *case["size"], 3)).astype("float32")


def normed(x, state, name):
    if f"{name}.weight" not in state:
        return x
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * state[f"{name}.weight"] + state[f"{name}.bias"]


def ours(model, images, translation):
    """What a model gives, under the fixtures' names."""
    tap = keras.Model(model.input, [model.output, *model.pyramid.values()])
    logits, *maps = map(keras.ops.convert_to_numpy, tap(images))
    named = {"logits": logits} | {f"stage{s}": x for s, x in enumerate(maps)}
    last = len(maps) - 1
    for s, x in enumerate(maps):
        named[f"norm{s}"] = normed(x, translation.tensors, "norm" if s == last else f"norm{s}")
    return {**named, "norm": named[f"norm{last}"]}


def assert_within(tolerance, difference_in, case):
    """As a certificate decides: in float32, or where that differs by rounding, in TensorFlow's float64.

    A norm of 4 channels multiplies rounding, and processors round in other orders: mmdet_three_stages at 30x57 differs
    by less than 1e-5 in float32 on those with AVX-512, by 1.2e-5 on others, and by 2.4e-6 in float64.
    """
    difference = difference_in("float32")
    if tolerance < difference <= ROUNDING and keras.backend.backend() == "tensorflow":
        difference = difference_in("float64")
    assert difference <= tolerance, case


def largest_difference(family, numbers, opened, case, translation, theirs, precision):
    """The largest of all parts, over the part's largest value, of models of the case's size and of any size."""
    models = [family(**numbers, image_size=case["size"], dtype=precision)]
    swin_rules.assign(models[0], translation.tensors)
    if numbers["size_rule"] not in ("microsoft", "timm"):
        if precision not in opened:
            opened[precision] = family(**numbers, image_size=ANY, dtype=precision)
        opened[precision].set_weights(models[0].get_weights())
        models.append(opened[precision])
    parts = [ours(model, images_of(case), translation) for model in models]
    assert all(given[part].shape == y.shape for given in parts for part, y in theirs.items())
    each = [np.abs(given[part] - y).max() / np.abs(y).max() for given in parts for part, y in theirs.items()]
    return np.max(each)  # NaN if any is


@pytest.mark.slow
@pytest.mark.parametrize("name", ORIGINALS)
def test_ours_computes_what_the_program_computed(name):
    original = ORIGINALS[name]
    file, cases = load(name)
    tolerance, opened, compared = V2_TOLERANCE if original.family is V2 else V1_TOLERANCE, {}, 0
    for i, case in enumerate(cases):
        if "nan" in case or (name == "christoph" and tuple(case["size"]) in ODD_MERGES):
            continue
        translation = dialects.to_timm(state_of(file, i, case))
        assert translation.dialect.name == original.dialect
        rule = original.rule or translation.size_rule
        classes = len(translation.tensors.get("head.fc.bias", ()))
        numbers = {**original.numbers, "size_rule": rule, "num_classes": classes, "final_norm": translation.final_norm}
        if "raises" in case:
            if rule == "mmpretrain":
                with pytest.raises(swins.SwinsError, match="no answer for maps smaller than a window"):
                    original.family(**numbers, image_size=case["size"])
            continue
        theirs = {k.split("/")[2]: v for k, v in file.items() if k.startswith(f"out/{i}/")}
        difference_in = partial(largest_difference, original.family, numbers, opened, case, translation, theirs)
        assert_within(tolerance, difference_in, case["size"])
        compared += 1
    assert compared >= 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mmdet", "mmpretrain", "mmpretrain_v2", "microsoft"])
def test_another_rule_is_noticed(name):
    """At 32x64 pixels, the last map of 4x8 tokens is as high as a window: timm shifts its width alone."""
    file, cases = load(name)
    i = next(i for i, case in enumerate(cases) if case["size"] == [32, 64])
    translation = dialects.to_timm(state_of(file, i, cases[i]))
    classes = len(translation.tensors.get("head.fc.bias", ()))
    model = ORIGINALS[name].family(**ORIGINALS[name].numbers, image_size=(32, 64), num_classes=classes)
    swin_rules.assign(model, translation.tensors)
    given, y = (
        ours(model, images_of(cases[i]), translation),
        file[f"out/{i}/norm" if name == "microsoft" else f"out/{i}/norm1"],
    )
    assert np.abs(given["norm"] - y).max() > 1e-2 * np.abs(y).max()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "family", "heads"), [("microsoft_simmim", V1, (1, 2)), ("microsoft_simmim_v2", V2, (1, 2))]
)
def test_simmims_encoder_sees_its_masked_image(name, family, heads):
    """Of the patches in the left half it sees a token in their place."""
    file, cases = load(name)
    for i, case in enumerate(cases):
        if "raises" in case:
            continue
        state = state_of(file, i, case)
        translation = dialects.to_timm(state)
        assert translation.dialect.name == "SimMIM"
        numbers = {**TWO, "num_heads": heads, "image_size": case["size"], "num_classes": 0}
        model = family(**numbers)
        swin_rules.assign(model, translation.tensors)
        x = keras.ops.convert_to_numpy(model.get_layer("patch_embed")(images_of(case)))
        x[:, :, : x.shape[2] // 2] = state["encoder.mask_token"].reshape(-1)
        for layer in model.layers[2:]:
            x = layer(x)
            if layer.name == "norm":
                break
        y = file[f"out/{i}/norm"]
        tolerance = V2_TOLERANCE if family is V2 else V1_TOLERANCE
        assert np.abs(keras.ops.convert_to_numpy(x) - y).max() <= tolerance * np.abs(y).max()
