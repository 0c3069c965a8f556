"""What timm and PyTorch do in training, as arrays: python tests/reference/training.py FOLDER. Needs no Keras."""

import json
import pathlib
import random
import sys

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import auto_augment, mixup
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.swin_transformer_v2_cr import SwinTransformerV2Cr
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torchvision.transforms import ColorJitter

OUT = pathlib.Path(sys.argv[1])
FILL = (124, 116, 104)
DRAWS = 6000
SMALL = {"img_size": 64, "embed_dim": 24, "depths": (2, 3), "num_heads": (2, 4), "num_classes": 5}
STEP = {"lr": 1e-3, "weight_decay": 0.05}


def picture(mode="RGB"):
    """A smooth picture with noise, whose channels differ."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:48, 0:64]
    pixels = np.stack([100 + 60 * np.sin(x / 9), 90 + 2.0 * y, 140 - 0.9 * x], -1) + rng.normal(0, 9, (48, 64, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype("uint8")).convert(mode)


def operations(out):
    """Every operation of RandAugment at six magnitudes, both directions, both sets."""
    out["picture"] = np.asarray(picture())
    coin = random.random
    for inc, names in ((0, auto_augment._RAND_TRANSFORMS), (1, auto_augment._RAND_INCREASING_TRANSFORMS)):
        for name in names:
            for magnitude in (0.0, 2.5, 5.0, 8.7, 9.0, 10.0):
                for negative in (0, 1):
                    random.random = lambda negative=negative: 0.9 if negative else 0.1
                    level = auto_augment.LEVEL_TO_ARG[name]
                    values = level(magnitude, {}) if level else ()
                    if name.startswith("Posterize") and values == (0,):
                        continue  # which Pillow refuses now
                    options = {"fillcolor": FILL, "resample": Image.Resampling.BICUBIC}
                    made = auto_augment.NAME_TO_OP[name](picture(), *values, **options)
                    out[f"{inc}/{name}/{magnitude}/{negative}"] = np.asarray(made)
    random.random = coin


def drawn(out):
    """How often, and how strongly, timm's RandAugment does what."""
    for text in ("rand-m9-mstd0.5-inc1", "rand-m9-n3-mstd0.5", "rand-m7-n2-p0.8-mstd101"):
        transform, seen = auto_augment.rand_augment_transform(text, {"img_mean": FILL}), []
        for op in transform.ops:
            op.aug_fn = lambda image, *values, name=op.name, seen=seen, **_: seen.append((name, *values)) or image
        for _ in range(DRAWS):
            transform(None)
        names = [o.name for o in transform.ops]
        out[f"drawn/{text}/share"] = np.array([sum(s[0] == n for s in seen) / DRAWS for n in names])
        degrees = np.abs([s[1] for s in seen if s[0] == "Rotate"])
        out[f"drawn/{text}/rotate"] = np.array([degrees.mean(), degrees.std()])


def crops(out):
    """Areas and aspect ratios of random resized crops."""
    image = Image.new("RGB", (200, 150))
    for name, scale in (("imagenet", (0.08, 1.0)), ("large", (0.5, 1.0))):
        boxes = [RandomResizedCropAndInterpolation.get_params(image, scale, (3 / 4, 4 / 3)) for _ in range(DRAWS)]
        out[f"crops/{name}"] = np.array(boxes, float)


def jittered(out):
    """Means and spreads of the pixels of pictures whose brightness, contrast and saturation changed."""
    jitter = ColorJitter(0.3, 0.3, 0.3)
    made = [np.asarray(jitter(picture()), float) for _ in range(DRAWS // 4)]
    told = np.array([(p.mean(), p.std(), p.std(axis=-1).mean()) for p in made])
    out["jittered"] = np.stack([told.mean(0), told.std(0)])


def erased(out):
    """Shares of images and pixels that random erasing hits, and what it fills them with."""
    erase = RandomErasing(0.25, mode="pixel", device="cpu")
    hits, values = [], []
    for _ in range(DRAWS):
        image = erase(torch.full((3, 24, 32), 100.0))
        hit = image[0] != 100.0
        hits.append(hit.float().mean().item())
        values.append(image[:, hit].numpy().ravel())
    values = np.concatenate(values)
    out["erased"] = np.array([np.mean(np.array(hits) > 0), np.mean(hits), values.mean(), values.std()])


def mixed(out):
    """Mixup and CutMix with the same lambda and place as the test's."""
    images = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 3, 10, 14)).astype("float32"))
    labels = torch.tensor([0, 3, 1, 4, 4, 2])
    out["mix/images"], out["mix/labels"] = images.permute(0, 2, 3, 1).numpy(), labels.numpy()
    for name, cut in (("mixup", False), ("cutmix", True)):
        mixer = mixup.Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=5)
        mixer._params_per_batch = lambda cut=cut: (0.37, cut)
        integers, np.random.randint = np.random.randint, lambda low, high, size=None: high - 3
        x, y = mixer(images.clone(), labels)
        np.random.randint = integers
        out[f"mix/{name}/images"], out[f"mix/{name}/targets"] = x.permute(0, 2, 3, 1).numpy(), y.numpy()
    mixer, kinds = mixup.Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=5), []
    kinds = np.array([mixer._params_per_batch() for _ in range(DRAWS)], float)
    out["mix/drawn"] = np.array([kinds[:, 1].mean(), kinds[:, 0].mean(), kinds[:, 0].std()])


