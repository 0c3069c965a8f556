"""Mask R-CNN and Cascade Mask R-CNN beside mmdet 3.3, step by step; every pyramid, copy, size and policy."""

import math
from functools import partial

import keras
import numpy as np
import pytest
import rcnn_cases
from keras import layers, ops
from rcnn_cases import NAMES, REFERENCE
from test_changes import saved, trained
from test_models import moved
from training import one_program

import swins
from swins.changes import copy, values, variables
from swins.detection.feature_pyramid import doubled, halved
from swins.detection.mask_pasting import paste
from swins.detection.mask_rcnn import CascadeMaskRCNN, Detecting, MaskRCNN, usable
from swins.detection.region_heads import ConvBoxHead
from swins.errors import SwinsError
from swins.rcnn_numbers import stride_of
from swins.weights import checkpoint_files

SIZES = ["x".join(map(str, size)) for size in REFERENCE.SIZES]
HEADS = {"map": "maps", "logits": "objectness", "deltas": "deltas"}
CLASSES = {"mask": MaskRCNN, "cascade": CascadeMaskRCNN}
FEW = {"proposals": {"candidates": 30, "most": 20}, "most": 7}  # what is quick where numbers do not matter


@pytest.fixture(scope="module", autouse=True)
def small_variants():
    yield from rcnn_cases.registered()


@pytest.fixture(scope="module")
def reference():
    return rcnn_cases.expected()


@pytest.fixture(scope="module")
def models(reference, tmp_path_factory):
    """{kind: a detector with mmdet's weights}."""
    made = {}
    for kind in NAMES:
        file = tmp_path_factory.mktemp(kind) / "mmdet.safetensors"
        checkpoint_files.write(rcnn_cases.raw_state(kind, reference), file)
        made[kind] = swins.create(NAMES[kind], weights=file)
    return made


def pyramid_of(width=8, levels=("P2", "P3"), channels=3):
    """A user's own pyramid, of any image size."""
    images, maps = keras.Input((None, None, channels)), {}
    for level in levels:
        stride = stride_of(level)
        maps[level] = layers.Conv2D(width, stride, stride, name=f"own_{level}")(images)
    return keras.Model(images, maps, name="own")


def small(cls=MaskRCNN, pyramid=None, **options):
    return cls(pyramid or pyramid_of(), **{"num_classes": 3, "width": 8, "hidden": 8, **options})


def pictures(height=32, width=48, count=2, channels=3):
    return np.random.default_rng(height).standard_normal((count, height, width, channels), dtype="float32")


def arrays(outputs):
    return {name: ops.convert_to_numpy(x) for name, x in outputs.items()}


def same(a, b):
    a, b = arrays(a), arrays(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def require_near(reference, name, value, tolerance=1e-5):
    """Fail if an output is farther from mmdet's than this, over its largest."""
    ours = REFERENCE.sampled(ops.convert_to_numpy(value))
    assert np.abs(ours - reference[name]).max() <= tolerance * reference[f"{name}_largest"], name


def parameters(model):
    return sum(math.prod(v.shape) for v in model.trainable_variables)


@pytest.mark.slow
def test_parameters_are_mmdets():
    """Each part by itself, as mmdet's own models count them (../shared/specs/dense_corrections.md)."""
    swin = 27_517_818 + 2 * (96 + 192 + 384 + 768)  # the classifier's trunk, and norms of four maps
    neck = sum(channels * 256 + 256 for channels in (96, 192, 384, 768)) + 4 * (9 * 256 * 256 + 256)
    rpn = (9 * 256 * 256 + 256) + (256 * 3 + 3) + (256 * 12 + 12)
    outputs = (1024 * 81 + 81) + (1024 * 320 + 320)
    box = (49 * 256 * 1024 + 1024) + (1024 * 1024 + 1024) + outputs
    mask = 4 * (9 * 256 * 256 + 256) + (4 * 256 * 256 + 256) + (256 * 80 + 80)
    assert (swin, neck, rpn, box, mask) == (27_520_698, 2_729_984, 593_935, 14_306_705, 2_643_280)
    assert swin + neck + rpn + box + mask == 47_794_602
    assert parameters(swins.create("mask_rcnn_swin_tiny_fpn")) == 47_794_602
    cascade_box = 4 * (9 * 256 * 256 + 2 * 256) + (49 * 256 * 1024 + 1024) + outputs
    assert swin + neck + rpn + 3 * (cascade_box + mask) == 85_629_804


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("cascade_mask_rcnn_swin_tiny_fpn", 85_629_804),
        ("mask_rcnn_swin_small_fpn", 47_794_602 + 12 * (12 * 384 * 384 + 13 * 384 + 13 * 13 * 12)),  # 12 more blocks
        ("mask_rcnn_resnet50_fpn", 23_508_032 + 3_344_384 + 593_935 + 16_949_985),
    ],
)
def test_parameters_of_larger_ones_are_mmdets(name, count):
    assert parameters(swins.create(name)) == count


