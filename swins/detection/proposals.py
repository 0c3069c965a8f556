"""From raw outputs of region networks to boxes: proposals, Cascade's refined ones, and detections.

Letters: B images, A_l anchors of a level, L levels, C candidates of a level, N regions of an image, K classes.
"""

import math
from collections.abc import Sequence

from keras import ops

from swins.boxes import first_maximum, float32_below, floats, iou, nms, stable_top_k
from swins.detection.assignment import Regions
from swins.detection.box_deltas import REGION_STDS, RPN_STDS, decode_deltas, of_class


def without_overlaps(boxes, scores, max_overlap: float):
    """Greedy suppression in rows of boxes whose scores fall: (R, C, 4) xyxy, (R, C) -> (R, C) bool, those that stay.

    A box goes where one before it that stays overlaps it more; scores of -inf count not. All boxes of a row are looked
    at together, again and again until nothing changes: as often as the longest chain of boxes that decide about each
    other is long. Row by row, as a row's table of overlaps is large. Measured on 2 cores, TensorFlow's graph, 5 rows of
    1000: 59 milliseconds and 54 MB; one box after the other (`swins.boxes.picked`) 392; torchvision 108.
    """
    boxes, scores = floats(boxes), floats(scores)
    places = ops.arange(ops.shape(boxes)[1], dtype="int32")
    limit = float32_below(max_overlap)

    def row(values):
        boxes, exist = values
        against = floats((iou(boxes, boxes) > limit) & (places[:, None] < places) & exist[:, None])

        def unsettled(kept, before):
            return ops.any(kept != before)

        def settle(kept, before):
            return exist & (ops.matmul(floats(kept)[None], against)[0] == 0), kept

        return ops.while_loop(unsettled, settle, (exist, ops.zeros_like(exist)))[0]

    return ops.map(row, (boxes, scores > -math.inf))


def select_proposals(
    logits: Sequence,
    deltas: Sequence,
    anchors: Sequence,
    sizes,
    *,
    candidates: int = 1000,
    most: int = 1000,
    max_overlap: float = 0.7,
) -> dict:
    """The best boxes of all levels, after suppression in each -> {"boxes", "scores", "count"}.

    (B, most, 4) xyxy pixels within the unpadded images, (B, most) falling, (B,) int32. What is left of a row is 0.
    Boxes without width or height, as they are in the padding, do not count. No gradient goes through.

    Args:
        logits: of each level (B, A_l); deltas: (B, A_l, 4); anchors: (A_l, 4) xyxy.
        sizes: (B, 2) heights and widths of the unpadded images, in pixels.
        candidates: boxes of a level that are looked at, the best; most: boxes of an image.
        max_overlap: boxes of a level that overlap more are one object's; intersection over union.
    """
    boxes, scores = [], []
    for values, codes, references in zip(logits, deltas, anchors, strict=True):
        values, codes = (ops.stop_gradient(floats(x)) for x in (values, codes))
        values = ops.sigmoid(values)
        filling = ops.broadcast_to(ops.cast([[-math.inf]], "float32"), (ops.shape(values)[0], candidates))
        values, places = stable_top_k(ops.concatenate([values, filling], 1), candidates)
        places = ops.minimum(places, ops.shape(references)[0] - 1)
        codes = ops.take_along_axis(codes, places[..., None], 1)
        level = decode_deltas(codes, ops.take(floats(references), places, 0), RPN_STDS, sizes)
        sides = level[..., 2:] - level[..., :2]
        boxes.append(level)
        scores.append(ops.where(ops.all(sides > 0, -1), values, -math.inf))
    count = len(logits) * candidates
    boxes, scores = ops.concatenate(boxes, 1), ops.concatenate(scores, 1)  # (B, L * C, 4), (B, L * C)
    rows = ops.reshape(boxes, (-1, candidates, 4)), ops.reshape(scores, (-1, candidates))
    stay = ops.reshape(without_overlaps(*rows, max_overlap), (-1, count))
    scores, places = stable_top_k(ops.where(stay, scores, -math.inf), min(most, count))
    boxes = ops.take_along_axis(ops.reshape(boxes, (-1, count, 4)), places[..., None], 1)
    kept = scores > -math.inf
    return {
        "boxes": filled_up(ops.where(kept[..., None], boxes, 0.0), most),
        "scores": filled_up(ops.where(kept, scores, 0.0), most),
        "count": ops.sum(ops.cast(kept, "int32"), 1),
    }


