"""Deployed models beside the models they come from: numbers, sizes, types, files, and which operations are used."""

import os
import platform
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from shared_fixtures import DATA, needs_tensorflow
from test_models import SMALL, moved
from test_v1 import relative
from training import one_program

import swins
from swins import windows
from swins.convert import conversion
from swins.deploy import without_onednn
from swins.detection.mask_rcnn import MaskRCNN
from swins.detection.ssd import SSD
from swins.exports import targets
from swins.fused import FusedNorm, layout
from swins.plans import RULES
from swins.segmentation.upernet import UPerNet
from swins.size_rules import SIZE_RULES
from swins.tasks.classification import CLASSIFICATION
from swins.weights import artefacts

TOLERANCE = 1e-5
DTYPES = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}
ROUNDED = {"mixed_bfloat16": 2e-2, "mixed_float16": 4e-3}  # a few units of their last place
OPEN = {"image_size": (None, None)}
CASES = {
    "v1": (swins.SwinTransformer, {}),
    "v1_padded": (swins.SwinTransformer, {"image_size": (30, 44), "drop_rate": 0.2}),
    "v1_other_order": (swins.SwinTransformer, {"image_size": (30, 44), "size_rule": "torchvision"}),
    "v1_one_axis": (swins.SwinTransformer, {"image_size": (8, 48), "num_classes": 0}),
    "v1_windows_of_one": (swins.SwinTransformer, {"image_size": 8, "window_size": 1}),
    "v1_chunks": (swins.SwinTransformer, {"query_chunk": 5}),
    "s3": (swins.SwinTransformer, {"window_size": (8, 4), "depths": (2, 2)}),
    "v2": (swins.SwinTransformerV2, {}),
    "v2_padded": (swins.SwinTransformerV2, {"image_size": (28, 36), "window_size": 5, "query_chunk": 7}),
    "cr": (swins.SwinTransformerV2CR, {"extra_norm": "stages"}),
    "cr_deformable": (swins.SwinTransformerV2CR, {"deformable": (0, 1), "extra_norm": "none"}),
}
CORE = ("v1_padded", False)
EVERYWHERE = ("v1_padded", "v1_chunks", "v2_padded", "cr_deformable")  # these on every backend


def backends_if(chosen, *values):
    """A parameter of a test that runs on every backend if it is chosen, and else, in `make slow`, on TensorFlow."""
    marks = [pytest.mark.backends, *([pytest.mark.core] if values == CORE else [])]
    return pytest.param(*values, marks=marks if chosen else [pytest.mark.slow])


def small(family, **options):
    return moved(family(**{**SMALL, "num_classes": 7, "drop_path_rate": 0.3, **options}))


def images_for(model, rng, size=None, count=3):
    return rng.normal(size=(count, *(size or model.input.shape[1:3]), 3)).astype("float32")


def run(model, x):
    if keras.backend.backend() == "jax":  # as one program: it compiles single operations one by one
        return np.asarray(model.predict_on_batch(x))
    return ops.convert_to_numpy(model(x, training=False))


@pytest.mark.parametrize(
    ("case", "portable"),
    [
        backends_if((c in EVERYWHERE and not portable) or c == "s3", c, portable)
        for c in CASES
        for portable in (False, True)
    ],
)
def test_equals_the_model(case, portable, rng):
    family, options = CASES[case]
    model = small(family, **options)
    deployed = swins.deploy(model, portable=portable)
    x = images_for(model, rng)
    assert np.abs(run(model, x)).max() > 0
    assert relative(run(deployed, x), run(model, x)) <= TOLERANCE
    assert deployed.output.shape == model.output.shape
    assert not deployed.trainable_variables


@pytest.mark.slow
@pytest.mark.parametrize("rule", [backends_if(rule in ("timm", "open_mmlab"), rule) for rule in RULES])
@pytest.mark.parametrize("family", [swins.SwinTransformer, swins.SwinTransformerV2, swins.SwinTransformerV2CR])
def test_any_size_in_one_graph(family, rule, rng):
    native = {"native_size": 32} if family is swins.SwinTransformerV2 and rule == "huggingface" else {}
    model = small(family, **OPEN, size_rule=rule, **native)
    deployed = swins.deploy(model)
    small_maps = SIZE_RULES[model.variant.rule].small != "refused"
    for size in ((32, 32), (8, 8), (30, 44), (6, 50), (31, 33), (32, 32)):
        if min(size) < 16 and not small_maps:
            continue
        x = images_for(model, rng, size)
        assert relative(run(deployed, x), run(model, x)) <= TOLERANCE, size