def test_names_are_known_and_the_small_one_is_small():
    names = swins.list_variants("*mask_rcnn_*_fpn")
    assert set(names) >= {f"{c}mask_rcnn_swin_{s}_fpn" for c in ("", "cascade_") for s in ("tiny", "small")}
    assert {"cascade_mask_rcnn_swin_base_fpn", "mask_rcnn_resnet50_fpn", "mask_rcnn_swin_mini_fpn"} <= set(names)
    model = swins.create("mask_rcnn_swin_mini_fpn", num_classes=10)
    assert 4 * model.count_params() < 6e6 and model.strides == (2, 4, 8) and model.multiple == 4
    with pytest.raises(SwinsError, match="mask_rcnn_swin_mini_fpn is a detector, on swin_mini_patch2_window4_28"):
        swins.backbone("mask_rcnn_swin_mini_fpn")


def steps_marks(kind, i):
    """The first size on every backend, the cascade at the others in `make slow`."""
    return pytest.mark.backends if i == 0 else pytest.mark.slow if kind == "cascade" else ()


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        pytest.param(kind, size, marks=steps_marks(kind, i), id=f"{kind}-{SIZES[i]}")
        for kind in NAMES
        for i, size in enumerate(REFERENCE.SIZES)
    ],
)
def test_steps_are_mmdets(models, reference, kind, size):
    """The pyramid, what the proposals are made of, and the heads on mmdet's proposals, of one open model."""
    model, name = models[kind], f"{kind}/{'x'.join(map(str, size))}"
    assert type(model) is CLASSES[kind] and parameters(model) == reference[f"{kind}/parameters"]
    outputs = one_program(model)(REFERENCE.image(size))
    for theirs, ours in HEADS.items():
        for i, x in enumerate(outputs[ours]):
            require_near(reference, f"{name}/{theirs}_{i}", x)
    boxes = reference[f"{name}/proposals"][None]
    for k in range(len(model.box_heads)):
        logits, deltas = one_program(partial(model.classify, stage=k))(outputs, boxes)
        masks = one_program(partial(model.segment, stage=k))(outputs, boxes)
        for theirs, x in {"class": logits, "box": deltas, "mask": masks}.items():
            require_near(reference, f"{name}/{theirs}_{k}", x)


def require_answers(model, reference, kind, size):
    """Fail if a detector's proposals, boxes, classes or masks are not mmdet's."""
    name = f"{kind}/{'x'.join(map(str, size))}"
    image, sizes = REFERENCE.image(size), np.float32([size])
    propose = one_program(lambda image, sizes: model.propose(model(image), sizes))
    proposals = {key: x[0] for key, x in arrays(propose(image, sizes)).items()}
    apart = np.abs(reference[f"{name}/proposals"][:, None] - proposals["boxes"][None]).max(-1)
    assert apart.min(1).max() <= 1e-5 * max(size)  # of nearly equal scores, either may be the first
    assert len(set(apart.argmin(1))) == REFERENCE.REGIONS
    assert np.abs(proposals["scores"][apart.argmin(1)] - reference[f"{name}/objectness"]).max() <= 1e-5
    answers = {key: x[0] for key, x in arrays(one_program(model.detect)(image, sizes)).items()}
    boxes, scores, labels = (reference[f"{name}/{key}"] for key in ("boxes", "scores", "labels"))
    assert answers["count"] == len(boxes)
    np.testing.assert_array_equal(answers["labels"][: len(boxes)], labels)
    assert np.abs(answers["boxes"][: len(boxes)] - boxes).max() <= 1e-2
    assert np.abs(answers["scores"][: len(boxes)] - scores).max() <= 1e-4
    packed = reference[f"{name}/masks"]
    shown = 8 * len(packed) // math.prod(size)
    theirs = np.unpackbits(packed)[: shown * math.prod(size)].reshape(shown, *size)
    ours = paste(answers["masks"][:shown], answers["boxes"][:shown], size)
    assert theirs.any() and np.mean(ours == theirs) >= 0.999


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "size"),
    [
        pytest.param(
            kind, size, marks=pytest.mark.slow if i else pytest.mark.backends, id=f"{kind}-{size[0]}x{size[1]}"
        )
        for kind in NAMES
        for i, size in enumerate(REFERENCE.SIZES)
    ],
)
def test_answers_are_mmdets(models, reference, kind, size):
    require_answers(models[kind], reference, kind, size)


