"""transformers' SwinBackbone, alone and inside UPerNet, and its feature maps: python pyramids.py FOLDER SIZES.

Writes backbone/, as save_pretrained does, upernet.pth, whose backbone is the same, last.safetensors, of a backbone that
norms its last map alone, and maps.npz: "HEIGHTxWIDTH/P2" to "/P5", (1, H, W, C). Every parameter is moved at random.
"""

import json
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

OUT, SIZES = sys.argv[1], json.loads(sys.argv[2])
NUMBERS = {"embed_dim": 8, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), "image_size": 224, "window_size": 7}
torch.manual_seed(0)
config = transformers.SwinConfig(**NUMBERS, out_features=[f"stage{s}" for s in (1, 2, 3, 4)])
upernet = transformers.UperNetForSemanticSegmentation(
    transformers.UperNetConfig(backbone_config=config, hidden_size=8, auxiliary_in_channels=32, auxiliary_channels=8)
)
with torch.no_grad():
    for name, parameter in upernet.backbone.named_parameters():
        spread = 0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
        parameter.add_(torch.randn_like(parameter) * (0.5 if name.endswith("bias_table") else spread))
torch.save(upernet.state_dict(), f"{OUT}/upernet.pth")
state = upernet.backbone.state_dict()
upernet.backbone.save_pretrained(f"{OUT}/backbone")
kept = {name: value for name, value in state.items() if "hidden_states_norms.stage" not in name or "stage4" in name}
save_file({name: value.contiguous() for name, value in kept.items()}, f"{OUT}/last.safetensors")
maps = {}
with torch.inference_mode():
    for height, width in SIZES:  # a fresh model for each: transformers' V1 is not the same after a small image
        backbone = transformers.SwinBackbone(config).eval()
        backbone.load_state_dict(state)
        images = np.random.default_rng((height, width)).standard_normal((1, height, width, 3), dtype="float32")
        outputs = backbone(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()).feature_maps
        for level, feature_map in zip(("P2", "P3", "P4", "P5"), outputs, strict=True):
            maps[f"{height}x{width}/{level}"] = feature_map.permute(0, 2, 3, 1).numpy()
np.savez(f"{OUT}/maps.npz", **maps)
