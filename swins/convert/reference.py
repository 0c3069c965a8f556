"""The PyTorch side, alone in its process: reads pickled checkpoints and runs timm, torchvision and transformers.

Imports nothing of swins or Keras.

Run by `oracle.py` as a script: importing timm after TensorFlow aborts the interpreter (both register LLVM options).
Usage: python -P reference.py; each line of standard input is a request, {"command", "out", ...}, whose results go to
the folder `out`. Where there is fork, it runs in a child, so that one import of torch and timm serves all and nothing
that a file did to a process stays. The answer is a line of JSON: {} done; {"error": text} a refusal; {"missing":
module}; {"crash": text}. After IDLE seconds without a request, or at the end of the input, it leaves.
"""

import collections
import contextlib
import functools
import json
import os
import pathlib
import re
import select
import sys
import traceback

IDLE = 60
FORKS = hasattr(os, "fork")


class Refusal(Exception):
    """Bad input, reported to the caller as text."""


class Record:
    """What stands for a setting or number that a checkpoint holds beside its tensors: nothing of it is kept or run."""

    def __init__(self, *_, **__):
        pass

    def __setstate__(self, _):
        pass


class Settings:
    """What stands for a dict-like setting: a plain ordered dict, which torch's reader fills."""

    def __new__(cls, *_, **__):
        return collections.OrderedDict()


RECORDS = ("numpy", "pathlib", "datetime", "mmengine")  # packages whose objects are replaced by a Record
SETTINGS = (
    "yacs",
    "omegaconf",
    "easydict",
    "addict",
    "mmcv",
    "ml_collections",
    "lightning",
    "pytorch_lightning",
    "lightning_fabric",
)
VALUES = ("dtype", "ndarray", "scalar", "_reconstruct", "_frombuffer", "datetime", "date", "timedelta")  # small letters
STAND_INS = {  # names that every file may ask for; torch finds out those of packages itself, but not in old files
    **dict.fromkeys(("argparse.Namespace", "types.SimpleNamespace", "collections.defaultdict"), Settings),
    **dict.fromkeys(("yacs.config.CfgNode", "mmengine.config.config.ConfigDict"), Settings),
    **dict.fromkeys((f"builtins.{name}" for name in ("dict", "list", "int", "float", "str")), Record),
    **dict.fromkeys(("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype"), Record),
}
NOT_KEPT = re.compile(r"optimi[sz]er|(?:lr_)?schedulers?$|scaler$|grad_scaler$|callbacks$|loops$")


def names_asked_for(path):
    """Names of what a checkpoint's pickle asks for besides torch's own; none of a file from before PyTorch 1.6."""
    import torch

    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # whatever the bytes lead it to: torch.load says what is wrong
        return []


def stand_ins(names):
    """Pairs of a stand-in and the name it answers to, for torch's reader: no class or function of the name is used."""
    found = dict(STAND_INS)
    for name in names:
        package, _, rest = name.partition(".")
        last = rest.rpartition(".")[2]
        if name not in found and package in RECORDS + SETTINGS and (last[:1].isupper() or last in VALUES):
            found[name] = Record if package in RECORDS else Settings
    return [(stand_in, name) for name, stand_in in found.items()]


def remedy(path, names):
    """The line that turns a checkpoint of more than tensors into one that is read, where it is trusted."""
    file = repr(os.path.basename(path))
    whole = any(name.startswith("torch.nn.modules") for name in names)
    taken = ".state_dict()" if whole else '["model"]'
    return (
        f"if you trust it, run where it was made: torch.save(torch.load({file}, weights_only=False){taken}, "
        f'"weights.pth"){"" if whole else ", with the key of its weights"}'
    )


