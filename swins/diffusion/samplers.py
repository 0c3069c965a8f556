"""Images out of noise: DDPM (arXiv:2006.11239), DDIM (arXiv:2010.02502), classifier-free guidance (arXiv:2207.12598).

A step of either is x' = a x0 + b x + c z, where x0 is the image that the network's output means, clipped to [-1, 1] if
asked for, and z is noise: the noise that x0 and x leave, which DDIM's formula has, is then derived of the clipped x0.

Letters: B images, T times, S steps; alpha_bar as in `noise_schedule`, alpha_bar' of the time that a step goes to.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from swins.checked_numbers import integers
from swins.diffusion.noise_schedule import NoiseSchedule, image_of, posterior_tables, require_target
from swins.errors import SwinsError, unknown_name

SPACINGS = ("trailing", "leading", "linspace")
LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The steps of a sampler, noisiest first: times (S,) int32; of_image, of_noisy, of_noise (S,) float64, the numbers
    a, b and c; clip: whether x0 is kept in [-1, 1]."""

    times: np.ndarray
    of_image: np.ndarray
    of_noisy: np.ndarray
    of_noise: np.ndarray
    clip: bool

    @property
    def random(self) -> bool:
        """Whether steps add noise."""
        return bool(np.any(self.of_noise))


def require_flag(name: str, value) -> None:
    """Raise SwinsError for what is neither True nor False."""
    if not isinstance(value, bool):
        raise SwinsError(f"{name} must be True or False; got {value!r}")


@dataclass(frozen=True)
class DDPM:
    """Ancestral sampling over all T times, with the variance of q(x_{t-1} | x_t, x0).

    Args:
        clip: whether the image that each step foresees is kept in [-1, 1]; the reference does not.
    """

    clip: bool = True

    def __post_init__(self):
        require_flag("clip", self.clip)

    def trajectory(self, schedule: NoiseSchedule) -> Trajectory:
        """The steps under a schedule: as many as it has."""
        of_image, of_noisy = posterior_tables(schedule)
        tables = of_image, of_noisy, np.sqrt(schedule.posterior_variance)
        return Trajectory(np.arange(schedule.steps, dtype="int32")[::-1], *(t[::-1] for t in tables), clip=self.clip)


