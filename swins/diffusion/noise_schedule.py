"""How much noise an image has at each time, and what a network can be asked for: DDPM (arXiv:2006.11239).

Tables are float64. Functions take NumPy arrays, and compute in NumPy, or tensors of float32 or float64.

Letters: B images, T times, 0 the least noise; beta, alpha and alpha_bar as in the paper, x0 an image, eps its noise.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from keras import ops

from swins.checked_numbers import integers
from swins.errors import SwinsError, unknown_name

TARGETS = ("eps", "v", "x0")
KINDS = {"cosine": (1e-4, 0.9999), "linear": (1e-4, 0.02)}  # and their (lowest, highest)
OFFSET = 0.008  # of the cosine's angle: the first steps are not too small (arXiv:2102.09672, section 3.2)


def cosine_betas(steps: int, lowest: float, highest: float) -> np.ndarray:
    """Betas whose alpha_bar falls as a squared cosine, clipped -> (T,) (arXiv:2102.09672, equation 17)."""
    angles = (np.arange(steps + 1) / steps + OFFSET) / (1 + OFFSET) * math.pi / 2
    alpha_bars = np.cos(angles) ** 2
    return np.clip(1 - alpha_bars[1:] / alpha_bars[:-1], lowest, highest)


def linear_betas(steps: int, lowest: float, highest: float) -> np.ndarray:
    """Betas that grow evenly -> (T,)."""
    return np.linspace(lowest, highest, steps)


BETAS = {"cosine": cosine_betas, "linear": linear_betas}


@dataclass(frozen=True)
class NoiseSchedule:
    """How much noise is added at each of T times.

    Args:
        kind: "cosine" or "linear".
        steps: T.
        lowest, highest: of betas: of a cosine the clip, 0.0001 and 0.9999 as RuslanGreenhead/swin_transformer has it
            (diffusers: 0 and 0.999); of a linear one its first and last, 0.0001 and 0.02 for T of about 1000.

    Raises:
        SwinsError: another kind, fewer than 2 steps, bounds that are not 0 <= lowest < highest < 1.
    """

    kind: str = "cosine"
    steps: int = 500
    lowest: float | None = None
    highest: float | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise unknown_name("schedule of noise", str(self.kind), list(KINDS))
        (steps,) = integers("steps", self.steps, 1)
        if steps < 2:
            raise SwinsError(f"a schedule of noise has at least 2 steps; got {steps}")
        object.__setattr__(self, "steps", steps)
        for name, value in zip(("lowest", "highest"), KINDS[self.kind], strict=True):
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        numbers = [isinstance(x, int | float) and not isinstance(x, bool) for x in (self.lowest, self.highest)]
        if not all(numbers) or not 0 <= self.lowest < self.highest < 1 or (self.kind == "linear" and not self.lowest):
            raise SwinsError(
                "betas must be numbers with 0 <= lowest < highest < 1, and of a linear schedule lowest > 0; got "
                f"{self.lowest!r} and {self.highest!r}; leave them out for {KINDS[self.kind]}"
            )

    @functools.cached_property
    def betas(self) -> np.ndarray:
        """Variance of the noise that each step adds -> (T,) float64."""
        return BETAS[self.kind](self.steps, self.lowest, self.highest)

    @functools.cached_property
    def alphas(self) -> np.ndarray:
        """What each step keeps of the variance -> (T,) float64."""
        return 1 - self.betas

    @functools.cached_property
    def alpha_bars(self) -> np.ndarray:
        """What is left of an image's variance at each time -> (T,) float64."""
        return np.cumprod(self.alphas)

    @functools.cached_property
    def previous_alpha_bars(self) -> np.ndarray:
        """alpha_bar of the time before; 1 before the first -> (T,) float64."""
        return np.concatenate([[1.0], self.alpha_bars[:-1]])

    @functools.cached_property
    def posterior_variance(self) -> np.ndarray:
        """Variance of q(x_{t-1} | x_t, x0); 0 at the first time -> (T,) float64 (equation 7)."""
        return self.betas * (1 - self.previous_alpha_bars) / (1 - self.alpha_bars)

    @functools.cached_property
    def snr(self) -> np.ndarray:
        """Signal over noise: alpha_bar / (1 - alpha_bar) -> (T,) float64."""
        return self.alpha_bars / (1 - self.alpha_bars)


