"""Samples of a diffusion model: what is asked for, from what noise, and how it is drawn."""

import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

import keras
import numpy as np

from swins.devices import accelerators
from swins.diffusion.noise_schedule import NoiseSchedule
from swins.diffusion.samplers import DDIM, DDPM, guided, sample
from swins.errors import SwinsError, unknown_name
from swins.samples import Samples, denoising, to_pixels
from swins.settings import problems
from swins.tasks.diffusion_settings import SAMPLERS, Sampling

BATCH, SHOWN = 100, 10  # images at a time; classes in a run's grid
KNOWN = tuple(part.name for part in fields(Sampling) if part.name not in ("every", "per_class"))


def normal_noise(seed: int, first: int, count: int, shape: tuple, step: int | None = None) -> np.ndarray:
    """Normal noise of images `first` to `first + count`: (count, *shape) float32, the same whatever the batches are.

    Args:
        seed: of all; step: of the sampler, None for what it starts from.
    """
    keys = ((seed, number) if step is None else (seed, number, step) for number in range(first, first + count))
    return np.stack([np.random.default_rng(key).standard_normal(shape, "float32") for key in keys])


def denoiser_of(network: keras.Model) -> Callable:
    """A network, compiled as Keras does, as samplers call it: (noisy, time, classes) -> output."""
    known = list(network.input)
    if keras.backend.backend() == "tensorflow" and not accelerators():
        network.jit_compile = False  # on CPUs XLA makes no step faster, and takes seconds for each size of a batch

    def denoise(noisy, time, classes=None):
        inputs = {"images": noisy, "time": time, "classes": classes}
        arrays = {name: keras.ops.convert_to_numpy(inputs[name]) for name in known}
        return network.predict_on_batch(arrays)

    return denoise


def network_facts(network) -> dict:
    """What a sampler must know of a SwinUNet, as JSON."""
    numbers = network.numbers
    return {
        "shape": [*network.image_size, network.in_chans],
        "num_classes": numbers.num_classes,
        "null": numbers.null if numbers.num_classes else None,
    }


def of_network(name: str, network, facts: dict) -> "ImageSampler":
    """The ImageSampler of a SwinUNet and a run's facts."""
    return ImageSampler(name, denoiser_of(network), {**facts, "network": network_facts(network)})


def chosen(facts: dict, options: dict) -> Sampling:
    """How samples are drawn: as a run's facts say, but for options that are not None.

    Raises:
        SwinsError: an unknown option, or one whose value cannot be.
    """
    asked = {name: value for name, value in options.items() if value is not None}
    for name in asked:
        if name not in KNOWN:
            raise unknown_name("option of sampling", name, KNOWN)
    sampling = Sampling(**{**facts["sampling"], **asked})
    if wrong := problems(sampling):
        raise SwinsError("; ".join(wrong))
    return sampling


def sampler_of(sampling: Sampling) -> DDIM | DDPM:
    """The sampler of the settings."""
    if sampling.sampler == SAMPLERS[1]:
        return DDPM(clip=sampling.clip)
    return DDIM(steps=sampling.steps, eta=sampling.eta, clip=sampling.clip)


