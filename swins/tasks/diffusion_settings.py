"""The recipe of a diffusion model: `Diffusion`, and its sections."""

from dataclasses import asdict, dataclass

from swins import recipes, settings
from swins.settings import Section, ascending, at_least, one_of, probability, setting, sides

SCHEDULES, TARGETS, SAMPLERS = ("cosine", "linear"), ("eps", "v", "x0"), ("ddim", "ddpm")


@dataclass(frozen=True)
class Model(recipes.Model):
    """A denoiser. None leaves the variant's value.

    name: a variant, as "swin_unet_mini_patch2_window7_28"; weights: "" for fresh ones, or a path: a denoiser's; for its
    encoder alone a Swin's; num_classes: None for as many as the data has, 0 for a model without classes; image_size in
    pixels; in_chans: channels of images; drop_path_rate: of the whole network.
    """

    name: str = setting("swin_unet_patch4_window7_224", "a variant's name", bool)
    num_classes: int | None = at_least(None, 0)
    image_size: int | tuple | None = setting(None, "pixels or a pair of them, at least 1", sides)
    in_chans: int | None = at_least(None, 1)
    drop_path_rate: float | None = settings.rate(None)

    def options(self) -> dict:
        """What `swins.create` takes of it, but what the variant decides."""
        apart = ("name", "weights", "compile", "num_classes")
        return {k: v for k, v in asdict(self).items() if k not in apart and v is not None and v is not False}


@dataclass(frozen=True)
class Data(recipes.Data):
    """How images are read: `swins.recipes.Data`, and

    names: of the classes, in the order of the data's labels; () for the data's own. Pixels become -1 to 1, whatever the
    channels.
    """

    batch: int = at_least(128, 1)
    names: tuple = setting((), "texts, none empty", lambda v: all(isinstance(name, str) and name for name in v))


@dataclass(frozen=True)
class Augment(Section):
    """What training images undergo, in this order.

    scale, ratio: random resized crop, area and aspect ratio of what is cut; scale None for none, then the whole image
    is squashed to the model's size.
    pad: pixels of black around the image before a random crop of its own size; 0 for none.
    flip: probability of a horizontal flip.
    """

    scale: tuple | None = setting(None, "a pair of numbers above 0, the smaller first", ascending)
    ratio: tuple = setting((3 / 4, 4 / 3), "a pair of numbers above 0, the smaller first", ascending)
    pad: int = at_least(0, 0)
    flip: float = probability(0.0)

    rand_augment, color_jitter, erase = "", 0.0, 0.0  # of a classifier's training, which uses the same transform


@dataclass(frozen=True)
class Noise(Section):
    """How images become noise. steps: T; kind: of the schedule, cosine (arXiv:2102.09672) or linear
    (arXiv:2006.11239)."""

    kind: str = one_of("cosine", SCHEDULES)
    steps: int = setting(1000, "from 2 to 100000", lambda v: 2 <= v <= 100000)


@dataclass(frozen=True)
class Target(Section):
    """What the network learns to give, and how its errors are weighed.

    kind: eps, the noise; v (arXiv:2202.00512); or x0, the image. min_snr: the least of this and the signal-to-noise
    ratio weighs a time step's error (arXiv:2303.09556), 0 for all alike. drop_class: probability that a training
    image's class is withheld, without which there is no guidance.
    """

    kind: str = one_of("eps", TARGETS)
    min_snr: float = at_least(0.0, 0)
    drop_class: float = settings.rate(0.1)


@dataclass(frozen=True)
class Sampling(Section):
    """How samples are drawn while a model is trained, and later where nothing else is asked for.

    every: epochs from one grid to the next, the last epoch draws too; 0 for none. per_class: images of each class.
    sampler: ddim (arXiv:2010.02502) or ddpm; steps: how many of the noise's, for ddim; eta: of ddim, 0 for no noise on
    the way, 1 for as much as ddpm; guidance: how far to go from what the model gives without a class to what it gives
    with one (arXiv:2207.12598), 1 for just the latter; clip: whether each step's image is clipped to -1 to 1.
    """

    every: int = at_least(10, 0)
    per_class: int = setting(8, "from 1 to 100", lambda v: 1 <= v <= 100)
    sampler: str = one_of("ddim", SAMPLERS)
    steps: int = at_least(50, 1)
    eta: float = probability(0.0)
    guidance: float = at_least(1.0, 0)
    clip: bool = True


@dataclass(frozen=True)
class Diffusion(recipes.Recipe):
    """The training of a diffusion model."""

    model: Model = Model()
    data: Data = Data()
    augment: Augment = Augment()
    noise: Noise = Noise()
    target: Target = Target()
    sampling: Sampling = Sampling()

    def conflicts(self):
        sampling, steps, guidance = self.sampling, self.noise.steps, self.sampling.guidance
        decay = self.optim.layer_decay
        null = self.target.drop_class > 0 and self.model.num_classes != 0
        return {
            **super().conflicts(),
            f"sampling.steps must not exceed noise.steps; got {sampling.steps} and {steps}": sampling.steps > steps,
            f"sampling.guidance needs classes that are withheld; got {guidance}, target.drop_class "
            f"{self.target.drop_class} and model.num_classes {self.model.num_classes}; set it to 1": guidance != 1
            and not null,
            f"optim.layer_decay is of classifiers; got {decay}; leave it out": decay != 1,
        }
