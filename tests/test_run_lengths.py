"""Run lengths are pycocotools', letter by letter; what is none is refused."""

import numpy as np
import pytest
from pycocotools import mask as theirs

from swins import run_lengths
from swins.errors import SwinsError


def masks(rng):
    """Masks of any shape: empty, full, sparse, noise, blocks that reach to the end or from the beginning."""
    for case in range(300):
        mask = rng.random(rng.integers(1, 60, 2)) < (0, 0.02, 0.5, 0.98, 1)[case % 5]
        if case % 7 == 0:
            mask[:] = False
            mask[rng.integers(0, mask.shape[0]) :, rng.integers(0, mask.shape[1]) :] = True
        yield ~mask if case % 14 == 0 else mask
    yield np.eye(700, 900, dtype=bool)  # long runs


def test_text_and_pixels_there_and_back(rng):
    for mask in masks(rng):
        expected = theirs.encode(np.asfortranarray(mask.astype(np.uint8)))
        written = run_lengths.to_json(mask)
        assert written == {"size": list(mask.shape), "counts": expected["counts"].decode()}
        runs = run_lengths.of_text(written["counts"])
        np.testing.assert_array_equal(runs, run_lengths.lengths(mask))
        np.testing.assert_array_equal(run_lengths.of_json(written), mask)
        np.testing.assert_array_equal(run_lengths.of_json({**written, "counts": runs.tolist()}), mask)
        np.testing.assert_array_equal(run_lengths.of_text(written["counts"].encode()), runs)


@pytest.mark.parametrize("text", ["", "\0", "ppp", "0o", "é", b"\xff", "o" * 20, "\ud800", "0 1", "P" * 30])
def test_texts_that_are_none(text):
    with pytest.raises(SwinsError, match="run lengths as text must be "):
        run_lengths.of_text(text)


@pytest.mark.parametrize("runs", [[], [11], [13], [13, -1], [-1, 13], [2**62, 2**62]])
def test_run_lengths_that_do_not_fill_the_image(runs):
    with pytest.raises(SwinsError, match="run lengths must fill 4x3 pixels; got"):
        run_lengths.of_json({"size": [3, 4], "counts": runs})
    good = run_lengths.of_json({"size": [3, 4], "counts": [12]})
    assert good.shape == (3, 4) and not good.any()
