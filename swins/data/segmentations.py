"""Masks of objects as data sets have them: polygons, run lengths, bitmaps. Pixels are made of them when asked for.

h, w: pixels of an image; k: points of a polygon; r: runs. Pixels are those of COCO's own programs, exactly.
"""

from dataclasses import dataclass

import numpy as np

from swins import run_lengths
from swins.errors import SwinsError, install
from swins.keep_ratio import nearest_indices

LEAST_POINTS = 3
FEW_POINTS = "polygons of fewer than 3 points, left out"
NO_POINTS = "polygons that are no pairs of numbers, in their image or at most its side away, left out"
NO_RUNS = "run lengths that are none, or fill no image, left out"
OTHER_SIZE = "run lengths of another size than their image's, left out"
NO_PIXELS = "run lengths without a pixel, left out"
MISSED = "masks that miss their box, left out"
NO_MASK = "objects without a mask that can be used, neither trained on nor counted as missed"


def rasteriser():
    """faster-coco-eval's masks. Raises SwinsError if it is missing."""
    try:
        from faster_coco_eval.core import mask
    except ModuleNotFoundError as error:
        raise SwinsError(f"polygons become pixels by faster-coco-eval: {install('detection')}") from error
    return mask


@dataclass(frozen=True, eq=False)
class Polygons:
    """parts: (k, 2) float64 each, x and y in pixels; a pixel that is in any of them is the object's."""

    parts: tuple

    def bitmap(self, size: tuple[int, int]) -> np.ndarray:
        """The pixels (h, w) bool."""
        masks = rasteriser()
        runs = masks.frPyObjects([part.ravel().tolist() for part in self.parts], *size)
        return masks.decode(masks.merge(runs)).astype(bool)

    def box(self, size: tuple[int, int]) -> np.ndarray:
        """What the mask reaches from and to, xyxy."""
        points = self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts)
        return np.concatenate([points.min(0), points.max(0)])

    def fitted(self, size: tuple[int, int], to: tuple[int, int]) -> "Polygons":
        """The mask of an image of `size` that is scaled to another."""
        factors = np.array([to[1] / size[1], to[0] / size[0]])
        return Polygons(tuple(part * factors for part in self.parts))

    def content(self) -> bytes:
        """What the mask is made of, for a digest."""
        return b"".join(part.tobytes() + b"|" for part in self.parts)


@dataclass(frozen=True, eq=False)
class RunLengths:
    """runs: (r,) integers, of background first, column after column, as `swins.run_lengths` has them."""

    runs: np.ndarray

    def bitmap(self, size: tuple[int, int]) -> np.ndarray:
        """The pixels (h, w) bool."""
        return run_lengths.bitmap(self.runs, size)

    def box(self, size: tuple[int, int]) -> np.ndarray | None:
        """What the mask reaches from and to, xyxy; None without a pixel."""
        ends = np.cumsum(self.runs)
        starts, ends = ends[:-1:2], ends[1::2]
        starts, ends = starts[ends > starts], ends[ends > starts]
        if not starts.size:
            return None
        (left, top), (right, bottom) = (divmod(places, size[0]) for places in (starts, ends - 1))
        over = right > left  # a run that goes on in the next column has its last and first rows
        return np.array(
            [left[0], 0 if over.any() else top.min(), right[-1] + 1, size[0] if over.any() else bottom.max() + 1]
        )

    def fitted(self, size: tuple[int, int], to: tuple[int, int]) -> "Bitmap":
        """The mask of an image of `size` that is scaled to another."""
        return Bitmap(self.bitmap(size)).fitted(size, to)

    def content(self) -> bytes:
        """What the mask is made of, for a digest."""
        return self.runs.astype(np.int64).tobytes()


@dataclass(frozen=True, eq=False)
class Bitmap:
    """pixels: (h, w) bool."""

    pixels: np.ndarray

    def bitmap(self, size: tuple[int, int]) -> np.ndarray:
        """The pixels (h, w) bool."""
        return self.pixels

    def fitted(self, size: tuple[int, int], to: tuple[int, int]) -> "Bitmap":
        """The mask of an image of `size` that is scaled to another."""
        rows, columns = (nearest_indices(a, b) for a, b in zip(size, to, strict=True))
        return Bitmap(self.pixels[rows[:, None], columns])

    def content(self) -> bytes:
        """What the mask is made of, for a digest."""
        return np.packbits(self.pixels).tobytes()


