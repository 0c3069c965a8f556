"""Tiny ImageNet as it is published: train/WNID/images, and val/images with labels in val_annotations.txt."""

from swins.data.class_folders import folders, listed, numbering
from swins.data.split import Split
from swins.errors import SwinsError

ANNOTATIONS = "val/val_annotations.txt"


def from_tiny_imagenet(folder):
    """Tiny ImageNet as it is published: train/WNID/images, and val/images with labels in val_annotations.txt."""
    classes = folders(folder / "train")
    names = tuple(c.name for c in classes)
    samples, strays = listed(classes)
    table = folder / ANNOTATIONS
    rows = [line.split("\t") for line in table.read_text().splitlines() if line]
    wrong = [row[0] for row in rows if len(row) < 2 or row[1] not in names]
    if wrong:
        raise SwinsError(f"{table}: rows are FILE, CLASS, ..., of train's classes; {len(wrong)} are not: {wrong[:3]}")
    numbers = {name: i for i, name in enumerate(names)}
    held = [(row[0], folder / "val" / "images" / row[0], numbers[row[1]]) for row in rows]
    return Split(folder.name, samples, names, strays, numbering(names).notes), Split(folder.name, held, names)
