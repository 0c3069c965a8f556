"""Certificates: the program that wrote a file runs it, and what no program proves is said."""

import json
import shutil

import numpy as np
import pytest
from test_convert import parts_of

import swins
from swins.convert import certificate, conversion
from swins.errors import SwinsError
from swins.images import preparation_of
from swins.labels import known_classes
from swins.model_configs import VARIANTS
from swins.opening import Opened
from swins.size_rules import SIZE_RULES
from swins.tags import PRETRAINED
from swins.tasks import classification_export
from swins.tasks.classification import CLASSIFICATION
from swins.weights import artefacts, checkpoint_files, dialects, facts, identify, load

SMALL = {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "image_size": 64, "num_classes": 5}
TRANSLATED = "pass; translation not proven: {} was not run"
OPENMMLAB = "mmdet, mmseg or mmpretrain"
FILES = {  # file: (variant, program that it is compared with, size rule, verdict)
    "torchvision_v1": ("swin_small_test", "torchvision", "torchvision", "pass"),
    "torchvision_v2": ("swinv2_small_test", "torchvision", "torchvision", "pass"),
    "hugging_face_v1": ("swin_small_test", "transformers", "huggingface", "pass"),
    "hugging_face_v1_memory": ("swin_small_test", "transformers", "huggingface", "pass"),
    "hugging_face_v2": ("swinv2_small_test", "transformers", "huggingface", "pass"),
    "hugging_face_v2_trunk": ("swinv2_small_test", "transformers", "huggingface", "pass"),
    "hugging_face_v1_mim": ("swin_small_test", "transformers", "huggingface", "pass"),
    "simmim_v2": ("swinv2_small_test", "timm", "timm", TRANSLATED.format("SimMIM")),
    "microsoft_detector": (
        "swin_small_test",
        "transformers",
        "open_mmlab",
        TRANSLATED.format("microsoft detector or segmenter"),
    ),
    "mmpretrain_v1": ("swin_small_test", "transformers", "mmpretrain", TRANSLATED.format(OPENMMLAB)),
    "mmpretrain_v2": ("swinv2_small_test", "transformers", "mmpretrain", TRANSLATED.format(OPENMMLAB)),
    "mmdet_bare": ("swin_small_test", "transformers", "open_mmlab", TRANSLATED.format(OPENMMLAB)),
}


@pytest.fixture(autouse=True)
def small_variants(monkeypatch):
    """Two variants that are quick to prove."""
    for name, variant in {
        "swin_small_test": swins.Variant(**SMALL),
        "swinv2_small_test": swins.VariantV2(**SMALL),
    }.items():
        monkeypatch.setitem(VARIANTS, name, variant)
        monkeypatch.setitem(PRETRAINED, name, ())


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_a_certificate_names_its_program_and_what_it_leaves_open(library, file, tmp_path):
    name, program, rule, verdict = FILES[file]
    folder, proof = conversion.convert(name, library / f"{file}.safetensors", tmp_path / "out")
    assert proof["verdict"] == verdict and proof["size_rule"] == rule
    assert (proof["compared_with"]["program"], proof["compared_with"]["size_rule"]) == (program, rule)
    assert proof["versions"][program] == proof["compared_with"]["version"]
    assert artefacts.load_model(folder).variant.size_rule == rule
    text = certificate.summary(proof)
    assert f"compared with {program} " in text and verdict in text
    if file == "mmdet_bare":  # once: verifying without the file proves the model by a translation of its own
        assert "left out      norm0 (2 tensors), roi_head (1 tensors), rpn_head (1 tensors)" in text
        assert conversion.verify(folder)[1]["verdict"] == verdict
        assert conversion.verify(folder, library / f"{file}.safetensors")[1]["verdict"] == verdict


def exchanged(state):
    """A wrong translation: two norms change places."""
    first, second = ("layers.0.blocks.0.norm1.weight", "layers.0.blocks.0.norm2.weight")
    state[first], state[second] = state[second], state[first]