@dataclass(frozen=True)
class DDIM:
    """Sampling in fewer steps than there are times.

    Args:
        steps: S.
        eta: share of DDPM's noise: 0 for none, where images follow from the starting noise; 1 with S = T is DDPM.
        spacing: which times: "trailing" T-1, T-1-T/S, ...; "linspace" evenly from T-1 to 0; "leading" multiples of
            the whole part of T/S, from 0 on, which begins below T-1 (arXiv:2305.08891, table 2).
        clip: whether the image that each step foresees is kept in [-1, 1].

    Raises:
        SwinsError: steps below 1, eta outside 0 to 1, another spacing.
    """

    steps: int = 50
    eta: float = 0.0
    spacing: str = "trailing"
    clip: bool = True

    def __post_init__(self):
        require_flag("clip", self.clip)
        (steps,) = integers("steps", self.steps, 1)
        object.__setattr__(self, "steps", steps)
        if steps < 1:
            raise SwinsError(f"steps must be at least 1; got {steps}; 50 are common")
        if not isinstance(self.eta, int | float) or isinstance(self.eta, bool) or not 0 <= self.eta <= 1:
            raise SwinsError(f"eta must be from 0, no noise, to 1, DDPM's; got {self.eta!r}")
        if self.spacing not in SPACINGS:
            raise unknown_name("spacing", str(self.spacing), list(SPACINGS))

    def times(self, total: int) -> np.ndarray:
        """The times of a schedule of `total` that are visited -> (S,) int32, falling.

        Raises:
            SwinsError: more steps than times.
        """
        if self.steps > total:
            raise SwinsError(
                f"steps must be at most the times of the model's schedule of noise, {total}; got {self.steps}; choose "
                f"{total} or fewer"
            )
        if self.spacing == "linspace":
            times = np.round(np.linspace(0, total - 1, self.steps)) if self.steps > 1 else np.array([total - 1])
        elif self.spacing == "leading":
            times = np.arange(self.steps) * (total // self.steps)
        else:
            times = np.round(np.arange(1, self.steps + 1) * (total / self.steps)) - 1
        return times[::-1].astype("int32")

    def trajectory(self, schedule: NoiseSchedule) -> Trajectory:
        """The steps under a schedule (equation 12): x' = sqrt(alpha_bar') x0 + sqrt(1 - alpha_bar' - c^2) eps + c z."""
        times = self.times(schedule.steps)
        here = schedule.alpha_bars[times]
        then = np.concatenate([here[1:], [1.0]])
        # 1 - alpha_bar / alpha_bar' exactly as DDPM has it where times are neighbours: their beta
        neighbours = times == np.concatenate([times[1:], [-1]]) + 1
        jump = np.where(neighbours, schedule.betas[times], 1 - here / then)
        sigma = self.eta * np.sqrt((1 - then) / (1 - here) * jump)
        of_eps = np.sqrt(np.maximum(1 - then - sigma**2, 0.0))
        of_image = np.sqrt(then) - of_eps * np.sqrt(here) / np.sqrt(1 - here)
        return Trajectory(times, of_image, of_eps / np.sqrt(1 - here), sigma, clip=self.clip)


SAMPLERS = {"ddpm": DDPM, "ddim": DDIM}


def as_denoiser(network: Callable) -> Callable:
    """A SwinUNet, or any model of {"images", "time"(, "classes")}, as (x, time, classes) -> output, in inference."""

    def denoiser(x, time, classes=None):
        inputs = {"images": x, "time": time}
        return network(inputs if classes is None else {**inputs, "classes": classes}, training=False)

    return denoiser


def guided(denoiser: Callable, classes=None, guidance: float = 1.0, null_class: int | None = None) -> Callable:
    """(x, time) -> output, of a denoiser (x, time, classes) -> output, with classifier-free guidance.

    The output is null + guidance (asked - null), of one batch of both; what is mixed may be eps, v or x0, for each is
    the other's scaled and shifted.

    Args:
        denoiser: the network.
        classes: of each image, (B,) integers; None of a network without classes.
        guidance: 1 for the class as it is, more for more of it, 0 for none.
        null_class: the class that stands for none: `numbers.null` of a SwinUNet.

    Raises:
        SwinsError: guidance other than 1 without classes or without a null class.
    """
    if not isinstance(guidance, int | float) or isinstance(guidance, bool) or not np.isfinite(guidance):
        raise SwinsError(f"guidance must be a number, 1 for none; got {guidance!r}")
    if guidance == 1:
        return lambda x, time: denoiser(x, time, classes)
    if classes is None or null_class is None:
        lacking = "no classes" if classes is None else "no null class"
        raise SwinsError(
            "guidance needs a model with classes and a null class, which it learns where some classes are dropped in "
            f"training; got guidance {guidance} and {lacking}; leave it out"
        )
    classes = ops.cast(ops.convert_to_tensor(classes), "int32")
    both_classes = ops.concatenate([classes, ops.full_like(classes, null_class)])

    def output_of(x, time):
        output = denoiser(ops.concatenate([x, x]), ops.concatenate([time, time]), both_classes)
        asked, null = ops.split(output, 2)
        return null + guidance * (asked - null)

    return output_of


def entry(table: np.ndarray, i, like):
    """A table's number at a step, an integer or a scalar tensor, in the type of a tensor."""
    if isinstance(i, int):
        return float(table[i])
    return ops.take(ops.convert_to_tensor(np.ascontiguousarray(table), dtype=like.dtype), i)


def reverse_step(output_of: Callable, schedule: NoiseSchedule, target: str, trajectory: Trajectory, i, x, noise=None):
    """One step of a sampler: (B, ...) -> (B, ...).

    Args:
        output_of: (x, time (B,)) -> what the network gives, as `guided` makes it.
        schedule, target: what the network was trained with.
        trajectory: of the sampler.
        i: which step, from 0: an integer, or a scalar tensor in a graph.
        x: noisy images of that step's time, float32 or float64.
        noise: z, (B, ...); None where there is none.
    """
    x = ops.convert_to_tensor(x)  # PyTorch multiplies no array with a tensor
    times = ops.convert_to_tensor(np.ascontiguousarray(trajectory.times), dtype="int32")
    time = ops.broadcast_to(ops.take(times, i), (ops.shape(x)[0],))
    image = image_of(schedule, target, ops.cast(output_of(x, time), x.dtype), x, time)
    image = ops.clip(image, -1.0, 1.0) if trajectory.clip else image
    x = entry(trajectory.of_image, i, x) * image + entry(trajectory.of_noisy, i, x) * x
    return x if noise is None else x + entry(trajectory.of_noise, i, x) * ops.cast(noise, x.dtype)


def require_seed(seed: int) -> int:
    """A seed as an integer of 0 to 2**31 - 1. Raises SwinsError for another."""
    (seed,) = integers("seed", seed, 1)
    if not 0 <= seed <= LARGEST_SEED:
        raise SwinsError(f"seed must be from 0 to {LARGEST_SEED}; got {seed}")
    return seed


def normal(shape: tuple, *seed: int):
    """Normal noise of integers that name it, the same again of the same backend and device -> float32."""
    return keras.random.normal(shape, seed=int(np.random.SeedSequence(seed).generate_state(1)[0] >> 1))


def starting_noise(shape: tuple, seed: int = 0):
    """What sampling starts from, the same for the same seed and backend: (B, H, W, C) float32."""
    return normal(shape, require_seed(seed), 0)


def sample(
    output_of: Callable,
    schedule: NoiseSchedule,
    x,
    *,
    target: str = "eps",
    sampler: DDPM | DDIM | None = None,
    seed: int = 0,
    draw: Callable | None = None,
    progress: Callable | None = None,
):
    """Images of noise, step by step, under every backend: (B, H, W, C) -> (B, H, W, C), in [-1, 1] where clipped.

    Args:
        output_of: (x, time (B,)) -> what the network gives, as `guided` makes it.
        schedule, target: what the network was trained with.
        x: the starting noise, as of `starting_noise`.
        sampler: DDIM() by default.
        seed: of the noise that steps add.
        draw: (i, shape) -> noise of step i, in place of a seed's.
        progress: called after each step, as (i, S, x).

    Raises:
        SwinsError: an unknown target, more steps than times, a seed that is none.

    Example:
    >>> noise = starting_noise((2, 8, 8, 1), seed=4)
    >>> images = sample(lambda x, time: x, NoiseSchedule(steps=20), noise, sampler=DDIM(steps=5))
    >>> tuple(images.shape), bool(ops.max(ops.abs(images)) <= 1)
    ((2, 8, 8, 1), True)
    """
    require_target(target)
    seed = require_seed(seed)
    trajectory = (sampler or DDIM()).trajectory(schedule)
    draw = draw or (lambda i, shape: normal(shape, seed, i + 1))
    total = len(trajectory.times)
    for i in range(total):
        noise = draw(i, tuple(x.shape)) if trajectory.of_noise[i] else None
        x = ops.stop_gradient(reverse_step(output_of, schedule, target, trajectory, i, x, noise))
        if progress is not None:
            progress(i, total, x)
    return x


def sample_in_graph(
    output_of: Callable,
    schedule: NoiseSchedule,
    x,
    *,
    target: str = "eps",
    sampler: DDPM | DDIM | None = None,
    draw: Callable | None = None,
):
    """What `sample` does, as one loop of a graph, as a SavedModel's: (B, H, W, C) -> (B, H, W, C).

    Args:
        draw: (i, shape) -> noise of step i, a scalar tensor; not needed where a sampler adds none. Under TensorFlow,
            tf.random.stateless_normal(shape, [seed, i]).

    Raises:
        SwinsError: as `sample`'s, and a sampler that adds noise without draw.
    """
    require_target(target)
    trajectory = (sampler or DDIM()).trajectory(schedule)
    if trajectory.random and draw is None:
        raise SwinsError(f"{sampler} adds noise at each step, which a graph is to be given; pass draw, or use eta 0")

    def body(i, x):
        noise = draw(i, ops.shape(x)) if trajectory.random else None
        return reverse_step(output_of, schedule, target, trajectory, i, x, noise)

    return ops.fori_loop(0, len(trajectory.times), body, x)
