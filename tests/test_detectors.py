"""Detectors by name: what `create` and `list_variants` know, and whose weights a detector takes."""

from dataclasses import replace

import numpy as np
import pytest
from keras import ops
from test_changes import saved
from test_models import moved
from test_ssd import SMALL, pictures, same

import swins
from swins import tags
from swins.changes import variables
from swins.cli import main
from swins.creation import create
from swins.detection.default_boxes import spread
from swins.detector_configs import DETECTORS, SSDVariant
from swins.errors import SwinsError
from swins.segmenter_configs import SEGMENTERS
from swins.weights import checkpoint_files, networks

MINI, SWIN = "ssd64_swin_mini_b", "swin_mini_patch2_window4_28"
PICO, BACKBONE = "ssd64_swin_pico", "swin_pico_64"


@pytest.fixture(autouse=True)
def pico():
    """A small detector among the variants, and whatever a test registers, forgotten after it."""
    before = [(table, dict(table)) for table in (tags.VARIANTS, tags.PRETRAINED, DETECTORS)]
    swins.register_variant(BACKBONE, swins.Variant(**SMALL, num_classes=5))
    row = SSDVariant(num_classes=3, levels=("P2",), extras=((4, 8),) * 5, backbone=BACKBONE, image_size=64)
    swins.register_variant(PICO, row)
    yield
    for table, content in before:
        table.clear()
        table.update(content)


def numbers(model):
    """{path: array} of a model's weights."""
    return {path: ops.convert_to_numpy(v) for path, v in variables(model).items()}


def of_file(tmp_path, **options):
    """A detector with moved weights, and the folder that it is saved in."""
    model = moved(create(PICO, **options))
    model.save(tmp_path / "model.keras")
    return model


def test_names_are_known(capsys):
    names = swins.list_variants("ssd3*")
    assert names == [
        f"ssd{x}{n}"
        for x in ("300_resnet50_a", "300_resnet50_b", "336_swin_tiny_a", "336_swin_tiny_b")
        for n in ("", "_fpn", "_pan", "_dense_fpn")
    ]
    assert {*names, MINI} <= set(swins.list_variants()) and not swins.list_variants("ssd*", pretrained=True)
    main(["list", "ssd3*_b_*"])
    assert capsys.readouterr().out.split() == [name for name in names if "_b_" in name]
    with pytest.raises(SwinsError, match=r"unknown variant 'ssd336_swin_tiny_c': .*ssd336_swin_tiny_"):
        swins.create("ssd336_swin_tiny_c")
    for door in (swins.preprocess, swins.backbone, swins.class_names):
        with pytest.raises(SwinsError, match=f"{MINI} is a detector, on {SWIN}"):
            door(MINI)


def test_a_registered_detector_is_known_by_its_name():
    row = SSDVariant(num_classes=2, extras=(), preset=spread(3), levels=("P3", "P4", "P5"))
    swins.register_variant("ssd_mine", row)
    swins.register_variant("ssd_mine", row)  # again, the same
    assert swins.list_variants("ssd_m*") == ["ssd_mine"]
    with pytest.raises(SwinsError, match="ssd_mine is a variant already, with other numbers"):
        swins.register_variant("ssd_mine", SSDVariant())
    with pytest.raises(SwinsError, match="weights of detectors have no tags; got coco"):
        swins.register_variant("ssd_other", SSDVariant(), {"coco": tags.Weights()})


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DETECTORS if name.startswith("ssd") and "_mini_" in name])
def test_small_ones_are_small(name):
    """Float32 weights of less than 4 MB, for ten classes."""
    model = swins.create(name, num_classes=10)
    assert 4 * model.count_params() < 4e6
    assert model.image_size == (int(name[3:].partition("_")[0]),) * 2
    assert model.sizes == tuple((side, side) for side in (32, 16, 8, 4, 2, 1))


