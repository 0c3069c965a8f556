"""Mask R-CNN (arXiv:1703.06870) and Cascade Mask R-CNN (arXiv:1712.00726) on any feature pyramid.

Boxes are float32 xyxy in pixels of the images as they come: a batch's canvas. Letters: B images, (H, W) cells of a map,
C channels, A anchors of a map, N regions of an image, K classes.
"""

import itertools
from dataclasses import asdict

import keras
from keras import ops

from swins.changes import RecordedParts
from swins.detection.anchors import PER_CELL, anchors
from swins.detection.box_deltas import CASCADE_STDS, REGION_STDS
from swins.detection.feature_pyramid import FeaturePyramid
from swins.detection.proposal_network import ProposalHead
from swins.detection.proposals import refine, select_detections, select_proposals
from swins.detection.region_heads import BOX_SIDE, MASK_SIDE, BoxHead, ConvBoxHead, MaskHead
from swins.detection.roi_align import ADAPTIVE, roi_align
from swins.errors import SwinsError, unknown_name
from swins.rcnn_numbers import rcnn_numbers, stride_of

PROPOSALS = {"candidates": 1000, "most": 1000, "max_overlap": 0.7}  # of an image, at inference
SELECTION = {"min_score": 0.05, "max_overlap": 0.5, "most": 100}


def of_pyramid(pyramid, levels):
    """A pyramid with the maps of `levels` alone -> (keras.Model, names of the maps, fine to coarse).

    Raises:
        SwinsError: no functional model of one input and {name: map}, unknown levels, names that are not of consecutive
            strides.
    """
    outputs = getattr(pyramid, "output", None) if isinstance(pyramid, keras.Model) else None
    if not (isinstance(outputs, dict) and outputs and len(pyramid.inputs) == 1):
        raise SwinsError(
            "a Mask R-CNN stands on a functional Keras model of images -> {level: map}, as swins.backbone gives; got "
            f"{pyramid!r}; make one: keras.Model(images, {{'P3': map, ...}})"
        )
    for name in levels or ():
        if name not in outputs:
            raise unknown_name("level", name, list(outputs))
    names = levels or sorted(outputs, key=stride_of)
    strides = [stride_of(name) for name in names]
    if any(2 * fine != coarse for fine, coarse in itertools.pairwise(strides)):
        raise SwinsError(
            f"each level has twice the stride of the one before; got {', '.join(names)}; give levels such as "
            '("P3", "P4", "P5")'
        )
    for name in names:
        if len(outputs[name].shape) != 4 or outputs[name].shape[-1] is None:
            raise SwinsError(f"a map of a pyramid is (B, H, W, C) of a known C; {name} is {outputs[name].shape}")
    if set(names) != set(outputs):
        pyramid = keras.Model(pyramid.inputs[0], {name: outputs[name] for name in names}, name=pyramid.name)
    return pyramid, tuple(names)


def usable(found):
    """Which places of an image hold a box: {"boxes": (B, N, 4), "count": (B,)} -> (B, N) booleans."""
    return ops.arange(found["boxes"].shape[1], dtype="int32") < found["count"][:, None]


