"""Mask R-CNN on Swin-T in the benchmark: ours, mmdetection's, and torchvision's on timm's Swin, the latter in eager.

Inference is from prepared images to boxes, scores, labels and masks pasted into them, on the host. Weights are drawn by
name, the same for ours and for mmdetection's, and so loud that each image has as many answers as there may be, 100: all
do the same work. Training is one step of AdamW with the samples of the papers, on the same images, boxes and masks.

mmdetection runs in an environment of its own: MMDET_PYTHON names its Python, and PYTHONPATH has a stand-in for mmcv's
operators where these are not built (../shared/oracles/README.md); without it it is left out. RCNN_CANVAS=HEIGHTxWIDTH
is for a try; the table does not say it.
"""

import functools
import importlib
import os
import pathlib
import subprocess
import sys

from contenders import POLICIES, THREADS, torch_update

NAME = "mask_rcnn_swin_tiny_fpn"
CLASSES, OBJECTS = 80, 8  # of an image
CANVASES = {"inference": "800x1216", "training": "512x512"}
RATE, DECAY = 1e-4, 0.05
LOUDER = {"cls_score": 2.0, "cls_logits": 4.0, "mask_fcn_logits": 4.0}  # torchvision's names, as the reference's


def canvas(task):
    """(height, width) in pixels of images; every one fills it."""
    return tuple(map(int, os.environ.get("RCNN_CANVAS", CANVASES[task]).split("x")))


def reference():
    """The module that draws weights and builds mmdetection's network."""
    sys.path.append(str(pathlib.Path(__file__).parents[1] / "tests" / "reference"))
    return importlib.import_module("mask_rcnn_reference")


def pixels(batch, size):
    import numpy as np

    return np.random.default_rng(0).standard_normal((batch, *size, 3), "float32")


def objects(batch, size):
    """(Boxes (batch, OBJECTS, 4) xyxy in pixels, labels (batch, OBJECTS), masks (batch, OBJECTS, H, W)), for all."""
    import numpy as np

    rng = np.random.default_rng(1)
    corner, extent = rng.uniform(0, 0.6, (batch, OBJECTS, 2)), rng.uniform(0.1, 0.4, (batch, OBJECTS, 2))
    boxes = np.concatenate([corner, corner + extent], -1) * [*size[::-1], *size[::-1]]
    y, x = np.ogrid[: size[0], : size[1]]
    left, top, right, bottom = (boxes[..., i, None, None] for i in range(4))
    across, down = ((2 * x + 1 - left - right) / (right - left)), ((2 * y + 1 - top - bottom) / (bottom - top))
    return boxes.astype("float32"), rng.integers(0, CLASSES, (batch, OBJECTS)), across**2 + down**2 < 1


def in_torch(batch, size):
    """The images as PyTorch has them."""
    import torch

    torch.set_num_threads(THREADS)
    return torch.from_numpy(pixels(batch, size)).permute(0, 3, 1, 2).contiguous()


def update(model, loss_of):
    """A step of AdamW: -> the loss."""
    import torch

    return torch_update(model, torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY), loss_of)


# --- mmdetection


def mmdet(precision, task, files):
    import mmcv_ops_stub  # noqa: F401
    import torch
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmdet.utils import register_all_modules
    from mmengine.structures import InstanceData

    register_all_modules()
    source, size = reference(), canvas(task)

    def sample():
        shapes = {"img_shape": size, "ori_shape": size, "pad_shape": size, "batch_input_shape": size}
        return DetDataSample(metainfo={**shapes, "scale_factor": (1.0, 1.0)})

    if task == "training":
        configuration = source.configuration("mask", True)
        configuration.backbone.drop_path_rate = 0.0
        model = MODELS.build(configuration).train()

        def step(batch):
            x, samples = in_torch(batch, size), []
            for boxes, labels, masks in zip(*objects(batch, size), strict=True):
                samples.append(sample())
                samples[-1].gt_instances = InstanceData(
                    bboxes=torch.from_numpy(boxes),
                    labels=torch.from_numpy(labels),
                    masks=BitmapMasks(masks.astype("uint8"), *size),
                )

            def loss_of():
                losses = model.loss(x, samples)
                return sum(sum(v) if isinstance(v, list) else v for name, v in losses.items() if "loss" in name)

            return update(model, loss_of)

        return step
    model = source.network("mask", whole=True)

    def inference(batch):
        x = in_torch(batch, size)

        def run():
            with torch.inference_mode():
                results = model.predict(x, [sample() for _ in range(batch)], rescale=False)
            return [[y.numpy() for y in result.pred_instances.values()] for result in results]

        return run

    return inference


# --- torchvision and timm


