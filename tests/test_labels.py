"""Names of classes, and classifiers over some of them."""

import json

import numpy as np
import pytest
from shared_fixtures import script

import swins
from swins.labels import FASHION_MNIST, imagenet1k_in_22k, known_classes, synonyms, table

# arXiv:2103.14030's repository, data/map22kto1k.txt (MIT): lines 1, 2, 500, 719, 720, 851, 983 and 1000
MICROSOFT = {0: 359, 1: 368, 718: 9212, 719: 9221, 850: 5564, 999: 21817}


def test_names():
    assert len(swins.class_names(1000)) == 1000 and len(swins.class_names(21841)) == 21841
    assert swins.class_names(1000)[0] == "tench, Tinca tinca"
    assert swins.class_names("swin_mini_patch2_window4_28.fashion_mnist") == list(FASHION_MNIST)
    assert len(swins.class_names("swin_tiny_patch4_window7_224.ms_in22k")) == 21841
    with pytest.raises(swins.SwinsError, match="1000 and 21841 classes, or by a name with its tag; got 10"):
        swins.class_names(10)  # whose would they be?


def test_the_map_is_microsofts():
    places = imagenet1k_in_22k()
    assert len(set(places)) == 1000
    assert {i: places[i] for i in MICROSOFT} == MICROSOFT
    names, all_names = swins.class_names(1000), swins.class_names(21841)
    assert [i for i in range(1000) if names[i] != all_names[places[i]]] == [850]  # no teddy bear among the 22k


def test_the_lists_are_what_their_script_makes():
    in1k, in22k, names = script("in1k_eval/classes.py").synsets()
    assert [row[:2] for row in table("imagenet1k")] == [[s, names[s]] for s in in1k]
    assert table("imagenet22k") == [[s, names[s]] for s in in22k]
    assert len(set(in22k)) == 21841


def test_names_that_a_model_is_known_by(tmp_path):
    model = swins.SwinTransformer(
        image_size=32, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4, num_classes=3
    )
    assert known_classes(tmp_path, model, {}) == ()
    assert known_classes(tmp_path, model, {"name": "swin_tiny_patch4_window7_224.ms_in1k"}) == ()  # it has 1000
    assert known_classes(tmp_path, model, {"class_names": ["a", "b", "c"]}) == ("a", "b", "c")
    facts = dict.fromkeys(("image_size", "crop", "mean", "std"))
    result = {"recipe": {"model.name": "x"}, "preprocess": facts, "classes": ["d", "e", "f"]}
    (tmp_path / "result.json").write_text(json.dumps(result))
    (tmp_path / "model.keras").touch()
    for path in (tmp_path, tmp_path / "model.keras"):
        assert known_classes(path, model, {}) == ("d", "e", "f")
        assert known_classes(path, model, {"class_names": ["a", "b", "c"]}) == ("a", "b", "c")  # as its export states
    whole = swins.SwinTransformer(image_size=32, embed_dim=8, depths=(1,), num_heads=(1,), window_size=4)
    assert known_classes(tmp_path, whole, {"name": "swin_tiny_patch4_window7_224"}) == ()  # no tag: whose are they?
    (tmp_path / "result.json").unlink()
    names = known_classes(tmp_path, whole, {"name": "swin_tiny_patch4_window7_224.ms_in1k"})
    assert list(names) == swins.class_names(1000)
    cranes = [i for i, name in enumerate(names) if name == "crane"]
    assert len(cranes) == 2 and len({synonyms(names)[i][0] for i in cranes}) == 2  # told apart by their synsets


@pytest.mark.core
@pytest.mark.backends
def test_selected_classes_keep_their_logits(rng):
    model = swins.SwinTransformer(
        image_size=32, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4, num_classes=9
    )
    x = rng.normal(size=(2, 32, 32, 3)).astype("float32")
    chosen = swins.select_classes(model, [7, 0, 3])
    assert chosen.output.shape == (None, 3)
    np.testing.assert_allclose(chosen.predict(x, verbose=0), model.predict(x, verbose=0)[:, [7, 0, 3]], atol=1e-6)
    for wrong in ([9], [-1], [], [0.5]):
        with pytest.raises(swins.SwinsError, match="integers from 0 to 8"):
            swins.select_classes(model, wrong)
    with pytest.raises(swins.SwinsError, match="with a classifier"):
        swins.select_classes(swins.backbone(model), [0])
