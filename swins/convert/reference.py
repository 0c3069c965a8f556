"""The PyTorch side, alone in its process: reads pickled checkpoints and runs timm. Imports nothing of swins or Keras.

Run by `oracle.py` as a script: importing timm after TensorFlow aborts the interpreter (both register LLVM options).
Usage: python -P reference.py; each line of standard input is a request, {"command", "out", ...}, whose results go to
the folder `out`. Where there is fork, it runs in a child, so that one import of torch and timm serves all and nothing
that a file did to a process stays. The answer is a line of JSON: {} done; {"error": text} a refusal; {"missing":
module}; {"crash": text}. After IDLE seconds without a request, or at the end of the input, it leaves.
"""

import collections
import contextlib
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

    numbers = {k: tuple(v) if isinstance(v, list) else v for k, v in request["numbers"].items()}
    if timm.is_model(request["architecture"]):
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


def forward(request):
    """Load a checkpoint into timm's model by timm's own rules and run images.npy -> outputs.npz.

    Images are (B, H, W, C). outputs: `logits`, the output (B, H, W, C) of each module named in the request, the
    number of `parameters`, and the versions of `timm` and `torch`.
    """
    import numpy as np
    import timm
    import torch
    from timm.models import clean_state_dict

    model = build(request).eval()
    content = load_file(request["file"])
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(content.get(key), dict) and content[key]:
            content = content[key]
    module, _, channels_first = paper(request)
    state = module.checkpoint_filter_fn(clean_state_dict(content), model)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise Refusal(f"timm's {request['architecture']} does not take this checkpoint: {error}") from error
    kept = {}
    modules = dict(model.named_modules())
    for name in request["modules"]:
        modules[name].register_forward_hook(lambda _, __, y, name=name: kept.setdefault(name, []).append(y.numpy()))
    images = np.load(request["images"], mmap_mode="r")
    logits = []
    with torch.inference_mode():
        for start in range(0, len(images), request["batch"]):
            batch = torch.from_numpy(np.array(images[start : start + request["batch"]])).permute(0, 3, 1, 2)
            logits.append(model(batch.contiguous()).numpy())
    outputs = {name: np.concatenate(parts) for name, parts in kept.items()}
    outputs |= {name: outputs[name].transpose(0, 2, 3, 1) for name in channels_first if name in outputs}
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "timm": timm.__version__,
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