@pytest.mark.slow
def test_options_are_the_rows_the_ssds_and_the_backbones():
    model = create(PICO, num_classes=7, image_size=(64, 96), neck="fpn", drop_path_rate=0.4, window_size=8, name="mine")
    assert model.image_size == (64, 96) and model.output["scores"].shape[-1] == 8 and model.name == "mine"
    assert model.backbone.get_layer("stages_1_blocks_0").rate == 0.4
    assert model.backbone.get_layer("stages_1_blocks_0").window_size == (8, 8)
    assert create(PICO, in_chans=1, dtype="mixed_bfloat16", frozen=("pyramid",)).inputs[0].shape == (None, 64, 64, 1)
    for options, words in (
        ({"classes": 3}, "unknown model option 'classes'"),
        ({"merged": True}, "unknown option of a detector 'merged'"),
        ({"image_size": 1}, "image_size must hold at least one patch"),
        ({"image_size": (None, None)}, "an SSD is of one image size"),
        ({"name": "a/b"}, "name must be a string without slashes"),
        ({"weights": 3}, "weights must be None"),
        (
            {"weights": "pretrained"},
            f"no weights of {BACKBONE} are published; pass a file you have",
        ),
        ({"weights_key": "ema"}, "weights_key chooses among the weights of a file"),
    ):
        with pytest.raises(SwinsError, match=words):
            create(PICO, **options)


@pytest.mark.slow
def test_a_detectors_own_file_is_the_same_detector(tmp_path):
    model = of_file(tmp_path, num_classes=2, image_size=96)
    for source in (tmp_path, str(tmp_path / "model.keras")):
        same(model(pictures(96)), create(PICO, weights=source)(pictures(96)))  # classes and size are the file's
    before, after = numbers(model), numbers(create(PICO, weights=tmp_path, image_size=64, drop_path_rate=0.1))
    assert before.keys() == after.keys()
    for path, value in before.items():
        np.testing.assert_array_equal(value, after[path], err_msg=path)


@pytest.mark.slow
def test_heads_of_other_classes_are_fresh_and_named(tmp_path):
    before = numbers(of_file(tmp_path))
    with pytest.warns(UserWarning, match="heads of other shapes are fresh: scores_0, .*scores_5; train") as said:
        other = create(PICO, weights=tmp_path, num_classes=4)
    (warning,) = [w for w in said if w.category is UserWarning]
    assert warning.filename == __file__
    for path, value in numbers(other).items():
        assert np.array_equal(value, before[path]) == (not path.startswith("scores_")), path


@pytest.mark.slow
def test_anything_else_loads_strictly(tmp_path):
    of_file(tmp_path)
    with pytest.raises(SwinsError) as raised:
        create(PICO, weights=tmp_path, neck="fpn", num_classes=4)
    text = str(raised.value)
    assert "- neck_align_0/kernel" in text and "! boxes_0" not in text
    with pytest.raises(SwinsError, match=r"! extras_0_conv2/kernel \(3, 3, 4, 9\): .* gives \(3, 3, 4, 8\)"):
        create(PICO, weights=tmp_path, extras=((4, 9),) + ((4, 8),) * 4)
    with pytest.raises(SwinsError, match=r"\+ extras_4_conv1/kernel"):
        create(PICO, weights=tmp_path, extras=((4, 8),) * 4, levels=("P1", "P2"))
    with pytest.raises(SwinsError, match=rf"holds {PICO}; name that variant"):
        create(MINI, weights=tmp_path)
    with pytest.raises(SwinsError, match="holds one model, so there is no 'ema' to choose"):
        create(PICO, weights=tmp_path, weights_key="ema")


def require_backbone(model, swin):
    """Fail unless a detector's backbone has a Swin's weights, but for norms of maps, which a classifier has not."""
    theirs = numbers(swin)
    for path, value in numbers(model).items():
        if path.startswith("pyramid/") and not path.startswith("pyramid/norm1/"):
            np.testing.assert_array_equal(value, theirs[path.removeprefix("pyramid/")], err_msg=path)


@pytest.mark.slow
def test_a_file_of_the_backbone_fills_that_alone(tmp_path):
    swin = moved(create(BACKBONE, num_classes=7))
    swin.save(tmp_path / "swin.keras")
    model = create(PICO, weights=tmp_path / "swin.keras")
    require_backbone(model, swin)
    assert model.numbers.num_classes == 3 and not numbers(model)["scores_0/bias"].any()
    saved(swins.backbone(swin), tmp_path)
    with pytest.raises(SwinsError, match=r"holds a Functional, not a Swin of this package"):
        create(PICO, weights=tmp_path)


