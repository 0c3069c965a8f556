"""What diffusion models are exported as, and what their cards say."""

import json
from importlib import resources

import keras
import numpy as np
from keras import ops

from swins.diffusion.noise_schedule import NoiseSchedule
from swins.diffusion.samplers import DDIM, as_denoiser, guided, sample_in_graph
from swins.errors import SwinsError
from swins.task import Part
from swins.tasks.diffusion_sampling import ImageSampler, normal_noise

MANY_STEPS = 2e-4  # what a sampler may differ, whose steps add up: 1e-4 of the range from -1 to 1
SEED, NUDGE = 0, 1e-6  # of an example's noise; of its part, what a network's rounding comes to in float32


class SamplingModel(keras.Model):
    """A whole sampler: {"noise": (B, H, W, C), "classes": (B,)} -> images (B, H, W, C) of -1 to 1.

    It is DDIM without noise on its way, so that images follow from the noise alone; of a model without classes there is
    no "classes".

    Args:
        network: a SwinUNet, whose weights are shared; facts: of its run.
    """

    def __init__(self, network, facts, **kwargs):
        super().__init__(name=f"{network.name}_sampler", **kwargs)
        self.network, self.schedule, self.target = network, NoiseSchedule(**facts["noise"]), facts["target"]
        sampling = facts["sampling"]
        self.sampler = DDIM(steps=sampling["steps"], clip=sampling["clip"])
        self.guidance, self.built = sampling["guidance"], True

    @property
    def input(self):
        """What it takes, as Keras describes it."""
        inputs = dict(self.network.input)
        inputs.pop("time")
        return {"noise": inputs.pop("images"), **inputs}

    def call(self, inputs, training=None):
        denoise = as_denoiser(self.network)
        output_of = guided(denoise, inputs.get("classes"), self.guidance, self.network.numbers.null)
        return sample_in_graph(output_of, self.schedule, inputs["noise"], target=self.target, sampler=self.sampler)


def from_seed(model):
    """{name of a signature: (its function, its inputs)} of a SamplingModel: a seed and classes -> samples."""
    shape, known = model.input["noise"].shape[1:], "classes" in model.input

    def seeded(seed, **others):
        import tensorflow as tf

        count = ops.shape(others["classes"])[0] if known else others["count"]
        noise = tf.random.stateless_normal((count, *shape), tf.stack([seed, 0]))
        classes = {"classes": others["classes"]} if known else {}
        return {"samples": model({"noise": noise, **classes}, training=False)}

    return {
        "from_seed": (
            seeded,
            {"seed": ((), "int32"), **({"classes": ((None,), "int32")} if known else {"count": ((), "int32")})},
        )
    }


def example_of(network, names):
    """count -> {input: array}, of those of a network or its sampler."""

    def example(count):
        noise = normal_noise(SEED, 0, count, (*network.image_size, network.in_chans))
        arrays = {"images": noise, "noise": noise, "time": np.arange(count, dtype="int32")}
        if network.numbers.num_classes:
            arrays["classes"] = np.arange(count, dtype="int32") % network.numbers.num_classes
        return {name: arrays[name] for name in names}

    return example


def nudged(inputs: dict) -> dict:
    """Inputs of a sampler whose noise differs by about the rounding of a network's step, up or down."""
    signs = np.random.default_rng(SEED).choice(np.float32([-1, 1]), inputs["noise"].shape)
    return {**inputs, "noise": inputs["noise"] * (1 + np.float32(NUDGE) * signs)}


def run_of(model, certificate) -> dict:
    """What the run that made an artefact says.

    Raises:
        SwinsError: an artefact of no run.
    """
    run = certificate.get("training", {})
    if not {"noise", "target", "sampling"} <= run.keys():
        raise SwinsError(
            f"{certificate['name']}: made of a bare .keras file, which does not tell its noise; export the folder of "
            "its run"
        )
    return run


def parts(model, certificate, deploy):
    """The SavedModels of a diffusion model: its whole sampler, and one step of denoising, which can be trained."""
    run, inputs = run_of(model, certificate), list(model.input)
    of_sampler = ["noise", *(name for name in inputs if name not in ("images", "time"))]
    return {
        "saved_model": Part(
            "samples",
            lambda: SamplingModel(model, run),
            trains=False,
            tolerance=MANY_STEPS,
            nudged=nudged,
            example=example_of(model, of_sampler),
            further=from_seed,
        ),
        "saved_model_step": Part("denoised", lambda: model, example=example_of(model, inputs)),
    }


def load_saved(name, root, facts) -> ImageSampler:
    """The ImageSampler of a SavedModel of one step.

    Raises:
        SwinsError: a SavedModel of a whole sampler, which is called as it is.
    """
    default = root.signatures["serving_default"]
    known = default.structured_input_signature[1]
    if "time" not in known:
        raise SwinsError(
            f"{name}: a whole sampler, of {facts['sampling']['steps']} steps, which is called as it is: its signature "
            "from_seed takes a seed and classes; for other steps load saved_model_step beside it"
        )

    def denoise(noisy, time, classes=None):
        inputs = {"images": noisy, "time": time, "classes": classes}
        (output,) = default(
            **{key: ops.convert_to_tensor(inputs[key], known[key].dtype.name) for key in known}
        ).values()
        return output

    return ImageSampler(name, denoise, facts)


def raw(model):
    """None: files for other runtimes are of images alone."""
    raise SwinsError(
        "models of diffusion take more than images, and are written as SavedModels alone: --to saved_model"
    )


def rating(certificate):
    """The error of an artefact in a table of several."""
    error = certificate.get("training", {}).get("error")
    return "not measured" if error is None else f"error {error:.4f} (validation images of its run)"


def card(model, certificate):
    """What a diffusion model's card says besides what all cards do."""
    run = run_of(model, certificate)
    height, width = model.image_size
    names = json.dumps(run["classes"], ensure_ascii=False)
    places = {"height": height, "width": width, "channels": model.in_chans}
    return {
        "template": resources.files("swins.tasks").joinpath("diffusion_card.md").read_text(),
        "image_size": f"{height}x{width}",
        **places,
        "classes": f"{len(run['classes'])} classes" if run["classes"] else "no classes",
        "classes_named": f"\n\nClasses, in the order of their numbers:\n\n```json\n{names}\n```"
        if run["classes"]
        else "",
        "steps": run["sampling"]["steps"],
        "times": run["noise"]["steps"],
        "noise": run["noise"]["kind"],
        "target": run["target"],
        "guidance": run["sampling"]["guidance"],
    }


FUNCTIONS = {
    "tag": "image-generator",
    "parts": parts,
    "raw": raw,
    "rating": rating,
    "card": card,
    "load_saved": load_saved,
}
