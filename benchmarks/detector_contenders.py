"""Detectors in the benchmark: ours, and RuslanGreenhead/swin_transformer's in eager PyTorch.

SSD_REFERENCE names a clone of that repository, bare or not, which is run from a temporary copy; without it its part
fails, and is left out. Both train on the same images, boxes and settings: backward, gradients' norm, one update.
"""

import functools
import importlib
import os
import subprocess
import sys
import tempfile
import types

from contenders import POLICIES, THREADS, pixels, torch_update

CLASSES = 80
VARIANTS = {"resnet": "ssd300_resnet50_b", "swin": "ssd336_swin_tiny_b"}
SIDES = {"resnet": 300, "swin": 336}
OBJECTS = 8  # of an image


def objects(batch):
    """(Boxes (batch, OBJECTS, 4) xyxy from 0 to 1, labels (batch, OBJECTS) from 0) that are the same for all."""
    import numpy as np

    rng = np.random.default_rng(1)
    corner, extent = rng.uniform(0, 0.6, (batch, OBJECTS, 2)), rng.uniform(0.1, 0.4, (batch, OBJECTS, 2))
    boxes = np.concatenate([corner, corner + extent], -1).astype("float32")
    return boxes, rng.integers(0, CLASSES, (batch, OBJECTS))


def reference_modules():
    """Its (backbones, ssd), from a copy that goes with the process."""
    folder = tempfile.TemporaryDirectory()
    archive = subprocess.run(
        ["git", "-C", os.environ["SSD_REFERENCE"], "archive", "HEAD"], check=True, capture_output=True
    )
    subprocess.run(["tar", "-x", "-C", folder.name], input=archive.stdout, check=True)
    for name in ("pycocotools", "pycocotools.coco", "pycocotools.cocoeval"):  # imported there, and of no use here
        sys.modules[name] = types.ModuleType(name)
    sys.modules["pycocotools.coco"].COCO = sys.modules["pycocotools.cocoeval"].COCOeval = None
    sys.path[:0] = [f"{folder.name}/swin_transformer/detection", f"{folder.name}/swin_transformer"]
    made = importlib.import_module("backbones"), importlib.import_module("ssd")
    return *made, folder


def reference(kind, precision, task, files):
    import torch

    torch.set_num_threads(THREADS)
    backbones, ssd, folder = reference_modules()
    side = SIDES[kind]
    if kind == "resnet":
        backbone = backbones.ResNet50Backbone_B(img_size=side, weights=None)
    else:
        import yaml

        with open(f"{folder.name}/swin_transformer/configs/detection_ssd_SwinT.yaml") as file:
            configuration = yaml.safe_load(file)
        configuration["model"]["image_size"], configuration["model"]["swin"]["drop_path"] = side, 0.0
        backbone = backbones.SwinTBackbone_B(weights=None, cfg=configuration)
    model = ssd.SSD(backbone, CLASSES + 1, side)

    def images(batch):
        return torch.from_numpy(pixels(batch, side)).permute(0, 3, 1, 2).contiguous()

    if task == "training":
        model.train()
        loss_of = ssd.MultiBoxLoss(model.priors_cxcy, side)
        optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9, weight_decay=5e-4)

        def step(batch):
            x, (boxes, labels) = images(batch), objects(batch)
            boxes[..., 2:] -= boxes[..., :2]  # COCO's, in pixels
            boxes, labels = list(torch.from_numpy(side * boxes)), list(torch.from_numpy(labels + 1))
            return torch_update(model, optimizer, lambda: loss_of(*model(x), boxes, labels), clip=5.0)

        return step
    model.eval()

    def inference(batch):
        x = images(batch)

        def run():
            with torch.inference_mode():
                return [y.numpy() for y in model(x)]

        return run

    return inference


def ours(kind, precision, task, files, jit=False, deployed=False):
    import numpy as np
    import tensorflow as tf

    import swins

    name, side = VARIANTS[kind], SIDES[kind]
    options = {"dtype": POLICIES[precision]} | ({"drop_path_rate": 0.0} if kind == "swin" else {})
    if task == "training":
        from swins.recipes import Sgd
        from swins.tasks.detection import DETECTION, Detection, Model
        from swins.train.loop import compile_trainee
        from swins.train.trainee import Trainee

        sgd = Sgd(learning_rate=1e-4, weight_decay=5e-4, clip_norm=5.0)
        recipe = Detection(model=Model(name, compile=jit), optim=sgd)
        model = Trainee(swins.create(name, num_classes=CLASSES, **options), DETECTION, recipe)
        compile_trainee(model, recipe, 1000)

        def step(batch):
            boxes, labels = objects(batch)
            truths = {"boxes": boxes, "labels": labels, "valid": np.ones(labels.shape, bool)}
            x = pixels(batch, side)
            return lambda: model.train_on_batch(x, truths)

        return step
    model = swins.create(name, num_classes=CLASSES, **options)
    model = swins.deploy(model) if deployed else model
    function = tf.function(lambda images: model(images, training=False), jit_compile=jit)

    def inference(batch):
        x = tf.constant(pixels(batch, side))
        return lambda: {name: y.numpy() for name, y in function(x).items()}

    return inference


def suppression(precision, task, files):
    """Decoding and NMS alone, of outputs of 80 classes as a trained detector's: a few high scores, the others low."""
    import numpy as np
    import tensorflow as tf

    import swins
    from swins.detection.selection import selector

    model = swins.create(VARIANTS["resnet"], num_classes=CLASSES)
    rng = np.random.default_rng(0)
    select = selector(model.priors, CLASSES)
    function = tf.function(lambda boxes, scores: select({"boxes": boxes, "scores": scores}, training=False))

    def inference(batch):
        count = len(model.priors)
        scores = rng.normal(0, 1, (batch, count, CLASSES + 1)).astype("float32")
        scores[..., 0] += 8
        chosen = rng.random((batch, count)) < 0.02
        scores[chosen, rng.integers(1, CLASSES + 1, chosen.sum())] += 10
        boxes = rng.normal(0, 0.5, (batch, count, 4)).astype("float32")
        boxes, scores = tf.constant(boxes), tf.constant(scores)
        return lambda: {name: y.numpy() for name, y in function(boxes, scores).items()}

    return inference


reference_resnet, reference_swin = (functools.partial(reference, kind) for kind in VARIANTS)
swins_resnet, swins_swin = (functools.partial(ours, kind) for kind in VARIANTS)
swins_resnet_xla, swins_swin_xla = (functools.partial(ours, kind, jit=True) for kind in VARIANTS)
deployed_resnet, deployed_swin = (functools.partial(ours, kind, deployed=True) for kind in VARIANTS)
