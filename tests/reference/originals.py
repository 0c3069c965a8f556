"""Run the programs that Swins come from, and keep what they compute: python originals.py SOURCES [NAME ...].

The programs' code is run, never copied: fixtures hold weights drawn here and what the programs made of them.
Their environment is not the project's:

    uv venv --python 3.11 mm && uv pip install --python mm/bin/python torch==2.15.0 torchvision==0.29.2 timm==1.0.31 \
        mmengine==0.10.7 mmcv-lite==2.1.0 six terminaltables shapely pycocotools prettytable ftfy regex yacs termcolor \
        einops modelindex rich importlib-metadata scipy setuptools
    uv pip install --python mm/bin/python --no-deps mmdet==3.3.0 mmsegmentation==1.2.2 mmpretrain==1.2.0

PYTHONPATH holds a stand-in for mmcv's operators, `mmcv_ops_stub`, which no backbone calls. SOURCES is a folder of
checkouts, each named owner+repository:

    microsoft+Swin-Transformer                                f82860bfb5225915aca09c3227159ee9e1df874d
    SwinTransformer+Swin-Transformer-Object-Detection         c7b20110addde0f74b1fbf812b403d16a59a87a9
    SwinTransformer+Swin-Transformer-Semantic-Segmentation    87e6f90577435c94f3e92c7db1d36edc234d91f6
    ChristophReich1996+Swin-Transformer-V2                    7b74308bd560a5efabc0f9610d038dcf8e61226e

Each name runs in a process of its own, since checkouts and packages share module names. It writes originals/NAME.npz:

    numbers               JSON: program, version, class, the arguments that it was built with
    state/TENSOR          the state dict as the program saves it, buffers too
    cases                 JSON list: size [H, W] in pixels, seed, and "raises", or "blocks": what each block was seen
                          to do with its map (see `geometry`), or "nan"; "without": tensors a model of this size lacks
    state_of/CASE/TENSOR  tensors that differ from state/ where the program builds a model for one size
    out/CASE/NAME         logits (1, classes); maps (1, H, W, C): norm0, norm1... where the program norms them,
                          stage0, stage1... (last block, not normed) where it gives no maps; norm: the last map, normed

Images are `image(size, seed)`, (1, H, W, 3). README.md beside the fixtures says what was seen.
"""

import importlib
import importlib.metadata
import itertools
import json
import pathlib
import subprocess
import sys
import types
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from observed_blocks import Watch, image

HERE = pathlib.Path(__file__).parent / "originals"
SEED = 14
SCALES = (2.25, 3.0, 4.75)  # logit_scale of V2's heads in turn, one above the clamp at log(100) = 4.605
GRID = 256  # parameters are multiples of 1 / GRID, so that files are small
OPEN = (  # (height, width) in pixels; tokens of stages 0, 1 with patches of 4; windows have 4 x 4 tokens
    *((64, 64), (32, 32), (32, 64), (64, 32)),  # 16x16, 8x8; 8x8, 4x4: one window; 4x8 and 8x4: one side within
    *((32, 72), (24, 56), (56, 24), (24, 24), (16, 16)),  # 4x9; 3x7 and 7x3: one side smaller; 3x3, 2x2: both
    *((36, 52), (62, 45), (33, 34)),  # odd maps: 9x13, 5x7; remainders of the patch: 2 and 1 pixels, 1 and 2
)
FEW = ((64, 64), (32, 72), (24, 56), (24, 24), (36, 52), (33, 34))
FIXED = (  # sizes that a model is built for: maps must be tiled, and even where they are merged
    *((64, 64), (32, 32), (32, 64), (64, 32), (32, 96)),  # one side of stage 1 within the window, both ways
    *((16, 16), (16, 48), (48, 16), (8, 16)),  # 4x4, 2x2; 4x12, 2x6: windows of 2; 2x4, 1x2: windows of 1
    *((66, 65), (12, 12), (24, 24), (40, 72), (36, 52), (32, 72)),  # remainders; odd: 3x3; untiled: 6x6, 10x18...
)
SOME = ((64, 64), (32, 32), (32, 64), (16, 48), (8, 16))
CHRISTOPH = (*((64, 64), (64, 96), (32, 32), (16, 16), (12, 12), (8, 8)), *((66, 65), (32, 64), (16, 48), (24, 24)))
BACKBONE = {"embed_dims": 8, "depths": (2, 2), "num_heads": (1, 2)}
CLASSES = 5


