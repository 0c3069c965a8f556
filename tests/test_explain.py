"""Attention on the image, rollout, Grad-CAM, and the pictures of them."""

import keras
import numpy as np
import pytest
from keras import ops
from shared_fixtures import DATA, NAME

import swins
from swins import attention, explain
from swins.images import read_idx
from swins.weights import artefacts

FAMILIES = (swins.SwinTransformer, swins.SwinTransformerV2, swins.SwinTransformerV2CR)
SMALL = {
    "image_size": (36, 44),
    "patch_size": 2,
    "embed_dim": 8,
    "depths": (2, 2),
    "num_heads": (1, 2),
    "window_size": 4,
}


def moved(model, seed=0):
    """The model with every weight moved."""
    rng = np.random.default_rng(seed)
    model.set_weights([w + rng.normal(0, 0.05, w.shape) if w.dtype.kind == "f" else w for w in model.get_weights()])
    return model


def looking_at_bright_tokens(size_rule):
    """A V1 whose every query attends to the tokens of bright patches."""
    model = swins.SwinTransformer(**SMALL, num_classes=0, size_rule=size_rule)
    silent = ("relative_position_bias_table", "attn/proj/kernel", "mlp/fc2/kernel")  # both blocks see the patches
    for weight in model.weights:
        if weight.path.endswith(silent):
            weight.assign(ops.zeros(weight.shape))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("size_rule", ["timm", pytest.param("torchvision", marks=pytest.mark.backends)])
