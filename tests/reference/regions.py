"""What mmdet and torchvision compute for the cases of tests/region_cases.py: python tests/reference/regions.py

writes regions.npz beside this file. Made with mmdet 3.3.0, torch 2.15.0 and torchvision 0.29.2, in the environment and
with the stand-in for mmcv's operators (`mmcv_ops_stub`, on PYTHONPATH) that ../shared/oracles/README.md describes.
Runs in a process of its own, without Keras.
"""

import pathlib
import sys
import warnings

import mmcv_ops_stub  # noqa: F401
import numpy as np
import torch
import torchvision
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

warnings.simplefilter("ignore")
from mmdet.models.dense_heads import RPNHead  # noqa: E402
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead  # noqa: E402
from mmdet.models.roi_heads.mask_heads import FCNMaskHead  # noqa: E402
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask  # noqa: E402
from mmdet.models.task_modules.assigners import MaxIoUAssigner  # noqa: E402
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder  # noqa: E402
from mmdet.models.task_modules.prior_generators import AnchorGenerator  # noqa: E402
from mmdet.models.task_modules.prior_generators.utils import anchor_inside_flags  # noqa: E402
from mmdet.models.task_modules.samplers import RandomSampler  # noqa: E402
from mmdet.structures.mask import BitmapMasks  # noqa: E402
from mmdet.utils import register_all_modules  # noqa: E402

FOLDER = pathlib.Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))
import region_cases as cases  # noqa: E402

register_all_modules()
torch.set_num_threads(1)
STDS = {"rpn": (1.0, 1.0, 1.0, 1.0), "region": (0.1, 0.1, 0.2, 0.2), "cascade": (0.033, 0.033, 0.067, 0.067)}
RULES = {  # positive, negative, least, whether an object takes what it overlaps most
    "rpn": (0.7, 0.3, 0.3, True),
    "region": (0.5, 0.5, 0.5, True),
    "cascade": (0.7, 0.7, 0.7, False),
}
generator = AnchorGenerator(strides=[4, 8, 16, 32, 64], ratios=[0.5, 1.0, 2.0], scales=[8])


class Sampler(RandomSampler):
    """Takes those whose given random numbers are the largest."""

    uniforms = None

    def random_choice(self, gallery, num):
        return gallery[self.uniforms[gallery].argsort(descending=True)[:num]]


def assigner(rule):
    positive, negative, least, low = RULES[rule]
    options = {"min_pos_iou": least, "match_low_quality": low, "ignore_iof_thr": -1}
    return MaxIoUAssigner(pos_iou_thr=positive, neg_iou_thr=negative, **options)


def tensor(x):
    return torch.from_numpy(np.ascontiguousarray(x))


def truth(case, i):
    valid = case["valid"][i]
    return InstanceData(bboxes=tensor(case["boxes"][i][valid]), labels=tensor(case["labels"][i][valid]))


