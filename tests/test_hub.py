"""SavedModels where people load them: KerasLayer, HubLayer, archives, addresses on loopback; hostile archives."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from shared_fixtures import DATA, needs_tensorflow

import swins
from swins.convert.certificate import difference, seeded_images
from swins.exports import saved_model_writer
from swins.images import preprocess, read_idx
from swins.tasks.classification_export import features
from swins.weights import artefacts

pytestmark = needs_tensorflow

KERAS_LAYER = """
import json, os, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy as np, tensorflow as tf, tensorflow_hub as hub, tf_keras
data, *pairs = sys.argv[1:]
with np.load(data + "/data.npz") as arrays:
    x, y = arrays["x"], arrays["y"]
def tune(folder, out):
    layer = hub.KerasLayer(folder, trainable=True)
    np.save(out + "/call.npy", layer(x, training=False).numpy())
    facts = {"differ": float(tf.reduce_max(tf.abs(layer(x, training=True) - layer(x, training=True))))}
    model = tf_keras.Sequential([layer])
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(1e-3), loss)
    before = [v.numpy() for v in layer.trainable_variables]
    facts["losses"] = model.fit(x, y, batch_size=32, epochs=4, verbose=0).history["loss"]
    facts["trainable"] = len(before)
    facts["changed"] = sum((a != v.numpy()).any() for a, v in zip(before, layer.trainable_variables))
    return {**facts, "swins": "swins" in sys.modules}
print(json.dumps([tune(*pair) for pair in zip(pairs[::2], pairs[1::2])], default=int))
"""

HUB_LAYER = """
import json, sys
import keras, numpy as np, swins
data, *pairs = sys.argv[1:]
with np.load(data + "/data.npz") as arrays:
    x, y = arrays["x"], arrays["y"]
def tune(handle, out):
    layer = swins.HubLayer(handle)
    np.save(out + "/call.npy", layer(x, training=False).numpy())
    facts = {"differ": float(np.abs(layer(x, training=True) - layer(x, training=True)).max())}
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)  # before tracing, which is then done once
    before = [v.numpy() for v in layer.trainable_variables]
    facts["losses"] = model.fit(x, y, batch_size=32, epochs=4, verbose=0).history["loss"]
    facts["trainable"] = len(before)
    facts["changed"] = sum(bool((a != v.numpy()).any()) for a, v in zip(before, layer.trainable_variables))
    model.save(out + "/model.keras")
    again = keras.saving.load_model(out + "/model.keras", safe_mode=False)
    facts["round_trip"] = float(np.abs(again.predict(x, verbose=0) - model.predict(x, verbose=0)).max())
    return facts