@pytest.mark.parametrize("file", ["torchvision_v2", "hugging_face_v1", "hugging_face_v2", "timm_v1"])
def test_a_wrong_translation_fails(library, file, monkeypatch, tmp_path):
    path = library / f"{file}.safetensors"
    if file == "timm_v1":
        path = tmp_path / "timm.safetensors"
        timm, rng = swins.create("swin_small_test"), np.random.default_rng(0)
        for weight in timm.weights:
            weight.assign(weight + 0.1 * rng.standard_normal(weight.shape))
        checkpoint_files.write(load.swin_rules.state_dict(timm), path)
    name = "swinv2_small_test" if "v2" in file else "swin_small_test"
    wrong = tuple(dialects.replace(dialect, steps=(*dialect.steps, exchanged)) for dialect in dialects.DIALECTS)
    monkeypatch.setattr(dialects, "DIALECTS", wrong)
    monkeypatch.setattr(dialects, "TIMM", wrong[0])
    with pytest.raises(SwinsError, match=r"must agree .* the first to differ is stages_0_blocks_0"):
        conversion.convert(name, path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "rule"), [("torchvision_v1", "open_mmlab"), ("hugging_face_v1", "open_mmlab"), ("hugging_face_v2", "timm")]
)
def test_a_wrong_size_rule_fails(library, file, rule, monkeypatch, tmp_path):
    """Recorded as the program's own, so that the program itself is asked: at a size where the rules differ."""
    monkeypatch.setitem(SIZE_RULES, "torchvision", SIZE_RULES[rule])
    monkeypatch.setitem(SIZE_RULES, "huggingface", SIZE_RULES[rule])
    monkeypatch.setitem(SIZE_RULES, "huggingface_v2", SIZE_RULES[rule])
    name = "swinv2_small_test" if "v2" in file else "swin_small_test"
    with pytest.raises(SwinsError, match="must agree"):
        conversion.convert(name, library / f"{file}.safetensors", tmp_path / "out", image_size=(32, 88))


def test_a_rule_that_is_asked_for_is_run_by_a_program_that_has_it(library, tmp_path):
    file = library / "hugging_face_v1.safetensors"
    _, proof = conversion.convert("swin_small_test", file, tmp_path / "out", image_size=24, size_rule="torchvision")
    assert proof["compared_with"]["program"] == "torchvision"
    assert proof["verdict"] == TRANSLATED.format("Hugging Face")
    with pytest.raises(SwinsError, match=r"maps smaller than a window.*size_rule=\"torchvision\""):
        conversion.convert("swin_small_test", file, tmp_path / "other", image_size=24)


FIELDS = {  # of a Variant that change an answer: values other than the variant's own
    "window_size": (8, 4),
    "image_size": (48, 80),
    "mlp_ratio": 2.0,
    "size_rule": "open_mmlab",
    "num_classes": 3,
    "in_chans": 2,
    "patch_size": 8,
    "final_norm": False,
}
V2_FIELDS = {**FIELDS, "pretrained_windows": (5, 3), "native_size": 0}
CR_FIELDS = {**FIELDS, "meta_dim": 32, "extra_norm": "stages", "extra_norm_period": 1, "deformable": (1,)}
FAMILIES = {"swin_small_test": FIELDS, "swinv2_small_test": V2_FIELDS, "swin_transformer_v2_t": CR_FIELDS}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "field"),
    [
        pytest.param(name, field, marks=[pytest.mark.slow] if field in FIELDS and values is not FIELDS else [])
        for name, values in FAMILIES.items()
        for field in values
    ]
    + [("made", "native_size")],
)
@pytest.mark.parametrize("form", [pytest.param("keras", marks=pytest.mark.slow), "safetensors"])
def test_every_number_survives_every_format(name, field, form, tmp_path, monkeypatch):
    values = FAMILIES.get(name, V2_FIELDS)
    numbers = {field: values[field]}
    if name == "made":
        name, numbers = "swinv2_small_test", {"size_rule": "huggingface", "native_size": (32, 32)}
    if name == "swin_transformer_v2_t":
        monkeypatch.setitem(VARIANTS, name, swins.VariantV2CR(**SMALL))
    assert set(values) == {f for f in VARIANTS[name].__dataclass_fields__ if f not in (
        *facts.TRAINING, "embed_dim", "depths", "num_heads"
    )}  # fmt: skip
    model = swins.create(name, **numbers)
    model.save(tmp_path / "m.keras")
    file = tmp_path / "m.keras"
    if form == "safetensors":
        load.export_torch(file, file := tmp_path / "m.safetensors")
    again = swins.create(name, weights=file)
    assert again.variant == model.variant
    size = model.variant.image_size
    x = np.random.default_rng(0).standard_normal((1, *size, model.variant.in_chans), dtype="float32")
    np.testing.assert_array_equal(*(swins.models.keras.ops.convert_to_numpy(m(x)) for m in (model, again)))


