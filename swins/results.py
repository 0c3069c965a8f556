"""What predictions are: small frozen dataclasses in the terms of the image, which draw and become JSON."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swins import run_lengths
from swins.box_drawing import TEXT, colour_of, draw_mask, draw_outline, shortened, write_names
from swins.mask_drawing import MOST_NAMES, class_colours, painted, with_legend

MOST = 5  # classes that a result keeps
RUN_LENGTHS = {"size": [int], "counts": str}  # of a mask, as COCO has them
BAR = (213, 94, 0)  # vermilion, and what lies behind it: told apart by everybody
BEHIND = (230, 230, 230)
LISTED = 10  # detections that a line of text names
LEAST_WIDTH = 480  # pixels of a drawing, where none are given: in smaller ones there is no room for names
LINES, LETTERS = 250, 48  # pixels of a drawing for each of a box's line; for each of a letter's height


@dataclass(frozen=True)
class Classes:
    """What classes an image is of, the most probable first.

    labels: numbers of classes; names: theirs; probabilities: theirs, from 0 to 1.
    """

    labels: tuple[int, ...]
    names: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def kinds(self) -> dict:
        """Of the values that `to_json` gives."""
        return {"classes": [{"label": int, "name": str, "probability": float}]}

    def to_json(self) -> dict:
        """The same as plain values."""
        rows = zip(self.labels, self.names, self.probabilities, strict=True)
        return {"classes": [{"label": n, "name": name, "probability": p} for n, name, p in rows]}

    def __str__(self):
        pairs = zip(self.names, self.probabilities, strict=True)
        return ", ".join(f"{name.partition(',')[0]} {probability:.1%}" for name, probability in pairs)

    def draw(self, image, width: int = 480):
        """The image above a bar for each class -> a PIL image of so many pixels' width.

        Args:
            image: a path, bytes, a PIL image or a uint8 array.
        """
        from PIL import Image, ImageDraw

        picture = as_picture(image)
        picture = picture.resize((width, max(1, round(picture.height * width / picture.width))))
        row = 26
        page = Image.new("RGB", (width, picture.height + row * len(self.labels) + 6), "white")
        page.paste(picture, (0, 0))
        pen = ImageDraw.Draw(page)
        for i, (name, probability) in enumerate(zip(self.names, self.probabilities, strict=True)):
            top = picture.height + 4 + row * i
            pen.rectangle((4, top + 17, width - 4, top + 22), BEHIND)
            pen.rectangle((4, top + 17, 4 + round((width - 8) * probability), top + 22), BAR)
            pen.text((5, top + 2), shortened(pen, name.partition(",")[0], width - 70), "black")
            pen.text((width - 48, top + 2), f"{probability:.1%}", "black")
        return page


@dataclass(frozen=True, eq=False)
class Detections:
    """What objects are in an image, the surest first.

    boxes: (n, 4) float32, left, top, right and bottom in pixels of the image; scores: (n,) float32, from 0 to 1,
    descending; labels: (n,) int64, numbers of classes; names: theirs; masks: (n, H, W) bool, the pixels of the image
    that each object has; None of a detector of boxes alone; least: the score that others were left out below;
    best: the highest of all scores, where some were left out.

    Example:
    >>> detections = detections_of([[0.1, 0.5, 0.3, 1.0]], [0.75], [1], 1, ("cat", "dog"), (100, 200))
    >>> print(detections, detections.boxes[0].astype(int).tolist())
    1 found: dog 0.75 [20, 50, 60, 100]
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    masks: np.ndarray | None = None
    least: float = 0.0
    best: float | None = None

    def __len__(self):
        return len(self.boxes)

    def __str__(self):
        if not len(self):
            best = "" if self.best is None else f"; the highest is {self.best:.2f}"
            return f"nothing found of a score of at least {self.least:g}{best}" if self.least else "nothing found"
        more = ", ..." if len(self) > LISTED else ""
        return f"{len(self)} found: {', '.join(self.captions()[:LISTED])}{more}"

    def captions(self) -> list[str]:
        """What is said of each object: its name and its score."""
        return [f"{name.partition(',')[0]} {score:.2f}" for name, score in zip(self.names, self.scores, strict=True)]

    def at_least(self, threshold: float) -> "Detections":
        """Those of at least this score."""
        kept = self.scores >= threshold
        names = tuple(name for name, keep in zip(self.names, kept, strict=True) if keep)
        masks = None if self.masks is None else self.masks[kept]
        best = max(self.scores.tolist(), default=None)
        return Detections(self.boxes[kept], self.scores[kept], self.labels[kept], names, masks, threshold, best)

    def with_masks(self, rows: list[dict], name: str) -> list[dict]:
        """Rows, one an object, each with the object's run lengths by a name; the same where there are no masks."""
        if self.masks is None:
            return rows
        return [{**row, name: run_lengths.to_json(mask)} for row, mask in zip(rows, self.masks, strict=True)]

    @property
    def kinds(self) -> dict:
        """Of the values that `to_json` gives."""
        mask = {} if self.masks is None else {"mask": RUN_LENGTHS}
        return {"detections": [{"label": int, "name": str, "box": [float], "score": float, **mask}]}

    def to_json(self) -> dict:
        """The same as plain values; masks are COCO's run lengths, {"size": [H, W], "counts": text}."""
        rows = zip(self.labels.tolist(), self.names, self.boxes.tolist(), self.scores.tolist(), strict=True)
        detections = [{"label": n, "name": name, "box": box, "score": s} for n, name, box, s in rows]
        return {"detections": self.with_masks(detections, "mask")}

    def to_coco(self, image_id: int | str, category_ids: Sequence[int]) -> list[dict]:
        """The same in COCO's format of results: bbox is left, top, width and height, segmentation run lengths.

        Args:
            image_id: the data set's, of the image; category_ids: its numbers of the classes.
        """
        rows = zip(self.labels.tolist(), self.boxes.tolist(), self.scores.tolist(), strict=True)
        lines = [
            {"image_id": image_id, "category_id": category_ids[n], "bbox": [x, y, right - x, bottom - y], "score": s}
            for n, (x, y, right, bottom), s in rows
        ]
        return self.with_masks(lines, "segmentation")

    def draw(self, image, width: int | None = None):
        """The image with the masks, boxes, names and scores on it, the surest above the others -> a PIL image.

        Args:
            image: the one that was looked at: a path, bytes, a PIL image or a uint8 array.
            width: of the drawing in pixels; by default the image's, but at least 480.
        """
        picture = as_picture(image)
        width = width or max(picture.width, LEAST_WIDTH)
        size = (width, max(1, round(picture.height * width / picture.width)))
        scale = np.array([size[0] / picture.width, size[1] / picture.height] * 2)
        picture = picture.resize(size) if size != picture.size else picture
        boxes = np.clip(np.round(self.boxes * scale), 0, [*size, *size]).astype(int)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)  # those too thin to be seen
        boxes, colours = boxes.tolist(), [colour_of(label) for label in self.labels.tolist()]
        line = max(2, max(size) // LINES)
        if self.masks is not None:
            picture = masked(picture, self.masks, colours, max(1, line // 2))
        for box, colour in list(zip(boxes, colours, strict=True))[::-1]:
            draw_outline(picture, box, colour, line)
        write_names(picture, boxes, self.captions(), colours, max(TEXT, max(size) // LETTERS))
        return picture


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The class of each pixel of an image.

    mask: (H, W) integers, numbers of classes, of the image's own pixels; names: of all classes.

    Example:
    >>> result = Segmentation(np.array([[0, 2], [2, 2]]), ("sky", "tree", "road"))
    >>> print(result, result.shares())
    road 75.0%, sky 25.0% {2: 0.75, 0: 0.25}
    """

    mask: np.ndarray
    names: tuple[str, ...]

    def shares(self) -> dict[int, float]:
        """{class: its part of the pixels} of those that occur, the largest first."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.names))
        order = np.argsort(-counts, kind="stable")
        return {int(k): float(counts[k] / self.mask.size) for k in order if counts[k]}

    def captions(self) -> dict[int, str]:
        """{class: its name and its part of the pixels} of those that occur, the largest first."""
        return {k: f"{self.names[k].partition(',')[0]} {share:.1%}" for k, share in self.shares().items()}

    def __str__(self):
        texts = list(self.captions().values())
        return ", ".join(texts[:LISTED]) + (", ..." if len(texts) > LISTED else "")

    @property
    def kinds(self) -> dict:
        """Of the values that `to_json` gives."""
        return {"size": [int], "classes": [{"label": int, "name": str, "pixels": int, "mask": RUN_LENGTHS}]}

    def to_json(self) -> dict:
        """The same as plain values: of each class that occurs its name, pixels, and mask as COCO's run lengths."""
        rows = []
        for k in self.shares():
            own = self.mask == k
            pixels = int(own.sum())
            rows.append({"label": k, "name": self.names[k], "pixels": pixels, "mask": run_lengths.to_json(own)})
        return {"size": list(self.mask.shape), "classes": rows}

    def draw(self, image, width: int | None = None):
        """The image under the classes' colours, above a legend of those that occur -> a PIL image.

        Args:
            image: the one that was looked at: a path, bytes, a PIL image or a uint8 array.
            width: of the drawing in pixels; by default the image's, but at least 480.
        """
        from PIL import Image

        picture = as_picture(image)
        width = width or max(picture.width, LEAST_WIDTH)
        size = (width, max(1, round(picture.height * width / picture.width)))
        picture = picture.resize(size) if size != picture.size else picture
        rows, columns = (np.arange(to) * side // to for side, to in zip(self.mask.shape, size[::-1], strict=True))
        colours = class_colours(self.names)
        pixels = painted(np.array(picture), self.mask[rows[:, None], columns], self.names)
        captions = list(self.captions().items())
        legend = [(colours[k], text) for k, text in captions[:MOST_NAMES]]
        if len(captions) > MOST_NAMES:
            legend.append(((255, 255, 255), f"and {len(captions) - MOST_NAMES} more"))
        return with_legend(Image.fromarray(pixels), legend, max(TEXT, max(size) // LETTERS))

    def index_image(self):
        """The mask as a PIL image: each pixel's value is its class, and a palette of up to 256 classes colours it."""
        from PIL import Image

        if len(self.names) > 256:
            return Image.fromarray(self.mask.astype(np.uint16))
        picture = Image.fromarray(self.mask.astype(np.uint8), "P")
        picture.putpalette(class_colours(self.names).tobytes())
        return picture


def masked(picture, masks, colours, line: int):
    """A PIL image with masks (n, H, W) bool of the image that it shows, the first above the others -> a PIL image.

    Args:
        colours: one a mask; line: pixels of the masks' edges.
    """
    from PIL import Image

    pixels = np.array(picture)
    rows, columns = (np.arange(to) * side // to for side, to in zip(masks.shape[1:], pixels.shape[:2], strict=True))
    for mask, colour in list(zip(masks, colours, strict=True))[::-1]:
        draw_mask(pixels, mask[rows[:, None], columns], colour, line)
    return Image.fromarray(pixels)


def as_picture(image):
    """What `open_image` takes, as a PIL image in RGB to draw on; of other channels than Pillow has, the first."""
    from PIL import Image

    from swins.images import open_image

    opened = open_image(image)
    if isinstance(opened, np.ndarray):
        opened = Image.fromarray(opened[..., 0])
    return opened.convert("RGB")


def classes_of(logits: np.ndarray, names: tuple[str, ...] = (), most: int = MOST) -> Classes:
    """The Classes of one row of logits (classes,); without names they are "class 0", "class 1"."""
    best = np.argsort(-logits, kind="stable")[:most]
    shifted = np.exp(np.float64(logits) - np.max(logits))
    probabilities = shifted[best] / shifted.sum()
    known = [names[i] if names else f"class {i}" for i in best]
    return Classes(tuple(map(int, best)), tuple(known), tuple(map(float, probabilities)))


def detections_of(
    boxes, scores, labels, count: int, names: tuple[str, ...], size: tuple[int, int], masks=None
) -> Detections:
    """The Detections of one image, of what is left after suppression; without names they are "class 0", "class 1".

    Args:
        boxes: (m, 4) corners relative to the image's sides, 0 to 1; scores, labels: (m,); the first `count` are meant.
        names: of all classes; size: (height, width) of the image in pixels; masks: (m, height, width) bool, or None.

    Raises:
        SwinsError: for a label that is none of the names'.
    """
    boxes, scores, labels = (np.asarray(a)[: int(count)] for a in (boxes, scores, labels))
    order = np.argsort(-scores, kind="stable")
    labels, (height, width) = labels[order].astype("int64"), size
    known = tuple(names[i] if names else f"class {i}" for i in labels.tolist())
    sides = np.array([width, height, width, height], "float32")
    boxes = boxes.reshape(-1, 4)[order].astype("float32")
    masks = None if masks is None else np.asarray(masks)[: int(count)][order]
    return Detections(boxes * sides, scores[order].astype("float32"), labels, known, masks)
