"""What torchvision and the SSD of RuslanGreenhead/swin_transformer compute for the cases of tests/detection_cases.py:

    git clone https://github.com/RuslanGreenhead/swin_transformer SNAPSHOT
    python tests/reference/detection.py SNAPSHOT

writes detection_*.npz beside this file. Commit 13a0920 made those here, with torch 2.15.0 and torchvision 0.29.2. Its
code is run where it lies; nothing of it is copied. Runs in a process of its own, without Keras.
"""

import pathlib
import sys
import types
import warnings

import numpy as np
import torch
from torchvision.models.detection import _utils as coding
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD as TorchvisionSSD
from torchvision.ops import box_iou
from torchvision.ops import nms as torchvision_nms

FOLDER = pathlib.Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))
import detection_cases as cases  # noqa: E402

for name, contents in {"pycocotools": (), "pycocotools.coco": ("COCO",), "pycocotools.cocoeval": ("COCOeval",)}.items():
    sys.modules[name] = types.ModuleType(name)  # imported there, for metrics that are not needed here
    vars(sys.modules[name]).update(dict.fromkeys(contents))
sys.path.insert(0, str(pathlib.Path(sys.argv[1], "swin_transformer", "detection")))
import ssd  # noqa: E402
import utils  # noqa: E402

SCALES = [0.1, 0.2, 0.375, 0.55, 0.725, 0.9, 1.0]  # the reference's, for torchvision's generator
TORCHVISION_SCALES = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
RATIOS = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
torch.set_num_threads(1)


def columns(boxes):
    """(P, 4) boxes as they become small files."""
    return np.ascontiguousarray(np.asarray(boxes, "float32").T)


def default_boxes():
    """The reference's priors, whole or their sums; torchvision's with both scales."""
    results = {}
    for count, sides in cases.LARGE.items():
        priors = ssd.SSD.generate_priors(None, sides).numpy()
        assert len(priors) == count
        results[f"sums_{count}"] = priors.astype("float64").sum(0)
        results[f"first_{count}"] = priors[:4]
    results["r_ssd"] = columns(ssd.SSD.generate_priors(None, cases.LARGE[8732]))
    square = [[side, side] for side in cases.LARGE[8732]]
    oblong = [list(size) for size in cases.OBLONG]
    fixed = DefaultBoxGenerator(RATIOS, scales=TORCHVISION_SCALES, steps=[8, 16, 32, 64, 100, 300])
    free = DefaultBoxGenerator(RATIOS, scales=SCALES)
    for name, generator in {"fixed": fixed, "free": free}.items():
        results[name] = columns(generator._grid_default_boxes(square, [300, 300]))
        results[f"{name}_oblong"] = columns(generator._grid_default_boxes(oblong, list(cases.OBLONG_IMAGE)))
    return results


def kept(boxes, scores, min_score=0.05, max_overlap=0.45, candidates=400, most=200):
    """Places in (P, K), row by row, that stay of one case, the best first, -1 for none -> (most,)."""
    places, values = [], []
    for label in range(scores.shape[1]):
        own = boxes if boxes.ndim == 2 else boxes[:, label]
        index = torch.where(scores[:, label] > min_score)[0]
        index = index[scores[index, label].sort(stable=True, descending=True)[1]][:candidates]
        index = index[torchvision_nms(own[index], scores[index, label], max_overlap)]
        places.append(index * scores.shape[1] + label)
        values.append(scores[index, label])
    order = torch.cat(values).sort(stable=True, descending=True)[1][:most]
    result = np.full(most, -1, "int16")
    result[: len(order)] = torch.cat(places)[order]
    return result


def suppression():
    results = {}
    for name, shared in {"shared": True, "own": False}.items():
        for i, (boxes, scores) in enumerate(cases.suppression_cases(shared)):
            pairs = zip(torch.from_numpy(boxes), torch.from_numpy(scores), strict=True)
            results[f"{name}_{i}"] = np.stack([kept(*pair, **cases.OPTIONS[i]) for pair in pairs])
    return results


def torchvision_loss(priors, codes, scores, boxes, labels):
    """(box, class) of torchvision's SSD."""
    coder, matcher = coding.BoxCoder((10.0, 10.0, 5.0, 5.0)), coding.SSDMatcher(0.5)
    anchors = utils.cxcy_to_xy(priors)
    nothing = torch.full((len(priors),), -1, dtype=torch.int64)
    matches = [matcher(box_iou(b, anchors)) if len(b) else nothing for b in boxes]
    assert all((m >= 0).sum() * 4 <= len(priors) for m in matches)  # it counts matched priors twice otherwise
    targets = [{"boxes": b, "labels": n} for b, n in zip(boxes, labels, strict=True)]
    model = types.SimpleNamespace(box_coder=coder, neg_to_pos_ratio=3)
    outputs = {"bbox_regression": codes, "cls_logits": scores}
    losses = TorchvisionSSD.compute_loss(model, targets, outputs, [anchors] * len(codes), matches)
    return float(losses["bbox_regression"]), float(losses["classification"])


def losses():
    priors = ssd.SSD.generate_priors(None, cases.MAPS)
    sizes = {"img_size": 1, "threshold": 0.5, "neg_pos_ratio": 3}
    both, classes = (ssd.MultiBoxLoss(priors, alpha=alpha, **sizes) for alpha in (1.0, 0.0))
    rows, gradients, others = [], [], []
    for case in cases.loss_cases(priors):
        codes, scores = (torch.tensor(case[name], requires_grad=True) for name in ("codes", "scores"))
        pairs = list(zip(case["boxes"], case["labels"], case["valid"], strict=True))
        boxes = [torch.from_numpy(b[v]) for b, _, v in pairs]
        labels = [torch.from_numpy(n[v] + 1) for _, n, v in pairs]
        corners_and_sides = [torch.cat([b[:, :2], b[:, 2:] - b[:, :2]], 1) for b in boxes]
        total = both(codes, scores, corners_and_sides, labels)
        total.backward()
        rows.append((float(total), float(classes(codes, scores, corners_and_sides, labels))))
        row = []
        for gradient in (codes.grad, scores.grad):
            values = np.zeros(1) if gradient is None else gradient.double().numpy()
            row += [np.square(values).sum() ** 0.5, (values * cases.pattern(values.shape)).sum()]
        gradients.append(row)
        others.append(torchvision_loss(priors, codes.detach(), scores.detach(), boxes, labels))
    return {"priors": priors.numpy(), "r_ssd": np.array(rows), "gradients": gradients, "torchvision": np.array(others)}


def coded():
    priors, boxes, codes = map(torch.from_numpy, cases.coding_cases())
    coder = coding.BoxCoder((10.0, 10.0, 5.0, 5.0))
    return {
        "encoded": utils.cxcy_to_gcxgcy(utils.xy_to_cxcy(boxes), priors).numpy(),
        "decoded": coder.decode_single(codes, utils.cxcy_to_xy(priors)).numpy(),
        "decoded_without_limit": utils.cxcy_to_xy(utils.gcxgcy_to_cxcy(codes, priors)).numpy(),
        "iou": box_iou(boxes[:40], boxes[40:]).numpy(),
    }


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of arguments that torch has renamed
    for name, make in {"priors": default_boxes, "nms": suppression, "losses": losses, "coding": coded}.items():
        np.savez_compressed(FOLDER / f"detection_{name}.npz", **make())