@pytest.mark.slow
def test_a_network_of_another_kind_gives_its_backbone(tmp_path, monkeypatch):
    source, file = of_file(tmp_path, num_classes=4), tmp_path / "model.keras"
    images, names = pictures(), ("mask_rcnn_swin_mini_fpn", "upernet_swin_mini")
    for name, rows in zip(names, (DETECTORS, SEGMENTERS), strict=True):
        options = {"size_rule": "open_mmlab"}
        monkeypatch.setitem(rows, name, replace(rows[name], backbone=BACKBONE, options=options, norms=False))
        with pytest.warns(UserWarning, match=rf"holds a SSD, {PICO}: its backbone was taken, the rest of {name} is fr"):
            model = create(name, weights=file, num_classes=2)
        ours, theirs = model.backbone(images), source.backbone(images)  # an SSD has the maps of its levels alone
        same({"P2": ours["P2"]}, {"P2": theirs["P2"]})
    with pytest.raises(SwinsError, match=r"and \d+ more: name a variant on ssd64_swin_pico's backbone"):
        create("mask_rcnn_swin_tiny_fpn", weights=file)


@pytest.mark.slow
def test_v1s_tables_are_interpolated_for_other_windows(tmp_path, monkeypatch):
    swin = moved(create(BACKBONE, num_classes=7))
    swin.save(tmp_path / "swin.keras")
    saved(create(PICO, weights=tmp_path / "swin.keras"), tmp_path)
    name, options = "upernet_swin_mini", {"size_rule": "open_mmlab", "window_size": 6}
    monkeypatch.setitem(SEGMENTERS, name, replace(SEGMENTERS[name], backbone=BACKBONE, options=options, norms=False))
    with pytest.warns(UserWarning, match="its backbone was taken"):
        model = create(name, weights=tmp_path / "model.keras", num_classes=2)
    require_backbone(model, swins.resize(swin, image_size=64, window_size=6, size_rule="open_mmlab"))


@pytest.mark.slow
def test_v2s_windows_go_with_its_weights(tmp_path, monkeypatch):
    v2 = swins.VariantV2(**SMALL, num_classes=5)
    swins.register_variant("swinv2_pico_64", v2)
    monkeypatch.setitem(DETECTORS, PICO, replace(DETECTORS[PICO], backbone="swinv2_pico_64"))
    of_file(tmp_path)
    row = replace(SEGMENTERS["upernet_swin_mini"], backbone="swinv2_pico_64", options={"pretrained_windows": 3})
    monkeypatch.setitem(SEGMENTERS, "upernet_swin_mini", row)
    with pytest.raises(SwinsError, match=r"V2 weights go with the windows they were trained with; .* has others"):
        create("upernet_swin_mini", weights=tmp_path / "model.keras")


def test_a_checkpoint_of_the_backbone_fills_that_alone(checkpoint):
    require_backbone(create(MINI, weights=checkpoint, in_chans=1), create(SWIN, weights=checkpoint))


def test_torchvisions_tensors_fill_a_resnet_alone(tmp_path):
    """Those of all stages, and a classifier, where a detector of kind B leaves the last stage out."""
    swins.register_variant("resnet_pico", swins.VariantResNet(depths=(1, 1, 1, 1), width=4, num_classes=5))
    resnet = moved(create("resnet_pico"))
    checkpoint_files.write(networks.state_dict(resnet), tmp_path / "resnet.safetensors")
    row = replace(DETECTORS["ssd300_resnet50_b"], backbone="resnet_pico", num_classes=2, image_size=150, extras=None)
    swins.register_variant("ssd150_resnet_pico_b", row)
    model = create("ssd150_resnet_pico_b", weights=tmp_path / "resnet.safetensors")
    require_backbone(model, resnet)
    assert model.sizes == ((19, 19), (10, 10), (5, 5), (3, 3), (1, 1), (1, 1))
    assert not [layer.name for layer in model.backbone.layers if layer.name.startswith("layer4")]
    with pytest.raises(SwinsError, match="resnet_pico"):
        create(PICO, weights=tmp_path / "resnet.safetensors")
