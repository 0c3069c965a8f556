"""The PyTorch side's models: of timm, torchvision and transformers, each loading a file by its own rules.

Imports nothing of swins or Keras. A request is a dict of what `oracle.forward` asks for.
"""

import contextlib
import functools
import os
import re
import sys

from pickled_files import Refusal, load_file


def build(request):
    """timm's model: by its registered name, or timm's class with the variant's numbers."""
    import timm

    numbers = {k: tuple(v) if isinstance(v, list) else v for k, v in request["numbers"].items() if k != "made_for"}
    if timm.is_model(request["architecture"]) and request.get("registered", True):
        size = {"img_size": numbers["img_size"], "in_chans": numbers["in_chans"], "num_classes": numbers["num_classes"]}
        return timm.create_model(request["architecture"], pretrained=False, **size)
    module, name, _ = paper(request)
    meta_dim, last_norm = numbers.pop("meta_dim", None), numbers.pop("last_norm", True)
    model = getattr(module, name)(**numbers)
    if meta_dim:
        as_reich(model, meta_dim, last_norm)
    return model


def as_reich(model, meta_dim, last_norm):
    """Give timm's V2-CR the width of C. Reich's position network and, without last_norm, his end; timm fixes both."""
    import torch
    from timm.layers import Mlp

    for stage in model.stages:
        for block in stage.blocks:
            block.attn.meta_mlp = Mlp(2, meta_dim, block.attn.num_heads, torch.nn.ReLU, drop=(0.125, 0.0))
    if not last_norm:
        model.stages[-1].blocks[-1].norm3 = torch.nn.Identity()


def paper(request):
    """timm's module and class for an architecture's family, and which of its modules put channels first."""
    from timm.models import swin_transformer, swin_transformer_v2, swin_transformer_v2_cr

    families = {
        "swinv2_cr_": (swin_transformer_v2_cr, "SwinTransformerV2Cr", ("patch_embed",)),
        "swin_transformer_v2_": (swin_transformer_v2_cr, "SwinTransformerV2Cr", ("patch_embed",)),
        "swinv2_": (swin_transformer_v2, "SwinTransformerV2", ()),
        "swin_": (swin_transformer, "SwinTransformer", ()),
    }
    return next(family for prefix, family in families.items() if request["architecture"].startswith(prefix))


def channels_first_of(request):
    """The modules, of those that are wanted, whose outputs have channels first."""
    if request["kind"] == "resnet":
        return request["modules"]
    return paper(request)[2] if request["program"] == "timm" else ()


def timm_model(request):
    """timm's model with a checkpoint loaded by timm's own rules -> (model, function of a batch)."""
    from timm.models import clean_state_dict

    model = build(request)
    content = load_file(request["file"])
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(content.get(key), dict) and content[key]:
            content = content[key]
    state = paper(request)[0].checkpoint_filter_fn(clean_state_dict(content), model)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise Refusal(f"timm's {request['architecture']} does not take this checkpoint: {error}") from error
    return model, model


def one_window(request):
    """The (vertical, horizontal) window that all stages have, as torchvision's and transformers' models do."""
    windows = {tuple(window) for window in request["numbers"]["window_size"]}
    if len(windows) > 1:
        raise Refusal(f"{request['program']} has one window for all stages; this model has {sorted(windows)}")
    return windows.pop()


def is_v2(request):
    return "pretrained_window_sizes" in request["numbers"]


