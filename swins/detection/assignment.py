"""What regions are trained on: which object each candidate is to find, and which candidates are chosen.

A candidate is an anchor or a proposal. Shapes are static: a number of samples is chosen for every image, and `valid`
says which there are. Letters: B images, N candidates, S samples, G objects of an image with those that fill up.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from keras import ops

from swins.boxes import area, floats, iou, stable_top_k

BACKGROUND, NEITHER = -1, -2


@dataclass(frozen=True)
class AssignRule:
    """Intersections over union that decide: `positive` or more is an object's, less than `negative` is background.

    least: an object takes the candidates that overlap it most, if they overlap it by so much; None: it does not.
    """

    positive: float
    negative: float
    least: float | None = None


RPN_RULE = AssignRule(0.7, 0.3, 0.3)
REGION_RULE = AssignRule(0.5, 0.5, 0.5)
CASCADE_RULES = (AssignRule(0.5, 0.5), AssignRule(0.6, 0.6), AssignRule(0.7, 0.7))


class Samples(NamedTuple):
    """Chosen candidates, those that are an object's first.

    places: (B, S) int32, among the candidates; owners: (B, S) int32, the place of the object among the image's, 0 where
    there is none; positive: (B, S) bool, whether it is an object's; valid: (B, S) bool, whether it was chosen.
    """

    places: object
    owners: object
    positive: object
    valid: object


class Regions(NamedTuple):
    """Chosen proposals, those that are an object's first.

    boxes: (B, S, 4) xyxy; labels: (B, S) int32, the object's class, -1 for background; targets: (B, S, 4) the object's
    box; owners, positive, valid as of Samples; truth: (B, S) bool, whether it is an object's own box.
    """

    boxes: object
    labels: object
    targets: object
    owners: object
    positive: object
    valid: object
    truth: object


def assign(references, usable, boxes, valid, rule: AssignRule):
    """The object of each candidate -> (B, N) int32: its place among the image's, or BACKGROUND, or NEITHER.

    A candidate takes the object that it overlaps most, the first of equals. By `rule.least` an object then takes all
    candidates that overlap it as much as the best does; of several objects that take one the last has it. One object is
    looked at after the other, so that no table of objects and candidates is needed.

    Args:
        references: (N, 4) or (B, N, 4) xyxy.
        usable: (B, N) bool; others are NEITHER.
        boxes: (B, G, 4) xyxy; valid: (B, G) bool, whether it is an object.
        rule: what overlaps decide.
    """
    references, boxes = (ops.stop_gradient(floats(x)) for x in (references, boxes))
    usable, valid = (ops.cast(x, "bool") for x in (usable, valid))
    if len(references.shape) == 2:
        references = references[None]
    places = ops.arange(ops.shape(boxes)[1], dtype="int32")
    end = ops.max(ops.where(valid, places + 1, 0))  # objects that fill up come last, as a rule
    never = 2.0 if rule.least is None else rule.least

    def unfinished(place, best, owners, taken):
        return place < end

    def look(place, best, owners, taken):
        """best: (B, N) the largest overlap so far, owners: whose it is, taken: who takes it, or -1."""
        here = ops.take(valid, place, 1)[:, None]
        overlap = iou(ops.take(boxes, place, 1)[:, None], references)[:, 0]
        overlap = ops.where(here & usable, overlap, -1.0)
        most = ops.max(overlap, 1, keepdims=True)
        claimed = here & (most >= never) & (overlap == most)
        owners = ops.where(overlap > best, place, owners)
        return place + 1, ops.maximum(best, overlap), owners, ops.where(claimed, place, taken)

    nobody = ops.cast(ops.zeros_like(usable), "int32")
    start = (ops.cast(0, "int32"), ops.cast(nobody, "float32"), nobody, nobody - 1)
    _, best, owners, taken = ops.while_loop(unfinished, look, start)
    owners = ops.where(best >= rule.positive, owners, ops.where(best < rule.negative, BACKGROUND, NEITHER))
    return ops.where(usable, ops.where(taken >= 0, taken, owners), NEITHER)


def largest(uniforms, among, count: int):
    """Places of the `count` largest of those that are `among`: (B, N) -> (B, count) int32, and how many are (B,).

    There may be fewer candidates than places.
    """
    keys = ops.where(among, floats(uniforms), -1.0)
    filling = ops.broadcast_to(ops.cast([[-1.0]], "float32"), (ops.shape(keys)[0], count))
    _, places = stable_top_k(ops.concatenate([keys, filling], 1), count)
    total = ops.sum(ops.cast(among, "int32"), 1)
    return ops.minimum(places, ops.shape(keys)[1] - 1), ops.minimum(total, count)


def sample(owners, uniforms, count: int, most: int) -> Samples:
    """Choose candidates at random: at most `most` that are an object's, and of background what is left of `count`.

    Args:
        owners: (B, N), as `assign` gives them.
        uniforms: (B, N) random numbers from 0 to 1: the largest are chosen.
        count, most: of an image, static.
    """
    owners = ops.cast(owners, "int32")
    positives, found = largest(uniforms, owners >= 0, most)
    negatives, rest = largest(uniforms, owners == BACKGROUND, count)
    slots = ops.arange(count, dtype="int32")[None]
    found = found[:, None]
    positive = slots < found
    valid = slots < found + rest[:, None]
    padding = ops.zeros_like(negatives[:, : count - most])
    positives = ops.concatenate([positives, padding], 1)
    others = ops.take_along_axis(negatives, ops.maximum(slots - found, 0), 1)
    places = ops.where(valid, ops.where(positive, positives, others), 0)
    return Samples(places, ops.where(positive, ops.take_along_axis(owners, places, 1), 0), positive, valid)


def sample_anchors(
    anchors, usable, truths: dict, uniforms, rule: AssignRule = RPN_RULE, count: int = 256, most: int = 128
) -> Samples:
    """The anchors that proposals are trained on.

    Args:
        anchors: (A, 4) xyxy of all levels; usable: (B, A) bool.
        truths: "boxes" (B, G, 4) xyxy, "valid" (B, G).
        uniforms: (B, A) random numbers from 0 to 1.
    """
    return sample(assign(anchors, usable, truths["boxes"], truths["valid"], rule), uniforms, count, most)


def sample_regions(
    proposals, usable, truths: dict, uniforms, rule: AssignRule = REGION_RULE, count: int = 512, most: int = 128
) -> Regions:
    """The regions that heads are trained on: objects' own boxes, which are candidates too, and proposals.

    Boxes without an area, or not finite, are no objects.

    Args:
        proposals: (B, N, 4) xyxy; usable: (B, N) bool.
        truths: "boxes" (B, G, 4) xyxy, "labels" (B, G) from 0, "valid" (B, G).
        uniforms: (B, G + N) random numbers from 0 to 1, of the objects first.
    """
    boxes, space = ops.stop_gradient(floats(truths["boxes"])), area(truths["boxes"])
    valid = ops.cast(truths["valid"], "bool") & (space > 0) & (space < math.inf)
    proposals = ops.stop_gradient(floats(proposals))
    count_of_objects = ops.shape(boxes)[1]
    own = ops.where(valid, ops.arange(count_of_objects, dtype="int32"), NEITHER)
    owners = ops.concatenate([own, assign(proposals, usable, boxes, valid, rule)], 1)
    samples = sample(owners, uniforms, count, most)
    candidates = ops.concatenate([ops.where(valid[..., None], boxes, 0.0), proposals], 1)
    chosen = ops.take_along_axis(candidates, samples.places[..., None], 1)
    labels = ops.take_along_axis(ops.cast(truths["labels"], "int32"), samples.owners, 1)
    targets = ops.take_along_axis(boxes, samples.owners[..., None], 1)
    return Regions(
        boxes=ops.where(samples.valid[..., None], chosen, 0.0),
        labels=ops.where(samples.positive, labels, -1),
        targets=ops.where(samples.positive[..., None], targets, 0.0),
        owners=samples.owners,
        positive=samples.positive,
        valid=samples.valid,
        truth=samples.positive & (samples.places < count_of_objects),
    )