def swin_pyramid(size):
    """timm's Swin-T under torchvision's pyramid: images (B, 3, H, W) -> {name: map (B, 256, h, w)}."""
    import timm
    import torch
    from torchvision.models.detection.backbone_utils import LastLevelMaxPool
    from torchvision.ops import FeaturePyramidNetwork

    class Pyramid(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = timm.create_model(
                "swin_tiny_patch4_window7_224", features_only=True, img_size=size, drop_path_rate=0.0
            )
            self.out_channels = 256
            self.fpn = FeaturePyramidNetwork(self.body.feature_info.channels(), 256, extra_blocks=LastLevelMaxPool())

        def forward(self, images):
            maps = self.body(images)
            return self.fpn({str(i): x.permute(0, 3, 1, 2).contiguous() for i, x in enumerate(maps)})

    return Pyramid()


def torchvision(precision, task, files):
    import torch
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    size = canvas(task)
    anchors = AnchorGenerator(tuple((side,) for side in (32, 64, 128, 256, 512)), ((0.5, 1.0, 2.0),) * 5)
    options = {"min_size": min(size), "max_size": max(size), "rpn_anchor_generator": anchors}
    model = MaskRCNN(swin_pyramid(size), CLASSES + 1, **options)
    model.transform.image_mean, model.transform.image_std = [0.0] * 3, [1.0] * 3
    if task == "training":
        model.train()

        def step(batch):
            images, truths = list(in_torch(batch, size)), []
            for boxes, labels, masks in zip(*objects(batch, size), strict=True):
                truth = {"boxes": boxes, "labels": labels + 1, "masks": masks.astype("uint8")}
                truths.append({name: torch.from_numpy(x) for name, x in truth.items()})
            return update(model, lambda: sum(model(images, truths).values()))

        return step
    seeded = reference().seeded
    with torch.no_grad():
        for name, value in model.named_parameters():
            loud = next((loud for part, loud in LOUDER.items() if f"{part}.weight" in name), 1.0)
            value.copy_(loud * torch.from_numpy(seeded(name, tuple(value.shape))))
    model.eval()

    def inference(batch):
        images = list(in_torch(batch, size))

        def run():
            with torch.inference_mode():
                results = model(images)
            return [
                [result[name].numpy() for name in ("boxes", "scores", "labels")] + [masks_of(result)]
                for result in results
            ]

        def masks_of(result):
            return (result["masks"][:, 0] >= 0.5).numpy()

        return run

    return inference


# --- ours


def network(files, dtype="float32"):
    """Our network with the weights that mmdetection's has."""
    import numpy as np

    import swins
    from swins import detector_checkpoints
    from swins.weights import checkpoint_files, detector_layouts

    seeded, file = reference().seeded, pathlib.Path(files, f"{NAME}_{os.getpid()}.safetensors")
    fresh = swins.create(NAME, num_classes=CLASSES)
    state = detector_layouts.in_layout(detector_checkpoints.state_dict(fresh), detector_layouts.MMDET)
    floats = {name: x for name, x in state.items() if np.asarray(x).dtype == "float32"}
    checkpoint_files.write(state | {name: seeded(name, x.shape) for name, x in floats.items()}, file)
    return swins.create(NAME, weights=file, dtype=dtype)


def ours(precision, task, files, saved=False, jit=False, deployed=False):
    import tensorflow as tf

    import swins
    from swins.detection.mask_pasting import paste

    size = canvas(task)
    if task == "training":
        return our_training(precision, size, jit)
    if saved:
        command = [
            sys.executable,
            "-P",
            "-c",
            f"import mask_rcnn_contenders as m; m.save({str(files)!r}, {precision!r})",
        ]
        subprocess.run(command, check=True, stdout=sys.stderr)
        model = tf.saved_model.load(str(pathlib.Path(files, "mask_rcnn")))
        function = model.signatures["serving_default"]
    else:
        model = network(files, POLICIES[precision])
        model = swins.deploy(model) if deployed else model
        sizes = tf.constant([size], "int32")

        @tf.function(autograph=False)
        def function(images):
            return model.detect(images, tf.repeat(sizes, tf.shape(images)[0], 0))

    def inference(batch):
        x = tf.constant(pixels(batch, size))

        def run():
            found = {name: y.numpy() for name, y in function(images=x).items()}
            rows = ({name: y[i, : found["count"][i]] for name, y in found.items() if y.ndim > 1} for i in range(batch))
            return [{**row, "masks": paste(row["masks"], row["boxes"], size)} for row in rows]

        return run

    return inference


def save(files, precision):
    """Write the SavedModel, as `swins export` does."""
    from swins.exports import saved_model_writer
    from swins.task import Part
    from swins.tasks import instances_export

    model = instances_export.answering(network(files, POLICIES[precision]), {})
    part = Part("detections", lambda: model, trains=False)
    saved_model_writer.save(model, None, pathlib.Path(files, "mask_rcnn"), part)


def our_training(precision, size, jit):
    import numpy as np

    import swins
    from swins.recipes import AdamW
    from swins.tasks.instances import INSTANCES, Instances, Model, random_numbers
    from swins.train.loop import compile_trainee
    from swins.train.trainee import Trainee

    optim = AdamW(learning_rate=RATE, per_images=0, weight_decay=DECAY, clip_norm=0.0)
    recipe = Instances(model=Model(NAME, compile=jit, drop_path_rate=0.0), optim=optim)
    model = swins.create(NAME, num_classes=CLASSES, drop_path_rate=0.0, dtype=POLICIES[precision])
    numbers, places = random_numbers(model, recipe.loss.rule(1), recipe.data.objects), recipe.data.objects
    model = Trainee(model, INSTANCES, recipe)
    compile_trainee(model, recipe, 1000)

    def step(batch):
        boxes, labels, masks = objects(batch, size)
        truths = {"boxes": boxes, "labels": labels, "valid": np.ones(labels.shape, bool)}
        truths["masks"] = np.packbits(masks, -1, bitorder="little")
        truths = {
            name: np.pad(x, [(0, 0), (0, places - OBJECTS)] + [(0, 0)] * (x.ndim - 2)) for name, x in truths.items()
        }
        truths["sizes"] = np.int32([size] * batch)
        rows = [numbers(size, np.random.default_rng(i)) for i in range(batch)]
        truths |= {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        x = pixels(batch, size)
        return lambda: model.train_on_batch(x, truths)

    return step


swins_graph = ours
swins_saved, swins_deployed = functools.partial(ours, saved=True), functools.partial(ours, deployed=True)