@keras.saving.register_keras_serializable("swins")
class MaskRCNN(RecordedParts):
    """Mask R-CNN: images (B, height, width, channels) -> what its heads need, {"maps", "objectness", "deltas"}.

    Maps are those of the feature pyramid, [(B, H, W, width)] fine to coarse; objectness [(B, A)], before the sigmoid,
    and deltas [(B, A, 4)] are of each map's anchors, float32. Height and width are any multiples of the stride of the
    pyramid's last map, 32 on a whole Swin, if it is open: images of one batch are padded with zeros at their bottom
    and right.

    `detect` gives answers. Training calls the parts in its own order: the model, `propose`, and for regions that it
    samples `classify` and `segment`; `strides` and `stds` are what its targets need.

    Args:
        pyramid: a functional Keras model of images -> {"P2": map, ...}, Pn of stride 2**n: what `swins.backbone` gives
            (`norms=True` of a Swin), or your own. Its weights are shared.
        num_classes: K, classes without background.
        masks: False for boxes alone (Faster R-CNN, arXiv:1506.01497).
        width: channels of the feature pyramid and of the heads.
        hidden: units of the box head's dense layers.
        extra_levels: coarser maps after the pyramid's, for proposals alone.
        levels: the pyramid's maps that are used, fine to coarse, such as ("P3", "P4"); None for all.
        dtype: a Keras dtype policy of all but the pyramid, which keeps its own; what heads give stays float32.
        frozen: layers that do not train: their names, or paths of what is in them.
        changed: what was done to layers later, as `get_config` tells it.

    Raises:
        SwinsError: a pyramid that is none, or whose levels are not each half as large as the one before.

    Example:
    >>> import swins
    >>> pyramid = swins.backbone("swin_mini_patch2_window4_28", image_size=(None, None), norms=True)
    >>> model = MaskRCNN(pyramid, num_classes=10, width=32, hidden=64)
    >>> found = model.detect(keras.ops.zeros((1, 64, 96, 1)), [[60, 90]])
    >>> tuple(found["boxes"].shape), tuple(found["masks"].shape)
    ((1, 100, 4), (1, 100, 28, 28))
    """

    KIND = "Mask R-CNN"
    BOX_HEAD = BoxHead
    STDS = (REGION_STDS,)  # of each stage's deltas

    def __init__(self, pyramid, *, name=None, dtype=None, frozen=(), changed=None, **numbers):
        super().__init__(name=name)
        self.numbers = numbers = rcnn_numbers(numbers)
        self.policy = policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy()).name
        if isinstance(pyramid, dict):
            pyramid = keras.saving.deserialize_keras_object(pyramid)
        self.backbone, self.levels = of_pyramid(pyramid, numbers.levels)
        first = stride_of(self.levels[0])
        self.strides = tuple(first * 2**i for i in range(len(self.levels) + numbers.extra_levels))

        self.neck = FeaturePyramid(numbers.width, numbers.extra_levels, name="neck", dtype=policy)
        self.neck.build([tuple(self.backbone.output[level].shape) for level in self.levels])
        maps = [(None, None, None, numbers.width)] * len(self.strides)
        self.rpn_head = ProposalHead(PER_CELL, name="rpn_head", dtype=policy)
        self.rpn_head.build(maps)
        self.box_heads = [
            self.BOX_HEAD(numbers.num_classes, numbers.hidden, name=f"bbox_head{ending}", dtype=policy)
            for ending in self.endings
        ]
        self.mask_heads = [
            MaskHead(numbers.num_classes, name=f"mask_head{ending}", dtype=policy)
            for ending in (self.endings if numbers.masks else ())
        ]
        for heads, side in ((self.box_heads, BOX_SIDE), (self.mask_heads, MASK_SIDE)):
            for head in heads:
                head.build((None, None, side, side, numbers.width))
        self.built = True
        self.record(frozen, changed)

    @property
    def endings(self) -> tuple:
        """What the names of the stages' heads end in."""
        return ("",) if len(self.STDS) == 1 else tuple(f"_{i}" for i in range(len(self.STDS)))

    @property
    def stds(self) -> tuple:
        """What the deltas of each stage are divided by."""
        return self.STDS

    @property
    def image_size(self) -> tuple:
        """(height, width) of the images, in pixels; (None, None) for any."""
        return tuple(self.backbone.inputs[0].shape[1:3])

    @property
    def input(self):
        """The images, symbolic, as functional models have them."""
        return self.backbone.inputs[0]

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        return self.backbone.inputs[0].shape[-1]

    @property
    def multiple(self) -> int:
        """Pixels that sides of images are multiples of: the stride of the pyramid's last map."""
        return self.strides[len(self.levels) - 1]

    def check_images(self, shape):
        """Raise SwinsError if images of this shape (B, height, width, channels) cannot go through the model."""
        sides = [side for side in shape[1:3] if side is not None]
        if len(shape) == 4 and any(side % self.multiple or not side for side in sides):
            raise SwinsError(
                f"{self.name} takes images whose sides are multiples of {self.multiple} pixels, for maps are halved; "
                f"got {tuple(shape[1:3])}; pad them with zeros at the bottom and right"
            )

    def __call__(self, images, *args, **kwargs):
        self.check_images(tuple(getattr(images, "shape", ())))
        return super().__call__(images, *args, **kwargs)

    def call(self, images, training=None):
        features = self.backbone(images, training=training)
        maps = self.neck([features[level] for level in self.levels])
        objectness, deltas = self.rpn_head(maps)
        return {"maps": maps, "objectness": objectness, "deltas": deltas}

    def anchors(self, outputs) -> list:
        """xyxy anchors of each map of the model's outputs, [(A, 4)]."""
        return anchors([ops.shape(x)[1:3] for x in outputs["maps"]], self.strides)

    def propose(self, outputs, sizes, **rule) -> dict:
        """Regions that may hold an object: {"boxes": (B, most, 4), "scores": (B, most) falling, "count": (B,)}.

        Args:
            outputs: the model's.
            sizes: (B, 2) height and width in pixels of the images without their padding, within which boxes end.
            rule: `select_proposals`'s: candidates of a map, most of an image, max_overlap.
        """
        options = {**PROPOSALS, **rule}
        return select_proposals(outputs["objectness"], outputs["deltas"], self.anchors(outputs), sizes, **options)

    def regions(self, outputs, boxes, side, sampling=ADAPTIVE):
        """Features of regions (B, N, 4) -> (B, N, side, side, width), of the map that fits each one's size."""
        count = len(self.levels)
        return roi_align(outputs["maps"][:count], boxes, side, sampling=sampling, strides=self.strides[:count])

    def classify(self, outputs, boxes, stage=0, *, sampling=ADAPTIVE, training=None) -> tuple:
        """The box head on regions (B, N, 4) -> logits (B, N, K + 1), the background's last, deltas (B, N, 4K).

        Args:
            outputs: the model's.
            boxes: of the regions, xyxy.
            stage: whose head; a cascade has three.
            sampling: points of RoIAlign along a side of a bin; ADAPTIVE: as many as there are pixels.
            training: whether batch norms train.
        """
        regions = self.regions(outputs, boxes, BOX_SIDE, sampling)
        return self.box_heads[stage](regions, training=training)

    def segment(self, outputs, boxes, stage=0, *, sampling=ADAPTIVE):
        """The mask head on regions (B, N, 4) -> logits (B, N, 28, 28, K); arguments as `classify`'s."""
        return self.mask_heads[stage](self.regions(outputs, boxes, MASK_SIDE, sampling))

    def scored(self, outputs, proposals, sizes) -> tuple:
        """Regions as the last stage has them, and what it says -> (boxes (B, N, 4), logits, deltas)."""
        return (proposals["boxes"], *self.classify(outputs, proposals["boxes"]))

    def mask_probabilities(self, outputs, boxes, labels):
        """Masks of regions (B, N, 4) for their labels (B, N) -> (B, N, 28, 28), from 0 to 1."""
        place = ops.maximum(labels, 0)[..., None, None, None]
        regions = self.regions(outputs, boxes, MASK_SIDE)
        masks = [ops.sigmoid(head(regions)) for head in self.mask_heads]
        own = [ops.take_along_axis(mask, place, -1)[..., 0] for mask in masks]
        return sum(own[1:], own[0]) / len(own)

    def detect(self, images, sizes, *, proposals=None, **selection) -> dict:
        """Objects in images; all shapes are static but for B, height and width.

        Args:
            images: (B, height, width, channels), padded.
            sizes: (B, 2) height and width in pixels of each without its padding.
            proposals: {option: value} of `propose`.
            selection: min_score, max_overlap, most: see `select_detections`.

        Returns:
            {"boxes": (B, most, 4) xyxy in pixels of `images`, "scores": (B, most) falling, "labels": (B, most) int32,
            -1 where there is none, "count": (B,) int32, and with masks "masks": (B, most, 28, 28) probabilities within
            each box, for `swins.detection.mask_pasting`}.
        """
        return self.decide(self(images, training=False), sizes, proposals=proposals, **selection)

    def decide(self, outputs, sizes, *, proposals=None, **selection) -> dict:
        """The same from the model's outputs."""
        sizes = ops.cast(sizes, "float32")
        found = self.propose(outputs, sizes, **(proposals or {}))
        boxes, logits, deltas = self.scored(outputs, found, sizes)
        options = {"stds": self.STDS[-1], **SELECTION, **selection}
        answers = select_detections(boxes, usable(found), logits, deltas, sizes, **options)
        if self.mask_heads:
            masks = self.mask_probabilities(outputs, answers["boxes"], answers["labels"])
            kept = usable(answers)[..., None, None]
            answers["masks"] = ops.where(kept, masks, 0.0)
        return answers

    def get_config(self):
        pyramid = keras.saving.serialize_keras_object(self.backbone)
        config = {"pyramid": pyramid, **asdict(self.numbers), "name": self.name, "dtype": self.policy}
        return {**config, **self.get_changes()}