@pytest.mark.slow
def test_full_size_models_of_all_families(rng):
    for name in ("swin_tiny_patch4_window7_224", "swin_s3_tiny_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_224"):
        model = moved(swins.create(name))
        x = images_for(model, rng, count=1)
        assert relative(run(swins.deploy(model), x), run(model, x)) <= TOLERANCE, name


def outputs_of(model, images):
    outputs = one_program(lambda images: answers_of(model, images))(images)
    return {name: ops.convert_to_numpy(x) for name, x in outputs.items()}


def answers_of(model, images):
    """{name: output} of a model; of a Mask R-CNN also what its heads say of two regions."""
    outputs = model(images, training=False)
    if isinstance(model, MaskRCNN):
        regions = np.float32([[[3, 5, 40, 60], [20, 8, 33, 17]]] * len(images))
        heads = {"classes": model.classify(outputs, regions)[0], "masks": model.segment(outputs, regions)}
        outputs = {"objectness": outputs["objectness"][0], "deltas": outputs["deltas"][1], **heads}
    return outputs if isinstance(outputs, dict) else {"": outputs}


DENSE = {  # of small maps, every kind of norm and neck among them
    "resnet": lambda: swins.ResNet(depths=(1, 2), strides=(1, 2), num_classes=5, image_size=(None, None)),
    "ssd_resnet": lambda: SSD(
        swins.backbone(swins.ResNet(depths=(1, 1), strides=(1, 2), image_size=64)), num_classes=3, neck="pan"
    ),
    "ssd_swin": lambda: SSD(
        swins.backbone("swin_mini_patch2_window4_28", image_size=64, norms=True), num_classes=3, extra_norm="layer"
    ),
    "upernet": lambda: UPerNet(swins.backbone("swin_mini_patch2_window4_28", image_size=64), num_classes=4, width=16),
    "mask_rcnn": lambda: MaskRCNN(
        swins.backbone("swin_mini_patch2_window4_28", image_size=OPEN["image_size"]), num_classes=4, width=16, hidden=16
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", [backends_if(case == "ssd_resnet", case) for case in DENSE])
def test_dense_models_equal_theirs(case, rng, tmp_path):
    model = DENSE[case]()
    for variable in model.variables:  # moving statistics and biases too
        noise = rng.normal(size=variable.shape) * 0.1
        variable.assign(np.abs(noise) + 0.5 if "variance" in variable.path else variable.numpy() + noise)
    deployed = swins.deploy(model)
    assert not deployed.trainable_variables
    norms = [layer for layer in deployed._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    assert bool(norms) == (case == "upernet")
    x = images_for(model, rng, (64, 64), 2)[..., : model.input.shape[-1]]
    deployed.save(tmp_path / "deployed.keras")
    forms = (deployed, model, keras.saving.load_model(tmp_path / "deployed.keras"))
    ours, theirs, again = (outputs_of(form, x) for form in forms)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert np.abs(expected).max() > 0 and relative(ours[name], expected) <= TOLERANCE
        np.testing.assert_array_equal(again[name], ours[name])


@pytest.mark.slow
def test_real_images_and_the_same_answers(converted):
    model = artefacts.load_model(converted)
    images = targets.real_images(DATA, CLASSIFICATION.serving(model, artefacts.read_certificate(converted)), 64)
    ours, theirs = run(swins.deploy(model), images), run(model, images)
    assert relative(ours, theirs) <= TOLERANCE
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("policy", [backends_if(policy == "mixed_bfloat16", policy) for policy in DTYPES])
def test_half_precision_is_as_near_as_the_mixed_model(policy, rng):
    if policy == "mixed_float16" and keras.backend.backend() == "torch":
        pytest.skip("PyTorch has no float16 convolution on CPUs")
    for family in (swins.SwinTransformer, swins.SwinTransformerV2):
        exact = small(family)
        model = family(**{**exact.get_config(), "dtype": policy})
        model.set_weights(exact.get_weights())
        deployed = swins.deploy(model)
        x = images_for(model, rng)
        block = deployed.get_layer("stages_0_blocks_1")
        assert block.fc1.kernel.dtype == DTYPES[policy] and deployed.get_layer("head").kernel.dtype == "float32"
        for half in (model, deployed):
            assert relative(run(half, x), run(exact, x)) <= ROUNDED[policy]
        also = swins.deploy(exact, dtype=DTYPES[policy])
        np.testing.assert_array_equal(run(also, x), run(deployed, x))


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.parametrize("family", [swins.SwinTransformer, swins.SwinTransformerV2CR])
def test_saved_and_loaded(family, rng, tmp_path):
    model = small(family, **({"deformable": (1,)} if family is swins.SwinTransformerV2CR else {}))
    deployed = swins.deploy(model)
    deployed.save(tmp_path / "deployed.keras")
    x = images_for(model, rng)
    np.testing.assert_array_equal(run(keras.saving.load_model(tmp_path / "deployed.keras"), x), run(deployed, x))


def test_where_tokens_go():
    """A map of 3x4 tokens in windows of 2x2, shifted by 1: written out."""
    order, back, kinds = layout((3, 4), (2, 2), (1, 1), "timm")
    assert order.reshape(4, 4).tolist() == [[6, 7, 10, 11], [8, 5, 12, 9], [2, 3, 0, 0], [4, 1, 0, 0]]
    assert kinds.tolist() == [0, 1, 2, 3]
    assert [order.tolist()[place] for place in back] == list(range(1, 13))
    order, _, kinds = layout((2, 4), (2, 2), (0, 1), "timm")
    assert order.reshape(2, 4).tolist() == [[2, 3, 6, 7], [4, 1, 8, 5]] and kinds.tolist() == [0, 1]


def test_a_table_has_the_mask_of_each_kind_of_window():
    deployed = swins.deploy(small(swins.SwinTransformer))
    plain, shifted = (deployed.get_layer(f"stages_0_blocks_{b}") for b in (0, 1))
    assert plain.table.shape == (1, 2, 16, 16) and shifted.table.shape == (4, 2, 16, 16)
    mask = np.asarray(windows.shift_mask((16, 16), (4, 4), (2, 2)))
    _, _, kinds = layout((16, 16), (4, 4), (2, 2), "timm")
    table = np.asarray(shifted.table)
    np.testing.assert_allclose(table[kinds] - table[0], np.broadcast_to(mask[:, None], (16, 2, 16, 16)), atol=1e-5)


def test_nothing_is_left_that_only_training_needs():
    model = small(swins.SwinTransformerV2CR, drop_rate=0.1, extra_norm="none")
    names = [layer.name for layer in swins.deploy(model).layers]
    assert "head_drop" not in names and "norm" not in names
    paths = " ".join(v.path for v in swins.deploy(model).variables)
    assert "meta" not in paths and "logit_scale" not in paths


@pytest.mark.slow
def test_on_tensorflow_onednn_fuses_norms_gelus_and_residuals(tmp_path):
    """By name of the operations that a graph runs, as the optimiser leaves it, for known and unknown batches."""
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("these are TensorFlow's operations")
    deployed = swins.deploy(small(swins.SwinTransformer))
    norms = sum(isinstance(layer, FusedNorm) for layer in deployed._flatten_layers())
    for batch in (3, None):
        spec = tf.TensorSpec((batch, 32, 32, 3))
        deployed.export(tmp_path / str(batch), input_signature=[spec], verbose=False)
        nodes = nodes_run(tmp_path / str(batch), np.zeros((3, 32, 32, 3), "float32"))
        operations = [node.op for node in nodes]
        fused = [
            [part.decode() for part in node.attr["fused_ops"].list.s] for node in nodes if "fused_ops" in node.attr
        ]
        if not any("Mkl" in operation for operation in operations) and "_MklLayerNorm" not in operations:
            pytest.skip("this TensorFlow has no oneDNN")
        assert operations.count("_MklLayerNorm") == norms == 2 * 4 + 3
        # of an unknown batch, it cannot tell that attention's branch has the shape of what it is added to
        assert fused.count(["BiasAdd", "Add"]) == (2 * 4 if batch else 4)
        assert fused.count(["BiasAdd", "GeluExact"]) == 4
        assert not {"FusedBatchNormV3", "Erf"} & set(operations)


def nodes_run(saved_model, images):
    """What TensorFlow runs of a SavedModel, as its optimiser leaves it; only sessions tell."""
    import tensorflow as tf

    v1, told = tf.compat.v1, tf.compat.v1.RunMetadata()
    with v1.Session(graph=tf.Graph()) as session:
        signature = v1.saved_model.load(session, ["serve"], str(saved_model)).signature_def["serve"]
        (taken,), (given,) = signature.inputs.values(), signature.outputs.values()
        options = v1.RunOptions(output_partition_graphs=True)
        session.run(given.name, {taken.name: images}, options=options, run_metadata=told)
    return [node for graph in told.partition_graphs for node in graph.node]


@pytest.mark.slow
@pytest.mark.parametrize(
    "model, options, said",
    [
        (
            lambda: keras.Sequential([keras.layers.Dense(1)]),
            {},
            "takes a Swin, ResNet, SSD, UPerNet or Mask R-CNN of this package",
        ),
        (
            lambda: swins.deploy(small(swins.SwinTransformer)),
            {},
            "takes a Swin, ResNet, SSD, UPerNet or Mask R-CNN of this package",
        ),
        (lambda: small(swins.SwinTransformer), {"dtype": "int8"}, "float32, bfloat16 or float16; got int8"),
    ],
)
def test_what_cannot_be_deployed(model, options, said):
    with pytest.raises(swins.SwinsError, match=said):
        swins.deploy(model(), **options)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_quantized_models_are_refused():
    model = small(swins.SwinTransformer)
    model.quantize("int8")
    with pytest.raises(swins.SwinsError, match="before it is quantized"):
        swins.deploy(model)


WITHOUT = """
import warnings, swins
model = swins.SwinTransformer(image_size=32, embed_dim=24, depths=(1, 1), num_heads=(1, 2), num_classes=5)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    swins.deploy(model, portable=True)
    print(len(caught))
    swins.deploy(model)
    swins.deploy(model)
print([str(warning.message) for warning in caught])
"""


@pytest.mark.slow
@needs_tensorflow
def test_without_onednn_it_says_once_that_it_is_slow():
    if platform.machine().lower() not in ("x86_64", "amd64") or sys.platform == "darwin":
        pytest.skip("only TensorFlow for x86 has oneDNN")
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", WITHOUT], env=environment, capture_output=True, text=True)
    first, said = done.stdout.splitlines()[-2:]
    assert first == "0" and said.count("set TF_ENABLE_ONEDNN_OPTS=1 in the environment before") == 1, done.stderr
    assert not without_onednn()  # here, where conftest.py sets it


@pytest.mark.slow
@needs_tensorflow
def test_exports_are_certified(exported, targeted):
    record = artefacts.read_certificate(exported)["exports"]["saved_model_deploy"]
    assert record["trainable_variables"] == 0 and record["output"] == "logits"
    assert max(record[k] for k in ("call", "serving_default", "serving_bytes")) <= TOLERANCE
    assert "`model_deploy.tar.gz` | SavedModel for inference only" in (exported / "README.md").read_text()
    files = artefacts.read_certificate(targeted)["targets"]
    for name in ("model_deploy.onnx", "model_deploy.tflite", "model_deploy.xml"):
        assert files[name]["deployed"] and max(files[name]["difference"].values()) <= TOLERANCE


@pytest.mark.slow
def test_any_size_in_one_file(tmp_path, perturbed):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("files for other runtimes are written under TensorFlow")
    name = "swin_mini_patch2_window4_28"
    folder, _ = conversion.convert(name, perturbed(name), tmp_path / "out", image_size=(None, None))
    _, certificate = targets.export(folder, ["onnx"], deployed=True)  # the others' are in test_targets.py
    for record in certificate["targets"].values():
        assert set(record["difference"]) == {"batch_1", "batch_3", "other_size"}
        assert max(record["difference"].values()) <= TOLERANCE


@pytest.mark.slow
def test_the_command(artefact, command):
    code, out, err = command("export", artefact, "--deploy", "--to", "openvino")
    assert code == 0, err
    assert "model_deploy.xml" in out
    code, _, err = command("export", artefact, "--deploy", "--to", "openvino")
    assert code == 1 and "--overwrite" in err