def starts(out):
    """Largest number and spread of what torch.nn's constructors give, by the layers of ours that have that shape."""
    layers = {
        "patch_embed/proj": torch.nn.Conv2d(3, 48, 4),
        "stages_0_blocks_0/attn/qkv": torch.nn.Linear(48, 144),
        "stages_0_blocks_0/mlp/fc2": torch.nn.Linear(192, 48),
        "stages_1_blocks_1/offset_network_0": torch.nn.Conv2d(96, 96, 5, groups=96),
        "stages_1_blocks_1/offset_network_2": torch.nn.Conv2d(96, 8, 1),
    }
    for path, layer in layers.items():
        largest = layer.weight.abs().max().item()  # of the bias too, by their common bound
        out[f"start/{path}/kernel"] = np.array([largest, layer.weight.std().item()])
        out[f"start/{path}/bias"] = np.array([largest, layer.weight.std().item()])
        assert layer.bias.abs().max().item() < 1.02 * largest


def fresh():
    """Spread and largest number of what timm's networks begin with: {"class/parameter": (deviation, largest)}."""
    found = {}
    for network in (SwinTransformer, SwinTransformerV2):
        for name, parameter in network(**SMALL, window_size=4).named_parameters():
            found[f"{network.__name__}/{name}"] = (parameter.std(correction=0).item(), parameter.abs().max().item())
    return found


def schedules(out):
    """Learning rates at 12 steps, Microsoft's way of calling the schedule."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=1e-3)
    schedule = CosineLRScheduler(
        optimizer, t_initial=260, lr_min=1e-5, warmup_t=40, warmup_lr_init=1e-6, warmup_prefix=True,
        cycle_limit=1, t_in_epochs=False,
    )  # fmt: skip
    steps = (0, 1, 7, 20, 39, 40, 41, 100, 150, 200, 299, 300)
    out["schedule/steps"], rates = np.array(steps), []
    for step in steps:
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    out["schedule/rates"] = np.array(rates)


def groups():
    """{model: {parameter: (weight decay, scale of the rate)}} of timm's grouping."""
    found = {}
    models = {
        "SwinTransformer": SwinTransformer(window_size=4, **SMALL),
        "SwinTransformerV2": SwinTransformerV2(window_size=4, **SMALL),
        "SwinTransformerV2CR": SwinTransformerV2Cr(window_size=4, **SMALL),
    }
    for name, model in models.items():
        names = {id(p): n for n, p in model.named_parameters()}
        skip = getattr(model, "no_weight_decay", set)()
        for kind, made in {
            "decay": param_groups_weight_decay(model, 0.05, no_weight_decay_list=skip),
            "layers": param_groups_layer_decay(model, 0.05, no_weight_decay_list=skip, layer_decay=0.75),
        }.items():
            found[f"{name}/{kind}"] = {
                names[id(p)]: (group["weight_decay"], group.get("lr_scale", 1.0))
                for group in made
                for p in group["params"]
            }
    return found


def step(out):
    """One step of torch's AdamW on swin_tiny: weights before and after, the loss and the gradients' size."""
    torch.manual_seed(0)
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=10, drop_path_rate=0.0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            spread = 0.2 if p.ndim == 1 else 0.5 if name.endswith("bias_table") else 0.5 * p[0].numel() ** -0.5
            p.add_(torch.randn_like(p) * spread)
    save_file(model.state_dict(), OUT / "before.safetensors")
    images, labels = torch.randn(2, 3, 224, 224), torch.tensor([3, 8])
    rows = mixup.mixup_target(labels, 10, 0.3, 0.1)
    optimizer = torch.optim.AdamW(
        param_groups_weight_decay(model, STEP["weight_decay"], no_weight_decay_list=model.no_weight_decay()), STEP["lr"]
    )
    loss = torch.sum(-rows * torch.log_softmax(model(images), -1), -1).mean()
    loss.backward()
    out["step/norm"] = torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0).numpy()
    smallest = {n: p.grad.abs().numpy() for n, p in model.named_parameters()}
    optimizer.step()
    save_file(model.state_dict(), OUT / "after.safetensors")
    np.savez(OUT / "gradients.npz", **smallest)
    out |= {
        "step/images": images.permute(0, 2, 3, 1).numpy(),
        "step/rows": rows.numpy(),
        "step/loss": loss.detach().numpy(),
    }


def momentum(out):
    """Five steps of torch's SGD on one matrix, at rates that fall, plain and with Nesterov's momentum."""
    start, gradients = torch.randn(4, 3), torch.randn(5, 4, 3)
    out |= {"sgd/start": start.numpy(), "sgd/gradients": gradients.numpy()}
    for kind in (False, True):
        weight = torch.nn.Parameter(start.clone())
        optimizer = torch.optim.SGD([weight], 0.1, momentum=0.9, weight_decay=0.01, nesterov=kind)
        steps = []
        for i, gradient in enumerate(gradients):
            optimizer.param_groups[0]["lr"] = 0.1 / (i + 1)
            weight.grad = gradient.clone()
            optimizer.step()
            steps.append(weight.detach().numpy().copy())
        out[f"sgd/{kind}"] = np.stack(steps)


def main():
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    out = {}
    for part in (operations, drawn, crops, jittered, erased, mixed, starts, schedules, step, momentum):
        part(out)
    np.savez(OUT / "training.npz", **out)
    (OUT / "groups.json").write_text(json.dumps(groups()))
    (OUT / "fresh.json").write_text(json.dumps(fresh()))


if __name__ == "__main__":
    main()
