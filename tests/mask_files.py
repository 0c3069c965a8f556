"""Segmentation data sets that tests write."""

import numpy as np
from detection_files import picture
from PIL import Image


def image(path, size=(12, 16), seed=0):
    """Write an image of noise, (height, width)."""
    return picture(path, size[1], size[0], seed)


def save(path, values):
    """Write a mask's values, (h, w) uint8 or uint16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values)).save(path)
    return path


def blocks(*values, size=(12, 16)):
    """A mask of columns of values, alike in width."""
    return np.resize(np.repeat(np.asarray(values), -(-size[1] // len(values)))[: size[1]], size).astype(np.uint8)


def pairs(images, masks, names, values=(0, 1, 2), image_end=".png", mask_end=".png"):
    """Write images and masks of names in two folders."""
    for seed, name in enumerate(names):
        image(images / f"{name}{image_end}", seed=seed)
        save(masks / f"{name}{mask_end}", blocks(*values))
