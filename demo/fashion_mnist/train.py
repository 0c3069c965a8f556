"""Train timm's own SwinTransformer on Fashion-MNIST: the checkpoint that `make demo` converts.

Data      Debian package `dataset-fashion-mnist` (MIT), 60,000 training and 10,000 test images of 28x28 grey pixels.
Model     timm.models.swin_transformer.SwinTransformer with `CONFIG`: two stages, both with plain and shifted blocks.
Recipe    AdamW (no decay on 1-D parameters and bias tables), linear warm-up then cosine, label smoothing,
          horizontal flips and 1-pixel translations, drop-path. The last epoch is kept, never the best one.
Command   python demo/fashion_mnist/train.py --data /usr/share/datasets/fashion-mnist
Obtained  see training.csv beside this file.

Nothing here imports TensorFlow or Keras: the checkpoint is PyTorch's alone.
"""

import argparse
import csv
import gzip
import math
import pathlib
import time

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from timm.models.swin_transformer import SwinTransformer
from torch import nn

HERE = pathlib.Path(__file__).parent
NAME = "swin_mini_patch2_window4_28.fashion_mnist"
CONFIG = {
    "img_size": 28,
    "patch_size": 2,
    "in_chans": 1,
    "num_classes": 10,
    "embed_dim": 48,
    "depths": (2, 4),
    "num_heads": (3, 6),
    "window_size": 4,
    "drop_path_rate": 0.05,
}
MEAN, STD = 0.2860, 0.3530  # of the training images, on a 0..1 scale


def read_idx(path):
    """Read a gzipped IDX file of bytes -> uint8 array, (N, 28, 28) or (N,)."""
    data = gzip.decompress(path.read_bytes())
    ndim = data[3]
    shape = np.frombuffer(data, ">u4", ndim, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def load(data, split):
    """(N, 1, 28, 28) float32 normalised images and (N,) int64 labels."""
    images = read_idx(data / f"{split}-images-idx3-ubyte.gz").astype(np.float32) / 255
    labels = read_idx(data / f"{split}-labels-idx1-ubyte.gz").astype(np.int64)
    return torch.from_numpy((images - MEAN) / STD)[:, None], torch.from_numpy(labels)


def augment(x, generator):
    """Flip half of the batch left-right and translate each image by up to 1 pixel, filling with black."""
    b = len(x)
    flip = torch.rand(b, generator=generator) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(-1), x)
    padded = nn.functional.pad(x, (1, 1, 1, 1), value=-MEAN / STD)
    dy, dx = torch.randint(0, 3, (2, b), generator=generator)
    rows = dy[:, None] + torch.arange(28)
    cols = dx[:, None] + torch.arange(28)
    return padded[torch.arange(b)[:, None, None], 0, rows[:, :, None], cols[:, None, :]][:, None]


def decay_groups(model, weight_decay):
    """Two AdamW groups: matrices decay; norms, biases and bias tables do not."""
    skip = model.no_weight_decay()
    decays = [p for n, p in model.named_parameters() if p.ndim > 1 and n not in skip]
    others = [p for n, p in model.named_parameters() if p.ndim <= 1 or n in skip]
    return [{"params": decays, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


@torch.no_grad()
def accuracy(model, images, labels):
    """Fraction of images whose largest logit is their label."""
    model.eval()
    hits = sum(
        (model(x).argmax(1) == y).sum().item() for x, y in zip(images.split(500), labels.split(500), strict=True)
    )
    return hits / len(labels)


def train(args):
    torch.manual_seed(args.seed)
    torch.use_deterministic_algorithms(True)
    generator = torch.Generator().manual_seed(args.seed)
    images, labels = load(args.data, "train")
    test = load(args.data, "t10k")
    model = SwinTransformer(**CONFIG)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{NAME}: {parameters:,} parameters, timm {timm.__version__}, torch {torch.__version__}")
    optimizer = torch.optim.AdamW(decay_groups(model, args.weight_decay), lr=args.lr)
    steps = len(images) // args.batch
    total, warmup = args.epochs * steps, steps

    def rate(step):
        """Fraction of the peak learning rate at a step."""
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    loss_function = nn.CrossEntropyLoss(label_smoothing=0.1)
    rows, start = [], time.time()
    for epoch in range(args.epochs):
        model.train()
        losses = []
        for batch in torch.randperm(len(images), generator=generator)[: steps * args.batch].split(args.batch):
            x = augment(images[batch], generator)
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_function(model(x), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        row = {
            "epoch": epoch + 1,
            "train_loss": f"{np.mean(losses):.4f}",
            "test_top1": f"{accuracy(model, *test):.4f}",
            "lr": f"{schedule.get_last_lr()[0]:.2e}",
            "seconds": round(time.time() - start),
        }
        print(row, flush=True)
        rows.append(row)
    return model, rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--output", type=pathlib.Path, default=HERE)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    model, rows = train(args)
    metadata = {"format": "pt"}  # as timm writes it: converting back gives this very file
    save_file(model.state_dict(), args.output / f"{NAME}.safetensors", metadata)
    with open(args.output / "training.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