def filled_up(x, most: int):
    """Rows of zeros after the second axis, up to so many."""
    missing = most - x.shape[1]
    return ops.pad(x, [(0, 0), (0, missing), *[(0, 0)] * (len(x.shape) - 2)]) if missing > 0 else x


def select_detections(
    boxes,
    usable,
    logits,
    deltas,
    sizes,
    *,
    stds: tuple = REGION_STDS,
    min_score: float = 0.05,
    max_overlap: float = 0.5,
    most: int = 100,
) -> dict:
    """The answers of an image -> {"boxes", "scores", "labels", "count"}.

    (B, most, 4) xyxy pixels within the unpadded images, (B, most) falling, (B, most) int32, -1 where there is none,
    (B,) int32.

    Args:
        boxes: (B, N, 4) proposals, xyxy; usable: (B, N) bool, which there are.
        logits: (B, N, K + 1), the background's last; deltas: (B, N, 4K) class by class.
        sizes: (B, 2) heights and widths of the unpadded images, in pixels.
        stds: what the deltas are divided by.
        min_score: only higher scores count.
        max_overlap: boxes of a class that overlap more are one object's; intersection over union.
        most: boxes of an image.
    """
    classes, count = deltas.shape[-1] // 4, boxes.shape[1]
    scores = ops.softmax(floats(logits), -1)[..., :-1]
    scores = ops.where(ops.cast(usable, "bool")[..., None], scores, -math.inf)
    deltas = ops.reshape(deltas, (-1, count, classes, 4))
    moved = decode_deltas(deltas, floats(boxes)[:, :, None], stds, sizes)
    rule = {"min_score": min_score, "max_overlap": max_overlap, "candidates": count, "most": most}
    kept, scores, labels, count = nms(moved, scores, **rule)
    return {"boxes": kept, "scores": scores, "labels": labels, "count": count}


def refine(boxes, logits, deltas, sizes, stds: tuple):
    """Boxes moved by the deltas of their best class, background aside, as Cascade does between stages.

    (B, N, 4) xyxy, (B, N, K + 1), (B, N, 4K), (B, 2) heights and widths -> (B, N, 4). No gradient goes through.
    """
    return moved_by(boxes, best_class(logits), deltas, sizes, stds)


def refine_regions(regions: Regions, logits, deltas, sizes, stds: tuple) -> tuple:
    """What Cascade's next stage is trained on: regions moved by the deltas of their class, without objects' own boxes.

    Background is moved as its best class says. -> (boxes (B, S, 4) xyxy, usable (B, S) bool). No gradient goes through.
    """
    labels = ops.where(regions.positive, regions.labels, best_class(logits))
    return moved_by(regions.boxes, labels, deltas, sizes, stds), regions.valid & ~regions.truth


def best_class(logits):
    """The class of the highest logit, background aside: (..., K + 1) -> (...) int32."""
    return first_maximum(ops.stop_gradient(floats(logits))[..., :-1], -1)[1]


def moved_by(boxes, labels, deltas, sizes, stds: tuple):
    """Boxes moved by the deltas of these classes, within the unpadded images; no gradient goes through."""
    boxes, deltas = (ops.stop_gradient(floats(x)) for x in (boxes, deltas))
    return decode_deltas(of_class(deltas, labels), boxes, stds, sizes)