def require_target(target: str) -> str:
    """A name of TARGETS. Raises SwinsError for another."""
    if target not in TARGETS:
        raise unknown_name("target", str(target), list(TARGETS))
    return target


def at_times(table: np.ndarray, time, x):
    """A table's numbers for each image, of x's type and rank: (T,), (B,) -> (B, 1, ...)."""
    shape = (-1, *[1] * (len(x.shape) - 1))
    if isinstance(x, np.ndarray):
        return table[np.asarray(time)].astype(x.dtype).reshape(shape)
    return ops.reshape(ops.take(ops.convert_to_tensor(table, dtype=x.dtype), time, axis=0), shape)


def signal_and_noise(schedule: NoiseSchedule, time, x):
    """How much of image and noise is in x at each time: sqrt(alpha_bar), sqrt(1 - alpha_bar) -> twice (B, 1, ...)."""
    tables = np.sqrt(schedule.alpha_bars), np.sqrt(1 - schedule.alpha_bars)
    return tuple(at_times(table, time, x) for table in tables)


def add_noise(schedule: NoiseSchedule, images, noise, time):
    """Noisy images, drawn of q(x_t | x0): (B, ...), (B, ...), (B,) integers -> (B, ...) (equation 4)."""
    signal, sigma = signal_and_noise(schedule, time, images)
    return signal * images + sigma * noise


def target_of(schedule: NoiseSchedule, target: str, images, noise, time):
    """What a network of this target is to give for an image and its noise at a time -> (B, ...).

    v is sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 (arXiv:2202.00512, section 4).
    """
    if require_target(target) == "eps":
        return noise
    if target == "x0":
        return images
    signal, sigma = signal_and_noise(schedule, time, images)
    return signal * noise - sigma * images


def image_of(schedule: NoiseSchedule, target: str, output, noisy, time):
    """The image x0 that an output of a network means, not clipped -> (B, ...)."""
    if require_target(target) == "x0":
        return output
    signal, sigma = signal_and_noise(schedule, time, noisy)
    if target == "v":
        return signal * noisy - sigma * output
    return (noisy - sigma * output) / signal


def noise_of(schedule: NoiseSchedule, images, noisy, time):
    """The noise eps with which an image becomes a noisy one -> (B, ...)."""
    signal, sigma = signal_and_noise(schedule, time, noisy)
    return (noisy - signal * images) / sigma


def posterior_tables(schedule: NoiseSchedule) -> tuple:
    """How much of x0 and of x_t is in the mean of q(x_{t-1} | x_t, x0) -> twice (T,) float64 (equation 7)."""
    noise = 1 - schedule.alpha_bars
    of_image = np.sqrt(schedule.previous_alpha_bars) * schedule.betas / noise
    of_noisy = np.sqrt(schedule.alphas) * (1 - schedule.previous_alpha_bars) / noise
    return of_image, of_noisy


def posterior(schedule: NoiseSchedule, images, noisy, time):
    """Mean and variance of q(x_{t-1} | x_t, x0) -> (B, ...), (B, 1, ...) (equations 6 and 7)."""
    of_image, of_noisy = (at_times(table, time, noisy) for table in posterior_tables(schedule))
    return of_image * images + of_noisy * noisy, at_times(schedule.posterior_variance, time, noisy)


def loss_weights(schedule: NoiseSchedule, target: str, gamma: float = 5.0) -> np.ndarray:
    """Min-SNR weights of the squared error at each time, for a network of this target -> (T,) float64.

    min(snr, gamma) of the error in x0, written as that in the target (arXiv:2303.09556, section 3.4).
    """
    if not isinstance(gamma, int | float) or isinstance(gamma, bool) or not 0 < gamma < math.inf:
        raise SwinsError(f"gamma of min-SNR weights must be above 0, 5 in the paper; got {gamma!r}")
    snr = schedule.snr
    return np.minimum(snr, gamma) / {"eps": snr, "v": snr + 1, "x0": 1.0}[require_target(target)]
