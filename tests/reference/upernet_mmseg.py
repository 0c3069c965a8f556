"""What mmsegmentation's UPerNet gives: python tests/reference/upernet_mmseg.py.

Run it in an environment with mmsegmentation 1.2.2 and a stand-in for mmcv.ops on PYTHONPATH (`mmcv_ops_stub`):
../shared/oracles has both. It writes upernet_mmseg.npz beside this file: names and shapes of a small network's
parameters, and for images of two sizes a part of its logits, whole, window by window, and averaged over sizes and
mirror images, each at another size than the image's, and its losses. Weights are drawn by name, see `seeded`: ours can
have the same. Nothing of mmsegmentation is copied.
"""

import json
import pathlib
import zlib

import numpy as np

FILE = pathlib.Path(__file__).with_name("upernet_mmseg.npz")
SIZES = ((90, 75), (64, 96))  # of images
ORIGINAL = (101, 83)  # pixels of the originals, as if the images were resized ones
CLASSES, WIDTH, AUXILIARY = 5, 8, 6
SMALL = {"embed_dims": 8, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 7}
WINDOWS = {"slide": ((60, 50), (33, 30)), "small": ((70, 200), (70, 60))}  # of pixels, and their strides
RATIOS = (0.75, 1.0)
CLASS_WEIGHTS = (0.5, 1.0, 2.0, 1.5, 0.25)
KEPT = 401  # numbers of each output that are kept


def seeded(name, shape):
    """The parameter of a name: the same numbers on every machine; float32 of a torch shape."""
    u = 2 * np.random.RandomState(zlib.crc32(name.encode())).random_sample(shape) - 1
    if name.rpartition(".")[2] in ("bias", "running_mean"):
        return (0.2 * u).astype("float32")
    if len(shape) == 1:  # a norm's weight or variance
        return (1 + 0.5 * u).astype("float32")
    return (u * np.sqrt(3 / np.prod(shape[1:]))).astype("float32")


def image(size):
    """One normalised image: (1, H, W, 3)."""
    return np.random.RandomState(size[0] * size[1]).standard_normal((1, *size, 3)).astype("float32")


def mask(size):
    """Classes of its pixels, a tenth of them ignored: (1, H, W)."""
    random = np.random.RandomState(size[0] + size[1])
    return np.where(random.random_sample((1, *size)) < 0.1, 255, random.randint(0, CLASSES, (1, *size)))


def sampled(numbers):
    """Numbers of an output that are kept: every so many, from its first."""
    flat = np.asarray(numbers).ravel()
    return flat[:: max(1, len(flat) // KEPT)]


def network():
    """mmsegmentation's network with seeded weights."""
    import mmseg
    import torch
    from mmengine.config import Config
    from mmengine.model import revert_sync_batchnorm
    from mmseg.registry import MODELS

    folder = pathlib.Path(mmseg.__file__).parent / ".mim" / "configs"
    config = Config.fromfile(folder / "_base_" / "models" / "upernet_swin.py").model
    config.backbone.update(SMALL)
    config.decode_head.update(in_channels=[8, 16, 32, 64], channels=WIDTH, num_classes=CLASSES)
    config.auxiliary_head.update(in_channels=32, channels=AUXILIARY, num_classes=CLASSES)
    model = revert_sync_batchnorm(MODELS.build(config)).eval()
    state = {
        name: torch.from_numpy(seeded(name, tuple(x.shape))) if x.is_floating_point() else x
        for name, x in model.state_dict().items()
    }
    model.load_state_dict(state, strict=True)
    return model


def sample_of(size, **facts):
    """One image's facts as mmsegmentation has them."""
    from mmseg.structures import SegDataSample

    return SegDataSample(metainfo={"ori_shape": ORIGINAL, "img_shape": size, "pad_shape": size, **facts})


def answer(model, pixels, **facts):
    """Logits of a batch of one at the original's size, (H, W, K)."""
    sample = sample_of(tuple(pixels.shape[2:]), **facts)
    return model.predict(pixels, [sample])[0].seg_logits.data.permute(1, 2, 0)


def answers(model, pixels):
    """{name: logits or probabilities} of one image, whole, by windows, and averaged over sizes and mirror images."""
    import torch
    from torch.nn.functional import interpolate

    model.test_cfg.mode = "whole"
    out = {"whole": answer(model, pixels)}
    copies = []
    for ratio in RATIOS:
        copy = interpolate(pixels, [int(side * ratio + 0.5) for side in pixels.shape[2:]], mode="bilinear")
        copies.append(answer(model, copy, flip=False))
        copies.append(answer(model, copy.flip(3), flip=True, flip_direction="horizontal"))
    out["averaged"] = torch.stack([logits.softmax(-1) for logits in copies]).mean(0)
    for name, (window, stride) in WINDOWS.items():
        model.test_cfg.update(mode="slide", crop_size=window, stride=stride)
        out[name] = answer(model, pixels)
    return {name: x.numpy() for name, x in out.items()}


def losses(model, pixels, truth):
    """{name: loss} of one image: over all pixels, over valid ones, with class weights; of both heads."""
    import torch
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS

    sample = sample_of(tuple(pixels.shape[2:]))
    sample.gt_sem_seg = PixelData(data=torch.from_numpy(truth))
    maps, out = model.extract_feat(pixels), {}
    kinds = {"all": {}, "valid": {"avg_non_ignore": True}}
    for kind, options in kinds.items():
        for name, head in (("decode", model.decode_head), ("auxiliary", model.auxiliary_head)):
            weight = head.loss_decode.loss_weight
            head.loss_decode = MODELS.build({"type": "CrossEntropyLoss", "loss_weight": weight, **options})
            out[f"{kind}/{name}"] = head.loss_by_feat(head(maps), [sample])["loss_ce"].item()
    return out


def weighted(logits, truth):
    """PyTorch's cross entropy with class weights, which mmsegmentation's is where no pixel is ignored."""
    import torch
    from torch.nn.functional import cross_entropy, interpolate

    maps = interpolate(torch.from_numpy(logits), truth.shape[1:], mode="bilinear")
    weights = torch.tensor(CLASS_WEIGHTS)
    return cross_entropy(maps, torch.from_numpy(truth), weights, ignore_index=255).item()


def main():
    import mmcv_ops_stub  # noqa: F401  before mmseg
    import torch
    from mmseg.utils import register_all_modules

    torch.set_num_threads(1)
    register_all_modules(init_default_scope=True)
    model = network()
    state = {name: list(x.shape) for name, x in model.state_dict().items()}
    results = {
        "shapes": np.array(json.dumps(state)),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    with torch.inference_mode():
        for size in SIZES:
            pixels, name = torch.from_numpy(image(size)).permute(0, 3, 1, 2).contiguous(), "x".join(map(str, size))
            maps = model.extract_feat(pixels)
            for key, x in (("logits", model.decode_head(maps)), ("auxiliary", model.auxiliary_head(maps))):
                results[f"{name}/{key}"] = x.permute(0, 2, 3, 1).numpy()
            results[f"{name}/weighted"] = weighted(model.decode_head(maps).numpy(), mask(size))
            for key, x in answers(model, pixels).items():
                results |= {f"{name}/{key}": sampled(x), f"{name}/{key}_largest": np.abs(x).max()}
                print(name, key, x.shape, np.abs(x).max())
            for key, x in losses(model, pixels, mask(size)).items():
                results[f"{name}/{key}"] = x
                print(name, key, x)
    np.savez_compressed(FILE, **results)
    print(FILE, FILE.stat().st_size)


if __name__ == "__main__":
    main()
