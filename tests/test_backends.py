"""TensorFlow, JAX and PyTorch: files move between them, numbers stay, and the others do not need TensorFlow.

`elsewhere.py` does the other backends' part, in a process of each. Tests marked `backends` run under every backend.
"""

import json
import os
import subprocess
import sys

import elsewhere
import keras
import numpy as np
import pytest
from test_models import SMALL, moved
from test_v1 import TOLERANCE, relative

import swins
from swins.weights import artefacts

BFLOAT16 = 0.05  # what half precision leaves of equality, as in test_models.py
one_way = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="files cross between TensorFlow and the others; run once, from it"
)


def crossing(test):
    """Mark a test of files that go from TensorFlow to the others and back."""
    return pytest.mark.slow(one_way(test))


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with this backend's .keras files, and {kind: (outputs, digest, policy)}."""
    folder = tmp_path_factory.mktemp("backends")
    return folder, {kind: elsewhere.write(folder, kind) for kind in elsewhere.MODELS}


@pytest.fixture(scope="module", params=["jax", "torch"])
def there(request, here, checkpoint):
    """The same of another backend: its folder, what it computed, and what it says."""
    folder, _ = here
    done = subprocess.run(
        [sys.executable, elsewhere.__file__, folder, checkpoint],
        env={**os.environ, "KERAS_BACKEND": request.param},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / request.param / "arrays.npz") as arrays:
        return folder / request.param, dict(arrays), json.loads(done.stdout.splitlines()[-1])


def tolerance(kind):
    return BFLOAT16 if kind == "half" else TOLERANCE


@crossing
@pytest.mark.parametrize("kind", elsewhere.MODELS)
def test_their_processes_read_our_files(here, there, kind):
    outputs, digest, policy = here[1][kind]
    _, arrays, facts = there
    assert relative(arrays[f"read_{kind}"], outputs) <= tolerance(kind)
    assert facts[f"read_{kind}"] == [digest, policy]


@crossing
@pytest.mark.parametrize("kind", elsewhere.MODELS)
def test_we_read_their_files(there, kind):
    folder, arrays, facts = there
    outputs, digest, policy = elsewhere.read(folder, kind)
    assert relative(outputs, arrays[f"wrote_{kind}"]) <= tolerance(kind)
    assert facts[f"wrote_{kind}"] == [digest, policy]


@crossing
def test_a_checkpoint_gives_the_same_logits(there, checkpoint):
    ours = elsewhere.outputs(swins.create(elsewhere.NAME, weights=checkpoint))
    assert relative(there[1]["created"], ours) <= TOLERANCE


@crossing
def test_the_converter_needs_no_tensorflow(there, converted):
    folder, _, facts = there
    assert (facts["list"], facts["convert"]) == (0, 0)
    theirs, ours = (artefacts.read_certificate(a) for a in (folder / "artefact", converted))
    assert theirs["versions"]["backend"] == folder.name
    assert (theirs["verdict"], theirs["weights_sha256"]) == ("pass", ours["weights_sha256"])
    assert artefacts.open_evaluated(folder / "artefact")[0].policy == "float32"


@crossing
def test_other_backends_do_not_import_tensorflow(there):
    assert there[2]["tensorflow"] is False


@pytest.mark.backends
def test_fit_lowers_the_loss_with_drop_path_on(rng):
    model = moved(swins.SwinTransformerV2(**{**SMALL, "image_size": 16}, num_classes=3, drop_path_rate=0.3))
    x, y = rng.standard_normal((12, 16, 16, 3), dtype="float32"), np.arange(12) % 3
    model.compile(keras.optimizers.AdamW(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)  # before tracing, which is then done once
    start = model.evaluate(x, y, verbose=0)
    model.fit(x, y, batch_size=6, epochs=10, verbose=0)
    assert model.evaluate(x, y, verbose=0) < 0.7 * start


def test_global_policy_applies():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert swins.SwinTransformer(**SMALL).get_layer("patch_embed").compute_dtype == "bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
