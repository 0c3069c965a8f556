"""Garments cut out of Fashion-MNIST's images: which pixels are garment, and which images are for training.

h, w: pixels of an image or of a cut-out. All that is decided here is decided in integers.
"""

import functools
import pathlib

import numpy as np

from swins.data.split import require_label
from swins.data.stacking import tight
from swins.errors import SwinsError
from swins.image_files import pillow
from swins.images import read_idx
from swins.labels import FASHION_MNIST

SPLITS = ("train", "val")
FIFTH = 5  # every fifth image of a class is for validation
DARKEST = 8  # pixels that are no brighter are background
LARGEST_HOLE = 12  # pixels; larger holes, as a bag's handle leaves, are background
LEAST_PART = 8  # pixels; smaller parts beside the largest are dirt


def read_pair(images):
    """(images (N, h, w), labels (N,)) of a file of images and the file of labels beside it, checked."""
    labels = images.with_name(images.name.replace("images-idx3", "labels-idx1"))
    pixels, numbers = read_idx(images), read_idx(labels)
    if pixels.ndim != 3 or numbers.shape != pixels.shape[:1]:
        raise SwinsError(
            f"{images}: images must be (N, h, w) with N labels; got {pixels.shape} and {numbers.shape}; take the data "
            "set's original files"
        )
    for i in np.flatnonzero(numbers >= len(FASHION_MNIST))[:1]:
        require_label(labels, f"image {i}", int(numbers[i]), len(FASHION_MNIST))
    return pixels, numbers


def find_files(source):
    """The files of images of a folder, train-* before t10k-*. Raises SwinsError if there are none."""
    folder = pathlib.Path(source)
    files = [folder / f"{part}-images-idx3-ubyte.gz" for part in ("train", "t10k")]
    there = [path for path in files if path.is_file()]
    if not there:
        raise SwinsError(
            f"{source}: garments are cut out of Fashion-MNIST's images; there is neither {files[0].name} nor "
            f"{files[1].name}; give the folder of these files, such as demo/fashion_mnist"
        )
    return there


def held_out(pixels, labels, first):
    """Which images are for validation -> (N,) bool.

    Every fifth of a class in the order of the file, or, where the data set has images of its own to train on, all
    others. An image that is there again, whatever its label, goes where it went first.

    Args:
        first: how many images the data set has to train on; 0 where it has test images alone.
    """
    chosen, sides, counts = np.zeros(len(labels), bool), {}, [0] * len(FASHION_MNIST)
    for i, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        content = image.tobytes()
        if content not in sides:
            counts[label] += 1
            sides[content] = i >= first if first else counts[label] % FIFTH == 0
        chosen[i] = sides[content]
    return chosen


def as_bits(mask):
    """The pixels of a mask (h, w) as one integer, a row after the other, the first pixel lowest."""
    return int.from_bytes(np.packbits(mask, bitorder="little").tobytes(), "little")


def as_mask(bits, shape):
    """What `as_bits` began with: (h, w) bool."""
    count = shape[0] * shape[1]
    content = np.frombuffer(bits.to_bytes((count + 7) // 8, "little"), np.uint8)
    return np.unpackbits(content, count=count, bitorder="little").reshape(shape).astype(bool)


def flooded(seed, region, steps):
    """All pixels of a region that are connected with the seed's, as bits; steps: how far neighbours are apart."""
    while True:
        grown = seed
        for step in steps:
            grown |= seed << step | seed >> step
        grown &= region
        if grown == seed:
            return seed
        seed = grown


def parts(region, steps):
    """The connected parts of a region, as bits each."""
    while region:
        part = flooded(region & -region, region, steps)
        region ^= part
        yield part


def garment(image):
    """Which pixels of an image (h, w) uint8 are the garment, small holes filled, without dirt -> (h, w) bool."""
    bright = np.pad(image > DARKEST, 1)  # no garment pixel at a border: none is its neighbour across the border
    width, frame = bright.shape[1], as_bits(np.ones(bright.shape, bool))
    straight, around = (1, width), (1, width - 1, width, width + 1)
    pieces = sorted(parts(as_bits(bright), around), key=int.bit_count, reverse=True)
    kept = functools.reduce(int.__or__, [p for p in pieces[1:] if p.bit_count() >= LEAST_PART], sum(pieces[:1]))
    for hole in parts(frame & ~kept, straight):
        if hole.bit_count() <= LARGEST_HOLE:  # what surrounds the garment is more: it has the whole border
            kept |= hole
    return as_mask(kept, bright.shape)[1:-1, 1:-1]


def scaled(pixels, size):
    """Pillow's bicubic resize of (h, w) uint8, in integers, to a size of (height, width)."""
    Image = pillow()
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC))


class Cutouts:
    """The garments of one split of a folder of IDX files, by the numbers of their images.

    Where the folder has train-* and t10k-* files, the former are trained on and the latter validated on; where it has
    one of them, every fifth image of each class is for validation.

    Raises:
        SwinsError: for a folder without such files, and a split without images.
    """

    def __init__(self, source, split):
        read = [read_pair(path) for path in find_files(source)]
        shapes = {pixels.shape[1:] for pixels, _ in read}
        if len(shapes) > 1:
            raise SwinsError(f"{source}: images must be of one size; got {sorted(shapes)}; take one data set's files")
        self.pixels, self.labels = (np.concatenate(arrays) for arrays in zip(*read, strict=True))
        wanted = held_out(self.pixels, self.labels, len(read[0][0]) if len(read) > 1 else 0) == (split == "val")
        wanted &= (self.pixels > DARKEST).any((1, 2))
        members = [np.flatnonzero(wanted & (self.labels == label)) for label in range(len(FASHION_MNIST))]
        self.members = [numbers for numbers in members if len(numbers)]
        self.cut = {}
        if not self.members:
            raise SwinsError(
                f"{source}: {split} needs images; got {len(self.labels)} in all, of which every fifth of a class is "
                f"for validation; give at least {FIFTH} of a class"
            )

    def __getitem__(self, number):
        """(grey, mask), both (h, w) uint8, of an image by its number, the mask 0 or 255 and tight."""
        if number not in self.cut:
            mask = garment(self.pixels[number])
            left, top, right, bottom = tight(mask)
            inside = np.s_[top:bottom, left:right]
            self.cut[number] = self.pixels[number][inside], mask[inside] * np.uint8(255)
        return self.cut[number]

    def scaled(self, number, side):
        """A garment whose longer side has so many pixels: grey and cover (h, w) uint8; a pixel is its own from 128."""
        grey, mask = self[number]
        longest = max(mask.shape)
        size = tuple(max(1, (2 * side * extent + longest) // (2 * longest)) for extent in mask.shape)
        return scaled(grey, size), scaled(mask, size)
