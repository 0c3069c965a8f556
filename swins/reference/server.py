"""The PyTorch side, alone in its process: reads pickled checkpoints and runs timm, torchvision and transformers.

Imports nothing of swins or Keras.

Run by `oracle.py` as a script: importing timm after TensorFlow aborts the interpreter (both register LLVM options).
Usage: python -P server.py SECONDS, as swins/processes/forked_answers.py describes: a request has a "command", and its
results go to the folder `out`. {"error": text} answers what is refused.
"""

import contextlib
import json
import os
import pathlib
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "processes")]
from forked_answers import serve  # noqa: E402
from pickled_files import Refusal, arrays_only, class_names, flatten, load_file  # noqa: E402
from torch_models import PROGRAMS, build, channels_first_of, find_module, parameters_of  # noqa: E402

del sys.path[:2]


def read(request):
    """A pickled checkpoint -> tensors.safetensors, named by JSON lists of nested keys, and class_names.json."""
    from safetensors.torch import save_file

    content = load_file(request["file"])
    if not isinstance(content, dict):
        raise Refusal(f"a checkpoint must be a dict of tensors; this file holds a {type(content).__name__}")
    leaves = flatten(arrays_only(content))
    save_file({json.dumps(path): tensor for path, tensor in leaves}, f"{request['out']}/tensors.safetensors")
    pathlib.Path(request["out"], "class_names.json").write_text(json.dumps(class_names(content)))


def forward(request):
    """Load a checkpoint into a program's model by its own rules and run images.npy -> outputs.npz.

    Images are (B, H, W, C); float64 ones make a model of float64. outputs: `logits`, the output of each module named in
    the request, channels last, the number of `parameters`, and the versions of the program and of `torch`.
    """
    import importlib

    import numpy as np
    import torch

    program = request["program"]
    model, run = PROGRAMS[program](request)
    model.eval()
    channels_first = channels_first_of(request)
    kept, modules = {}, dict(model.named_modules())

    def keep(name, y):
        kept.setdefault(name, []).append((y[0] if isinstance(y, tuple) else y).numpy())

    for name in request["modules"]:
        module = find_module(modules, name)
        module.register_forward_hook(lambda _, __, y, name=name: keep(name, y))
    images = np.load(request["images"], mmap_mode="r")
    if images.dtype == np.float64:
        model.double()
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


def detect(request):
    """Load a detector's file strictly into plain PyTorch and run images.npy -> outputs.npz.

    Images are (B, H, W, C), padded; "sizes" are those without padding. outputs: "I/NAME" of image I as `steps` names
    them, the number of `parameters`, and the versions of `torch` and `torchvision`.
    """
    import numpy as np
    import torch
    import torchvision

    sys.path.insert(0, HERE)
    from detector_models import load_detector, steps

    detector = load_detector(request["file"])
    outputs = {}
    with torch.inference_mode():
        for i, (image, size) in enumerate(zip(np.load(request["images"]), request["sizes"], strict=True)):
            pixels = torch.from_numpy(image[None]).permute(0, 3, 1, 2).contiguous()
            for name, value in steps(detector, pixels, tuple(size), request["regions"]).items():
                outputs[f"{i}/{name}"] = value
    facts = {
        "parameters": sum(p.numel() for p in detector.parameters()),
        "torchvision": torchvision.__version__,
        "torch": torch.__version__,
    }
    np.savez(f"{request['out']}/outputs.npz", **outputs, **facts)


def segment(request):
    """Load a UPerNet's file strictly into a "program", "torch" or "transformers", and run images.npy -> outputs.npz.

    Images are (B, H, W, C); "bins" are the parts of its pooling. outputs: `output`, channels first, that of each module
    named in the request as it is, the number of `parameters`, and the versions of `torch` and `transformers`.
    """
    import numpy as np
    import torch
    import transformers

    sys.path.insert(0, HERE)
    import segmenter_models

    with contextlib.redirect_stdout(sys.stderr):
        model, run = segmenter_models.PROGRAMS[request["program"]](request)
    model.eval()
    kept, modules = {}, dict(model.named_modules())

    def keep(name, y):
        kept[name] = y[0] if isinstance(y, tuple) else y

    for name in request["modules"]:
        module = find_module(modules, name)
        module.register_forward_hook(lambda _, __, y, name=name: keep(name, y))
    with torch.inference_mode():
        pixels = torch.from_numpy(np.load(request["images"])).permute(0, 3, 1, 2).contiguous()
        kept["output"] = run(pixels)
    facts = {
        "parameters": segmenter_models.parameters_of(model),
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    np.savez(f"{request['out']}/outputs.npz", **{name: y.numpy() for name, y in kept.items()}, **facts)


COMMANDS = {f.__name__: f for f in (read, forward, detect, segment, perturb, transform)}


def answer(request):
    """Run one request; a refusal is its answer."""
    try:
        COMMANDS[request["command"]](request)
    except Refusal as refusal:
        return {"error": str(refusal)}


if __name__ == "__main__":
    serve(answer, "timm")
