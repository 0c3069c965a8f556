"""What images and boxes of a detector undergo in training, with random numbers from a generator that is passed in.

Three recipes, each a section: Resize, Pattern1 (RuslanGreenhead/swin_transformer's) and SsdPaper (arXiv:1512.02325,
with torchvision's numbers). Each is called with

    image   (h, w, C) uint8; colours change where C is 1 or 3
    boxes   (n, 4) xyxy in pixels of the image, n may be 0; labels (n,)
    rng     numpy.random.Generator, the only source of chance
    size    (H, W) of the result in pixels

and gives the image (H, W, C) uint8, boxes in its pixels and their labels. Boxes are clipped to the image, and dropped
if little is left. Images are scaled as validation's are: to the size whatever their proportions, bicubic, antialiased.
"""

from dataclasses import dataclass, replace

import numpy as np

from swins.data.box_geometry import around, best_iou, clipped, cropped, flipped, scaled
from swins.data.colour import brightness_contrast, distort, greyed, hue_saturation_value, shifted
from swins.data.objects import Objects
from swins.data.split import Split
from swins.images import normalized, planes
from swins.settings import Section, all_whole, ascending, at_least, finite, probability, setting

MOST_OBJECTS = 100  # of an image, in a batch
MOST_PIXELS = 2**24  # of a canvas; a larger one would only be made small again
COLOUR = "levels from 0 to 255, one a channel of RGB"


def is_colour(value):
    """Whether a value is a level for red, green and blue."""
    return all_whole(value, 0) and len(value) == 3 and max(value) <= 255


def colour_of(rgb, channels):
    """A colour's levels for so many channels; the mean of RGB where there are others than three."""
    return rgb if channels == 3 else (round(sum(rgb) / 3),) * channels


@dataclass(frozen=True)
class Resize(Section):
    """The whole image, scaled.

    flip: probability of a horizontal flip. least_area: pixels of the result, visible: part of a box inside the image,
    below which a box is dropped.
    """

    flip: float = probability(0.5)
    least_area: float = at_least(1.0, 0)
    visible: float = probability(0.2)

    def __call__(self, image, boxes, labels, rng, size):
        image, boxes = scaled(image, boxes, size)
        if rng.random() < self.flip:
            image, boxes = flipped(image, boxes)
        boxes, kept = clipped(boxes, size, self.least_area, self.visible)
        return image, boxes, labels[kept]


@dataclass(frozen=True)
class Pattern1(Resize):
    """RuslanGreenhead/swin_transformer's augmentation "pattern 1", of all its reported runs.

    One change of colour, always; a border with probability `pad`; a crop with all boxes in it with probability `crop`.

    brightness, contrast: largest change, as parts; hue (of 180 levels), saturation, value (of 255): largest changes;
    shift: largest change of each of red, green and blue, in levels; colours: how likely are brightness and contrast;
    hue, saturation and value; the shift; grey. border: sides of the image with its border at least, over the result's;
    fill: the border's colour.
    """

    brightness: float = probability(0.2)
    contrast: float = probability(0.2)
    hue: float = setting(10.0, "from 0 to 90", lambda v: 0 <= v <= 90)
    saturation: float = setting(15.0, "from 0 to 255", lambda v: 0 <= v <= 255)
    value: float = setting(10.0, "from 0 to 255", lambda v: 0 <= v <= 255)
    shift: float = setting(15.0, "from 0 to 255", lambda v: 0 <= v <= 255)
    colours: tuple = setting(
        (0.5, 0.5, 0.3, 0.05),
        "four numbers of at least 0, not all 0",
        lambda v: len(v) == 4 and all(finite(x) and x >= 0 for x in v) and sum(v) > 0,
    )
    pad: float = probability(0.5)
    border: float = setting(1.5, "from 1 to 4", lambda v: 1 <= v <= 4)
    fill: tuple = setting((104, 117, 123), COLOUR, is_colour)
    crop: float = probability(0.7)

    def __call__(self, image, boxes, labels, rng, size):
        image = self.coloured(image, rng)
        if rng.random() < self.pad:
            image, boxes = self.padded(image, boxes, size)
        if rng.random() < self.crop:
            image, boxes = cropped(image, boxes, safe_window(image.shape, boxes, rng))
        return super().__call__(image, boxes, labels, rng, size)

    def coloured(self, image, rng):
        """The image with one change of colour."""
        chances = np.array(self.colours) / sum(self.colours)
        kind = rng.choice(4, p=chances)
        if kind == 0:
            contrast, brightness = rng.uniform(-self.contrast, self.contrast), rng.uniform(-1, 1) * self.brightness
            return brightness_contrast(image, brightness, contrast)
        if kind == 1:
            most = np.array([self.hue, self.saturation, self.value])
            return hue_saturation_value(image, *rng.uniform(-most, most))
        if kind == 2:
            return shifted(image, rng.uniform(-self.shift, self.shift, image.shape[2]))
        return greyed(image)

    def padded(self, image, boxes, size):
        """The image in the middle of a border, where it is smaller than `border` times the result."""
        (height, width, channels), (least_height, least_width) = image.shape, (int(self.border * side) for side in size)
        canvas = max(height, least_height), max(width, least_width)
        place = (canvas[1] - width) // 2, (canvas[0] - height) // 2
        return around(image, boxes, canvas, place, colour_of(self.fill, channels))


