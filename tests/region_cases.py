"""Random cases of region networks, the same for the tests and for reference/regions.py, which needs no Keras."""

import numpy as np

CANVAS = (64, 96)  # height, width of padded images, in pixels
MAPS = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]  # of the canvas
CLASSES = 3
LARGE = (288, 416)  # of the maps that regions are taken from
SEED = 17


def boxes_within(rng, shape, size=CANVAS, least=1.0):
    """Random xyxy boxes (*shape, 4) float32 within an image; every other lies on a grid of 4 pixels."""
    height, width = size
    ends = rng.uniform(0, 1, (*shape, 2, 2)) * [width, height]
    low, high = ends.min(-2), ends.max(-2)
    boxes = np.concatenate([low, np.maximum(high, low + least)], -1)
    flat = boxes.reshape(-1, 4)
    flat[::2] = 4 * np.round(flat[::2] / 4)
    flat[:, 2:] = np.maximum(flat[:, 2:], flat[:, :2] + least)
    return flat.reshape(boxes.shape).astype("float32")


def anchor_cases():
    """(sizes of maps, sizes of images (50, 2)) of four canvases, on which images may be as small as a pixel."""
    rng = np.random.default_rng(SEED)
    for rows, columns in ((1, 1), (3, 2), (2, 5), (3, 3)):
        maps = [(-(-32 * rows // stride), -(-32 * columns // stride)) for stride in (4, 8, 16, 32, 64)]
        sizes = rng.integers(1, [32 * rows + 1, 32 * columns + 1], (50, 2))
        sizes[:2] = [[32 * rows, 32 * columns], [1, 1]]
        yield maps, sizes


def delta_cases():
    """{"boxes", "references" (200, 4) xyxy, "deltas" (200, 4), some of which are large, "sizes" (200, 2)}."""
    rng = np.random.default_rng(SEED + 1)
    deltas = rng.standard_normal((200, 4)) * np.where(np.arange(200) % 4, 1.0, 30.0)[:, None]
    return {
        "boxes": boxes_within(rng, (200,)),
        "references": boxes_within(rng, (200,)),
        "deltas": deltas.astype("float32"),
        "sizes": rng.integers(8, [65, 97], (200, 2)).astype("float32"),
    }


def truths_of(rng, images, objects, case=0):
    """{"boxes", "labels", "valid"} of images with from no object to all; every fifth has two equal ones."""
    boxes = boxes_within(rng, (images, objects), least=2.0)
    valid = np.arange(objects) < rng.integers(0, objects + 1, (images, 1))
    if case % 5 == 0:
        boxes[:, 1] = boxes[:, 0]
    if case % 10 == 9:
        valid[:1] = False
    if case % 50 == 49:
        valid[:] = False
    return {"boxes": boxes, "labels": rng.integers(0, CLASSES, (images, objects)), "valid": valid}


COUNT, MOST = 14, 5  # samples of an image, and how many of them may be an object's


def assignment_cases():
    """200 images: {"references" (200, 40, 4), "usable" (200, 40), "boxes" (200, 5, 4), "labels", "valid", "uniforms"}.

    References are near objects or far; many overlap an object exactly by a half, or equally much.
    """
    rng = np.random.default_rng(SEED + 2)
    parts = [truths_of(rng, 1, 5, case) for case in range(200)]
    truths = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    near = np.take_along_axis(truths["boxes"], rng.integers(0, 5, (200, 25))[..., None], 1)
    shift = np.where(rng.random((200, 25, 1)) < 0.5, np.round(rng.normal(0, 2, near.shape)), 0)
    near = near + shift
    near[:, :6, 2] = near[:, :6, 0] + (near[:, :6, 2] - near[:, :6, 0]) / 2
    near[:, 6:10, 3] = near[:, 6:10, 1] + (near[:, 6:10, 3] - near[:, 6:10, 1]) * rng.choice([0.7, 0.6, 0.3], (200, 4))
    near[..., 2:] = np.maximum(near[..., 2:], near[..., :2] + 1)
    references = np.concatenate([near.astype("float32"), boxes_within(rng, (200, 15))], 1)
    usable = rng.random((200, 40)) < np.where(np.arange(200) % 3, 1.0, 0.6)[:, None]
    usable[:, 0] = True
    uniforms = rng.permuted(np.tile(np.arange(45), (200, 1)), axis=1) / 64
    return {"references": references, "usable": usable, "uniforms": uniforms.astype("float32"), **truths}


def mask_cases(rng, boxes):
    """Ellipses in boxes, and every third a whole box: (B, G, *CANVAS) uint8."""
    y, x = (np.arange(side) + 0.5 for side in CANVAS)
    left, top, right, bottom = (boxes[..., i, None, None] for i in range(4))
    across = (x - (left + right) / 2) / (right - left)
    down = (y[:, None] - (top + bottom) / 2) / (bottom - top)
    square = (rng.random((*boxes.shape[:2], 1, 1)) < 0.3) & (np.maximum(abs(across), abs(down)) <= 0.5)
    return ((across**2 + down**2 <= 0.25) | square).astype("uint8")


def loss_cases(count=200, images=2, objects=4):
    """Batches: outputs of the heads, proposals, truths with masks, random numbers, sizes of the images."""
    rng = np.random.default_rng(SEED + 3)
    anchors = 3 * sum(rows * columns for rows, columns in MAPS)
    for case in range(count):
        truths = truths_of(rng, images, objects, case)
        near = np.take_along_axis(truths["boxes"], rng.integers(0, objects, (images, 20))[..., None], 1)
        proposals = np.concatenate([near + rng.normal(0, 2, near.shape), boxes_within(rng, (images, 10))], 1)
        proposals[..., 2:] = np.maximum(proposals[..., 2:], proposals[..., :2] + 1)
        yield {
            "truths": {**truths, "masks": mask_cases(rng, truths["boxes"])},
            "sizes": np.array([CANVAS, (40, 60)])[:images],
            "logits": (3 * rng.standard_normal((images, anchors))).astype("float32"),
            "deltas": rng.standard_normal((images, anchors, 4)).astype("float32"),
            "anchor_uniforms": rng.random((images, anchors), dtype="float32"),
            "proposals": np.clip(proposals, 0, [96, 64, 96, 64]).astype("float32"),
            "uniforms": rng.random((images, objects + 30), dtype="float32"),
            "class_logits": (3 * rng.standard_normal((images, COUNT, CLASSES + 1))).astype("float32"),
            "class_deltas": rng.standard_normal((images, COUNT, 4 * CLASSES)).astype("float32"),
            "mask_logits": (3 * rng.standard_normal((images, MOST, 28, 28, CLASSES))).astype("float32"),
        }


PROPOSALS = {"candidates": 30, "most": 25}
DETECTIONS = {"most": 20}


def proposal_cases():
    """200 images: {"logits" (200, A), "deltas" (200, A, 4), "sizes" (200, 2)}; some boxes end without an area."""
    rng = np.random.default_rng(SEED + 4)
    anchors = 3 * sum(rows * columns for rows, columns in MAPS)
    logits = rng.permuted(np.linspace(-8, 8, anchors)[None].repeat(200, 0), axis=1)
    deltas = rng.standard_normal((200, anchors, 4)) * np.where(np.arange(200) % 3, 0.3, 1.0)[:, None, None]
    sizes = rng.integers(1, [65, 97], (200, 2))
    sizes[::2] = CANVAS
    return {name: x.astype("float32") for name, x in {"logits": logits, "deltas": deltas, "sizes": sizes}.items()}


def detection_cases():
    """200 images: {"boxes" (200, 30, 4), "logits", "deltas", "sizes"}, many boxes of one object."""
    rng = np.random.default_rng(SEED + 5)
    centres = boxes_within(rng, (200, 4), least=8.0)
    boxes = np.take_along_axis(centres, rng.integers(0, 4, (200, 30))[..., None], 1) + rng.normal(0, 3, (200, 30, 4))
    boxes[..., 2:] = np.maximum(boxes[..., 2:], boxes[..., :2] + 1)
    return {
        "boxes": boxes.astype("float32"),
        "logits": (2 * rng.standard_normal((200, 30, CLASSES + 1))).astype("float32"),
        "deltas": rng.standard_normal((200, 30, 4 * CLASSES)).astype("float32"),
        "sizes": rng.integers(20, [65, 97], (200, 2)).astype("float32"),
    }


def roi_cases():
    """Maps [(2, H, W, 2), ...] of LARGE and 200 boxes (2, 100, 4): elongated, outside, of no size, huge, inside out."""
    rng = np.random.default_rng(SEED + 6)
    height, width = LARGE
    maps = [rng.standard_normal((2, height // s, width // s, 2)).astype("float32") for s in (4, 8, 16, 32)]
    boxes = []
    for case in range(200):
        low = rng.uniform(0, [width, height])
        side = rng.uniform(1, 80, 2)
        if case % 8 == 1:
            side = rng.uniform(1, [width, height])
        elif case % 8 == 2:
            low, side = rng.uniform(0, [20, height]), np.array([width - 30 * rng.random(), rng.uniform(1, 6)])
        elif case % 8 == 3:
            low, side = rng.uniform(0, [width, 20]), np.array([rng.uniform(1, 6), height])
        elif case % 8 == 4:
            low, side = rng.uniform(-200, [width + 200, height + 200]), rng.uniform(1, 300, 2)
        elif case % 8 == 5:
            side = rng.choice([0, 1e-3, 0.5], 2)
        elif case % 8 == 6:
            low, side = -rng.uniform(0, 500, 2), np.array([width, height]) + rng.uniform(0, 1300, 2)
        elif case % 8 == 7:
            low, side = 4 * np.floor(low / 4), 4 * rng.integers(-1, 30, 2)
        boxes.append([*low, *(low + side)])
    return maps, np.float32(boxes).reshape(2, 100, 4)


def pattern(shape):
    """What a gradient's upstream is."""
    return np.cos(np.arange(np.prod(shape), dtype="float64")).reshape(shape).astype("float32")


PASTED = (40, 60)  # height, width of the image that masks are pasted into


def paste_cases():
    """(masks (200, 28, 28), boxes (200, 4)): within, beyond, wholly outside, tiny, on whole pixels."""
    rng = np.random.default_rng(SEED + 7)
    masks = rng.random((200, 28, 28)) * 0.6 + 0.4 * rng.random((200, 1, 1))
    masks[::5] = rng.random((40, 28, 28)) < 0.7
    boxes = boxes_within(rng, (200,), PASTED, least=0.3)
    boxes[::7] += rng.uniform(-60, 60, (29, 1))
    boxes[1::9, 2:] = boxes[1::9, :2] + rng.uniform(0.05, 3, (23, 2))
    boxes[2::9, :2] -= 100
    boxes[3::9, 2:] += 150
    return masks.astype("float32"), boxes.astype("float32")