def anchor_results():
    results = {}
    for case, (maps, sizes) in enumerate(cases.anchor_cases()):
        anchors = torch.cat(generator.grid_priors(maps, device="cpu"))
        flags = []
        for height, width in sizes.tolist():
            padded = [-(-height // 32) * 32, -(-width // 32) * 32]
            usable = torch.cat(generator.valid_flags(maps, padded, "cpu"))
            flags += [usable, anchor_inside_flags(anchors, usable, (height, width), 0)]
        results[f"anchors_{case}"] = anchors.numpy()
        results[f"usable_{case}"] = np.packbits(torch.stack(flags).numpy(), axis=1)
    return results


def delta_results():
    case, results = {name: tensor(x) for name, x in cases.delta_cases().items()}, {}
    for name, stds in STDS.items():
        coder = DeltaXYWHBBoxCoder(target_stds=stds)
        results[f"encoded_{name}"] = coder.encode(case["references"], case["boxes"]).numpy()
        results[f"decoded_{name}"] = coder.decode(case["references"], case["deltas"]).numpy()
        rows = [
            coder.decode(case["references"][i : i + 1], case["deltas"][i : i + 1], max_shape=tuple(size.tolist()))
            for i, size in enumerate(case["sizes"])
        ]
        results[f"clipped_{name}"] = torch.cat(rows).numpy()
    return results


def assignment_results():
    case = cases.assignment_cases()
    results = {}
    for name in RULES:
        owners, chosen = [], []
        for i in range(200):
            usable = case["usable"][i]
            priors = InstanceData(priors=tensor(case["references"][i][usable]))
            result = assigner(name).assign(priors, truth(case, i))
            row = np.full(40, -2)
            row[usable] = np.where(
                result.gt_inds.numpy() > 0, result.gt_inds.numpy() - 1, -1 - (result.gt_inds < 0).numpy()
            )
            owners.append(row)
            added, valid = name != "rpn", case["valid"][i]
            places = np.concatenate([np.flatnonzero(valid), 5 + np.flatnonzero(usable)])[0 if added else valid.sum() :]
            sampler = Sampler(cases.COUNT, cases.MOST / cases.COUNT, add_gt_as_proposals=added)
            sampler.uniforms = tensor(case["uniforms"][i][places])
            sampled = sampler.sample(result, priors, truth(case, i))
            row = np.zeros(45)
            row[places[sampled.pos_inds.numpy()]], row[places[sampled.neg_inds.numpy()]] = 1, 2
            chosen.append(row)
        results[f"owners_{name}"], results[f"chosen_{name}"] = np.int8(owners), np.int8(chosen)
    return results


def rpn(loss, border):
    train = {
        "assigner": {"type": "MaxIoUAssigner", "pos_iou_thr": 0.7, "neg_iou_thr": 0.3, "min_pos_iou": 0.3},
        "sampler": {"type": "RandomSampler", "num": 32, "pos_fraction": 0.25, "add_gt_as_proposals": False},
        "allowed_border": border,
        "pos_weight": -1,
    }
    head = RPNHead(
        in_channels=4,
        feat_channels=4,
        anchor_generator={
            "type": "AnchorGenerator",
            "scales": [8],
            "ratios": [0.5, 1, 2],
            "strides": [4, 8, 16, 32, 64],
        },
        bbox_coder={"type": "DeltaXYWHBBoxCoder", "target_stds": [1.0] * 4},
        loss_cls={"type": "CrossEntropyLoss", "use_sigmoid": True},
        loss_bbox=loss,
        train_cfg=ConfigDict(train),
        test_cfg=ConfigDict(nms_pre=30, max_per_img=25, nms={"type": "nms", "iou_threshold": 0.7}, min_bbox_size=0),
    )
    head.sampler = Sampler(32, 0.25, add_gt_as_proposals=False)
    return head


def levels(x, channels):
    """(B, A * channels) of anchors as mmdet's maps, (B, 3 * channels, rows, columns) each."""
    maps, start = [], 0
    for rows, columns in cases.MAPS:
        part = x[:, start : start + 3 * rows * columns].reshape(len(x), rows, columns, 3 * channels)
        maps.append(tensor(part.transpose(0, 3, 1, 2)))
        start += 3 * rows * columns
    return maps


def box_head(stds, loss, decoded):
    coder = {"type": "DeltaXYWHBBoxCoder", "target_stds": stds}
    sizes = {"in_channels": 4, "fc_out_channels": 4, "roi_feat_size": 7, "num_classes": cases.CLASSES}
    return Shared2FCBBoxHead(**sizes, bbox_coder=coder, reg_decoded_bbox=decoded, loss_bbox=loss)


class EachInTurn(Sampler):
    """As Sampler, for the images of a batch one after the other; uniforms are of all anchors."""

    def sample(self, *args, **more):
        self.uniforms = self.rows.pop(0)
        return super().sample(*args, **more)


def loss_results():
    rows = []
    heads = [rpn({"type": "L1Loss"}, -1), rpn({"type": "SmoothL1Loss", "beta": 1 / 9}, 0)]
    plain = box_head(STDS["region"], {"type": "L1Loss"}, False)
    decoded = box_head(STDS["cascade"], {"type": "GIoULoss", "loss_weight": 10.0}, True)
    masks = FCNMaskHead(in_channels=4, conv_out_channels=4, num_classes=cases.CLASSES)
    config = ConfigDict(pos_weight=-1, mask_size=28)
    anchors = torch.cat(generator.grid_priors(cases.MAPS, device="cpu"))
    targets = []
    for case in cases.loss_cases():
        truths = [truth(case["truths"], i) for i in range(2)]
        metas = [
            {"img_shape": (h, w), "pad_shape": (-(-h // 32) * 32, -(-w // 32) * 32)} for h, w in case["sizes"].tolist()
        ]
        row = []
        for head, border in zip(heads, (-1, 0), strict=True):
            usable = [torch.cat(generator.valid_flags(cases.MAPS, m["pad_shape"], "cpu")) for m in metas]
            usable = [
                anchor_inside_flags(anchors, u, m["img_shape"], border) for u, m in zip(usable, metas, strict=True)
            ]
            head.sampler = EachInTurn(32, 0.25, add_gt_as_proposals=False)
            head.sampler.rows = [tensor(case["anchor_uniforms"][i])[u] for i, u in enumerate(usable)]
            outputs = levels(case["logits"][..., None], 1), levels(case["deltas"], 4)
            anything = [
                InstanceData(bboxes=x.bboxes, labels=torch.zeros_like(x.labels)) for x in truths
            ]  # as its RPN's
            losses = head.loss_by_feat(*outputs, anything, metas)
            row += [float(sum(losses[name])) for name in ("loss_rpn_cls", "loss_rpn_bbox")]
        for head, rule in ((plain, "region"), (decoded, "cascade")):
            samples, logits, deltas, mask_logits = [], [], [], []
            for i in range(2):
                valid = case["truths"]["valid"][i]
                priors = InstanceData(priors=tensor(case["proposals"][i]))
                sampler = Sampler(cases.COUNT, cases.MOST / cases.COUNT)
                sampler.uniforms = tensor(case["uniforms"][i][np.concatenate([valid, np.ones(30, bool)])])
                result = sampler.sample(assigner(rule).assign(priors, truths[i]), priors, truths[i])
                samples.append(result)
                # ours has positives in the order of falling random numbers, background likewise
                order = [
                    sampler.uniforms[x].argsort(descending=True).argsort() for x in (result.pos_inds, result.neg_inds)
                ]
                order = torch.cat([order[0], len(order[0]) + order[1]])
                logits.append(tensor(case["class_logits"][i])[order])
                deltas.append(tensor(case["class_deltas"][i])[order])
                own = tensor(case["mask_logits"][i])[order[: len(result.pos_inds)]]
                mask_logits.append(own.permute(0, 3, 1, 2))
                truths[i].masks = BitmapMasks(case["truths"]["masks"][i][valid], *cases.CANVAS)
            rois = torch.cat(
                [torch.cat([torch.full((len(r.priors), 1), i), r.priors], 1) for i, r in enumerate(samples)]
            )
            losses = head.loss_and_target(torch.cat(logits), torch.cat(deltas), rois, samples, config)["loss_bbox"]
            result = masks.loss_and_target(torch.cat(mask_logits), samples, truths, config)
            row += [float(losses["loss_cls"]), float(losses["loss_bbox"]), float(result["loss_mask"]["loss_mask"])]
            targets.append(result["mask_targets"].sum())
        rows.append(row)
    return {"losses": np.array(rows), "target_sums": np.array(targets).reshape(200, 2)}


def padded(rows, most, fill=0.0):
    return np.stack([np.concatenate([r, np.full((most - len(r), *r.shape[1:]), fill, r.dtype)]) for r in rows])


def proposal_results():
    case, head, rows = cases.proposal_cases(), rpn({"type": "L1Loss"}, -1), []
    priors = generator.grid_priors(cases.MAPS, device="cpu")
    for i in range(200):
        logits = [x[0] for x in levels(case["logits"][i : i + 1, :, None], 1)]
        deltas = [x[0] for x in levels(case["deltas"][i : i + 1], 4)]
        meta = {"img_shape": tuple(case["sizes"][i].tolist())}
        rows.append(head._predict_by_feat_single(logits, deltas, None, priors, meta, head.test_cfg))
    most = cases.PROPOSALS["most"]
    return {
        "proposals": padded([r.bboxes.numpy() for r in rows], most),
        "proposal_scores": padded([r.scores.numpy() for r in rows], most),
        "proposal_counts": np.array([len(r.scores) for r in rows]),
    }


def detection_results():
    case, head, rows = cases.detection_cases(), box_head(STDS["region"], {"type": "L1Loss"}, False), []
    config = ConfigDict(score_thr=0.05, nms={"type": "nms", "iou_threshold": 0.5}, max_per_img=20)
    for i in range(200):
        rois = torch.cat([torch.zeros(30, 1), tensor(case["boxes"][i])], 1)
        meta = {"img_shape": tuple(case["sizes"][i].tolist())}
        outputs = tensor(case["logits"][i]), tensor(case["deltas"][i])
        rows.append(head._predict_by_feat_single(rois, *outputs, meta, rcnn_test_cfg=config))
    most = cases.DETECTIONS["most"]
    return {
        "detections": padded([r.bboxes.numpy() for r in rows], most),
        "detection_scores": padded([r.scores.numpy() for r in rows], most),
        "detection_labels": padded([r.labels.numpy().astype("int8") for r in rows], most, -1),
    }


def roi_results():
    maps, boxes = cases.roi_cases()
    flat, results = tensor(boxes.reshape(-1, 4)), {}
    rois = torch.cat([torch.arange(2).repeat_interleave(100)[:, None].float(), flat], 1)
    side = torch.sqrt((flat[:, 2] - flat[:, 0]) * (flat[:, 3] - flat[:, 1]))
    level = torch.nan_to_num(torch.floor(torch.log2(side / 56 + 1e-6)).clamp(0, 3)).long()
    results["roi_levels"] = level.numpy().astype("int8")
    for sampling in (0, 2):
        features = [tensor(x.transpose(0, 3, 1, 2)).requires_grad_() for x in maps]
        bins = torch.zeros(200, 2, 7, 7)
        for i, stride in enumerate((4, 8, 16, 32)):
            own = level == i
            bins[own] = torchvision.ops.roi_align(features[i], rois[own], 7, 1 / stride, sampling or -1, True)
        bins = bins.permute(0, 2, 3, 1)
        (bins * tensor(cases.pattern((200, 7, 7, 2)))).sum().backward()
        results[f"bins_{sampling}"] = bins.detach().numpy()
        gradients = [x.grad[0, 0].flatten() for x in features]  # of the first image's first channel
        results[f"gradients_{sampling}"] = torch.cat(gradients).numpy()
    return results


def paste_results():
    masks, boxes = (tensor(x) for x in cases.paste_cases())
    values, _ = _do_paste_mask(masks[:, None], boxes, *cases.PASTED, skip_empty=False)  # else it fails on those outside
    return {"bitmaps": np.packbits((values >= 0.5).numpy())}


makers = (anchor_results, delta_results, assignment_results, loss_results, proposal_results, detection_results)
parts = [make() for make in (*makers, roi_results, paste_results)]
np.savez_compressed(FOLDER / "regions.npz", **{name: x for part in parts for name, x in part.items()})
