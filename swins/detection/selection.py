"""From a detector's raw outputs to its answers: boxes decoded, classes scored, overlapping boxes of a class dropped."""

import keras
from keras import ops

from swins import boxes


class SelectBoxes(keras.layers.Layer):
    """{"boxes": (B, P, 4), "scores": (B, P, K + 1)} as SSD gives them -> what is an answer, in places for `most`.

    {"boxes": (B, most, 4) relative xyxy inside the image, "scores": (B, most) descending, "labels": (B, most) int32,
    -1 in places without a box, "count": (B,) int32}.

    Args:
        priors: (P, 4) default boxes, relative cxcywh.
        min_score: scores of answers are above it; max_overlap: IoU above which the worse of two boxes of a class goes.
        candidates: boxes of a class, the best, that are looked at; most: boxes of an image.
    """

    def __init__(self, priors, *, min_score=0.05, max_overlap=0.45, candidates=400, most=200, **options):
        super().__init__(dtype="float32", **options)
        self.priors = ops.convert_to_numpy(priors).astype("float32")
        self.rule = {"min_score": min_score, "max_overlap": max_overlap, "candidates": candidates, "most": most}

    def call(self, outputs):
        decoded = ops.clip(boxes.decode(ops.cast(outputs["boxes"], "float32"), self.priors), 0.0, 1.0)
        scores = ops.softmax(ops.cast(outputs["scores"], "float32"), axis=-1)[..., 1:]
        kept, scores, labels, count = boxes.nms(decoded, scores, **self.rule)
        return {"boxes": kept, "scores": scores, "labels": labels, "count": count}


def selector(priors, classes: int, **rule) -> keras.Model:
    """SelectBoxes as a model of raw outputs of `classes` classes, to be run on its own."""
    raw = {
        "boxes": keras.Input((len(priors), 4), name="boxes"),
        "scores": keras.Input((len(priors), classes + 1), name="scores"),
    }
    return keras.Model(raw, SelectBoxes(priors, name="select", **rule)(raw), name="selector")


def selecting(model: keras.Model, form: keras.Model | None = None, **rule) -> keras.Model:
    """An SSD whose outputs are its answers: images -> what SelectBoxes gives.

    form: a model that gives the SSD's outputs in its place, such as `swins.deploy` makes.
    """
    form = form or model
    select = SelectBoxes(model.priors, name="select", **rule)
    return keras.Model(form.input, select(form.output), name=f"{model.name}_selecting")