@pytest.mark.slow
def test_an_image_is_the_same_in_a_batch_of_others(models):
    """Padding to a larger canvas may change what windows hold, but not who gets which answers."""
    model, canvas = models["mask"], np.zeros((2, 96, 128, 3), "float32")
    for image, (height, width) in zip(canvas, ((96, 128), (64, 75)), strict=True):
        image[:height, :width] = pictures(height, width, 1)[0]
    sizes = np.float32([(96, 128), (64, 75)])
    both = arrays(model.detect(canvas, sizes, **FEW))
    for i in range(2):
        alone = arrays(model.detect(canvas[i : i + 1], sizes[i : i + 1], **FEW))
        np.testing.assert_array_equal(both["labels"][i], alone["labels"][0])
        np.testing.assert_allclose(both["boxes"][i], alone["boxes"][0], atol=1e-2)
        assert both["boxes"][i, :, [0, 2]].max() <= sizes[i, 1] and both["boxes"][i, :, [1, 3]].max() <= sizes[i, 0]


def test_the_pyramids_parts_as_literal_matrices():
    x = ops.reshape(ops.arange(6, dtype="float32"), (1, 2, 3, 1))
    assert ops.convert_to_numpy(doubled(x))[0, :, :, 0].tolist() == [
        [0, 0, 1, 1, 2, 2],
        [0, 0, 1, 1, 2, 2],
        [3, 3, 4, 4, 5, 5],
        [3, 3, 4, 4, 5, 5],
    ]
    assert ops.convert_to_numpy(halved(x))[0, :, :, 0].tolist() == [[0, 2]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: swins.SwinTransformerV2(
            image_size=(None, None), embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4
        ),
        lambda: swins.ResNet(image_size=(None, None), depths=(1, 1), strides=(1, 2), width=4),
    ],
    ids=["swinv2", "resnet"],
)
def test_any_network_is_a_backbone(make, tmp_path):
    model = moved(small(pyramid=swins.backbone(make(), name="pyramid")))
    found = model.detect(pictures(), [[32, 48], [20, 30]], **FEW)
    assert tuple(found["masks"].shape) == (2, 7, 28, 28)
    same(values(model), values(saved(model, tmp_path)))


@pytest.mark.slow
@pytest.mark.backends
def test_boxes_alone_on_a_users_pyramid(tmp_path):
    """Faster R-CNN, at two sizes of one model."""
    model = moved(small(masks=False, levels=("P2",)))
    assert model.levels == ("P2",) and model.strides == (4, 8) and not model.mask_heads
    for height, width in ((32, 48), (16, 20)):
        images, sizes = pictures(height, width), [[height, width], [height - 3, width - 5]]
        found = one_program(partial(model.detect, **FEW))(images, sizes)
        assert set(found) == {"boxes", "scores", "labels", "count"} and tuple(found["boxes"].shape) == (2, 7, 4)
        kept = ops.convert_to_numpy(usable(found))
        assert (kept.sum(1) == ops.convert_to_numpy(found["count"])).all()
        assert ((ops.convert_to_numpy(found["labels"]) >= 0) == kept).all()
    same(values(model), values(saved(model, tmp_path)))


@pytest.mark.slow
def test_answers_as_a_model_are_the_networks(tmp_path):
    network = moved(small(masks=False))
    model = Detecting(network, FEW, name="answers")
    inputs = {"images": pictures(), "sizes": np.float32([[32, 48], [30, 40]])}
    same(network.detect(**inputs, **FEW), saved(model, tmp_path)(inputs))


@pytest.mark.slow
def test_what_was_done_to_layers_is_in_every_copy(tmp_path):
    model = moved(small(CascadeMaskRCNN, frozen=("own/own_P2", "bbox_head_1/shared_fcs_0")))
    model.mask_heads[0].convs[1].trainable = False
    expected = trained(model)
    assert "mask_head_0/convs_1/kernel" not in expected and len(expected) < len(variables(model))
    for other in (saved(model, tmp_path), copy(model)):
        assert trained(other) == expected and list(variables(other)) == list(variables(model))
        same(values(model), values(other))


def test_paths_of_variables_are_the_same_in_each():
    first, second = small(CascadeMaskRCNN), small(CascadeMaskRCNN)
    paths = list(variables(first))
    assert paths == list(variables(second)) and len(paths) == len(first.weights) == len(set(paths))
    assert {"neck/lateral_convs_0/kernel", "rpn_head/rpn_cls/bias", "bbox_head_2/shared_convs_3_bn/gamma"} <= set(paths)
    kernels = {path: ops.convert_to_numpy(v) for path, v in variables(first).items() if path.endswith("kernel")}
    assert not np.array_equal(kernels["mask_head_0/convs_0/kernel"], kernels["mask_head_0/convs_1/kernel"])


