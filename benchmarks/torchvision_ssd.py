"""torchvision's SSD300 on VGG-16, trained from scratch for some seconds, and its scores: beside recipes/ssd_bccd_*.py.

Its own augmentation for SSD, SGD of momentum 0.9, 16 images an update; the rate falls to a tenth after 0.7 and to a
hundredth after 0.9 of the time. Images are decoded before the time begins. Scored as `swins eval` scores.

    python benchmarks/torchvision_ssd.py DATA SECONDS RATE OUT    writes OUT.csv (seconds, updates, loss) and OUT.json
"""

import csv
import json
import sys
import time

import numpy as np
import torch
import torchvision
from torchvision import tv_tensors
from torchvision.transforms import v2

from swins.data.coco_scores import coco_scores
from swins.data.detection_layouts import find_detection_splits, find_evaluation_split
from swins.images import open_image
from swins.results import detections_of

BATCH, WORKERS, WARM, EVERY = 16, 3, 300, 50  # WARM: updates to the whole rate
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Objects(torch.utils.data.Dataset):
    """Augmented images and their objects, in an endless random order."""

    def __init__(self, split):
        self.rows = [(open_image(image).convert("RGB"), objects.training()) for _, image, objects in split.samples]
        self.augment = v2.Compose(
            [
                v2.RandomPhotometricDistort(),
                v2.RandomZoomOut(fill={tv_tensors.Image: (123, 117, 104), "others": 0}),
                v2.RandomIoUCrop(),
                v2.RandomHorizontalFlip(),
                v2.SanitizeBoundingBoxes(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )

    def __len__(self):
        return 1_000_000

    def __getitem__(self, _):
        image, objects = self.rows[np.random.randint(len(self.rows))]
        pixels = tv_tensors.Image(v2.functional.pil_to_tensor(image))
        boxes = tv_tensors.BoundingBoxes(objects.boxes, format="XYXY", canvas_size=pixels.shape[-2:])
        return self.augment(pixels, {"boxes": boxes, "labels": torch.as_tensor(objects.labels + 1)})


def begin(worker):
    """A worker's own random numbers, on one thread."""
    torch.set_num_threads(1)
    np.random.seed(worker)


def train(model, split, seconds, rate, path):
    """Train for some seconds -> updates; a row of the log every few of them."""
    loader = torch.utils.data.DataLoader(
        Objects(split),
        BATCH,
        num_workers=WORKERS,
        worker_init_fn=begin,
        collate_fn=lambda batch: tuple(zip(*batch, strict=True)),
    )
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=5e-4)
    with open(path, "w", newline="") as file:
        log = csv.writer(file, lineterminator="\n")
        log.writerow(("seconds", "updates", "loss"))
        begun = time.perf_counter()
        for update, (images, truths) in enumerate(loader, 1):
            passed = time.perf_counter() - begun
            if passed > seconds:
                return update - 1
            late = 1 if passed < 0.7 * seconds else 0.1 if passed < 0.9 * seconds else 0.01
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1, update / WARM) * late
            truths = [{name: torch.as_tensor(x).to(DEVICE) for name, x in truth.items()} for truth in truths]
            loss = sum(model([image.to(DEVICE) for image in images], truths).values())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            if update % EVERY == 0:
                log.writerow((f"{passed:.1f}", update, f"{loss.item():.4f}"))
                file.flush()


def scores(model, split, classes):
    """COCO's scores on a Split."""
    truths, results = [], []
    for _, image, objects in split.samples:
        image = open_image(image).convert("RGB")
        size = image.height, image.width
        with torch.inference_mode():
            (output,) = model([v2.functional.pil_to_tensor(image).to(DEVICE) / 255])
        boxes, found, labels = (output[name].cpu().numpy() for name in ("boxes", "scores", "labels"))
        boxes = boxes / np.float32([*size[::-1], *size[::-1]])
        results.append(detections_of(boxes, found, labels - 1, len(labels), classes, size))
        truths.append(objects.fitted(size))
    return coco_scores(truths, results, classes)


def main(data, seconds, rate, out):
    seconds, rate = float(seconds), float(rate)
    split, _ = find_detection_splits(data)
    torch.manual_seed(0)
    model = torchvision.models.detection.ssd300_vgg16(
        weights=None, weights_backbone=None, num_classes=len(split.classes) + 1
    ).to(DEVICE)
    updates = train(model.train(), split, seconds, rate, f"{out}.csv")
    found = scores(model.eval(), find_evaluation_split(data, split.classes, part="test"), split.classes)
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    facts = {"seconds": seconds, "updates": updates, "rate": rate, "device": device}
    facts |= {"torchvision": torchvision.__version__, **found}
    with open(f"{out}.json", "w") as file:
        json.dump(facts, file, indent=1)
    print(f"{updates} updates, AP {found['AP']:.4f}, AP50 {found['AP50']:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
