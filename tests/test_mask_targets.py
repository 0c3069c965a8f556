"""What the mask head is to give is what mmdetection asks of it."""

import keras
import numpy as np
import pytest
from instance_cases import CANVASES, regions
from keras import ops
from shared_fixtures import ROOT

from swins.detection import mask_targets

pytestmark = pytest.mark.backends
REFERENCE = ROOT / "tests" / "reference" / "mask_targets.npz"


def expected(canvas, count):
    """mmdetection's targets of a canvas's regions, (N, 28, 28) bool."""
    bits = np.load(REFERENCE)[f"{canvas[0]}x{canvas[1]}"]
    return np.unpackbits(bits)[: count * 28 * 28].reshape(-1, 28, 28).astype(bool)


def targets(masks, boxes, sources):
    """Ours of arrays of several images, in a graph where that is quicker."""
    arrays = [ops.convert_to_tensor(a) for a in (np.packbits(masks, -1, bitorder="little"), boxes, sources)]
    run = mask_targets.mask_targets
    if keras.backend.backend() == "jax":
        import jax

        run = jax.jit(run)
    return ops.convert_to_numpy(run(*arrays))


def compare(canvas):
    """A mean of exactly a half may be rounded either way."""
    masks, boxes, sources = regions(canvas)
    ours, reference = targets(masks[None], boxes[None], sources[None])[0], expected(canvas, len(boxes))
    assert ours.shape == reference.shape and ours.dtype == np.float32 and 0.1 < reference.mean() < 0.6
    different = (ours.astype(bool) != reference).mean()
    assert different <= (0 if keras.backend.backend() == "tensorflow" else 3e-4), different


@pytest.mark.core
def test_regions_of_one_image(monkeypatch):
    """A few at a time, of which the last are fewer."""
    monkeypatch.setattr(mask_targets, "AT_A_TIME", 35 * 64 * 96)
    compare(CANVASES[0])


@pytest.mark.parametrize("canvas", CANVASES[1:])
def test_all_at_once(canvas):
    compare(canvas)


def test_each_image_has_its_own_objects(monkeypatch):
    monkeypatch.setattr(mask_targets, "AT_A_TIME", 60 * 32 * 32)
    masks, boxes, sources = regions(CANVASES[2])
    both = [np.stack([a, b]) for a, b in ((masks, masks[::-1]), (boxes, boxes), (sources, 5 - sources))]
    ours = targets(*both)
    np.testing.assert_array_equal(ours[0], ours[1])
    assert (ours[0].astype(bool) != expected(CANVASES[2], len(boxes))).mean() <= 3e-4