@keras.saving.register_keras_serializable("swins")
class CascadeMaskRCNN(MaskRCNN):
    """Cascade Mask R-CNN (arXiv:1712.00726): three box heads, each on the boxes that the one before has moved.

    As MaskRCNN, but for its box heads, of four convolutions with batch norms and a dense layer, as
    SwinTransformer/Swin-Transformer-Object-Detection has them. Logits are averaged over the stages, boxes are the last
    stage's, masks are averaged after the sigmoid. `classify` and `segment` take the stage, 0 to 2.

    Example:
    >>> import swins
    >>> pyramid = swins.backbone("swin_mini_patch2_window4_28", image_size=(None, None), norms=True)
    >>> model = CascadeMaskRCNN(pyramid, num_classes=10, width=16, hidden=16)
    >>> tuple(model.detect(keras.ops.zeros((1, 64, 64, 1)), [[64, 64]])["scores"].shape)
    (1, 100)
    """

    KIND = "Cascade Mask R-CNN"
    BOX_HEAD = ConvBoxHead
    STDS = CASCADE_STDS

    def scored(self, outputs, proposals, sizes):
        boxes, everything = proposals["boxes"], []
        for stage, stds in enumerate(self.STDS):
            logits, deltas = self.classify(outputs, boxes, stage)
            everything.append(logits)
            if stage < len(self.STDS) - 1:
                boxes = refine(boxes, logits, deltas, sizes, stds)
        return boxes, sum(everything[1:], everything[0]) / len(everything), deltas


@keras.saving.register_keras_serializable("swins")
class Detecting(keras.Model):
    """A network's answers as a model: {"images", "sizes"} -> what `MaskRCNN.detect` gives, for export and prediction.

    Args:
        network: a MaskRCNN.
        selection: {option: value} of `MaskRCNN.detect`.
    """

    def __init__(self, network, selection=None, **kwargs):
        super().__init__(**kwargs)
        if isinstance(network, dict):
            network = keras.saving.deserialize_keras_object(network)
        self.network, self.selection = network, dict(selection or {})
        self.built = True

    def call(self, inputs):
        return self.network.detect(inputs["images"], inputs["sizes"], **self.selection)

    def get_config(self):
        network = keras.saving.serialize_keras_object(self.network)
        return {"network": network, "selection": dict(self.selection), "name": self.name}