@pytest.mark.slow
def test_words_travel_with_the_weights(converted, tmp_path, artefact):
    path = artefact / "certificate.json"
    content = json.loads(path.read_text())
    names, preparation = [f"class {i}" for i in range(10)], {"crop": 0.8, "mean": [0.5], "std": [0.25]}
    path.write_text(json.dumps({**content, "class_names": names, "preparation": preparation}))
    load.export_torch(artefact, tmp_path / "m.safetensors")
    stated = checkpoint_files.read(tmp_path / "m.safetensors").facts
    assert (list(stated.class_names), stated.preparation) == (names, preparation)
    _, proof = conversion.convert("swin_mini_patch2_window4_28", tmp_path / "m.safetensors", tmp_path / "again")
    assert (proof["class_names"], proof["preparation"]) == (names, preparation)


@pytest.mark.slow
def test_a_runs_preparation_and_classes_come_back_from_pytorchs_names(converted, tmp_path):
    names = [f"class {i}" for i in range(10)]
    preparation = {"image_size": [28, 28], "crop": 0.7, "mean": [0.4], "std": [0.2]}
    result = {"recipe": {"model.name": "swin_mini_patch2_window4_28"}, "classes": names, "preprocess": preparation}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text(json.dumps(result))
    shutil.copy(converted / "model.keras", tmp_path / "run")
    load.export_torch(tmp_path / "run", tmp_path / "m.safetensors")
    folder, proof = conversion.convert("swin_mini_patch2_window4_28", tmp_path / "m.safetensors", tmp_path / "again")
    model = artefacts.load_model(folder)
    opened = Opened(folder, model, CLASSIFICATION, proof)
    prepared = CLASSIFICATION.prepare(opened, {})
    protocol, prepare = prepared.protocol, prepared.preparation
    assert protocol == "stated" and prepare == CLASSIFICATION.serving(model, proof) == preparation_of(result)
    assert prepare.resize == (40, 40) and known_classes(folder, model, proof) == tuple(names)
    assert "class 9" in classification_export.class_list(model, proof)
    assert "40x40" in classification_export.preparing(model, proof, None, True)
    assert CLASSIFICATION.prepare(opened, {"protocol": "timm"}).protocol == "timm"


@pytest.mark.slow
def test_v2_with_other_windows_comes_back_as_it_was(tmp_path):
    """Weights that know windows of 4, resized to 8, to PyTorch's names and back."""
    model = swins.create("swinv2_small_test")
    other = swins.resize(model, image_size=128, window_size=8)
    other.save(tmp_path / "m.keras")
    load.export_torch(tmp_path / "m.keras", tmp_path / "m.safetensors")
    again = load.model_for("swinv2_small_test", checkpoint_files.read(tmp_path / "m.safetensors"))
    assert again.variant.pretrained == other.variant.pretrained == ((4, 4), (4, 4))
    assert again.variant.windows == ((8, 8), (8, 8))


@pytest.mark.slow
def test_a_file_gives_no_name_another_architecture(tmp_path):
    """What a file says of windows and sizes holds; channels, blocks and heads are the name's."""
    other = swins.create("swin_small_test", embed_dim=8, num_heads=(1, 2))
    other.save(tmp_path / "m.keras")
    load.export_torch(tmp_path / "m.keras", tmp_path / "m.safetensors")
    for file in ("m.keras", "m.safetensors"):
        with pytest.raises(SwinsError, match="differ"):
            swins.create("swin_small_test", weights=tmp_path / file)
    with pytest.raises(SwinsError, match="differ"):
        conversion.convert("swin_small_test", tmp_path / "m.safetensors", tmp_path / "out")


def test_a_file_with_our_header_fits_its_own_variant(tmp_path, monkeypatch):
    """Windows of 16 on maps of 32 and 16 tokens at 128 pixels, of which the last is clipped at 64."""
    monkeypatch.setitem(VARIANTS, "swinv2_small_test", swins.VariantV2(**{**SMALL, "window_size": 16}))
    swins.create("swinv2_small_test").save(tmp_path / "m.keras")
    load.export_torch(tmp_path / "m.keras", tmp_path / "m.safetensors")
    assert identify.fitting(checkpoint_files.read(tmp_path / "m.safetensors")) == ["swinv2_small_test"]


def test_what_tensors_do_not_tell_is_refused(tmp_path):
    model = swins.create("swin_small_test")
    model.get_layer("norm").epsilon = 1e-3
    model.save(tmp_path / "m.keras")
    with pytest.raises(SwinsError, match="norm has an epsilon of its own"):
        load.export_torch(tmp_path / "m.keras", tmp_path / "m.safetensors")
    with pytest.raises(SwinsError, match="norm has an epsilon of its own"):
        swins.create("swin_small_test", weights=tmp_path / "m.keras")