def rectangle(box) -> Polygons:
    """A box as a mask."""
    left, top, right, bottom = np.asarray(box, np.float64).tolist()
    return Polygons((np.array([[left, top], [right, top], [right, bottom], [left, bottom]]),))


def points_of(part, size):
    """The points (k, 2) of a polygon's numbers, or the kind of defect that it is."""
    if not isinstance(part, list | tuple):
        return NO_POINTS
    if not part:
        return FEW_POINTS
    try:
        numbers = np.array(part)
    except ValueError:  # lists in it, of several lengths
        return NO_POINTS
    if numbers.ndim != 1 or numbers.dtype.kind not in "iuf" or len(numbers) % 2:
        return NO_POINTS
    points, (height, width) = numbers.astype(np.float64).reshape(-1, 2), size
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()  # NaN if one is
    if not (-width <= left and right <= 2 * width and -height <= top and bottom <= 2 * height):
        return NO_POINTS
    return points if len(points) >= LEAST_POINTS else FEW_POINTS


def runs_of(entry, size):
    """The run lengths (r,) of an entry of COCO's, or the kind of defect that it is."""
    counts, stated = entry.get("counts"), entry.get("size")
    if not isinstance(stated, list | tuple) or list(stated) != list(size):
        return OTHER_SIZE
    try:
        if isinstance(counts, list) and all(type(count) is int and 0 <= count < 2**40 for count in counts):
            runs = np.array(counts, np.int64)
        else:
            runs = run_lengths.of_text(counts) if isinstance(counts, str) else np.zeros(0, np.int64)
        return run_lengths.require_runs(runs, size).astype(np.int32)
    except SwinsError:
        return NO_RUNS


def apart(one, other) -> bool:
    """Whether two boxes, four numbers each, have no point in common."""
    return one[0] > other[2] or other[0] > one[2] or one[1] > other[3] or other[1] > one[3]


def mask_of(entry, box, size, place, defects):
    """The mask of an entry as COCO's JSON has it; None if there is none that can be used, of which `defects` learns.

    Args:
        entry: a list of polygons, each of numbers x, y, x, y; or run lengths; box: xyxy; size: (h, w) of the image.
    """
    if isinstance(entry, dict):
        runs = runs_of(entry, size)
        mask, wrong = (None, [runs]) if isinstance(runs, str) else (RunLengths(runs), [])
    else:
        parts = [points_of(part, size) for part in entry] if isinstance(entry, list | tuple) else []
        wrong = [part for part in parts if isinstance(part, str)]
        good = tuple(part for part in parts if not isinstance(part, str))
        mask = Polygons(good) if good else None
    if mask is not None:
        extent = mask.box(size)
        if extent is None:
            mask, wrong = None, [NO_PIXELS]
        elif apart(extent.tolist(), box):
            mask, wrong = None, [*wrong, MISSED]
    for kind in wrong:
        defects.add(kind, place)
    return mask


def usable_masks(entries, boxes, sizes, places, defects) -> tuple[list, np.ndarray]:
    """Masks of objects -> ([mask], which of them had none that can be used (n,) bool).

    Those have their box as a mask, and are to be marked as crowds: in an image, and not told from others there.

    Args:
        entries: as COCO's JSON has them, n of them, None for none; boxes: (n, 4) xyxy in pixels; sizes: (n, 2), height
            and width of each one's image; places: n texts, what each is called in `defects`.
    """
    masks, bare = [], np.zeros(len(entries), bool)
    sizes = np.asarray(sizes).reshape(-1, 2).tolist()
    boxes = np.asarray(boxes).tolist()
    for row, (entry, box, size, place) in enumerate(zip(entries, boxes, sizes, places, strict=True)):
        mask = mask_of(entry, box, tuple(size), place, defects)
        if mask is None:
            defects.add(NO_MASK, place)
            mask, bare[row] = rectangle(box), True
        masks.append(mask)
    return masks, bare
