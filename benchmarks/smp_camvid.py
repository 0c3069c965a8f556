"""segmentation-models-pytorch's UPerNet on Swin-T, from scratch, beside a recipe of ours: the same batches and scores.

Batches are those of our reader, with its augmentation and seed; numbers of the optimiser, warm-up and drop path are the
recipe's, float32 (in TF32 on a GPU) or bfloat16 by model.dtype. The rate falls with the seconds that are left, so that
the run ends with them; they count from before the first batch is read. The decoder is as wide as ours; theirs has
no auxiliary head and no dropout before the classifier. Images are padded to multiples of 32, which it asks for.

    pip install segmentation-models-pytorch
    KERAS_BACKEND=torch python benchmarks/smp_camvid.py train upernet_camvid CamVid 200 OUT \
        optim.learning_rate=2e-4 [model.dtype=mixed_bfloat16 ...]
    KERAS_BACKEND=torch python benchmarks/smp_camvid.py eval CamVid OUT
                                        writes OUT/result.json, four pictures, and prints JSON: scores of the test split
"""

import csv
import json
import math
import pathlib
import sys
import time
from types import SimpleNamespace

import numpy as np
import segmentation_models_pytorch as smp
import torch

from swins import devices, recipe_files, recipes
from swins.data import miou_scores
from swins.data.segmentation_layouts import find_segmentation_split
from swins.evaluate import records
from swins.segmentation.segmentation_loss import IGNORED
from swins.segmentation.upernet import LOGITS
from swins.tasks import segmentation, segmentation_evaluation
from swins.train import input_pipeline

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEP = 32  # pixels that sides must be a multiple of
EVERY = 5  # seconds between rows of the log
READ = 10  # updates between readings of the loss, each of which waits for the GPU
PICTURES, AT_ONCE = 4, 16


