"""What mmdet's Mask R-CNN and Cascade Mask R-CNN give: python tests/reference/mask_rcnn_reference.py.

Run it in an environment with mmdet 3.3.0 and a stand-in for mmcv.ops on PYTHONPATH (`mmcv_ops_stub`): ../shared/oracles
has both. It writes mask_rcnn_reference.npz beside this file: a small Swin's pyramid, proposals, heads and answers for
images of three sizes, a part of each and its largest number, and names and shapes of the parameters. Weights are drawn
by name, see `seeded`: ours can have the same. Nothing of mmdet is copied.

    python tests/reference/mask_rcnn_reference.py FOLDER     also the whole Swin-T, to FOLDER, for `whole_mask_rcnn.py`
"""

import json
import pathlib
import re
import sys
import zlib

import numpy as np

FILE = pathlib.Path(__file__).with_name("mask_rcnn_reference.npz")
SIZES = ((200, 333), (320, 320), (256, 448))  # of images, which are padded to multiples of 32
CLASSES, WIDTH, HIDDEN = 5, 16, 24
SMALL = {"embed_dims": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "window_size": 7}
KEPT = 199  # numbers of each output that are kept
REGIONS = 24  # proposals that heads are compared on
LOUDER = {"rpn_cls": 4.0, "rpn_reg": 0.3, "fc_cls": 2.0, "fc_reg": 1.0, "conv_logits": 4.0}
KINDS = ("mask", "cascade")


def seeded(name, shape):
    """The parameter of a name: the same numbers on every machine; float32 of a torch shape."""
    u = 2 * np.random.RandomState(zlib.crc32(name.encode())).random_sample(shape) - 1
    kind, module = name.rpartition(".")[2], name.split(".")[-2]
    if kind in ("bias", "running_mean"):
        return (0.2 * u).astype("float32")
    if len(shape) == 1:  # a norm's weight or variance
        return (1 + 0.5 * u).astype("float32")
    loud = LOUDER.get(module, 1.0) * (3.0 if re.search(r"bbox_head\.\d\.fc_cls", name) else 1.0)  # stages are averaged
    return (loud * u * np.sqrt(3 / np.prod(shape[1:]))).astype("float32")


def image(size):
    """One normalised image, padded with zeros to multiples of 32: (1, H, W, 3)."""
    height, width = size
    pixels = np.random.RandomState(height * width).standard_normal((1, height, width, 3)).astype("float32")
    down, right = -height % 32, -width % 32
    return np.pad(pixels, ((0, 0), (0, down), (0, right), (0, 0)))


