"""SwinUNet gives what RuslanGreenhead/swin_transformer's network gives, of the same weights."""

import numpy as np
import pytest
from shared_fixtures import script
from test_swin_unet import outputs

import swins
from swins import changes

REFERENCE = script("tests/reference/swin_unet_reference.py")
ROW = "swin_unet_patch4_window7_224"


# the reference's modules and ours


def kernel(x):
    """A linear layer's or a convolution's weight, as Keras has it."""
    return x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T


def head_major(x):
    """Projections of attention, whose rows there are (channel, one of q, k and v), as (one of them, channel)."""
    return x.reshape(-1, 3, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)


def spread(x):
    """An expansion's weight, whose rows there are (channel, row, column), as (row, column, channel)."""
    return x.reshape(-1, 2, 2, x.shape[1]).transpose(1, 2, 0, 3).reshape(x.shape).T


def linear(ours, theirs):
    return {f"{ours}/kernel": (f"{theirs}.weight", kernel), f"{ours}/bias": (f"{theirs}.bias", np.asarray)}


def norm(ours, theirs):
    return {f"{ours}/gamma": (f"{theirs}.weight", np.asarray), f"{ours}/beta": (f"{theirs}.bias", np.asarray)}


def block(ours, theirs):
    return {
        **norm(f"{ours}/norm1", f"{theirs}.norm1"),
        **norm(f"{ours}/norm2", f"{theirs}.norm2"),
        f"{ours}/attn/relative_position_bias_table": (f"{theirs}.attn.rpb_table", np.asarray),
        f"{ours}/attn/qkv/kernel": (f"{theirs}.attn.to_qkv.weight", lambda x: head_major(x).T),
        f"{ours}/attn/qkv/bias": (f"{theirs}.attn.to_qkv.bias", head_major),
        **linear(f"{ours}/attn/proj", f"{theirs}.attn.to_out"),
        **linear(f"{ours}/mlp/fc1", f"{theirs}.mlp.fc1"),
        **linear(f"{ours}/mlp/fc2", f"{theirs}.mlp.fc2"),
    }


def expanding(ours, theirs):
    weight = {f"{ours}/expansion/kernel": (f"{theirs}.projection.weight", spread)}
    return {**norm(f"{ours}/norm", f"{theirs}.norm_layer"), **weight}


def reference_names(depths=(2, 2, 6, 2)):
    """{path of ours: (the reference's name, how its tensor becomes ours)}."""
    rows = {"class_maps/embedding/embeddings": ("class_emb.weight", np.asarray)}
    rows |= {**linear("class_maps/fc1", "class_mlp.0"), **linear("class_maps/fc2", "class_mlp.2")}
    rows |= {
        **linear("time_embedding/fc1", "model.time_emb.mlp.0"),
        **linear("time_embedding/fc2", "model.time_emb.mlp.2"),
    }
    rows |= linear("patch_embed/proj", "model.downs.patch_embed.patch_conv")
    rows |= norm("patch_embed/norm", "model.downs.patch_embed.norm_layer")
    for s, depth in enumerate(depths):
        for j, part in enumerate(("fc1", "fc2")):
            rows |= linear(f"stages_{s}_time/{part}", f"model.downs.time_mlps.{s}.{2 * j}")
        for b in range(depth):
            rows |= block(f"stages_{s}_blocks_{b}", f"model.downs.layers.{s}.blocks.{b}")
        if s:
            merging = f"model.downs.layers.{s - 1}.downsample"
            rows |= norm(f"stages_{s}_downsample/norm", f"{merging}.norm_layer")
            rows[f"stages_{s}_downsample/reduction/kernel"] = (f"{merging}.reduction.weight", kernel)
    for b in range(2):
        rows |= block(f"middle_blocks_{b}", f"model.middle.blocks.{b}")
    for i, depth in enumerate(depths[:-1]):
        ours, theirs = f"decoder_{2 - i}", f"model.ups.{i}"
        rows |= expanding(f"{ours}_expand", f"{theirs}.patch_expanding")
        rows |= linear(f"{ours}_fuse", f"{theirs}.align_conv")
        for b in range(depth):
            rows |= block(f"{ours}_blocks_{b}", f"{theirs}.basic_layer.blocks.{b}")
    for i in range(2):
        ours, theirs = f"output_{i}", f"model.out_proj.{3 * i}"
        rows |= expanding(f"{ours}_up/expand", f"{theirs}.expand")
        rows |= linear(f"{ours}_up/align", f"{theirs}.align_bilinear") | linear(f"{ours}_up/fuse", f"{theirs}.out_conv")
        rows |= norm(f"{ours}_norm", f"model.out_proj.{3 * i + 1}")
    return rows | linear("output", "model.out_proj.7")


def their_shape(shape, ours):
    """The shape there of a variable of ours."""
    if ours.endswith("kernel"):
        return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
    return shape


def assert_gives_what_the_reference_gives(kind):
    """The network with the reference's weights of the same names gives the reference's outputs."""
    width, heads = REFERENCE.WIDTHS[kind]
    model = swins.create(ROW, embed_dim=width, num_heads=heads)
    names, variables = reference_names(), changes.variables(model)
    assert set(names) == set(variables)
    shapes = {theirs: their_shape(tuple(variables[ours].shape), ours) for ours, (theirs, _) in names.items()}
    with np.load(REFERENCE.FILE) as file:
        assert REFERENCE.digest(shapes) == file[f"{kind}_digest"]
        assert model.count_params() == file[f"{kind}_parameters"]
        for ours, (theirs, change) in names.items():
            variables[ours].assign(change(REFERENCE.seeded(theirs, shapes[theirs])))
        inputs = {
            "images": REFERENCE.images(),
            "time": np.array(REFERENCE.TIMES),
            "classes": np.array(REFERENCE.LABELS),
        }
        output = outputs(model, inputs)[:, 1 :: REFERENCE.STEP, 1 :: REFERENCE.STEP, 0]
        error = np.abs(output - file[f"{kind}_output"]).max() / file[f"{kind}_largest"]
    assert error < 2e-5, error


@pytest.mark.backends
@pytest.mark.slow
def test_a_narrow_one_gives_what_the_reference_gives():
    assert_gives_what_the_reference_gives("narrow")


@pytest.mark.slow
def test_the_reference_configuration_gives_what_the_reference_gives():
    assert_gives_what_the_reference_gives("full")
