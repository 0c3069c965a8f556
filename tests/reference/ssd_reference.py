"""What RuslanGreenhead/swin_transformer's SSD gives: python tests/reference/ssd_reference.py SNAPSHOT.

SNAPSHOT is a clone of that repository, bare or not; it is run from a temporary copy and nothing of it is kept. Writes
ssd_reference.npz beside this file: for ResNet A and B with each neck, a part of the outputs for one image, the largest
of each, and a digest of the parameters' names and shapes. Weights are drawn by name, see `seeded`: ours can have the
same. Needs torch, torchvision, timm, einops, matplotlib.
"""

import hashlib
import importlib
import pathlib
import subprocess
import sys
import tempfile
import types
import zlib

import numpy as np

FILE = pathlib.Path(__file__).with_name("ssd_reference.npz")
SIZE, CLASSES = 300, 81
STEPS = {"boxes": 13, "scores": 239}  # of the outputs' numbers, every so many is kept
NECKS = {"none": None, "fpn": "FPN", "pan": "PAN", "dense_fpn": "DenseFPN"}


def seeded(name, shape):
    """The parameter of a name: the same numbers on every machine; float32 of a torch shape."""
    u = 2 * np.random.RandomState(zlib.crc32(name.encode())).random_sample(shape) - 1
    kind = name.rpartition(".")[2]
    if name == "rescale_factors":
        return (20 + 5 * u).astype("float32")
    if kind in ("bias", "running_mean"):
        return (0.2 * u).astype("float32")
    if len(shape) == 1:  # a norm's weight or variance
        return (1 + 0.5 * u).astype("float32")
    return (u * np.sqrt(3 / np.prod(shape[1:]))).astype("float32")


def image():
    """One image, (1, 300, 300, 3)."""
    return (4 * np.random.RandomState(0).random_sample((1, SIZE, SIZE, 3)) - 2).astype("float32")


def digest(shapes):
    """A digest of {name: shape}."""
    return hashlib.sha256("\n".join(f"{name} {tuple(shapes[name])}" for name in sorted(shapes)).encode()).hexdigest()


def main(snapshot):
    import torch

    for name in ("pycocotools", "pycocotools.coco", "pycocotools.cocoeval"):  # imported there, and of no use here
        sys.modules[name] = types.ModuleType(name)
    sys.modules["pycocotools.coco"].COCO = sys.modules["pycocotools.cocoeval"].COCOeval = None
    out = {}
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "-C", snapshot, "archive", "HEAD"], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        sys.path[:0] = [f"{folder}/swin_transformer/detection", f"{folder}/swin_transformer"]
        backbones, necks, ssd = (importlib.import_module(name) for name in ("backbones", "necks", "ssd"))
        for letter in "ab":
            for neck, its_class in NECKS.items():
                backbone = getattr(backbones, f"ResNet50Backbone_{letter.upper()}")(img_size=SIZE, weights=None)
                made = its_class and getattr(necks, its_class)(256, backbone.out_dims, backbone.out_resolutions)
                network = ssd.SSD(backbone, CLASSES, SIZE, made, rescale_first=letter == "a").eval()
                state = {
                    name: x for name, x in network.state_dict().items() if not name.endswith("num_batches_tracked")
                }
                shapes = {name: tuple(x.shape) for name, x in state.items()}
                network.load_state_dict(
                    {name: torch.from_numpy(seeded(name, shape)) for name, shape in shapes.items()}, strict=False
                )
                with torch.inference_mode():
                    outputs = network(torch.from_numpy(image()).permute(0, 3, 1, 2).contiguous())
                out[f"{letter}/{neck}/digest"] = np.array(digest(shapes))
                for name, output in zip(STEPS, outputs, strict=True):
                    numbers = output.numpy().ravel()
                    out[f"{letter}/{neck}/{name}"] = numbers[:: STEPS[name]]
                    out[f"{letter}/{neck}/{name}_largest"] = np.abs(numbers).max()
                    print(letter, neck, name, output.shape, np.abs(numbers).max(), numbers.std())
    np.savez_compressed(FILE, **out)
    print(FILE, FILE.stat().st_size)


if __name__ == "__main__":
    main(sys.argv[1])