def load_file(path):
    """A checkpoint file as nested dicts of tensors; pickled code is refused, never run."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file as load_safetensors

    names = []
    try:
        if path.lower().endswith(".safetensors"):
            return load_safetensors(path)
        names = names_asked_for(path)
        with torch.serialization.safe_globals(stand_ins(names)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise Refusal(f"not a readable safetensors file ({error}); download or save it again") from error
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        reason = str(error)
        if "TorchScript" in reason:
            raise Refusal(
                "a checkpoint may hold tensors only, and this is a TorchScript program; nothing of it was executed; if "
                f'you trust it: torch.save(torch.jit.load({os.path.basename(path)!r}).state_dict(), "weights.pth")'
            ) from error
        asked = next((line.strip()[:300] for line in reason.splitlines() if "GLOBAL" in line), None)
        if asked:
            asked = asked.partition(" was not an allowed")[0]
            raise Refusal(
                f"a checkpoint may hold tensors only, and this pickle asks for more ({asked}); nothing of it was "
                f"executed; {remedy(path, names)}"
            ) from error
        lines = [line.strip() for line in reason.splitlines() if line.strip()]
        cause = next(
            (line for line in lines if line.startswith("WeightsUnpickler")), (*lines, type(error).__name__)[0]
        )[:300]
        raise Refusal(
            f"not a readable PyTorch checkpoint: truncated or corrupt ({cause}); download or save it again"
        ) from error


def arrays_only(value):
    """Nested dicts with their tensors as float32 or integer CPU tensors; optimisers and everything else left out."""
    import torch

    if isinstance(value, dict):
        kept = {
            str(k): arrays_only(v) for k, v in value.items() if not (isinstance(v, dict) and NOT_KEPT.match(str(k)))
        }
        return {k: v for k, v in kept.items() if v is not None}
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise Refusal(
                f"a checkpoint must hold plain tensors; one of shape {tuple(value.shape)} is sparse, quantised or meta"
            )
        value = value.detach()
        return (value.float() if value.is_floating_point() else value).contiguous().clone()
    return None


def flatten(value, prefix=()):
    """Nested dicts -> [(path of keys, tensor)]."""
    if isinstance(value, dict):
        return [leaf for k, v in value.items() for leaf in flatten(v, (*prefix, k))]
    return [(prefix, value)]


def read(request):
    """A pickled checkpoint -> tensors.safetensors, whose names are JSON lists of the nested keys."""
    from safetensors.torch import save_file

    content = load_file(request["file"])
    if not isinstance(content, dict):
        raise Refusal(f"a checkpoint must be a dict of tensors; this file holds a {type(content).__name__}")
    leaves = flatten(arrays_only(content))
    save_file({json.dumps(path): tensor for path, tensor in leaves}, f"{request['out']}/tensors.safetensors")


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
        **({"out_features": [f"stage{s}" for s in normed or stages]} if kind in ("backbone", "maskformer") else {}),
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


def forward(request):
    """Load a checkpoint into a program's model by its own rules and run images.npy -> outputs.npz.

    Images are (B, H, W, C). outputs: `logits`, the output of each module named in the request, channels last, the
    number of `parameters`, and the versions of the program and of `torch`.
    """
    import importlib

    import numpy as np
    import torch

    program = request["program"]
    model, run = PROGRAMS[program](request)
    model.eval()
    channels_first = paper(request)[2] if program == "timm" else ()
    kept, modules = {}, dict(model.named_modules())

    def keep(name, y):
        kept.setdefault(name, []).append((y[0] if isinstance(y, tuple) else y).numpy())

    for name in request["modules"]:
        module = find_module(modules, name)
        module.register_forward_hook(lambda _, __, y, name=name: keep(name, y))
    images = np.load(request["images"], mmap_mode="r")
    logits = []
    with torch.inference_mode():
        for start in range(0, len(images), request["batch"]):
            batch = torch.from_numpy(np.array(images[start : start + request["batch"]])).permute(0, 3, 1, 2)
            logits.append(run(batch.contiguous()).numpy())
    outputs = {name: np.concatenate(parts) for name, parts in kept.items()}
    outputs |= {name: outputs[name].transpose(0, 2, 3, 1) for name in channels_first if name in outputs}
    facts = {
        "parameters": parameters_of(model, request),
        program: importlib.import_module(program).__version__,
        "torch": torch.__version__,
    }
    np.savez(f"{request['out']}/outputs.npz", **outputs, logits=np.concatenate(logits), **facts)


def perturb(request):
    """Write timm's model with every parameter moved at random -> perturbed.safetensors, in today's timm names.

    Fresh models hide errors: their biases, tables and norms are nearly constant.
    """
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(request["seed"])
    model = build(request)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                spread = 0.2
            elif name.endswith("bias_table"):
                spread = 0.5
            else:
                spread = parameter[0].numel() ** -0.5
            parameter.add_(torch.randn_like(parameter) * spread)
    save_file(model.state_dict(), f"{request['out']}/perturbed.safetensors", {"format": "pt"})


def transform(request):
    """Prepare image files as timm does, or as Microsoft's evaluation -> images.npy, (B, H, W, C) float32."""
    import numpy as np
    import timm
    from PIL import Image
    from timm.data import create_transform, resolve_data_config
    from torchvision import transforms

    config = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(request["architecture"]).to_dict())
    size = config["input_size"][1]
    prepare = create_transform(**config, is_training=False)
    if request["protocol"] == "ms":  # Microsoft crops where the configuration says TEST.CROP, else squashes (384)
        bicubic = transforms.InterpolationMode.BICUBIC
        crop = [transforms.Resize(int(256 / 224 * size), bicubic), transforms.CenterCrop(size)]
        squash = [transforms.Resize((size, size), bicubic)]
        tail = [transforms.ToTensor(), transforms.Normalize(config["mean"], config["std"])]
        prepare = transforms.Compose([*(squash if size == 384 else crop), *tail])
    images = [prepare(Image.open(file).convert("RGB")).permute(1, 2, 0).numpy() for file in request["files"]]
    np.save(f"{request['out']}/images.npy", np.stack(images))


COMMANDS = {f.__name__: f for f in (read, forward, perturb, transform)}


def answer(request):
    """Run one request, in the folder that it comes from -> the answer, a dict."""
    try:
        os.chdir(request["cwd"])
        COMMANDS[request["command"]](request)
    except Refusal as refusal:
        return {"error": str(refusal)}
    except ModuleNotFoundError as missing:
        return {"missing": missing.name}
    except Exception:  # said to the caller, whoever is to blame
        return {"crash": traceback.format_exc()[-2000:]}
    return {}


def in_a_child(request):
    """`answer` from a forked process."""
    place = pathlib.Path(request["out"], "answer.json")
    child = os.fork()
    if not child:
        try:
            place.write_text(json.dumps(answer(request)))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if not place.exists():
        return {"crash": f"it ended with status {os.waitstatus_to_exitcode(status)}, perhaps for want of memory"}
    return json.loads(place.read_text())


def requests():
    """Requests from standard input, until it ends or is idle."""
    while not FORKS or select.select([sys.stdin], [], [], IDLE)[0]:  # select takes no pipes where there is no fork
        line = sys.stdin.readline()
        if not line:
            return
        yield json.loads(line)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    with contextlib.suppress(Exception):  # each request will say so
        import timm  # noqa: F401  once, for all children
    run = in_a_child if FORKS else answer
    for request in requests():
        print(json.dumps(run(request)), file=answers, flush=True)