print(json.dumps([tune(*pair) for pair in zip(pairs[::2], pairs[1::2])], default=int))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with 128 real images and their classes, shifted by one so that there is something to learn."""
    folder = tmp_path_factory.mktemp("data")
    pixels, labels = (read_idx(DATA / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    images = preprocess("swin_mini_patch2_window4_28")(list(pixels[:128]))
    np.savez(folder / "data.npz", x=images, y=(labels[:128].astype("int32") + 1) % 10)
    return folder


@pytest.fixture(scope="module")
def in_bfloat16(converted, tmp_path_factory):
    """The embedded model with mixed_bfloat16 as a SavedModel, and the model."""
    model = artefacts.load_model(converted)
    half = swins.SwinTransformer(**{**model.get_config(), "dtype": "mixed_bfloat16"})
    half.set_weights(model.get_weights())
    folder = tmp_path_factory.mktemp("bfloat16") / "saved_model"
    saved_model_writer.save(half, None, folder, "logits")
    return folder, half


@pytest.fixture(scope="module", params=[HUB_LAYER, KERAS_LAYER], ids=["HubLayer", "KerasLayer"])
def tuned(request, exported, in_bfloat16, data, tmp_path_factory):
    """What a fresh process tells of a layer that it fine-tunes, of either model: {policy: (facts, folder, model)}."""
    models = {
        "float32": (exported / "saved_model", artefacts.load_model(exported)),
        "mixed_bfloat16": in_bfloat16,
    }
    outs = {policy: tmp_path_factory.mktemp(policy) for policy in models}
    pairs = [str(path) for policy, (folder, _) in models.items() for path in (folder, outs[policy])]
    command = [sys.executable, "-W", "ignore", "-P", "-c", request.param, str(data), *pairs]
    done = subprocess.run(command, capture_output=True, text=True, cwd=data)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert [told.get("swins") for told in facts] == [False if request.param is KERAS_LAYER else None] * 2
    rows = zip(models, facts, strict=True)
    return {policy: (told, outs[policy], models[policy][1]) for policy, told in rows}


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_layers_fine_tune_in_a_fresh_process(tuned, data, policy):
    facts, folder, model = tuned[policy]
    assert facts["differ"] > 0, "drop-path is not active"
    assert facts["changed"] == facts["trainable"] == len(model.trainable_variables)
    assert facts["losses"][-1] < 0.5 * facts["losses"][0], facts
    assert facts.get("round_trip", 0.0) == 0.0
    with np.load(data / "data.npz") as arrays:
        expected = model.predict(arrays["x"], verbose=0)
    tolerance = 1e-5 if policy == "float32" else 3e-2  # bfloat16 rounds to 8 bits, elsewhere in another order
    assert difference(np.load(folder / "call.npy"), expected)["relative"] <= tolerance


@pytest.mark.slow
def test_frozen_layers_do_not_train_or_drop(exported, data):
    layer = swins.HubLayer(exported / "saved_model_fe", trainable=False)
    with np.load(data / "data.npz") as arrays:
        x = arrays["x"][:4]
    assert not layer.trainable_variables
    np.testing.assert_array_equal(layer(x, training=True), layer(x, training=True))
    layer.trainable = True
    assert len(layer.trainable_variables) == len(layer.root.trainable_variables)


@pytest.mark.slow
def test_keras_files_with_a_graph_are_not_opened_unasked(exported, tmp_path):
    model = keras.Sequential([keras.Input((28, 28, 1)), swins.HubLayer(exported / "saved_model_fe")])
    assert model.outputs[0].shape == (None, 96)
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="safe_mode=False"):
        keras.saving.load_model(tmp_path / "model.keras")


@pytest.mark.slow
def test_what_is_no_model_of_ours(converted, tmp_path):
    import tensorflow as tf

    with pytest.raises(swins.SwinsError, match=r"must be a folder with saved_model.pb"):
        swins.HubLayer(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"no protocol buffer")
    with pytest.raises(swins.SwinsError, match="not a SavedModel that can be read"):
        swins.HubLayer(tmp_path / "broken")
    tf.saved_model.save(tf.Module(), str(tmp_path / "theirs"))
    with pytest.raises(swins.SwinsError, match="not a reusable SavedModel"):
        swins.HubLayer(tmp_path / "theirs")
    for address in ("http://127.0.0.1:9/model.tar.gz", "http://127.0.0.1:x/a.tar.gz", "http://127.0.0.1/a b.tar.gz"):
        with pytest.raises(swins.SwinsError, match="cannot be fetched"):
            swins.HubLayer(address)


@pytest.mark.slow
def test_other_backends_are_told(exported, monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(swins.SwinsError, match="SavedModels run under TensorFlow; Keras runs on jax"):
        swins.HubLayer(exported / "saved_model")


@pytest.mark.slow
def test_all_outputs_of_a_saved_model(exported):
    import tensorflow as tf

    model, loaded = artefacts.load_model(exported), tf.saved_model.load(str(exported / "saved_model"))
    x = seeded_images(model.variant, 2)
    out = loaded.signatures["all_outputs"](images=tf.constant(x))
    assert {"logits", "features"} <= set(out)
    for name, scores in swins.attention_maps(model, x).items():
        stage, block = name.split("/")
        served = out[f"attention_{stage.replace('_', '')}_{block.replace('_', '')}"]
        assert difference(served.numpy(), scores)["relative"] <= 1e-5
    pooled = features(model)(x)
    assert difference(out["features"].numpy(), np.asarray(pooled))["relative"] <= 1e-5
