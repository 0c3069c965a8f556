"""Mask R-CNN and Cascade Mask R-CNN on a whole Swin-T beside mmdet: python tests/reference/whole_mask_rcnn.py FOLDER.

FOLDER has whole_mask_rcnn.npz of `mask_rcnn_reference.py FOLDER`. Prints the largest difference of each step over the
reference's largest value, how far boxes are apart in pixels, and the share of equal classes and mask pixels.
"""

import json
import pathlib
import sys
import tempfile

import numpy as np
from keras import ops

import swins
from swins import windows
from swins.detection.mask_pasting import paste
from swins.weights import checkpoint_files

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import mask_rcnn_reference as reference

NAMES = {"mask": "mask_rcnn_swin_tiny_fpn", "cascade": "cascade_mask_rcnn_swin_tiny_fpn"}
STEPS = {"map": "maps", "logits": "objectness", "deltas": "deltas"}


def network(kind, shapes):
    """Our network with the reference's seeded weights, from a file of its layout."""
    state = {}
    for name, shape in shapes.items():
        if name.endswith("relative_position_index"):
            state[name] = windows.relative_index((7, 7)).astype("int64")
        elif not name.endswith("num_batches_tracked"):
            state[name] = reference.seeded(name, tuple(shape))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint_files.write(state, f"{folder}/whole.safetensors")
        return swins.create(NAMES[kind], weights=f"{folder}/whole.safetensors")


def relative(ours, theirs):
    """The largest difference over the reference's largest value."""
    ours = ops.convert_to_numpy(ours).reshape(theirs.shape)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def compared(model, theirs, size):
    """{name of a step: difference} for one size."""
    image, sizes = reference.image(size), np.float32([size])
    outputs, found = model(image), {}
    for name, key in STEPS.items():
        found[name] = max(relative(x, theirs[f"{name}_{i}"]) for i, x in enumerate(outputs[key]))
    regions = theirs["proposals"][None, : reference.REGIONS]
    for k in range(len(model.box_heads)):
        logits, deltas = model.classify(outputs, regions, k)
        for name, x in {"class": logits, "box": deltas, "mask": model.segment(outputs, regions, k)}.items():
            found[f"{name}_{k}"] = relative(x, theirs[f"{name}_{k}"])
    proposals = ops.convert_to_numpy(model.propose(outputs, sizes)["boxes"])[0]
    apart = np.abs(theirs["proposals"][:, None] - proposals[None]).max(-1).min(1)  # equal scores may change places
    found["proposals, px"], found["same proposals"] = float(np.sort(apart)[-10]), float(np.mean(apart <= 1e-2))
    answers = {name: ops.convert_to_numpy(x)[0] for name, x in model.detect(image, sizes).items()}
    n = len(theirs["boxes"])
    found["boxes, px"] = float(np.abs(answers["boxes"][:n] - theirs["boxes"]).max())
    found["same classes"] = float(np.mean(answers["labels"][:n] == theirs["labels"]))
    masks = paste(answers["masks"][:n], answers["boxes"][:n], size)
    found["same pixels"] = float(np.mean(masks == theirs["masks"]))
    return {"objects": f"{int(answers['count'])} of {n}", **found}


def main(folder):
    with np.load(pathlib.Path(folder, "whole_mask_rcnn.npz")) as file:
        for kind in NAMES:
            model = network(kind, json.loads(str(file[f"{kind}/shapes"])))
            for size in reference.SIZES:
                begin = f"{kind}/{'x'.join(map(str, size))}/"
                theirs = {name.removeprefix(begin): file[name] for name in file.files if name.startswith(begin)}
                for name, value in compared(model, theirs, size).items():
                    print(f"{begin}{name}: {value if isinstance(value, str) else format(value, '.3g')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
