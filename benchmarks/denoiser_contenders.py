"""SwinUNet in the benchmark: ours, and RuslanGreenhead/swin_transformer's in eager PyTorch, as its MNIST experiments.

SSD_REFERENCE names a clone of that repository, as for detector_contenders.py. A sampling step is one of DDPM's 500: the
network at a time step, the mean of the one before, and fresh noise. A training step is of noise that was added
before: forward, the squared error, backward, gradients' norm, one update of AdamW; both without stochastic depth.
"""

import functools
import importlib
import sys

from contenders import POLICIES, THREADS, torch_update
from detector_contenders import reference_modules

NAME, SIDE, CLASSES, STEPS, TIME = "swin_unet_patch4_window7_224", 224, 10, 500, 250
RATE, DECAY, CLIP = 1e-4, 1e-4, 5.0
SWIN = {
    **{"img_size": SIDE, "emb_dim": 96, "depths": [2, 2, 6, 2], "n_heads": [3, 6, 12, 24], "patch_size": 4},
    **{"input_dim": 1, "window_size": 7, "mlp_ratio": 4.0, "qkv_bias": True, "qk_scale": None, "pos_drop": 0.0},
    **{"mlp_drop": 0.0, "attn_drop": 0.0, "drop_path": 0.0, "ape": False, "patch_norm": True},
}


def batch_of(batch):
    """(Noisy images (B, H, W, 1), times, classes, noise like the images) that are the same for all."""
    import numpy as np

    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((2, batch, SIDE, SIDE, 1), "float32")
    return x, np.arange(batch) * 60 % STEPS, np.arange(batch) % CLASSES, noise


def reference(precision, task, files):
    import torch

    torch.set_num_threads(THREADS)
    *_, folder = reference_modules()
    sys.path.insert(0, f"{folder.name}/swin_transformer/diffusion")
    networks, schedulers = (importlib.import_module(name) for name in ("diffusion_model", "schedulers"))
    model = networks.MetaConditionedModel(
        swin_params={**SWIN, "norm_layer": torch.nn.LayerNorm},
        cfg={"model": {"condition_dim": 4, "condition_emb_dim": 32, "image_size": SIDE}},
        **{"out_dim": 1, "mid_depth": 2, "time_emb_dim": 128, "condition": True, "condition_dim": 4},
    )
    schedule = schedulers.DDPMScheduler(STEPS, "cosine")

    def inputs(batch):
        x, times, classes, noise = (torch.from_numpy(part) for part in batch_of(batch))
        return x.permute(0, 3, 1, 2).contiguous(), times, classes, noise.permute(0, 3, 1, 2).contiguous()

    if task == "training":
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)

        def step(batch):
            x, times, classes, noise = inputs(batch)

            def loss_of():
                return torch.nn.functional.mse_loss(model(x, times, classes), noise)

            return torch_update(model, optimizer, loss_of, CLIP)

        return step
    model.eval()

    def inference(batch):
        x, _, classes, _ = inputs(batch)
        times = torch.full((batch,), TIME)

        def run():
            with torch.inference_mode():
                return schedule.reduce_noise(model(x, times, classes), x, times, TIME).numpy()

        return run

    return inference


def ours(precision, task, files, jit=False):
    import numpy as np
    import tensorflow as tf

    import swins
    from swins.diffusion.noise_schedule import NoiseSchedule
    from swins.diffusion.samplers import DDPM, as_denoiser, guided, reverse_step

    model = swins.create(NAME, num_classes=CLASSES, drop_path_rate=0.0, dtype=POLICIES[precision])
    schedule = NoiseSchedule("cosine", STEPS)
    if task == "training":
        from swins.recipes import AdamW
        from swins.tasks.diffusion import DIFFUSION, Diffusion, Model, Noise
        from swins.train.loop import compile_trainee
        from swins.train.trainee import Trainee

        optim = AdamW(learning_rate=RATE, per_images=0, weight_decay=DECAY, clip_norm=CLIP)
        recipe = Diffusion(
            model=Model(NAME, compile=jit, drop_path_rate=0.0), noise=Noise("cosine", STEPS), optim=optim
        )
        model = Trainee(model, DIFFUSION, recipe)
        compile_trainee(model, recipe, 1000)

        def step(batch):
            x, times, classes, noise = batch_of(batch)
            images = {"images": x, "time": times.astype("int32"), "classes": classes.astype("int32")}
            truths = {"target": noise, "time": images["time"], "importance": np.ones(batch, "float32")}
            return lambda: model.train_on_batch(images, truths)

        return step
    trajectory = DDPM(clip=False).trajectory(schedule)
    place = int(np.flatnonzero(np.asarray(trajectory.times) == TIME)[0])

    @functools.partial(tf.function, jit_compile=jit)
    def function(x, classes):
        output_of = guided(as_denoiser(model), classes)
        return reverse_step(output_of, schedule, "eps", trajectory, place, x, tf.random.normal(tf.shape(x)))

    def inference(batch):
        x, _, classes, _ = batch_of(batch)
        x, classes = tf.constant(x), tf.constant(classes, "int32")
        return lambda: function(x, classes).numpy()

    return inference


swins_graph, swins_xla = ours, functools.partial(ours, jit=True)
