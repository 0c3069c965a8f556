"""diffusers' convolutional UNet beside the embedded SwinUNet: the same images, noise, time, samplers and scores.

UNet2DModel of 1,431,129 parameters, where ours has 1,399,505; batches, optimiser, average and withheld classes of
recipes/diffusion_fashion_mnist.py. The rate falls with the CPU seconds that are left, so that the run ends with them.
Killed, the same command goes on.

    pip install diffusers
    KERAS_BACKEND=torch python benchmarks/diffusers_unet.py train /usr/share/datasets/fashion-mnist 4800 OUT
    KERAS_BACKEND=torch python benchmarks/diffusers_unet.py eval /usr/share/datasets/fashion-mnist 2 OUT
                                                                the guidance; prints JSON, as `swins eval`
"""

import csv
import json
import math
import os
import pathlib
import sys
import time

import numpy as np
import torch
from diffusers import UNet2DModel

from swins.data.layouts import find_splits
from swins.diffusion.noise_schedule import NoiseSchedule, add_noise, target_of
from swins.evaluate import records
from swins.opening import open_model
from swins.tasks import diffusion_evaluation
from swins.tasks.diffusion_sampling import ImageSampler
from swins.tasks.diffusion_scores import evaluate, real_images

OURS = "demo/swin_unet_mini_patch2_window7_28"
CLASSIFIER = "demo/fashion_mnist/swin_mini_patch2_window4_28.fashion_mnist.safetensors"
CLASSES, DROP, BATCH, EMA = 10, 0.1, 64, 0.999
RATE, LEAST, WARM = 1e-3, 1e-5, 300  # WARM: updates to the whole rate
EVERY = 200  # updates between rows of the log and checkpoints


def network():
    """The UNet: 28, 14 and 7 pixels a side, attention at the last; one class more than there are: none."""
    return UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 48, 88),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=22,
        num_class_embeds=CLASSES + 1,
    )


def facts():
    """What the embedded model's run says of noise, target and classes, and its Opened."""
    opened = open_model(OURS)
    return opened, diffusion_evaluation.load(opened).facts


def train(data, seconds, out):
    """Train until so many CPU seconds of this process, and of those before it, have passed."""
    torch.set_num_threads(1)
    opened, known = facts()
    schedule, split = NoiseSchedule(**known["noise"]), find_splits(data, 0.1, 0)[0]
    pixels, labels = real_images(split, diffusion_evaluation.prepare(opened, {}).preparation)
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype("float32") / 127.5 - 1)
    labels = torch.from_numpy(labels.astype("int64"))
    model, average = network(), network().requires_grad_(False)
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    update, spent, path = 0, 0.0, pathlib.Path(out)
    path.mkdir(parents=True, exist_ok=True)
    if (path / "last.pt").exists():
        last = torch.load(path / "last.pt", weights_only=True)
        update, spent = last["update"], last["seconds"]
        for part, state in ((model, "model"), (average, "average"), (optimizer, "optimizer")):
            part.load_state_dict(last[state])
    begun, losses = time.process_time() - spent, []
    while (now := time.process_time() - begun) < seconds:
        rng = torch.Generator().manual_seed(update)
        chosen = torch.randint(len(images), (BATCH,), generator=rng)
        moments = torch.randint(len(schedule.betas), (BATCH,), generator=rng)
        noise = torch.randn(BATCH, 1, 28, 28, generator=rng)
        withheld = torch.rand(BATCH, generator=rng) < DROP
        classes = torch.where(withheld, CLASSES, labels[chosen])
        noisy = add_noise(schedule, images[chosen], noise, moments)
        wanted = target_of(schedule, known["target"], images[chosen], noise, moments)
        rate = LEAST + (RATE - LEAST) * (1 + math.cos(math.pi * now / seconds)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (update + 1) / WARM)
        loss = torch.nn.functional.mse_loss(model(noisy, moments, class_labels=classes).sample, wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        update += 1
        with torch.no_grad():
            for ours, theirs in zip(average.parameters(), model.parameters(), strict=True):
                ours.lerp_(theirs, 1 - min(EMA, update / (update + 10)))
        losses.append(loss.item())
        if update % EVERY == 0:
            state = {"update": update, "seconds": now, "optimizer": optimizer.state_dict()}
            state |= {"model": model.state_dict(), "average": average.state_dict()}
            torch.save(state, path / "new.pt")
            os.replace(path / "new.pt", path / "last.pt")
            with (path / "log.csv").open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow((f"{now:.0f}", update, f"{np.mean(losses):.5f}"))
            print(f"{now:.0f} of {seconds:.0f} s: {update} updates, loss {np.mean(losses):.4f}", file=sys.stderr)
            losses.clear()
    torch.save({"update": update, "average": average.state_dict()}, path / "average.pt")


def score(data, guidance, out):
    """The scores of 1,000 samples, as `swins eval OURS --guidance N` has them, as JSON."""
    opened, known = facts()
    kept, model = torch.load(pathlib.Path(out) / "average.pt", weights_only=True), network()
    model.load_state_dict(kept["average"])
    model.eval()

    def denoise(noisy, moment, classes=None):
        with torch.inference_mode():
            arrays = [torch.as_tensor(np.asarray(x)) for x in (noisy, moment, classes)]
            images = arrays[0].permute(0, 3, 1, 2).float()
            return model(images, arrays[1].long(), class_labels=arrays[2].long()).sample.permute(0, 2, 3, 1).numpy()

    sampler = ImageSampler("diffusers UNet2DModel", denoise, known)
    prepare = diffusion_evaluation.prepare(opened, {}).preparation
    options = {"classifier": CLASSIFIER, "guidance": guidance}
    found = evaluate(opened, sampler, prepare, data, options, lambda count: records.bar(count, True))
    parameters = sum(p.numel() for p in model.parameters())
    run = {"parameters": parameters, "updates": kept["update"], "protocol": found.protocol}
    print(json.dumps({**run, **found.values}, indent=1))


if __name__ == "__main__":
    command, data, number, out = sys.argv[1:]
    {"train": train, "eval": score}[command](data, float(number), out)