@dataclass(frozen=True)
class SsdPaper(Resize):
    """The augmentation of the SSD paper: colours, zoom out, IoU crop; torchvision's numbers.

    A box stays if its centre is in the crop, whatever is left of it: `visible` is 0.

    brightness, contrast, saturation: ranges of factors; hue: largest change, as a part of the circle; colour: how
    likely each is, and that channels change places.
    zoom: probability, zoom_sides: range of the canvas's sides over the image's, fill: the canvas's colour.
    overlaps: least IoUs of the crop and the box that it fits best, one of which is drawn; 1 is for the whole image.
    sides, ratio: ranges of the crop's sides over the image's, and of its width over its height. tries: crops that are
    drawn before another overlap is.
    """

    visible: float = probability(0.0)
    brightness: tuple = setting((0.875, 1.125), "a pair of factors above 0, the smaller first", ascending)
    contrast: tuple = setting((0.5, 1.5), "a pair of factors above 0, the smaller first", ascending)
    saturation: tuple = setting((0.5, 1.5), "a pair of factors above 0, the smaller first", ascending)
    hue: float = setting(0.05, "from 0 to 0.5", lambda v: 0 <= v <= 0.5)
    colour: float = probability(0.5)
    zoom: float = probability(0.5)
    zoom_sides: tuple = setting((1.0, 4.0), "a pair from 1 to 16", lambda v: ascending(v) and v[0] >= 1 and v[1] <= 16)
    fill: tuple = setting((123, 117, 104), COLOUR, is_colour)
    overlaps: tuple = setting(
        (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        "IoUs from 0 to 1, 1 among them, so that there is an end",
        lambda v: all(finite(x) and 0 <= x <= 1 for x in v) and 1 in v,
    )
    sides: tuple = setting((0.3, 1.0), "a pair above 0, at most 1", lambda v: ascending(v) and v[1] <= 1)
    ratio: tuple = setting((0.5, 2.0), "a pair of numbers above 0, the smaller first", ascending)
    tries: int = setting(40, "from 1 to 1000", lambda v: 1 <= v <= 1000)

    def __call__(self, image, boxes, labels, rng, size):
        image = distort(image, self, rng)
        if rng.random() < self.zoom:
            image, boxes = self.zoomed_out(image, boxes, rng)
        window = self.window(image.shape, boxes, rng)
        if window is not None:
            inside = centres_inside(boxes, window)[0]
            image, boxes = cropped(image, boxes[inside], window)
            labels = labels[inside]
        return super().__call__(image, boxes, labels, rng, size)

    def zoomed_out(self, image, boxes, rng):
        """The image somewhere on a larger canvas."""
        side = rng.uniform(*self.zoom_sides)
        pixels = image.shape[0] * image.shape[1] * side * side
        if pixels > MOST_PIXELS:
            factor = (MOST_PIXELS / pixels) ** 0.5
            image, boxes = scaled(image, boxes, [max(1, int(length * factor)) for length in image.shape[:2]])
        height, width, channels = image.shape
        canvas = int(height * side), int(width * side)
        left, top = (int(rng.random() * (a - b)) for a, b in ((canvas[1], width), (canvas[0], height)))
        return around(image, boxes, canvas, (left, top), colour_of(self.fill, channels))

    def window(self, shape, boxes, rng):
        """(left, top, right, bottom) of a crop, as integers; None for the whole image.

        All tries of an overlap are drawn at once.
        """
        height, width = shape[:2]
        while (least := self.overlaps[rng.integers(len(self.overlaps))]) < 1:
            draws = rng.random((self.tries, 4))
            sides = self.sides[0] + (self.sides[1] - self.sides[0]) * draws[:, :2]
            extent = np.maximum(1, (sides * [width, height]).astype(int))
            corner = ((np.array([width, height]) - extent) * draws[:, 2:]).astype(int)
            windows = np.concatenate([corner, corner + extent], 1)
            aspect = extent[:, 0] / extent[:, 1]
            inside = centres_inside(boxes, windows)
            good = (self.ratio[0] <= aspect) & (aspect <= self.ratio[1]) & inside.any(1)
            good &= best_iou(windows, boxes, inside) >= least
            if good.any():
                return tuple(windows[good.argmax()].tolist())
        return None


def centres_inside(boxes, windows):
    """Whether the centre of each box (n, 4) is strictly inside each window (m, 4) -> (m, n) bool."""
    centres, windows = (boxes[:, :2] + boxes[:, 2:]) / 2, np.reshape(windows, (-1, 1, 4))
    return ((windows[..., :2] < centres) & (centres < windows[..., 2:])).all(-1)


def safe_window(shape, boxes, rng):
    """(left, top, right, bottom) of a crop that has all boxes in it, as integers; of the whole image without boxes.

    Each edge is as likely anywhere between the image's own and the outermost box's.
    """
    height, width = shape[:2]
    if not len(boxes):
        return 0, 0, width, height
    own, low, high = np.array([0, 0, width, height]), boxes[:, :2].min(0), boxes[:, 2:].max(0)
    outermost = np.clip(np.concatenate([low, high]), 0, np.tile(own[2:], 2))
    edges = own + (outermost - own) * rng.random(4)
    return (*np.floor(edges[:2]).astype(int).tolist(), *np.ceil(edges[2:]).astype(int).tolist())


@dataclass(frozen=True)
class BoxTransform:
    """From an image as `open_image` gives it and its Objects to what a detector trains on, by an augmentation.

    Gives the image (H, W, C) float32, normalised; boxes (n, 4) float32, xyxy from 0 to 1 of its width and height;
    labels (n,). Crowds are left out. n may be 0. The third argument is the random generator; the fourth a size in
    place of the transform's own.

    size: (height, width) in pixels; mean, std: per channel, 0..1.

    Raises:
        SwinsError: an image of other channels than the model's, or of another size than its boxes are of.
    """

    augment: Resize
    size: tuple
    mean: tuple
    std: tuple

    def __call__(self, image, objects: Objects, rng, size=None):
        size = size or self.size
        parts = planes(image, len(self.mean))
        pixels = np.concatenate([np.atleast_3d(np.asarray(part)) for part in parts], -1)
        objects = objects.fitted(pixels.shape[:2]).training()
        pixels, boxes, labels = self.augment(pixels, objects.boxes.astype(np.float64), objects.labels, rng, size)
        relative = (boxes / np.tile(size[::-1], 2)).astype(np.float32)
        return normalized([pixels], self.mean, self.std), relative, labels


def pad(boxes: np.ndarray, labels: np.ndarray, most: int = MOST_OBJECTS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Objects of an image in static shapes -> boxes (most, 4) float32, labels (most,) int64, valid (most,) bool.

    Of more objects than `most` the largest are kept, in their order. What is not valid has the whole image as its box,
    (0, 0, 1, 1), of which every logarithm is finite, and label 0.

    Args:
        boxes: (n, 4) xyxy from 0 to 1; labels: (n,).
    """
    if len(boxes) > most:
        extent = boxes[:, 2:] - boxes[:, :2]
        largest = np.sort(np.argsort(-extent[:, 0] * extent[:, 1], kind="stable")[:most])
        boxes, labels = boxes[largest], labels[largest]
    padded = np.tile(np.float32([0, 0, 1, 1]), (most, 1))
    padded[: len(boxes)] = boxes
    numbers = np.zeros(most, np.int64)
    numbers[: len(boxes)] = labels
    return padded, numbers, np.arange(most) < len(boxes)


def with_most(split: Split, most: int = MOST_OBJECTS) -> Split:
    """A Split whose notes say which images have more objects to train on than `pad` keeps; for samples in a list."""
    samples = split.samples if isinstance(split.samples, list) else []
    crowded = [name for name, _, objects in samples if len(objects.training()) > most]
    if not crowded:
        return split
    few = ", ".join([*crowded[:3], *["..."] * (len(crowded) > 3)])
    note = f"images with more than {most} objects (data.objects), of which the largest train: {len(crowded)} ({few})"
    return replace(split, notes=(*split.notes, note))
