"""The Frechet distance of two sets of features, each taken as a normal distribution (arXiv:1706.08500).

With the pooled features of the Inception network of 2015 it is the FID; with any other it is a distance of its own,
which compares with no published FID: say whose features they are.
"""

from dataclasses import dataclass

import numpy as np

from swins.errors import SwinsError


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Of features (n, D): mean (D,), covariance (D, D), as float64, and n."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int


def statistics_of(features) -> FeatureStatistics:
    """The FeatureStatistics of features (n, D), with the covariance of a sample.

    Raises:
        SwinsError: fewer than two rows, another rank, or values that are no numbers.
    """
    features = np.asarray(features, "float64")
    if features.ndim != 2 or len(features) < 2 or not features.shape[1]:
        raise SwinsError(f"features must be of at least two images, (n, D); got {features.shape}; take more images")
    if not np.isfinite(features).all():
        raise SwinsError(
            "features must be finite numbers; some are NaN or infinite: the images or the extractor are bad"
        )
    covariance = np.atleast_2d(np.cov(features, rowvar=False))
    return FeatureStatistics(features.mean(0), covariance, len(features))


def root(matrix: np.ndarray) -> np.ndarray:
    """The square root of a symmetric matrix that has no negative eigenvalues but by rounding."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def frechet_distance(ours: FeatureStatistics, theirs: FeatureStatistics) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2), at least 0 (equation 6).

    The last trace is that of (C1^1/2 C2 C1^1/2)^1/2, which is symmetric.

    Raises:
        SwinsError: features of different lengths.

    Example:
    >>> features = np.random.default_rng(0).normal(size=(50, 3))
    >>> round(frechet_distance(statistics_of(features), statistics_of(features + 2)), 6)
    12.0
    """
    if ours.mean.shape != theirs.mean.shape:
        raise SwinsError(
            f"features must be as long; got {len(ours.mean)} and {len(theirs.mean)}; take one extractor for both"
        )
    first = root(ours.covariance)
    common = np.linalg.eigvalsh(first @ theirs.covariance @ first)
    traces = np.trace(ours.covariance) + np.trace(theirs.covariance) - 2 * np.sqrt(np.maximum(common, 0)).sum()
    return float(max(0.0, np.square(ours.mean - theirs.mean).sum() + traces))


def nearest(images: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of others for each image: (n, ...), (m, ...) -> indices (n,), and root mean squared differences (n,).

    >>> [part.tolist() for part in nearest(np.array([[0.0, 3.0]]), np.array([[9.0, 9.0], [0.0, 1.0]]))]
    [[1], [1.4142135623730951]]
    """
    flat, rows = (np.asarray(part, "float64").reshape(len(part), -1) for part in (images, others))
    squares, found, least = np.square(rows).sum(1), [], []
    for start in range(0, len(flat), 256):
        part = flat[start : start + 256]
        index = (squares - 2 * part @ rows.T).argmin(1)
        found.append(index)
        least.append(np.sqrt(np.square(part - rows[index]).mean(1)))
    return np.concatenate(found), np.concatenate(least)
