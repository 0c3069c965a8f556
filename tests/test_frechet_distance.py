"""The Frechet distance, against its formula with a matrix root of SciPy's."""

import numpy as np
import pytest

from swins.diffusion.frechet_distance import frechet_distance, nearest, statistics_of
from swins.errors import SwinsError


def test_it_is_the_formula():
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(0)
    for count, width in ((200, 6), (5, 8)):  # the second has covariances without an inverse
        ours, theirs = (
            rng.normal(size=(count, width)),
            rng.normal(size=(count, width)) @ rng.normal(size=(width, width)),
        )
        a, b = np.cov(ours, rowvar=False), np.cov(theirs, rowvar=False)
        wanted = np.square(ours.mean(0) - theirs.mean(0)).sum()
        wanted += np.trace(a + b - 2 * np.real(linalg.sqrtm(a @ b)))
        got = frechet_distance(statistics_of(ours), statistics_of(theirs))
        assert got == pytest.approx(wanted, rel=1e-5, abs=1e-5)
        assert frechet_distance(statistics_of(ours), statistics_of(ours)) == pytest.approx(0, abs=1e-9)


def test_features_that_tell_nothing_are_refused():
    for features in (np.zeros((1, 3)), np.zeros(3), np.full((4, 3), np.nan)):
        with pytest.raises(SwinsError, match="features must be"):
            statistics_of(features)
    with pytest.raises(SwinsError, match="as long"):
        frechet_distance(statistics_of(np.eye(3)), statistics_of(np.eye(4)))


def test_the_nearest_is_found():
    rng = np.random.default_rng(0)
    images, others = rng.integers(0, 256, (300, 4, 4, 1)), rng.integers(0, 256, (50, 4, 4, 1))
    index, distances = nearest(images, others)
    all_of = np.sqrt(np.square(images[:, None] - others[None].astype(float)).mean((2, 3, 4)))
    np.testing.assert_array_equal(index, all_of.argmin(1))
    np.testing.assert_allclose(distances, all_of.min(1))
