"""Objects: the truth of one image for detectors. A sample of a detection Split is (name, image, Objects)."""

import dataclasses
import hashlib
from dataclasses import dataclass

import numpy as np

from swins.errors import SwinsError

KINDS = {"boxes": np.float32, "labels": np.int64, "crowd": bool, "area": np.float64}


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of an image.

    boxes: (n, 4) float32, left, top, right and bottom in pixels of an image of `size`.
    labels: (n,) int64, classes of the Split.
    crowd: (n,) bool, boxes around many objects, or too hard ones: neither trained on nor counted as missed.
    area: (n,) float64, pixels of the object, as COCO counts them; width times height where a format has none.
    size: (height, width) in pixels, as the annotations state it.
    image_id: the data set's own, an integer or a text.
    masks: the objects' masks, n of swins.data.segmentations', in pixels of an image of `size`; None where they were
        not asked for.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    size: tuple[int, int]
    image_id: int | str
    masks: tuple | None = None

    def __post_init__(self):
        for name, kind in KINDS.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), kind))
        object.__setattr__(self, "boxes", self.boxes.reshape(-1, 4))

    def __len__(self):
        return len(self.labels)

    def chosen(self, rows: np.ndarray) -> "Objects":
        """The objects of an index array or a bool array (n,)."""
        masks = None if self.masks is None else tuple(self.masks[i] for i in np.arange(len(self))[rows])
        return dataclasses.replace(self, masks=masks, **{name: getattr(self, name)[rows] for name in KINDS})

    def training(self) -> "Objects":
        """Those to train on: all but crowds."""
        return self.chosen(~self.crowd) if self.crowd.any() else self

    def renumbered(self, labels: np.ndarray) -> "Objects":
        """The same objects, class k of them being class labels[k]."""
        return dataclasses.replace(self, labels=np.asarray(labels, np.int64)[self.labels])

    def fitted(self, size: tuple[int, int]) -> "Objects":
        """The same objects in the pixels of the image as it was opened, (height, width).

        An image that was scaled after it was annotated keeps its proportions, up to a pixel: its boxes and masks are
        scaled with it. Any other size means that it was turned or cut, or is another one.

        Raises:
            SwinsError: for other proportions than stated.
        """
        (height, width), (stated_height, stated_width) = size, self.size
        if (height, width) == (stated_height, stated_width):
            return self
        stated, own = f"{stated_width}x{stated_height}", f"{width}x{height}"
        difference = abs(height * stated_width - width * stated_height)
        if difference > max(height, width, stated_height, stated_width):
            hint = "turn it as it is shown (PIL.ImageOps.exif_transpose)" if size == self.size[::-1] else "mend it"
            raise SwinsError(
                f"image {self.image_id} must have the size that its boxes are of, {stated}; got {own}; {hint}"
            )
        across, down = width / stated_width, height / stated_height
        boxes = self.boxes * np.float32([across, down, across, down])
        masks = None if self.masks is None else tuple(mask.fitted(self.size, size) for mask in self.masks)
        area = self.area * across * down
        return dataclasses.replace(self, boxes=boxes, area=area, size=(height, width), masks=masks)

    def bitmaps(self) -> np.ndarray:
        """The pixels of each object, (n, height, width) bool.

        Raises:
            SwinsError: if there are no masks, or polygons and faster-coco-eval is missing.
        """
        pixels = [mask.bitmap(self.size) for mask in self.require_masks()]
        return np.stack(pixels) if pixels else np.zeros((0, *self.size), bool)

    def require_masks(self) -> tuple:
        """The masks. Raises SwinsError if there are none."""
        if self.masks is None:
            raise SwinsError(f"image {self.image_id} must have masks; got boxes alone; read the data with masks=True")
        return self.masks

    def to_json(self) -> dict:
        """The same as plain values, but the masks."""
        arrays = {name: getattr(self, name).tolist() for name in KINDS}
        return {"image_id": self.image_id, "size": [int(side) for side in self.size], **arrays}

    def digest(self) -> str:
        """A short digest of everything, the masks if there are any."""
        content = hashlib.sha256(repr((self.image_id, tuple(self.size))).encode(errors="backslashreplace"))
        for name in KINDS:
            content.update(getattr(self, name).tobytes())
        for mask in self.masks or ():
            content.update(mask.content())
        return content.hexdigest()[:16]