@dataclass(frozen=True)
class Original:
    """A program's model: how it is built, called, and which sizes it is asked for.

    A program that builds a model `for_size` is given each size under the name `size_name`.
    """

    program: str
    make: object  # keyword arguments -> module
    arguments: dict
    outputs: object  # (module, image (1, 3, H, W)) -> {name: tensor}
    sizes: tuple
    size_name: str = ""
    scales: tuple = ()  # logit_scale of V2's heads, in turn

    def build(self, size):
        arguments = self.arguments | ({self.size_name: size} if self.size_name else {})
        model = self.make(**arguments)
        model.eval()  # mm's backbones return nothing here
        return draw(model, self.scales)


def draw(model, scales):
    """Give every parameter values that depend on its name and shape only."""
    scales = itertools.cycle(scales)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = np.random.default_rng([SEED, zlib.crc32(name.encode())]).standard_normal(tuple(parameter.shape))
            if name.endswith("logit_scale"):
                noise = np.array([next(scales) for _ in range(parameter.shape[0])]).reshape(parameter.shape)
            elif name.endswith("tau"):
                noise = 0.02 + 0.1 * np.abs(noise)
                noise.flat[0] = 0.004  # below the clamp at 0.01
            elif name.endswith("bias_table"):
                noise = noise * 1.5
            elif parameter.ndim == 1 and name.endswith("weight"):
                noise = 1 + 0.3 * noise
            elif parameter.ndim == 1 or name.endswith("token"):
                noise = 0.3 * noise
            else:
                noise = noise * np.prod(parameter.shape[1:]) ** -0.5
            parameter.copy_(torch.from_numpy(np.round(noise * GRID) / GRID))
    return model


# What a block did with its map, read from what went into it and what reached the attention


def case_of(original, model, size, seed):
    """(case, outputs) of one call; what the program raises is part of the case."""
    watch, case = Watch(), {"size": list(size), "seed": seed}
    try:
        model = original.build(size) if original.size_name else model
    except Exception as error:
        return case | {"raises": first_line(error), "where": "construction"}, None, {}
    copy = model if original.size_name else original.build(size)
    watch.attach(copy)
    try:
        with torch.inference_mode():
            outputs = original.outputs(copy, torch.from_numpy(image(size, seed)).permute(0, 3, 1, 2))
    except Exception as error:
        return case | {"raises": first_line(error), "where": "call"}, None, {}
    arrays = {name: channels_last(y).float().numpy() for name, y in outputs.items()}
    if any(np.isnan(y).any() for y in arrays.values()):
        return case | {"nan": True}, copy, arrays
    return case | {"blocks": watch.blocks()}, copy, arrays


def first_line(error):
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def channels_last(y):
    return y.permute(0, 2, 3, 1) if y.ndim == 4 else y


def write(name, original):
    base = original.build(original.sizes[0])
    state = {key: value.numpy() for key, value in base.state_dict().items()}
    arrays, cases = {f"state/{key}": value for key, value in state.items()}, []
    for index, size in enumerate(original.sizes):
        case, model, outputs = case_of(original, base, size, 1000 + index)
        if original.size_name and model is not None:
            own = {key: value.numpy() for key, value in model.state_dict().items()}
            case["without"] = sorted(set(state) - set(own))
            for key, value in own.items():
                if key not in state or not np.array_equal(value, state[key]):
                    arrays[f"state_of/{index}/{key}"] = value
        arrays |= {f"out/{index}/{key}": value for key, value in outputs.items()}
        cases.append(case)
        print(name, case.get("raises") or " ".join(map(describe, case.get("blocks", []))) or "nan", size, flush=True)
    numbers = {"program": original.program, "built_for_one_size": bool(original.size_name)} | original.arguments
    numbers = json.loads(json.dumps(numbers, default=dict))
    arrays |= {"numbers": np.array(json.dumps(numbers)), "cases": np.array(json.dumps(cases))}
    HERE.mkdir(exist_ok=True)
    np.savez_compressed(HERE / f"{name}.npz", **arrays)


def describe(block):
    return "{map[0]}x{map[1]}/{window[0]}x{window[1]}>{shift[0]},{shift[1]}:{order}:{mask}".format(**block)


# The programs


def maps(model, x):
    """Backbones give the maps of every stage, normed."""
    return {f"norm{i}": y for i, y in enumerate(model(x))}


def hooked(modules, call):
    """What modules gave during a call: {name: last output}."""
    seen, handles = {}, []
    for name, module in modules.items():
        handles.append(module.register_forward_hook(lambda _, args, y, name=name: seen.update({name: y})))
    try:
        result = call()
    finally:
        for handle in handles:
            handle.remove()
    return seen, result


