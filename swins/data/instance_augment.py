"""What images, boxes and masks undergo in the training of Mask R-CNN: proportions kept, on canvases of few sizes.

Two recipes, each a section, with mmdetection's numbers: KeepRatio, and CropOrScale, DETR's. What is random comes from a
generator that is passed in. Pixels are as in swins.keep_ratio, so that they are mmdetection's to the bit.

Masks are made pixels of last, one at a time, in one step: on the way only the row and column of the first image is
known that each pixel shows, which is all that scaling to the nearest, mirroring and cutting out do to them.

h, w: pixels of an image; H, W: of a canvas; C: channels; n: objects; G: places for objects; B: images of a batch.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from swins.data.box_augment import MOST_OBJECTS, pad
from swins.data.box_geometry import areas
from swins.data.objects import Objects
from swins.data.split import Split
from swins.errors import SwinsError
from swins.images import normalized
from swins.keep_ratio import (
    best_canvas,
    bilinear,
    common_canvas,
    factors,
    nearest_indices,
    on_canvas,
    pixels_of,
    scaled_sides,
)
from swins.settings import Section, all_whole, at_least, probability, setting

MULTIPLE = 32  # of a canvas's sides: the coarsest level of a pyramid has whole pixels
LEAST_IMAGE = 32  # pixels of the shorter side of an image to train on
FIXED, MULTI_SCALE = (800,), tuple(range(480, 801, 32))
LANDSCAPE_PORTRAIT = ((800, 1344), (1344, 800))


@dataclass(frozen=True)
class Scene:
    """An image on the way, and where its objects are.

    image: (h, w, C) uint8; boxes: (n, 4) float32, xyxy in its pixels; kept: (n,) integers, places of its objects in the
    Objects that they came from; rows: (h,), columns: (w,), pixels of the first image that are shown.
    """

    image: np.ndarray
    boxes: np.ndarray
    kept: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.shape[:2]

    def scaled(self, size: tuple[int, int]) -> "Scene":
        """Scaled to a size."""
        rows, columns = (nearest_indices(a, b) for a, b in zip(self.size, size, strict=True))
        boxes = np.clip(self.boxes * factors(size, self.size), 0, np.float32([*size[::-1]] * 2))
        return Scene(bilinear(self.image, size), boxes, self.kept, self.rows[rows], self.columns[columns])

    def flipped(self) -> "Scene":
        """Mirrored left and right."""
        x, top, right, bottom = self.boxes.T
        width = np.float32(self.size[1])
        boxes = np.stack([width - right, top, width - x, bottom], -1)
        return replace(self, image=self.image[:, ::-1], boxes=boxes, columns=self.columns[::-1])

    def cropped(self, top: int, left: int, size: tuple[int, int]) -> "Scene":
        """Cut out, and clipped to that; objects whose boxes are outside are gone."""
        rows, columns = slice(top, top + size[0]), slice(left, left + size[1])
        moved = self.boxes - np.float32([left, top, left, top])
        boxes = np.clip(moved, 0, np.float32([*size[::-1]] * 2))
        inside = areas(boxes) > 0
        image = self.image[rows, columns]
        return Scene(image, boxes[inside], self.kept[inside], self.rows[rows], self.columns[columns])

    def packed(self, mask: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
        """A mask of the first image as it is now, in the upper left corner of a canvas -> (H, W / 8) uint8."""
        shown = np.zeros(canvas, bool)
        np.take(mask[self.rows], self.columns, 1, out=shown[: self.size[0], : self.size[1]], mode="clip")
        return np.packbits(shown, 1, bitorder="little")


def scene_of(image, boxes) -> Scene:
    """The Scene of an image (h, w, C) uint8 and boxes (n, 4) xyxy in its pixels."""
    rows, columns = (np.arange(side) for side in image.shape[:2])
    return Scene(image, np.asarray(boxes, np.float32), np.arange(len(boxes)), rows, columns)


def drawn(values, rng):
    """One of some values, each as likely. Of one alone none is drawn, so that no generator is needed."""
    return values[rng.integers(len(values))] if len(values) > 1 else values[0]


def lengths(value):
    """Whether a value is a tuple of sides in pixels."""
    return all_whole(value)


def are_canvases(value):
    """Whether a value is a tuple of sizes whose sides are multiples of 32."""
    return bool(value) and all(all_whole(v) and len(v) == 2 and not any(side % MULTIPLE for side in v) for v in value)


@dataclass(frozen=True)
class KeepRatio(Section):
    """The whole image with its proportions kept, as mmdetection's Resize and RandomFlip.

    flip: probability of a horizontal flip. short: pixels of the shorter side, at most, one of which is drawn; long: of
    the longer. canvases: (height, width) of each, multiples of 32. Each image is always laid on the one where it is
    largest; what would not fit is made smaller. least_side: pixels of a box of the image as it was, below which its
    object is left out.
    """

    flip: float = probability(0.5)
    short: tuple = setting(FIXED, "pixels, one or more", lengths)
    long: int = at_least(1333, 1)
    canvases: tuple = setting(LANDSCAPE_PORTRAIT, "pairs of multiples of 32", are_canvases)
    least_side: float = at_least(1.0, 0)

    def __call__(self, scene: Scene, rng, canvas: tuple[int, int]) -> Scene:
        return self.perhaps_flipped(self.scaled(scene, rng, canvas), rng)

    def scaled(self, scene, rng, canvas) -> Scene:
        """A Scene scaled so that it fits a canvas, its shorter side one that is drawn."""
        return scene.scaled(scaled_sides(scene.size, drawn(self.short, rng), self.long, canvas))

    def perhaps_flipped(self, scene, rng) -> Scene:
        """A Scene, or its mirror image."""
        return scene.flipped() if self.flip and rng.random() < self.flip else scene

    def canvas(self, size: tuple[int, int]) -> tuple:
        """The canvas of an image of a size."""
        return best_canvas(size, max(self.short), self.long, self.canvases)


@dataclass(frozen=True)
class CropOrScale(KeepRatio):
    """DETR's augmentation, "ms-crop" of mmdetection's Swin recipes: several scales, of half of the images a part.

    crop: probability of the part; crop_short: pixels of the image's shorter side before, one of which is drawn;
    crop_sides: least and most pixels of the part's sides, each of which is drawn. A part may be without objects.
    """

    short: tuple = setting(MULTI_SCALE, "pixels, one or more", lengths)
    crop: float = probability(0.5)
    crop_short: tuple = setting((400, 500, 600), "pixels, one or more", lengths)
    crop_sides: tuple = setting(
        (384, 600), "a pair of pixels, the smaller first", lambda v: lengths(v) and len(v) == 2 and v[0] <= v[1]
    )

    def __call__(self, scene: Scene, rng, canvas: tuple[int, int]) -> Scene:
        scene = self.perhaps_flipped(scene, rng)
        if rng.random() < self.crop:
            scene = scene.scaled(scaled_sides(scene.size, drawn(self.crop_short, rng), self.long))
            least, most = self.crop_sides
            size = tuple(int(rng.integers(min(side, least), min(side, most) + 1)) for side in scene.size)
            top, left = (int(rng.integers(a - b + 1)) for a, b in zip(scene.size, size, strict=True))
            scene = scene.cropped(top, left, size)
        return self.scaled(scene, rng, canvas)


@dataclass(frozen=True)
class Sample:
    """An image to train on, and its n objects, in pixels of its canvas.

    pixels: (H, W, C) float32, normalised, 0 beside the image; size: (height, width) of the image on it; boxes: (n, 4)
    float32, xyxy; labels: (n,) int64; masks: (n, H, W / 8) uint8 of eight pixels each, as swins.detection.mask_bits
    has them; None without masks.
    """

    pixels: np.ndarray
    size: tuple
    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None


@dataclass(frozen=True)
class InstanceTransform:
    """From an image as `open_image` gives it and its Objects to a Sample, by an augmentation.

    Crowds are left out, and boxes of less than `augment.least_side` pixels or without area; of more objects than `most`
    the largest are kept. The third argument is the random generator; the fourth the canvas, by default the one that
    the augmentation has for the image.

    mean, std: per channel, 0..1; masks: whether samples have masks.

    Raises:
        SwinsError: an image of other channels than the model's, or of another size than its boxes are of; boxes alone
            where masks are needed.
    """

    augment: KeepRatio
    mean: tuple
    std: tuple
    masks: bool = True
    most: int = MOST_OBJECTS

    def __call__(self, image, objects: Objects, rng, canvas: tuple[int, int] | None = None) -> Sample:
        pixels = pixels_of(image, len(self.mean))
        objects = objects.fitted(pixels.shape[:2]).training()
        if self.masks:
            objects.require_masks()
        sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
        objects = objects.chosen((sides >= self.augment.least_side).all(1) & (objects.area > 0))
        canvas = canvas or self.augment.canvas(pixels.shape[:2])
        scene = self.augment(scene_of(pixels, objects.boxes), rng, canvas)
        chosen = largest(scene.boxes, self.most)
        boxes, objects, masks = scene.boxes[chosen], objects.chosen(scene.kept[chosen]), None
        if self.masks:
            packed = [scene.packed(mask.bitmap(objects.size), canvas) for mask in objects.masks]
            masks = np.stack(packed) if packed else no_masks(canvas)
        prepared = on_canvas(normalized([scene.image], self.mean, self.std), canvas)
        return Sample(prepared, scene.size, boxes, objects.labels, masks)


def validating(augment: KeepRatio) -> KeepRatio:
    """How images are prepared that a model trained with an augmentation is validated on: whole, at its largest.

    All are laid on one canvas, so that a batch may have any of them.
    """
    return KeepRatio(0.0, (max(augment.short),), augment.long, (common_canvas(augment.canvases),), 0.0)


def largest(boxes: np.ndarray, most: int) -> np.ndarray:
    """Places of the largest boxes, at most so many, in their order."""
    return np.sort(np.argsort(-areas(boxes), kind="stable")[:most])


def no_masks(canvas: tuple[int, int], count: int = 0) -> np.ndarray:
    """Masks without a pixel, as Sample has them."""
    return np.zeros((count, canvas[0], canvas[1] // 8), np.uint8)


def filler(transform: InstanceTransform, canvas: tuple[int, int]) -> Sample:
    """A Sample without objects, in place of one that cannot be read."""
    pixels = np.zeros((*canvas, len(transform.mean)), np.float32)
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    return Sample(pixels, canvas, *nothing, no_masks(canvas) if transform.masks else None)


def instance_arrays(samples: list[Sample], most: int = MOST_OBJECTS) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Samples of one canvas in static shapes -> (images (B, H, W, C) float32, {name: array}).

    boxes (B, G, 4) float32, labels (B, G) int64, valid (B, G) bool, as `swins.data.box_augment.pad` has them, in pixels
    of the canvas; sizes (B, 2) int32, height and width of the images on it; masks (B, G, H, W / 8) uint8, if samples
    have them: a bit a pixel.
    """
    padded = zip(*(pad(sample.boxes, sample.labels, most) for sample in samples), strict=True)
    arrays = dict(zip(("boxes", "labels", "valid"), map(np.stack, padded), strict=True))
    arrays["sizes"] = np.array([sample.size for sample in samples], np.int32)
    if samples[0].masks is not None:
        arrays["masks"] = np.zeros((len(samples), most, *samples[0].masks.shape[1:]), np.uint8)
        for place, sample in enumerate(samples):
            arrays["masks"][place, : len(sample.masks)] = sample.masks
    return np.stack([sample.pixels for sample in samples]), arrays