@pytest.mark.slow
@pytest.mark.parametrize("part", ["", "swin.", "model."])
def test_a_trunk_held_in_a_users_own_module(library, part, tmp_path):
    state = checkpoint_files.read_safetensors(library / "hugging_face_v1_trunk.safetensors")
    file = tmp_path / "mine.safetensors"
    checkpoint_files.write({part + name: value for name, value in state.items()}, file)
    _, proof = conversion.convert("swin_small_test", file, tmp_path / "out")
    assert (proof["verdict"], proof["compared_with"]["program"]) == ("pass", "transformers")


def test_what_lies_beside_a_swin_is_said_by_create_too(library, tmp_path):
    state = checkpoint_files.read_safetensors(library / "hugging_face_v1_trunk.safetensors")
    file = tmp_path / "mine.safetensors"
    checkpoint_files.write({f"trunk.{k}": v for k, v in state.items()} | {"classifier.weight": np.zeros((5, 48))}, file)
    with pytest.warns(UserWarning, match="only its Swin was taken; left out classifier"):
        assert swins.create("swin_small_test", weights=file).variant.num_classes == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("facts_of_images", "resize", "keep_ratio"),
    [
        ({"image_size": [28, 28], "mean": [0.5], "std": [0.25]}, (28, 28), False),  # as transformers squashes
        (
            {"image_size": [28, 28], "crop": 0.5, "mean": [0.5], "std": [0.25], "interpolation": "bicubic"},
            (56, 56),
            True,
        ),
    ],
)
def test_a_stated_preparation_is_never_mixed_with_another(facts_of_images, resize, keep_ratio, converted):
    model, proof = artefacts.load_model(converted), artefacts.read_certificate(converted)
    proof["preparation"] = facts_of_images
    prepare = CLASSIFICATION.serving(model, proof)
    assert (prepare.resize, prepare.keep_ratio, prepare.mean, prepare.std) == (resize, keep_ratio, (0.5,), (0.25,))
    opened = Opened(converted, model, CLASSIFICATION, proof)
    proof["preparation"] = {**facts_of_images, "interpolation": "bilinear"}
    assert CLASSIFICATION.serving(model, proof) is None
    with pytest.raises(SwinsError, match=r"states .*bilinear.*--protocol"):
        CLASSIFICATION.prepare(opened, {})
    assert CLASSIFICATION.prepare(opened, {"protocol": "timm"}).preparation.mean != (0.5,)


def test_what_a_file_does_not_tell_is_said(library, tmp_path):
    checkpoint, said = checkpoint_files.read(library / "hugging_face_v2.safetensors"), []
    _, proof = conversion.convert("swinv2_small_test", checkpoint.path, tmp_path / "out", say=said.append)
    assert set(proof["taken"]) <= set(said) and proof["taken"][0] in certificate.summary(proof)
    assert "taken as ((4, 4), (4, 4))" in proof["taken"][0] and "taken as (64, 64) pixels" in proof["taken"][1]
    assert identify.fitting(checkpoint) == ["swinv2_small_test"]


@pytest.mark.slow
def test_where_float32_rounds_too_much_float64_decides(monkeypatch, tmp_path):
    """A tolerance that float32 cannot keep stands for weights, and processors, that make more of its rounding."""
    model, rng = swins.create("swin_small_test"), np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + 0.1 * rng.standard_normal(weight.shape))
    file = tmp_path / "timm.safetensors"
    checkpoint_files.write(load.swin_rules.state_dict(model), file)
    monkeypatch.setattr(certificate, "BLOCK_TOLERANCE", 1e-12)
    proof = certificate.compare(model, file, "swin_small_test")
    assert (proof["verdict"], proof["precision"]) == ("pass", "float64") and proof["in_float32"]["worst_block"] > 1e-9
    weight = model.get_layer("stages_0_blocks_1").weights[0]
    for added, precision in ((1e-6, "float64"), (1.0, "float32")):  # the second is no rounding
        weight.assign_add(added * np.ones(weight.shape))
        proof = certificate.compare(model, file, "swin_small_test")
        assert (proof["verdict"], proof["precision"]) == ("fail", precision)


@pytest.mark.parametrize("text", ["", "[]", '{"numbers": 3}', "{", '{"numbers": {"window_size": "x"}}', "9" * 9999])
def test_a_header_that_is_not_ours_is_refused(text, checkpoint, tmp_path):
    state = checkpoint_files.read(checkpoint).state
    checkpoint_files.write(state, tmp_path / "m.safetensors", {"swins": text})
    with pytest.raises(SwinsError):
        load.model_for("swin_mini_patch2_window4_28", checkpoint_files.read(tmp_path / "m.safetensors"))
    assert parts_of(tmp_path / "m.safetensors")[0]["__metadata__"]["swins"] == text