def network(recipe, classes):
    """The UPerNet, with an image size that timm's Swin accepts."""
    sides = [-(-side // STEP) * STEP for side in segmentation.sizes_of(recipe.data)[0]]
    return smp.UPerNet(
        encoder_name="tu-swin_tiny_patch4_window7_224",
        encoder_weights=None,
        decoder_channels=recipe.model.width or 512,
        classes=len(classes),
        img_size=tuple(sides),
        drop_path_rate=recipe.model.drop_path_rate,
    ).to(DEVICE)


def logits_of(model, images, recipe):
    """Logits (B, K, H, W) float32 of normalised images (B, H, W, C), an array: padded with 0, and cut again."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(DEVICE, non_blocking=True).permute(0, 3, 1, 2)
    height, width = pixels.shape[2:]
    pixels = torch.nn.functional.pad(pixels, (0, -width % STEP, 0, -height % STEP))
    with torch.autocast(DEVICE, torch.bfloat16, enabled=recipe.model.dtype == "mixed_bfloat16"):
        outputs = model(pixels)
    return outputs[:, :, :height, :width].float()


def groups(model, optim):
    """Parameters that decay and those that do not, by the recipe's rule."""
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        bare = parameter.ndim <= 1 or any(part in name for part in optim.no_decay)
        (others if bare else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": optim.weight_decay}, {"params": others, "weight_decay": 0.0}]


def rate_at(recipe, part):
    """The learning rate after a part, from 0 to 1, of the run: linear warm-up, then half a cosine."""
    schedule, optim = recipe.schedule, recipe.optim
    scale = recipe.data.batch / optim.per_images if optim.per_images else 1
    peak, warm = optim.learning_rate, schedule.warmup_epochs / recipe.epochs
    if part < warm:
        rate = schedule.warmup_rate + (peak - schedule.warmup_rate) * part / warm
    else:
        done = min(1, (part - warm) / (1 - warm))
        rate = schedule.min_rate + (peak - schedule.min_rate) * (1 + math.cos(math.pi * done)) / 2
    return rate * scale


def train(name, data, seconds, out, *settings):
    """Train as a recipe says for so many seconds; OUT gets settings.json, log.csv and model.pt."""
    seconds, folder = float(seconds), pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = recipes.with_settings(recipes.load(recipe_files.find(name)), settings)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    torch.manual_seed(recipe.seed)
    split = segmentation.splits(data, recipe)[0]
    model = network(recipe, split.classes).train()
    reading = segmentation.training(
        recipe, segmentation.preparation(recipe, SimpleNamespace(in_chans=3), (split,)), split
    )
    unreadable = input_pipeline.Unreadable(folder / "unreadable.txt", 0)
    optim = recipe.optim
    optimizer = torch.optim.AdamW(groups(model, optim), betas=(optim.beta_1, optim.beta_2), eps=optim.epsilon)
    begun, losses, update, said = time.perf_counter(), [], 0, 0.0
    with (folder / "log.csv").open("w", newline="") as file:
        log = csv.writer(file, lineterminator="\n")
        log.writerow(("seconds", "updates", "images", "learning_rate", "loss"))
        for images, arrays in input_pipeline.training_batches(split, reading, recipe, unreadable):
            if (now := time.perf_counter() - begun) >= seconds:
                break
            for group in optimizer.param_groups:
                group["lr"] = rate_at(recipe, now / seconds)
            masks = torch.from_numpy(arrays["masks"]).to(DEVICE, non_blocking=True).long()
            loss = torch.nn.functional.cross_entropy(logits_of(model, images, recipe), masks, ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm)
            optimizer.step()
            losses.append(loss.detach())
            update += 1
            if update % READ == 0 and not math.isfinite(loss.item()):
                raise SystemExit(f"update {update}: the loss is {loss.item()}; lower optim.learning_rate")
            if now - said >= EVERY:
                mean, seen = torch.stack(losses).mean().item(), update * recipe.data.batch
                log.writerow((f"{now:.1f}", update, seen, f"{optimizer.param_groups[0]['lr']:.3e}", f"{mean:.5f}"))
                file.flush()
                print(f"{now:.0f} of {seconds:.0f} s: {update} updates, loss {mean:.4f}", file=sys.stderr, flush=True)
                losses, said = [], now
    torch.save(model.state_dict(), folder / "model.pt")
    run = {
        "recipe": name,
        "settings": list(settings),
        "updates": update,
        "epochs": round(update * recipe.data.batch / len(split), 1),
    }
    run |= {"seconds": round(time.perf_counter() - begun, 1), "classes": list(split.classes)}
    (folder / "run.json").write_text(json.dumps(run, indent=1) + "\n")
    print(json.dumps(run), flush=True)


def score(data, out):
    """The scores of the test images, as `swins eval RUN --split test` has them, as JSON, and pictures of some."""
    folder = pathlib.Path(out)
    run = json.loads((folder / "run.json").read_text())
    recipe = recipes.with_settings(recipes.load(recipe_files.find(run["recipe"])), run["settings"])
    model = network(recipe, run["classes"])
    model.load_state_dict(torch.load(folder / "model.pt", map_location=DEVICE, weights_only=True))
    model.eval()
    prepare = segmentation.preparation(recipe, SimpleNamespace(in_chans=3), ()).whole
    split = find_segmentation_split(data, tuple(run["classes"]), "test", recipe.data.values)
    facts = {"classes": run["classes"], "preprocess": segmentation_evaluation.as_facts(prepare)}

    def outputs(images, alone):
        with torch.inference_mode():
            return {LOGITS: logits_of(model, images, recipe).permute(0, 2, 3, 1).cpu().numpy()}

    samples, rows, shown = (split[i] for i in range(len(split))), [], 0
    step = max(1, len(split) // PICTURES)
    paths = {split[i][0]: split[i][1] for i in range(0, len(split), step)}
    for group in records.answered_batches(prepare, samples, AT_ONCE, 1, outputs, segmentation.SEGMENTATION, facts):
        for sample, result in group:
            if sample.error:
                raise SystemExit(sample.error)
            rows.append(miou_scores.record(result, sample.fitted))
            if sample.name in paths and shown < PICTURES:
                result.draw(paths[sample.name]).save(folder / f"{pathlib.Path(sample.name).stem}.png")
                shown += 1
    parameters = sum(p.numel() for p in model.parameters())
    header, table = miou_scores.class_table(rows, run["classes"])
    classes = {row[1]: row[header.index("IoU")] for row in table}
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else devices.machine()
    versions = f"segmentation-models-pytorch {smp.__version__}; torch {torch.__version__}"
    found = {**run, "parameters": parameters, "images": len(rows), "protocol": segmentation_evaluation.SQUASH}
    found |= {name: round(value, 5) for name, value in miou_scores.score(rows).items()}
    found |= {"IoU": classes, "device": device, "versions": versions}
    (folder / "result.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    {"train": train, "eval": score}[command](*rest)