@dataclass(frozen=True)
class ImageSampler:
    """A diffusion model that makes images: `sampler(classes=[3, 7], count=16, seed=4)` -> Samples.

    name: of the model; denoise: (noisy, time, classes) -> what the network gives; facts: of the run that made it, as
    its noise and its classes' names, and of its network.
    """

    name: str
    denoise: Callable = field(repr=False)
    facts: dict = field(repr=False)

    def __call__(
        self,
        classes: int | str | Sequence | None = None,
        count: int | None = None,
        *,
        seed: int = 0,
        noise: np.ndarray | None = None,
        progress: Callable | None = None,
        watch: Callable | None = None,
        **options,
    ) -> Samples:
        """Images of classes.

        Args:
            classes: numbers or names, or one of them; all by default. Images are as many of each, one more of the first
                where they do not divide.
            count: of images in all; by default one a class, or 16 of a model without classes.
            seed: of the noise: the same seed gives the same images, however many others are drawn with them.
            noise: what to start from, (count, H, W, C) float32, in place of the seed's.
            progress: called with (steps done, steps in all) of all batches.
            watch: called with (step, steps, images so far) of a batch.
            **options: steps, guidance, sampler ("ddim", "ddpm"), eta, clip; by default those of the run's grids.

        Raises:
            SwinsError: unknown classes or options, more steps than the noise has, guidance of a model that has not
                learnt without classes.
        """
        sampling, labels = chosen(self.facts, options), self.labels(classes, count)
        schedule, sampler = NoiseSchedule(**self.facts["noise"]), sampler_of(sampling)
        total = len(sampler.trajectory(schedule).times)
        network, seed = self.facts["network"], require_seed(seed)
        shape = tuple(network["shape"])
        if noise is not None and np.shape(noise) != (len(labels), *shape):
            raise SwinsError(f"noise must be {(len(labels), *shape)}; got {np.shape(noise)}")
        batches, known, images = range(0, len(labels), BATCH), bool(network["num_classes"]), []
        for number, first in enumerate(batches):
            asked = labels[first : first + BATCH]
            many = len(asked)
            start = normal_noise(seed, first, many, shape) if noise is None else np.float32(noise[first : first + many])

            def told(i, steps, x, number=number):
                if watch:
                    watch(i, steps, keras.ops.convert_to_numpy(x))
                if progress:
                    progress(number * total + min(i + 1, steps), len(batches) * total)

            images.append(
                sample(
                    guided(self.denoise, asked if known else None, sampling.guidance, network["null"]),
                    schedule,
                    start,
                    target=self.facts["target"],
                    sampler=sampler,
                    draw=lambda i, _, first=first, many=many: normal_noise(seed, first, many, shape, int(i)),
                    progress=told,
                )
            )
        pixels = to_pixels(np.concatenate([keras.ops.convert_to_numpy(part) for part in images]))
        names = self.facts["classes"]
        return Samples(
            pixels, labels.astype("int64") if known else labels[:0], tuple(names[n] for n in labels if known), seed
        )

    def labels(self, classes, count) -> np.ndarray:
        """The class of each image that is asked for, (count,) int32; zeros of a model without classes."""
        names, have = self.facts["classes"], self.facts["network"]["num_classes"]
        if not have:
            if classes is not None:
                raise SwinsError(f"{self.name} has no classes; got {classes}; leave them out")
            return np.zeros(require_count(16 if count is None else count), "int32")
        asked = range(have) if classes is None else [classes] if isinstance(classes, int | str) else classes
        numbers_ = [number_of(one, names) for one in asked]
        if not numbers_:
            raise SwinsError("classes must be at least one; got none; leave them out for all")
        count = require_count(len(numbers_) if count is None else count)
        each = np.full(len(numbers_), count // len(numbers_))
        each[: count % len(numbers_)] += 1
        return np.repeat(np.int32(numbers_), each)


def require_count(count) -> int:
    """A number of images. Raises SwinsError unless it is an integer of at least 1."""
    if not isinstance(count, numbers.Integral) or isinstance(count, bool) or count < 1:
        raise SwinsError(f"count must be an integer of at least 1; got {count!r}")
    return int(count)


def require_seed(seed) -> int:
    """A seed. Raises SwinsError unless it is an integer of at least 0."""
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or not 0 <= seed < 2**31:
        raise SwinsError(f"seed must be an integer from 0 to 2**31 - 1; got {seed!r}")
    return int(seed)


def number_of(asked, names: Sequence[str]) -> int:
    """The number of a class by that or by its name. Raises SwinsError for an unknown one."""
    if isinstance(asked, str) and asked in names:
        return list(names).index(asked)
    if isinstance(asked, str) and not asked.strip().isdecimal():
        raise unknown_name("class", asked, list(names))
    number = int(asked)
    if not 0 <= number < len(names):
        raise SwinsError(f"classes must be from 0 to {len(names) - 1}, or names of them; got {asked}")
    return number


def pictures(recipe, network, facts, epoch) -> dict:
    """{name: PIL image} after an epoch: a grid, a row a class, and the way of one image of each from noise."""
    sampling = recipe.sampling
    if not sampling.every or (epoch % sampling.every and epoch != recipe.epochs):
        return {}
    sampler, states = of_network(network.name, network, facts), []
    classes = list(range(min(network.numbers.num_classes, SHOWN))) or None
    each = len(classes) if classes else sampling.per_class
    grid_of = sampler(classes, sampling.per_class * each, seed=recipe.seed).draw()
    names = sampler(classes, each, seed=recipe.seed, watch=lambda i, steps, x: states.append((i, x))).names
    return {f"epoch_{epoch:04d}": grid_of, f"epoch_{epoch:04d}_denoising": denoising(states, names)}
