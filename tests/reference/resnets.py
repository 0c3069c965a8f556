"""torchvision's ResNets with every parameter and statistic moved at random: python resnets.py FOLDER SIZES NETWORK.

NETWORK is "small", of a block a stage and five classes, or "resnet50". Writes NETWORK.pth, of resnet50 also the same
tensors as safetensors, and outputs.npz: for each size "NETWORK/HxW/logits" and "NETWORK/HxW/P2" to "P5"; "cut/HxW/P2"
and "P3", of the network with layer3 at stride 1 and without layer4. Of small also what a training step of two images of
the first size leaves in batch norms, "step/NAME", and gives, "step/logits"; of resnet50 what timm's gives with the same
file for the first size, "timm/logits", and the deviation of fresh tensors, "fresh/NAME".
"""

import copy
import json
import sys

import numpy as np
import torch
from safetensors.torch import save_file
from torchvision.models import resnet

OUT, SIZES, NETWORK = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
STAGES = ("layer1", "layer2", "layer3", "layer4")
torch.manual_seed(0)


def move(model):
    """Every number of a model moved, so that none is a constant."""
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.add_(torch.randn_like(parameter) * spread)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.3)
            elif name.endswith("running_var"):
                buffer.uniform_(0.3, 3)
            else:
                buffer.fill_(7)
    return model.eval()


def unstrided(stage):
    """Stride 1 in a stage's first block, as R-SSD's backbone B changes it."""
    stage[0].conv2.stride = stage[0].downsample[0].stride = (1, 1)


def pictures(height, width, count=1):
    images = np.random.default_rng((height, width)).standard_normal((count, height, width, 3), dtype="float32")
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def maps_of(model, images):
    """A model's logits, and the last map at each stride, channels last."""
    kept = {}
    handles = [
        getattr(model, name).register_forward_hook(lambda _, __, y, name=name: kept.update({name: y}))
        for name in STAGES
    ]
    with torch.inference_mode():
        logits = model(images)
    for handle in handles:
        handle.remove()
    levels = {}
    for name in STAGES:
        if not isinstance(getattr(model, name), torch.nn.Identity):
            stride = (images.shape[2] - 1) // (kept[name].shape[2] - 1)
            levels[f"P{int(np.log2(stride))}"] = kept[name].permute(0, 2, 3, 1).numpy()
    return {"logits": logits.numpy(), **levels}


def record(label, model, sizes):
    """Outputs of a model for images of these sizes -> {"label/HxW/name": array}."""
    return {
        f"{label}/{height}x{width}/{name}": value
        for height, width in sizes
        for name, value in maps_of(model, pictures(height, width)).items()
    }


def cut(model):
    """R-SSD's backbone B of a model: layer3 at stride 1, no layer4."""
    unstrided(model.layer3)
    model.layer4, model.fc = torch.nn.Identity(), torch.nn.Identity()
    return model


def small():
    """A block a stage and five classes: file, outputs, and what a training step leaves."""
    model = move(resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=5))
    torch.save(model.state_dict(), f"{OUT}/small.pth")
    outputs = record("small", model, SIZES) | record("cut", cut(copy.deepcopy(model)), SIZES)
    model.train()
    outputs["step/logits"] = model(pictures(*SIZES[0], count=2)).detach().numpy()
    return outputs | {f"step/{k}": v.numpy() for k, v in model.state_dict().items() if "running" in k}


def resnet50():
    """The whole network: file, fresh deviations, outputs, timm's too."""
    import timm

    model, names = resnet.resnet50(), ("conv1", "layer2.0.conv2", "layer4.2.conv3", "layer3.0.downsample.0", "fc")
    outputs = {f"fresh/{name}.weight": model.get_submodule(name).weight.std().item() for name in names}
    outputs["fresh/fc.bias"] = model.fc.bias.std().item()
    state = move(model).state_dict()
    torch.save(state, f"{OUT}/resnet50.pth")
    save_file(state, f"{OUT}/resnet50.safetensors")
    timms = timm.create_model("resnet50").eval()
    timms.load_state_dict(state, strict=True)
    with torch.inference_mode():
        outputs["timm/logits"] = timms(pictures(*SIZES[0])).numpy()
    return outputs | record("resnet50", model, SIZES) | record("cut", cut(model), SIZES)


np.savez(f"{OUT}/outputs.npz", **{"small": small, "resnet50": resnet50}[NETWORK]())