@pytest.mark.slow
def test_boxes_and_scores_are_float32_whatever_the_policy():
    """Boxes far out keep parts of a pixel, which bfloat16 has not beyond 256."""
    pyramid = swins.backbone(
        swins.SwinTransformer(
            image_size=(None, None), embed_dim=8, depths=(1, 1), num_heads=(1, 2), dtype="mixed_bfloat16"
        )
    )
    model = moved(small(pyramid=pyramid, dtype="mixed_bfloat16"))
    outputs = model(pictures(8, 1536, 1))
    assert {keras.backend.standardize_dtype(x.dtype) for x in outputs["maps"]} == {"bfloat16"}
    assert {keras.backend.standardize_dtype(x.dtype) for x in outputs["objectness"] + outputs["deltas"]} == {"float32"}
    found = arrays(model.detect(pictures(8, 1536, 1), [[8, 1536]], proposals={"most": 200}))
    far = found["boxes"][0][found["boxes"][0, :, 2] > 1024]
    assert found["boxes"].dtype == found["scores"].dtype == found["masks"].dtype == np.float32
    assert len(far) and np.any(far != ops.convert_to_numpy(ops.cast(ops.cast(far, "bfloat16"), "float32")))


@pytest.mark.slow
@pytest.mark.backends
def test_parts_train_in_one_graph():
    """Gradients reach every variable through the model, and heads on regions that are given."""
    model = moved(small())
    boxes = np.float32([[[0, 0, 16, 16], [4, 6, 40, 30]]] * 2)

    def loss():
        outputs = model(pictures(), training=True)
        logits, deltas = model.classify(outputs, boxes, training=True)
        heads = [logits, deltas, model.segment(outputs, boxes)]
        return sum(ops.mean(x**2) for x in outputs["objectness"] + outputs["deltas"] + heads)

    gradients = gradients_of(loss, model.trainable_variables)
    assert all(g is not None and np.isfinite(g).all() for g in gradients) and all(np.any(g) for g in gradients)


def test_norms_of_a_cascades_heads_train():
    """As PyTorch's: moving statistics go a tenth of the way, and are used where nothing trains."""
    head = ConvBoxHead(num_classes=2, hidden=4, name="bbox_head_0")
    regions = np.random.default_rng(0).standard_normal((1, 3, 7, 7, 5), dtype="float32")
    head.build(regions.shape)
    moved_input = ops.convert_to_numpy(head.shared_convs[0](regions[0]))
    still = ops.convert_to_numpy(head(regions)[0])
    head(regions, training=True)
    mean = ops.convert_to_numpy(head.shared_norms[0].moving_mean)
    np.testing.assert_allclose(mean, 0.1 * moved_input.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    assert not np.allclose(still, ops.convert_to_numpy(head(regions)[0]))


def gradients_of(loss, weights):
    """Gradients of a function without arguments, as arrays, on the backend in use."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss()
        return [None if g is None else g.numpy() for g in tape.gradient(value, [w.value for w in weights])]
    if backend == "torch":
        for weight in weights:
            weight.value.grad = None
        loss().backward()
        return [None if w.value.grad is None else w.value.grad.detach().cpu().numpy() for w in weights]
    import jax

    def pure(values):
        with keras.StatelessScope(state_mapping=list(zip(weights, values, strict=True))):
            return loss()

    return [np.asarray(g) for g in jax.jit(jax.grad(pure))([w.value for w in weights])]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"width": 0}, "width must be at least 1"),
        ({"masks": "yes"}, "masks must be True or False"),
        ({"levels": ("P2", "P9")}, "unknown level 'P9'"),
        ({"levels": ("P3", "P2")}, "each level has twice the stride of the one before; got P3, P2"),
        ({"levels": ()}, "levels must be names of maps"),
        ({"classes": 3}, "unknown option of a Mask R-CNN 'classes'"),
        ({"frozen": ("heads",)}, "unknown layer 'heads'"),
        ({"pyramid": "swin_tiny"}, "a Mask R-CNN stands on a functional Keras model of images"),
    ],
)
def test_what_cannot_be_is_said(options, words):
    with pytest.raises(SwinsError, match=words):
        MaskRCNN(options.pop("pyramid", None) or pyramid_of(), **options)


def test_levels_and_sizes_that_cannot_be_are_said():
    images = keras.Input((None, None, 3))
    own = keras.Model(images, {"c2": layers.Conv2D(4, 4, 4)(images)})
    with pytest.raises(SwinsError, match=r"a level's name says its stride, 2\*\*n pixels for Pn, as P2, P3; got 'c2'"):
        MaskRCNN(own)
    with pytest.raises(SwinsError, match=r"sides are multiples of 8 pixels.*got \(32, 44\); pad them with zeros"):
        small()(pictures(32, 44))