def torchvision_model(request):
    """torchvision's model with a checkpoint in its own names -> (model, function of a batch)."""
    import torch
    from torchvision.models import swin_transformer as tv

    if request["kind"] == "resnet":
        return resnet_model(request)
    n, v2 = request["numbers"], is_v2(request)
    if "meta_dim" in n or any(map(any, n.get("pretrained_window_sizes", ()))):
        raise Refusal("torchvision has no V2-CR and no pretrained windows, so it cannot run this model")
    more = {"block": tv.SwinTransformerBlockV2, "downsample_layer": tv.PatchMergingV2} if v2 else {}
    patch, window = [n["patch_size"]] * 2, list(one_window(request))
    model = tv.SwinTransformer(
        patch, n["embed_dim"], n["depths"], n["num_heads"], window, n["mlp_ratio"], num_classes=n["num_classes"], **more
    )
    if n["in_chans"] != 3:
        model.features[0][0] = torch.nn.Conv2d(n["in_chans"], n["embed_dim"], patch, patch)
    if not n["num_classes"]:
        model.head = torch.nn.Identity()
    keys = model.load_state_dict(load_file(request["file"]), strict=False)
    tables = ("relative_position_index", "relative_coords_table")  # computed from sizes
    missing = [key for key in keys.missing_keys if not key.endswith(tables)]
    if missing or keys.unexpected_keys:
        raise Refusal(f"torchvision does not take this checkpoint: lacks {missing}; unknown {keys.unexpected_keys}")
    return model, model


def resnet_model(request):
    """torchvision's ResNet of bottlenecks with a checkpoint in its own names -> (model, function of a batch)."""
    import torch
    from torchvision.models import resnet as tv

    n = request["numbers"]
    if n["width"] != 64 or len(n["depths"]) != 4:
        raise Refusal("torchvision's ResNets have 64 channels after the first convolution, and 4 stages")
    model = tv.ResNet(tv.Bottleneck, n["depths"])
    if n["in_chans"] != 3:
        model.conv1 = torch.nn.Conv2d(n["in_chans"], 64, 7, 2, 3, bias=False)
    for s, stride in enumerate(n["strides"], 1):
        first = getattr(model, f"layer{s}")[0]
        first.conv2.stride = first.downsample[0].stride = (stride, stride)
    built = n["stages"] or 4
    for s in range(built + 1, 5):
        setattr(model, f"layer{s}", torch.nn.Identity())
    classes = n["num_classes"]
    model.fc = torch.nn.Linear(128 * 2**built, classes) if classes else torch.nn.Identity()
    try:
        model.load_state_dict(load_file(request["file"]), strict=True)
    except RuntimeError as error:
        raise Refusal(f"torchvision's ResNet does not take this checkpoint: {error}") from error
    return model, model


KINDS = {  # of transformers' models: (configuration, class) by whether they are V2
    "classifier": {
        False: ("SwinConfig", "SwinForImageClassification"),
        True: ("Swinv2Config", "Swinv2ForImageClassification"),
    },
    "model": {False: ("SwinConfig", "SwinModel"), True: ("Swinv2Config", "Swinv2Model")},
    "backbone": {False: ("SwinConfig", "SwinBackbone"), True: ("Swinv2Config", "Swinv2Backbone")},
    "donut": {False: ("DonutSwinConfig", "DonutSwinModel")},
    "maskformer": {False: ("MaskFormerSwinConfig", "MaskFormerSwinBackbone")},
}