def sampled(numbers):
    """Numbers of an output that are kept: every so many, from its first."""
    flat = np.asarray(numbers).ravel()
    return flat[:: max(1, len(flat) // KEPT)]


def configuration(kind, whole):
    """The configuration of a kind: mmdet's own for Swin-T, with OD's heads for the cascade; a small one by default."""
    import mmdet
    from mmengine.config import Config

    folder = pathlib.Path(mmdet.__file__).parent / ".mim" / "configs"
    model = Config.fromfile(folder / "swin" / "mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py").model
    if kind == "cascade":
        cascade = Config.fromfile(folder / "_base_" / "models" / "cascade-mask-rcnn_r50_fpn.py").model
        cascade.backbone, cascade.neck = model.backbone, model.neck
        for head in cascade.roi_head.bbox_head:
            head.update(
                type="ConvFCBBoxHead",
                num_shared_convs=4,
                num_shared_fcs=1,
                conv_out_channels=256,
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                norm_cfg={"type": "BN"},
            )
            del head["loss_bbox"]
            head["loss_bbox"] = {"type": "GIoULoss", "loss_weight": 10.0}
        model = cascade
    model.backbone.init_cfg = None
    if whole:
        return model
    model.backbone.update(SMALL)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=WIDTH)
    model.rpn_head.update(in_channels=WIDTH, feat_channels=WIDTH)
    roi = model.roi_head
    for part in (roi.bbox_roi_extractor, roi.mask_roi_extractor):
        part.out_channels = WIDTH
    heads = roi.bbox_head if kind == "cascade" else [roi.bbox_head]
    for head in heads:
        head.update(in_channels=WIDTH, fc_out_channels=HIDDEN, num_classes=CLASSES)
        if kind == "cascade":
            head.conv_out_channels = WIDTH
    roi.mask_head.update(in_channels=WIDTH, conv_out_channels=WIDTH, num_classes=CLASSES)
    return model


def network(kind, whole=False):
    """mmdet's network with seeded weights."""
    import torch
    from mmdet.registry import MODELS

    model = MODELS.build(configuration(kind, whole)).eval()
    state = {
        name: torch.from_numpy(seeded(name, tuple(x.shape))) if x.is_floating_point() else x
        for name, x in model.state_dict().items()
    }
    model.load_state_dict(state, strict=True)
    return model


def steps(model, size):
    """{name: array} of every step for one image of a size, channels last."""
    import torch
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import bbox2roi

    pixels = torch.from_numpy(image(size)).permute(0, 3, 1, 2).contiguous()
    facts = {
        "img_shape": size,
        "ori_shape": size,
        "pad_shape": tuple(pixels.shape[2:]),
        "batch_input_shape": tuple(pixels.shape[2:]),
        "scale_factor": (1.0, 1.0),
    }
    with torch.inference_mode():
        maps = model.extract_feat(pixels)
        logits, deltas = model.rpn_head(maps)
        proposals = model.rpn_head.predict_by_feat(logits, deltas, batch_img_metas=[facts])
        rois = bbox2roi([proposals[0].bboxes[:REGIONS]])
        out = {f"map_{i}": x.permute(0, 2, 3, 1) for i, x in enumerate(maps)}
        out |= {f"logits_{i}": x.permute(0, 2, 3, 1) for i, x in enumerate(logits)}
        out |= {f"deltas_{i}": x.permute(0, 2, 3, 1) for i, x in enumerate(deltas)}
        out |= {"proposals": proposals[0].bboxes, "objectness": proposals[0].scores}
        stages = getattr(model.roi_head, "num_stages", 0)
        for k in range(max(stages, 1)):
            arguments = (k, maps, rois) if stages else (maps, rois)
            boxes = model.roi_head._bbox_forward(*arguments)
            masks = model.roi_head._mask_forward(*arguments)["mask_preds"]
            out |= {f"class_{k}": boxes["cls_score"], f"box_{k}": boxes["bbox_pred"]}
            out[f"mask_{k}"] = masks.permute(0, 2, 3, 1)
        sample = DetDataSample(metainfo=facts)
        answers = model.roi_head.predict(maps, proposals, [sample], rescale=True)[0]
        out |= {"boxes": answers.bboxes, "scores": answers.scores, "labels": answers.labels, "masks": answers.masks}
    return {name: x.numpy() for name, x in out.items()}


def reduced(out):
    """What is kept of the steps, and the largest number of each."""
    kept = {}
    for name, x in out.items():
        if name == "masks":
            kept[name] = np.packbits(x[:8])
        elif name in ("boxes", "scores", "labels"):
            kept[name] = x
        else:
            kept[name] = x[:REGIONS] if name in ("proposals", "objectness") else sampled(x)
            kept[f"{name}_largest"] = np.abs(x).max()
    return kept


def main(folder=None):
    import mmcv_ops_stub  # noqa: F401  before mmdet
    import torch

    torch.set_num_threads(1)
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    results = {}
    for kind in KINDS:
        model = network(kind, whole=bool(folder))
        state = {name: list(x.shape) for name, x in model.state_dict().items()}
        results[f"{kind}/shapes"] = np.array(json.dumps(state))
        results[f"{kind}/parameters"] = sum(p.numel() for p in model.parameters())
        print(kind, results[f"{kind}/parameters"])
        for size in SIZES:
            out = steps(model, size)
            name = "x".join(map(str, size))
            print(name, {k: (x.shape, float(np.abs(x).max())) for k, x in out.items()})
            keep = out if folder else reduced(out)
            results |= {f"{kind}/{name}/{k}": x for k, x in keep.items()}
    file = pathlib.Path(folder, "whole_mask_rcnn.npz") if folder else FILE
    np.savez_compressed(file, **results)
    print(file, file.stat().st_size)


if __name__ == "__main__":
    main(*sys.argv[1:])
