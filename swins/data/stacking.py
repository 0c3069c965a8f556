"""Masks laid on each other: what stays visible of each, and its box.

H, W: pixels of a canvas; h, w: of a mask; n: masks laid. Boxes are left, top, right and bottom in pixels, the last two
just outside. All is counted in integers.
"""

import numpy as np


def tight(mask):
    """The smallest box around a mask's pixels: left, top, right and bottom, the last two just outside.

    >>> tight(np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], bool))
    (1, 1, 3, 3)
    """
    columns, rows = mask.any(0), mask.any(1)
    left, top = int(columns.argmax()), int(rows.argmax())
    right, bottom = mask.shape[1] - int(columns[::-1].argmax()), mask.shape[0] - int(rows[::-1].argmax())
    return left, top, right, bottom


def box_ious(boxes, others):
    """Intersections and unions of boxes (n, 4) with others (m, 4), in integers -> two (n, m)."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), -1)
    areas = [np.prod(b[:, 2:] - b[:, :2], -1) for b in (boxes, others)]
    return common, areas[0][:, None] + areas[1] - common


class Layers:
    """Which garment is visible at each pixel, while garments are laid on each other.

    owner: (H, W) int16, 0 for none, else 1 + the garment's place; whole, visible: pixels of each; boxes: (n, 4), tight
    around what is visible. overlap, least_visible: as Garments has them.
    """

    def __init__(self, size, overlap, least_visible):
        self.overlap, self.least_visible = overlap, least_visible
        self.owner = np.zeros(size, np.int16)
        self.whole, self.visible = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.boxes = np.zeros((0, 4), np.int64)

    def lay(self, mask, left, top):
        """Lay a garment's mask (h, w) above all others, if the rules allow -> whether they do."""
        place = np.s_[top : top + mask.shape[0], left : left + mask.shape[1]]
        hidden = np.bincount(self.owner[place][mask], minlength=len(self.whole) + 1)[1:]
        visible = self.visible - hidden
        if (visible < self.least_visible * self.whole).any() or (visible < 1).any():
            return False
        owner, boxes = self.owner.copy(), np.append(self.boxes, [self.box_at(mask, left, top)], 0)
        owner[place][mask] = len(boxes)
        changed = [*np.flatnonzero(hidden).tolist(), len(boxes) - 1]
        for i in changed[:-1]:
            x, y, right, bottom = self.boxes[i].tolist()
            boxes[i] = self.box_at(owner[y:bottom, x:right] == i + 1, x, y)
        common, union = box_ious(boxes[changed], boxes)
        common[np.arange(len(changed)), changed] = 0  # a box and itself
        if (common > self.overlap * union).any():
            return False
        count = np.count_nonzero(mask)
        self.owner, self.boxes = owner, boxes
        self.whole, self.visible = np.append(self.whole, count), np.append(visible, count)
        return True

    def box_at(self, mask, left, top):
        """The box of a mask that lies at a place of the canvas."""
        x, y, right, bottom = tight(mask)
        return left + x, top + y, left + right, top + bottom

    def free(self, shape):
        """Places (left, top) where a box of this shape touches no garment's -> (m, 2), row by row."""
        open_places = np.ones([side - own + 1 for side, own in zip(self.owner.shape, shape, strict=True)], bool)
        for left, top, right, bottom in self.boxes.tolist():
            open_places[max(0, top - shape[0] + 1) : bottom, max(0, left - shape[1] + 1) : right] = False
        return np.argwhere(open_places)[:, ::-1]