def transformers_model(request):
    """transformers' model with a checkpoint that it loads itself -> (model, function of a batch)."""
    import shutil

    import torch
    import transformers
    from transformers.models.maskformer import modeling_maskformer_swin

    n, v2, kind = request["numbers"], is_v2(request), request["kind"]
    if "meta_dim" in n or v2 not in KINDS[kind]:
        raise Refusal(f"transformers has no such {kind}, so it cannot run this model")
    made_for = n["made_for"]
    if v2 and request["size_rule"] != "huggingface":
        made_for = [2**14, 2**14] if request["size_rule"] == "open_mmlab" else n["img_size"]
    state = load_file(request["file"])
    stages = range(1, 1 + len(n["depths"]))
    normed = [s for s in stages if any(f"norms.{s - 1 if kind == 'maskformer' else f'stage{s}'}." in k for k in state)]
    maps = ["stem"] * any("norms.stem." in key for key in state) + [f"stage{s}" for s in normed]
    maps = maps or [f"stage{s}" for s in stages]
    config, name = KINDS[kind][v2]
    config = getattr(transformers, config)(
        image_size=made_for[0] if made_for[0] == made_for[1] else tuple(made_for),
        patch_size=n["patch_size"],
        num_channels=n["in_chans"],
        embed_dim=n["embed_dim"],
        depths=list(n["depths"]),
        num_heads=list(n["num_heads"]),
        window_size=one_window(request)[0],
        mlp_ratio=n["mlp_ratio"],
        **({"num_labels": n["num_classes"]} if kind == "classifier" else {}),
        **({"pretrained_window_sizes": [w for w, _ in n["pretrained_window_sizes"]]} if v2 else {}),
        **({"out_features": maps} if kind in ("backbone", "maskformer") else {}),
    )
    folder = os.path.join(request["out"], "model")
    os.mkdir(folder)
    config.save_pretrained(folder)
    shutil.copyfile(request["file"], os.path.join(folder, "model.safetensors"))
    build = getattr(transformers, name, None) or getattr(modeling_maskformer_swin, name)
    with contextlib.redirect_stdout(sys.stderr):
        model, info = build.from_pretrained(folder, output_loading_info=True, local_files_only=True)
    unknown = [k for k in info["unexpected_keys"] if not re.search(r"^decoder\.|mask_token|relative_position_index", k)]
    unused = r"swin\.layernorm|relative_(position_index|coords_table)" + (r"|model\.layernorm" if normed else "")
    if not request["final_norm"] and kind == "model":
        unused, model.layernorm = rf"{unused}|^layernorm\.", torch.nn.Identity()
    missing = [k for k in info["missing_keys"] if not re.search(unused, k)]
    if missing or unknown or info["mismatched_keys"]:
        raise Refusal(
            f"transformers' {name} does not take this checkpoint: lacks {missing}; unknown {unknown}; of another shape "
            f"{info['mismatched_keys']}"
        )
    if v2 and request["size_rule"] != "huggingface":
        mask_once(model)
    return model, functools.partial(run_transformers, model, request, normed[-1:] == [stages[-1]])


def mask_once(model):
    """transformers' V2 adds its mask twice, which is its own way alone."""
    for module in model.modules():
        if hasattr(module, "get_attn_mask"):
            module.get_attn_mask = functools.partial(half_of, module.get_attn_mask)


def half_of(function, *arguments, **named):
    value = function(*arguments, **named)
    return value if value is None else value / 2


def run_transformers(model, request, ends_normed, batch):
    """Logits, pooled features, or a backbone's last map averaged, of a model of transformers."""
    if request["kind"] == "classifier":
        if request["size_rule"] != "open_mmlab" or is_v2(request):
            return model(batch).logits
        return model.classifier(model.swin(batch, always_partition=True).pooler_output)
    if request["kind"] in ("model", "donut"):
        always = request["size_rule"] == "open_mmlab" and not is_v2(request)
        return model(batch, **({"always_partition": True} if always else {})).pooler_output
    y = model(batch, output_hidden_states=True)
    return (y.feature_maps if ends_normed or is_v2(request) else y.hidden_states)[-1].mean((2, 3))


def parameters_of(model, request):
    """How many numbers a model computes its output from: norms that no output has gone through do not count."""
    count = sum(p.numel() for p in model.parameters())
    names = {name: p.numel() for name, p in model.named_parameters()}
    if request["program"] == "torchvision" and is_v2(request):  # the middle third is set to 0
        count -= sum(n // 3 for name, n in names.items() if name.endswith("qkv.bias"))
    if request["kind"] in ("backbone", "maskformer") and not is_v2(request):
        count -= sum(n for name, n in names.items() if re.match(r"(swin|model)\.layernorm", name))
        last = {
            "backbone": f"stage{len(request['numbers']['depths'])}",
            "maskformer": str(len(request["numbers"]["depths"]) - 1),
        }
        kept = f"hidden_states_norms.{last[request['kind']]}."
        count -= sum(
            n for name, n in names.items() if name.startswith("hidden_states_norms.") and not name.startswith(kept)
        )
    return count


PROGRAMS = {"timm": timm_model, "torchvision": torchvision_model, "transformers": transformers_model}


def find_module(modules, name):
    """A module by its name, or by the end of it that only it has."""
    if name in modules:
        return modules[name]
    (whole,) = [key for key in modules if key.endswith(f".{name}")]
    return modules[whole]