def test_attention_to_a_bright_square_lands_on_its_pixels(size_rule):
    images = np.zeros((1, 36, 44, 3), "float32")
    images[:, 10:16, 26:34] = 4.0  # rows 5-7 and columns 13-16 of stage 0: over several windows, plain and shifted
    square = images[0, :, :, 0] > 0
    model = looking_at_bright_tokens(size_rule)
    tokens = {name: x for name, (_, x) in attention.block_inputs(model, images).items()}
    bright, dark = (ops.convert_to_numpy(tokens["stage_0/block_0"])[0, i, j] for i, j in ((6, 14), (0, 0)))
    for name in ("stage_0/block_0", "stage_0/block_1"):
        block = attention.blocks_of(model)[name]
        gap = ops.convert_to_numpy(block.norm1(bright[None]) - block.norm1(dark[None]))[0]
        kernel, bias = np.zeros((8, 24), "float32"), np.zeros(24, "float32")
        bias[:8], kernel[:, 8:16] = gap, np.outer(gap, gap) * 40 / (gap @ gap) ** 2  # q is the gap, k lies along it
        block.attn.qkv.set_weights([kernel, bias])
        on_image = swins.stitched_attention(model, images)[name][0]
        assert on_image.shape == (36, 44)
        assert block.shift_size == ((0, 0) if name.endswith("0") else (2, 2))
        np.testing.assert_array_equal(on_image > 1.5, square)
        # un-shifted wrongly, it would lie elsewhere: the check can fail
        scores = block.scores(tokens[name])
        weights = ops.reshape(ops.sum(ops.mean(scores, axis=2), axis=2), (-1, scores.shape[-1], 1))
        size = [4 * -(-side // 4) for side in (18, 22)]
        raw = attention.on_image(swins.windows.reverse(weights, (4, 4), size)[..., 0], (36, 44), 2)[0]
        assert np.array_equal(raw > 1.5, square) == name.endswith("0")


def dense_rollout(model, images):
    """Rollout by whole matrices between all tokens of the image, element by element."""
    total = None
    previous = None
    for block, x in attention.block_inputs(model, images).values():
        h, w = x.shape[1:3]
        if total is None:
            total = np.eye(h * w)
        if previous and previous != (h, w):
            merge = np.zeros((h * w, previous[0] * previous[1]))
            for i in range(previous[0]):
                for j in range(previous[1]):
                    merge[(i // 2) * w + j // 2, i * previous[1] + j] = 0.25
            total = merge @ total
        previous = (h, w)
        scores = ops.convert_to_numpy(ops.mean(block.scores(x), axis=2))[0]
        numbers, _, _ = block.cut(ops.reshape(ops.arange(1, h * w + 1, dtype="float32"), (1, h, w, 1)))
        step = np.zeros((h * w, h * w))
        for window, ids in zip(scores, ops.convert_to_numpy(numbers)[:, :, 0].astype(int), strict=True):
            for a, query in enumerate(ids):
                for b, key in enumerate(ids):
                    if query and key:  # 0 is padding
                        step[query - 1, key - 1] += window[a, b]
        total = (0.5 * np.eye(h * w) + 0.5 * step) @ total
    return total.mean(axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_rollout_is_the_product_of_whole_attention_matrices(family, rng):
    model = moved(family(**SMALL, num_classes=3))
    images = rng.normal(size=(1, 36, 44, 3)).astype("float32")
    found = swins.attention_rollout(model, images)
    assert found.shape == (1, 36, 44)
    expected = dense_rollout(model, images).reshape(18, 22)
    expected = (expected / expected.mean()).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4)


def grad_cam_by_hand(model, image, number):
    """Grad-CAM of the pooled map, whose gradient is known: a logit is linear in the mean of the map."""
    place = model.get_layer("pool").input
    maps = ops.convert_to_numpy(keras.Model(model.input, place)(image[None], training=False)).astype("float64")
    kernel = ops.convert_to_numpy(model.get_layer("head").kernel)[:, number]
    importance = kernel / (maps.shape[1] * maps.shape[2])
    cam = np.maximum((maps[0] * importance).sum(axis=-1), 0)
    return cam / cam.max()


@pytest.mark.slow
@pytest.mark.parametrize("family", [pytest.param(FAMILIES[0], marks=pytest.mark.backends), *FAMILIES[1:]])
def test_grad_cam_is_the_formula(family, rng):
    model = moved(family(**SMALL, num_classes=3))
    images = rng.normal(size=(2, 36, 44, 3)).astype("float32")
    found = swins.grad_cam(model, images, classes=[1, 2])
    assert found.shape == (2, 36, 44) and found.min() >= 0 and found.max() <= 1 + 1e-6
    for i, number in enumerate((1, 2)):
        small = grad_cam_by_hand(model, images[i], number)
        smooth = ops.image.resize(
            small[None, ..., None].astype("float32"), (36, 44), "bilinear", data_format="channels_last"
        )
        np.testing.assert_allclose(found[i], ops.convert_to_numpy(smooth)[0, ..., 0], atol=1e-5)
    early = swins.grad_cam(model, images, level="P1")
    assert early.shape == (2, 36, 44) and not np.allclose(early, found)


@pytest.mark.slow
def test_grad_cam_of_an_early_level_follows_the_gradient(rng):
    model = moved(swins.SwinTransformer(**SMALL, num_classes=3))
    image = rng.normal(size=(1, 36, 44, 3)).astype("float32")
    place = model.pyramid["P1"]
    rest, maps = keras.Model(place, model.output), keras.Model(model.input, place)(image, training=False)
    maps, step = ops.convert_to_numpy(maps), 1e-2
    importance = []
    for channel in range(maps.shape[-1]):  # by finite differences: raising a whole channel
        up, down = maps.copy(), maps.copy()
        up[..., channel] += step
        down[..., channel] -= step
        importance.append(float((rest(up) - rest(down))[0, 1]) / (2 * step))
    cam = np.maximum((maps[0] * importance).sum(axis=-1), 0)
    smooth = ops.image.resize((cam / cam.max())[None, ..., None], (36, 44), "bilinear", data_format="channels_last")
    found = swins.grad_cam(model, image, classes=[1], level="P1")[0]
    np.testing.assert_allclose(found, ops.convert_to_numpy(smooth)[0, ..., 0], atol=2e-2)


def test_what_cannot_be_explained(rng):
    images = rng.normal(size=(2, 36, 44, 3)).astype("float32")
    headless = swins.SwinTransformer(**SMALL, num_classes=0)
    with pytest.raises(swins.SwinsError, match="no classifier"):
        swins.grad_cam(headless, images)
    model = swins.SwinTransformer(**SMALL, num_classes=3)
    with pytest.raises(swins.SwinsError, match="level must be one of P1, P2; got 'P7'"):
        swins.grad_cam(model, images, level="P7")
    with pytest.raises(swins.SwinsError, match="classes must be 2 integers below 3"):
        swins.grad_cam(model, images, classes=[0, 3])
    assert set(explain.panels(headless, images)) == {"stage_0/block_1", "stage_1/block_1", "rollout"}


def test_pixels_beyond_the_last_patch_get_nothing():
    spread = attention.on_image(np.ones((1, 2, 3), "float32"), (9, 13), 4)
    assert spread.shape == (1, 9, 13)
    assert spread[0, :8, :12].all() and not spread[0, 8].any() and not spread[0, :, 12].any()


@pytest.fixture
def pictures(tmp_path):
    """Three files of real images, and one that is none."""
    from PIL import Image

    pixels = read_idx(DATA / "t10k-images-idx3-ubyte.gz")
    for i in range(3):
        Image.fromarray(pixels[i]).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    return tmp_path


@pytest.mark.slow
def test_a_checkpoint_is_explained_too(checkpoint, pictures, command):
    arguments = (pictures / "0.png", "-o", pictures / "out.png", "--weights", checkpoint, "--kind", "rollout")
    code, text, err = command("explain", *arguments, "-m", NAME)
    assert code == 0 and "0.png | ankle boot 9" in text, err
    code, text, err = command("explain", *arguments, "--overwrite")
    assert code == 0 and "0.png | class 9 9" in text, err


@pytest.mark.slow
def test_the_command_draws_what_can_be_read(converted, pictures, command):
    from PIL import Image

    out, good = pictures / "out.png", [pictures / f"{i}.png" for i in range(3)]
    code, text, err = command("explain", *good, "--weights", converted, "-o", out)
    assert code == 0, err
    assert "0.png | ankle boot 9" in text and "1.png | pullover" in text and "2.png | trouser" in text
    with Image.open(out) as image:
        assert image.width > 500 and np.asarray(image.convert("RGB")).std() > 20
    out.unlink()
    code, _, err = command("explain", *good, pictures / "broken.png", "--weights", converted, "-o", out)
    assert code == 1 and "broken.png: not a readable image" in err and "1 of 4 images" in err and not out.exists()
    arguments = (
        *good,
        pictures / "broken.png",
        "--weights",
        converted,
        "-o",
        out,
        "--skip-unreadable",
        "--kind",
        "rollout",
    )
    code, _, err = command("explain", *arguments)
    assert code == 0 and out.is_file() and "broken.png" in err
    before = out.read_bytes()
    code, _, err = command("explain", good[0], "--weights", converted, "-o", out, "--kind", "attention")
    assert code == 1 and "exists and would be replaced; pass --overwrite" in err and out.read_bytes() == before
    code, _, err = command("explain", good[0], "--weights", converted, "-o", out, "--kind", "attention", "--overwrite")
    assert code == 0 and out.read_bytes() != before, err
    out.unlink()
    for wrong in (pictures / "out.txt", pictures / "none" / "out.png"):
        code, _, err = command("explain", good[0], "--weights", converted, "-o", wrong)
        assert code == 1 and "must name a .png, .pdf or .svg in a folder that exists, or a folder" in err
    names = explain.names_of(artefacts.load_model(converted), "swin_mini_patch2_window4_28")
    assert names[3] == "class 3", "ten classes of somebody's are not clothes"
    code, _, err = command("explain", good[0], "-m", "swin_tinny", "-o", out)
    assert code == 1 and "unknown variant 'swin_tinny': the closest are" in err
    code, _, err = command("explain", good[0], "-m", converted, "--weights", converted, "-o", out)
    assert code == 1 and f"-m {converted} and --weights {converted} are two models; name one of them" in err
    code, _, err = command("explain", good[0], "--weights", pictures / "none", "-o", out)
    assert code == 1 and "none: no such artefact, run or file; for published weights -m NAME alone" in err


@pytest.mark.slow
def test_a_class_of_ones_own_folders_and_files_of_every_kind(converted, pictures, command):
    """Grad-CAM of another class is another picture, and is called so; SVG has the words as text to look for."""
    from PIL import Image

    (pictures / "broken.png").unlink()
    for name, more in (("own.svg", ()), ("other.svg", ("--class", "Bag")), ("other.pdf", ("--class", "8"))):
        arguments = (pictures, "--weights", converted, "-o", pictures / name, "--kind", "grad_cam", *more)
        code, out, err = command("explain", *arguments)
        assert code == 0 and out.count("png | ") == 3, err
    assert (pictures / "other.pdf").read_bytes().startswith(b"%PDF")
    own, other = ((pictures / name).read_text() for name in ("own.svg", "other.svg"))
    assert own.count("<!-- Grad-CAM: ") == 3 and "<!-- Grad-CAM: ankle boot 9" in own and "Grad-CAM: bag" not in own
    assert other.count("<!-- Grad-CAM: bag ") == 3 and "<!-- relevance, panel by panel -->" in own
    code, out, err = command("explain", pictures, "--weights", converted, "-o", pictures / "each", "--kind", "rollout")
    assert code == 0 and "wrote 3 pictures into" in out, err
    with Image.open(pictures / "each" / "2.png") as image:
        assert image.width > 600
    for arguments, text in (
        ((pictures / "0.png", "-o", pictures / "each"), "0.png exists and would be replaced"),
        ((pictures / "0.png", "-o", pictures / "x.png", "--class", "shoe"), "unknown class 'shoe': the closest are"),
        ((pictures / "0.png", "-o", pictures / "x.png", "--class", "10"), "the model has classes 0 to 9; got 10"),
        (
            (pictures / "0.png", "-o", pictures / "x.png", "--class", "1", "--kind", "rollout"),
            "--class is what Grad-CAM",
        ),
        ((*[pictures / "0.png"] * 65, "-o", pictures / "x.png"), "at most 64 images fit in a picture; got 65"),
    ):
        code, _, err = command("explain", *arguments, "--weights", converted)
        assert code == 1 and text in err, err
    with pytest.raises(
        swins.SwinsError, match=r"several classes are called crane; name one by its number: \[134, 517\]"
    ):
        explain.class_number("crane", swins.class_names(1000))
    assert explain.class_number("golden retriever", swins.class_names(1000)) == 207


def test_what_is_irrelevant_is_clear():
    """And what is most relevant hides the picture nearly; a map that is alike everywhere colours nothing."""
    colours = explain.relevance_colours()
    assert colours(0)[3] == 0 and colours(255)[3] == explain.DENSEST
    assert (
        explain.ranged([[2.0, 4.0], [3.0, 2.0]]).tolist() == [[0, 1], [0.5, 0]] and not explain.ranged(np.ones(3)).any()
    )


def test_panels_of_the_embedded_model_stand_on_the_clothes(converted):
    model, prepare = artefacts.load_model(converted), swins.preprocess(NAME)
    pixels = read_idx(DATA / "t10k-images-idx3-ubyte.gz")[:64]
    cam = explain.panels(model, prepare(list(pixels)), ["grad_cam"])["Grad-CAM"]
    clothed = pixels > 30
    inside = np.mean([c[mask].mean() for c, mask in zip(cam, clothed, strict=True)])
    outside = np.mean([c[~mask].mean() for c, mask in zip(cam, clothed, strict=True)])
    assert inside > outside


def test_the_class_that_is_asked_for_is_among_those_that_are_told():
    logits, names = np.float32([4, 3, 2, 1, 0]), ("ant", "bee", "cow", "dog", "elk, a deer")
    assert explain.top_classes(logits, names) == "ant 64%\nbee 23%\ncow 9%"
    assert explain.top_classes(logits, names, also=1) == explain.top_classes(logits, names)
    assert explain.top_classes(logits, names, also=4) == "ant 64%\nbee 23%\ncow 9%\nelk 1%"