def microsoft_outputs(model, x):
    """Logits, the last block of every stage, and the last map normed; maps are (B, L, C) inside."""
    blocks = {f"stage{i}": layer.blocks[-1] for i, layer in enumerate(model.layers)}
    seen, logits = hooked(blocks | {"norm": model.norm}, lambda: model(x))
    sizes = [layer.input_resolution for layer in model.layers]
    seen = {
        k: y.reshape(1, *size, -1).permute(0, 3, 1, 2)
        for (k, y), size in zip(seen.items(), [*sizes, sizes[-1]], strict=True)
    }
    return seen | {"logits": logits}


def simmim_outputs(model, x):
    """The encoder's map and the decoder's picture of an image whose left half is masked, and the loss."""
    h, w = (side // 4 for side in x.shape[2:])
    mask = (torch.arange(w) < w // 2).float().expand(1, h, w)
    seen, loss = hooked({"norm": model.encoder, "picture": model.decoder}, lambda: model(x, mask))
    return seen | {"loss": loss.reshape(1)}


def classifier_outputs(model, x):
    """mmpretrain's ImageClassifier: the backbone's last map, normed, and logits."""
    seen, logits = hooked({"backbone": model.backbone}, lambda: model(x))
    return {"norm1": seen["backbone"][-1], "logits": logits}


def mmdet(_, package="mmdet"):
    import mmcv_ops_stub  # noqa: F401

    module = importlib.import_module(f"{package}.models.backbones")
    return importlib.import_module(package).__version__, module.SwinTransformer


def mmpretrain_model(backbone, classes):
    """An ImageClassifier as mmpretrain's configurations/_base_/models/swin_transformer have it, or its backbone."""
    import mmcv_ops_stub  # noqa: F401
    from mmpretrain.registry import MODELS

    importlib.import_module("mmpretrain.models")
    backbone = backbone | {"arch": dict(backbone["arch"])}
    if not classes:
        return MODELS.build(backbone | {"out_indices": (0, 1)})
    head = {"type": "LinearClsHead", "num_classes": classes, "in_channels": 16}
    neck = {"type": "GlobalAveragePooling"}
    backbone |= {"out_indices": (1,)}
    return MODELS.build({"type": "ImageClassifier", "backbone": backbone, "neck": neck, "head": head})


def mmpretrain(kind, classes, sizes=OPEN, **arguments):
    arch = BACKBONE | ({"num_heads": (2, 4), "extra_norm_every_n_blocks": 0} if kind.endswith("V2") else {})
    backbone = {"type": kind, "arch": arch, "img_size": 64, "patch_size": 4} | arguments
    version = importlib.metadata.version("mmpretrain")
    scales = SCALES if kind.endswith("V2") else ()
    outputs, arguments = classifier_outputs if classes else maps, {"backbone": backbone, "classes": classes}
    return Original(f"mmpretrain {version} {kind}", mmpretrain_model, arguments, outputs, sizes, scales=scales)


def checkout(sources, name, package=None, **stubs):
    """Put a checkout on the path; with `package`, only as parents of its module, whose other imports are stubs."""
    folder = sources / name
    if not folder.is_dir():
        raise SystemExit(f"{folder} must be a checkout of {name}")
    sys.path.insert(0, str(folder))
    parts = package.split(".") if package else ()
    for end in range(1, len(parts) + 1):
        module = types.ModuleType(".".join(parts[:end]))
        module.__path__ = [str(folder.joinpath(*parts[:end]))]
        sys.modules[module.__name__] = module
    for path, contents in stubs.items():
        module = types.ModuleType(path.replace("__", "."))
        vars(module).update(contents)
        sys.modules[module.__name__] = module


def dense(sources, name, top, window, sizes):
    """Microsoft's own detector or segmenter backbone: its file alone, since it was written for mmcv 1."""
    registry = types.SimpleNamespace(register_module=lambda: lambda cls: cls)
    stubs = {
        f"{top}__utils": {"get_root_logger": None},
        "mmcv_custom": {"load_checkpoint": None},
        f"{top}__models__builder": {"BACKBONES": registry},
    }
    checkout(sources, name, f"{top}.models.backbones", **stubs)
    cls = importlib.import_module(f"{top}.models.backbones.swin_transformer").SwinTransformer
    arguments = {"embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "window_size": window, "out_indices": (0, 1)}
    return Original(name.replace("+", "/"), cls, arguments, maps, sizes)


def microsoft(sources, version, sizes=FIXED, **arguments):
    checkout(sources, "microsoft+Swin-Transformer", "models")
    module = importlib.import_module("models.swin_transformer" + ("_v2" if version == 2 else ""))
    cls, scales = (module.SwinTransformerV2, SCALES) if version == 2 else (module.SwinTransformer, ())
    arguments = {
        "num_classes": CLASSES,
        "embed_dim": 8,
        "depths": (2, 2),
        "num_heads": (version, 2 * version),
    } | arguments
    return Original(
        f"microsoft/Swin-Transformer V{version}", cls, arguments, microsoft_outputs, sizes, "img_size", scales
    )


def simmim(sources, version):
    """As build_simmim does, whose stride of 32 is for four stages; two stages have 8."""
    checkout(sources, "microsoft+Swin-Transformer", "models")
    module = importlib.import_module("models.simmim")
    encoder = module.SwinTransformerV2ForSimMIM if version == 2 else module.SwinTransformerForSimMIM
    config = types.SimpleNamespace(NORM_TARGET=types.SimpleNamespace(ENABLE=False))

    def make(**arguments):
        return module.SimMIM(config, encoder(**arguments), encoder_stride=8, in_chans=3, patch_size=4)

    arguments = {"num_classes": 0, "embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "window_size": 4}
    sizes = ((32, 32), (16, 16), (64, 32), (16, 64))  # 16x64: 2x8 tokens, as many as a square has
    scales = SCALES if version == 2 else ()
    return Original(
        f"microsoft/Swin-Transformer SimMIM V{version}", make, arguments, simmim_outputs, sizes, "img_size", scales
    )


def christoph(sources):
    name = "ChristophReich1996+Swin-Transformer-V2"
    checkout(sources, name)
    importlib.import_module("timm.models.layers")  # which the program takes for imported
    cls = importlib.import_module("swin_transformer_v2").SwinTransformerV2
    arguments = {
        "in_channels": 3,
        "embedding_channels": 8,
        "depths": (2, 2),
        "number_of_heads": (1, 2),
        "window_size": 4,
    }

    def outputs(model, x):
        return {f"stage{i}": y for i, y in enumerate(model(x))}

    return Original(name.replace("+", "/"), cls, arguments, outputs, CHRISTOPH, "input_resolution")


def mm_backbone(package, window, sizes):
    version, cls = mmdet(None, package)
    numbers = BACKBONE | {"window_size": window, "strides": (4, 2), "out_indices": (0, 1)}
    return Original(f"{package} {version} SwinTransformer", cls, numbers, maps, sizes)


def mmdet_three_stages(sources):
    version, cls = mmdet(None)
    numbers = {"embed_dims": 4, "depths": (2, 1, 2), "num_heads": (1, 2, 4), "window_size": 4, "strides": (4, 2, 2)}
    sizes = ((64, 64), (64, 96), (96, 48), (44, 72), (30, 57))
    return Original(f"mmdet {version} SwinTransformer", cls, numbers | {"out_indices": (0, 1, 2)}, maps, sizes)


DETECTION, SEGMENTATION = (
    f"SwinTransformer+Swin-Transformer-{name}" for name in ("Object-Detection", "Semantic-Segmentation")
)
V2 = {"window_size": (4, 3), "pretrained_window_sizes": (6, 2)}
PROGRAMS = {
    "mmdet": lambda _: mm_backbone("mmdet", 4, OPEN),
    "mmdet_three_stages": mmdet_three_stages,
    "mmseg": lambda _: mm_backbone("mmseg", 3, FEW),
    "mmpretrain": lambda _: mmpretrain("SwinTransformer", CLASSES, window_size=4),
    "mmpretrain_padded": lambda _: mmpretrain("SwinTransformer", CLASSES, window_size=4, pad_small_map=True),
    "mmpretrain_backbone": lambda _: mmpretrain("SwinTransformer", 0, FEW, window_size=4, pad_small_map=True),
    "mmpretrain_v2": lambda _: mmpretrain("SwinTransformerV2", CLASSES, window_size=4),
    "mmpretrain_v2_padded": lambda _: mmpretrain("SwinTransformerV2", CLASSES, pad_small_map=True, **V2),
    "mmpretrain_v2_backbone": lambda _: mmpretrain("SwinTransformerV2", 0, FEW, window_size=4),
    "microsoft": lambda s: microsoft(s, 1, window_size=4),
    "microsoft_v2": lambda s: microsoft(s, 2, window_size=4),
    "microsoft_v2_pretrained": lambda s: microsoft(s, 2, SOME, window_size=4, pretrained_window_sizes=(3, 2)),
    "microsoft_simmim": lambda s: simmim(s, 1),
    "microsoft_simmim_v2": lambda s: simmim(s, 2),
    "microsoft_detection": lambda s: dense(s, DETECTION, "mmdet", 4, OPEN),
    "microsoft_segmentation": lambda s: dense(s, SEGMENTATION, "mmseg", 3, FEW),
    "christoph": christoph,
}


def main(sources, *names):
    warnings.simplefilter("ignore")
    if len(names) == 1:
        return write(names[0], PROGRAMS[names[0]](pathlib.Path(sources)))
    for name in names or PROGRAMS:
        subprocess.run([sys.executable, __file__, sources, name], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
