"""What diffusers' schedulers give: python tests/reference/noise_steps.py, with diffusers 0.42.1 and torch.

Writes noise_steps.npz beside this file: noisy images, single steps of DDPM, and whole runs of DDIM and DDPM with a
denoiser that is one line, see `output_of`, under a schedule of 50 cosine betas. Schedulers get the betas as
`trained_betas`, and compute in float32.
"""

import pathlib

import numpy as np

FILE = pathlib.Path(__file__).with_name("noise_steps.npz")
STEPS, SHAPE = 50, (3, 4, 5, 2)
TIMES = (0, 1, 2, 9, 25, 48, 49)  # of single steps
TARGETS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
RUNS = [  # target, clip, steps, eta, spacing
    *(
        (target, clip, 10, eta, spacing)
        for target in TARGETS
        for clip, eta, spacing in ((True, 0.5, "leading"), (False, 0.0, "trailing"))
    ),
    ("eps", True, STEPS, 1.0, "trailing"),
]


def betas():
    """The schedule's, (T,) float32."""
    angles = (np.arange(STEPS + 1) / STEPS + 0.008) / 1.008 * np.pi / 2
    bars = np.cos(angles) ** 2
    return np.clip(1 - bars[1:] / bars[:-1], 1e-4, 0.999).astype("float32")


def drawn(seed, count=1):
    """Normal noise, (count, *SHAPE) float32."""
    return np.random.RandomState(seed).normal(size=(count, *SHAPE)).astype("float32")


def output_of(x, time):
    """A denoiser: (*SHAPE), a time -> (*SHAPE)."""
    return x * (0.5 + 0.3 * np.cos(0.2 * time)) + 0.1


def main():
    import torch
    from diffusers import DDIMScheduler, DDPMScheduler

    def runs(make, options):
        return make(num_train_timesteps=STEPS, trained_betas=betas(), **options)

    plain = runs(DDPMScheduler, {"clip_sample": False, "variance_type": "fixed_small"})
    images, noise = (torch.tensor(drawn(seed)[0]) for seed in (0, 1))
    out = {"noisy": np.stack([plain.add_noise(images, noise, torch.tensor([t] * 3)).numpy() for t in TIMES])}
    for target, kind in TARGETS.items():
        for clip in (True, False):
            options = {"clip_sample": clip, "variance_type": "fixed_small", "prediction_type": kind}
            ddpm, steps = runs(DDPMScheduler, options), []
            for t, noisy in zip(TIMES, out["noisy"], strict=True):
                x = torch.tensor(noisy)
                state = torch.Generator().manual_seed(t)
                step = ddpm.step(output_of(x, t), t, x, generator=state).prev_sample
                z = torch.randn(SHAPE, generator=torch.Generator().manual_seed(t)) if t else torch.zeros(SHAPE)
                steps.append((step - ddpm._get_variance(t) ** 0.5 * z).numpy())
            out[f"ddpm_{target}_{clip}"] = np.stack(steps)
    for i, (target, clip, steps, eta, spacing) in enumerate(RUNS):
        ddim = DDIMScheduler(
            num_train_timesteps=STEPS,
            trained_betas=betas(),
            clip_sample=clip,
            prediction_type=TARGETS[target],
            timestep_spacing=spacing,
        )
        ddim.set_timesteps(steps)
        x, z = torch.tensor(drawn(2)[0]), torch.tensor(drawn(3, steps))
        for j, t in enumerate(ddim.timesteps):
            output = output_of(x, int(t))
            x = ddim.step(output, t, x, eta=eta, use_clipped_model_output=True, variance_noise=z[j]).prev_sample
        out[f"ddim_{i}"] = x.numpy()
    out["variance"] = np.array([float(plain._get_variance(t)) for t in range(STEPS)])
    np.savez_compressed(FILE, **out)
    print(FILE, FILE.stat().st_size)


if __name__ == "__main__":
    main()
