"""How diffusion models are validated while they train, opened, and scored by their samples."""

from dataclasses import dataclass

import numpy as np

from swins.errors import SwinsError
from swins.images import Preprocess
from swins.score import Score
from swins.task import Prepared
from swins.tasks import diffusion_scores
from swins.tasks.diffusion_sampling import ImageSampler, network_facts, of_network, pictures

BANDS = 4  # of the time steps, whose errors the log has
QUARTERS = {f"error_q{i + 1}": f"error in quarter {i + 1} of the time steps" for i in range(BANDS)}
SCORES = (
    Score("error", "mean squared error", larger=False),
    *(Score(name, words, larger=False) for name, words in QUARTERS.items()),
)


@dataclass(frozen=True)
class DenoisingError:
    """How far a network's output was from what it should have given, at a time step: a share of all, 0 to below 1."""

    time: float
    error: float

    def to_json(self) -> dict:
        """The same as plain values."""
        return {"time": self.time, "error": self.error}

    def __str__(self):
        return f"error {self.error:.4f} at {self.time:.0%} of the noise"


def answers(outputs, facts, sizes) -> list:
    """The DenoisingError of each image of a validation batch."""
    if "error" not in outputs:
        raise SwinsError("a diffusion model makes images of noise, and says nothing of images; draw some: swins sample")
    times = np.asarray(outputs["time"]) / facts["noise"]["steps"]
    return [DenoisingError(float(t), float(e)) for t, e in zip(times, np.asarray(outputs["error"]), strict=True)]


def score(records) -> dict:
    """{"error", "error_q1", ...}: means over images, and over those whose time steps are in each quarter."""
    times, errors = (np.array([record[key] for record in records]) for key in ("time", "error"))
    quarter = np.minimum((times * BANDS).astype(int), BANDS - 1)
    parts = [errors[quarter == i] for i in range(BANDS)]
    return {"error": float(errors.mean())} | {
        name: float(part.mean()) if len(part) else None for name, part in zip(QUARTERS, parts, strict=True)
    }


def stated(opened) -> dict:
    """What the run that made an Opened's model says of it.

    Raises:
        SwinsError: for a bare file, which does not tell its noise.
    """
    run = opened.training or opened.certificate.get("training") or {}
    if not {"noise", "target", "sampling"} <= run.keys():
        raise SwinsError(
            f"{opened.path}: does not tell of its noise schedule and its target; take the folder of its run, or an "
            "artefact of that"
        )
    return run


def known(opened) -> dict:
    """All that a sampler needs of a run."""
    run = stated(opened)
    kept = {name: run[name] for name in ("classes", "preprocess", "noise", "target", "sampling")}
    return {**kept, "network": network_facts(opened.model)}


def load(opened) -> ImageSampler:
    """What `swins.load` gives: a sampler of images."""
    facts = known(opened)
    return of_network(opened.name, opened.model, facts)


def prepare(opened, options) -> Prepared:
    """Real images as the run's network has learnt them."""
    facts = stated(opened)["preprocess"]
    size = tuple(facts["image_size"])
    return Prepared(opened.name, "run", Preprocess(size, size, False, tuple(facts["mean"]), tuple(facts["std"])))


def dataset(source, opened, facts, options):
    """None: samples are scored, and not images."""
    raise SwinsError("a diffusion model is scored by its samples")


def evaluate(opened, source, options, bar):
    """Scores of samples: see `swins.tasks.diffusion_scores`."""
    prepared = prepare(opened, options)
    return diffusion_scores.evaluate(opened, load(opened), prepared.preparation, source, options, bar)


FUNCTIONS = {
    "scores": SCORES,
    "known": known,
    "prepare": prepare,
    "answers": answers,
    "dataset": dataset,
    "record": lambda result, truth: result.to_json(),
    "score": score,
    "epoch_pictures": pictures,
    "load": load,
    "options": diffusion_scores.OPTIONS,
    "evaluate": evaluate,
    "sample_scores": diffusion_scores.SCORES,
}