@dataclass(frozen=True, eq=False)
class CanvasGroups:
    """Which canvas each image of a Split is laid on: batches are of one canvas each, as `swins.task.Reading` has it.

    groups: (images,) integers; sizes: for each group, its canvas alone in a tuple.
    """

    groups: np.ndarray = field(repr=False)
    sizes: tuple


def image_sizes(split: Split) -> list:
    """(height, width) of each image of a detection Split, as annotations state them."""
    samples = getattr(split.samples, "samples", split.samples)  # of those that are cached
    if hasattr(samples, "size"):
        return [samples.size] * len(samples)
    return [samples[i][2].size for i in range(len(samples))]


def canvas_groups(split: Split, augment: KeepRatio) -> CanvasGroups:
    """The canvases of a Split's images. Those that no image is laid on are left out."""
    canvases = [augment.canvas(tuple(size)) for size in image_sizes(split)]
    used = [canvas for canvas in augment.canvases if canvas in canvases]
    return CanvasGroups(np.array([used.index(canvas) for canvas in canvases]), tuple((canvas,) for canvas in used))


def with_objects(split: Split, least: int = LEAST_IMAGE) -> Split:
    """A Split of those images that have an object to train on and sides of `least` pixels, as mmdetection's.

    What is left out is said in its notes. Samples that are drawn as they are read stay as they are.

    Raises:
        SwinsError: if no image is left.
    """
    if not isinstance(split.samples, list):
        return split
    notes, samples = [], split.samples
    rules = (
        ("without an object to train on", lambda objects: len(objects.training())),
        (f"of less than {least} pixels a side", lambda objects: min(objects.size) >= least),
    )
    for words, rule in rules:
        good = [sample for sample in samples if rule(sample[2])]
        if bare := [name for name, _, objects in samples if not rule(objects)]:
            few = ", ".join([*bare[:3], *["..."] * (len(bare) > 3)])
            notes.append(f"images {words}, which are not trained on: {len(bare)} ({few})")
        samples = good
    if not samples:
        raise SwinsError(f"{split.name}: needs images to train on; {'; '.join(notes)}; take other data")
    return replace(split, samples=samples, notes=(*split.notes, *notes))
