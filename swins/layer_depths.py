"""How deep in a network each of its variables lies, by timm's grouping, for rates that grow with depth."""

import re

STEM = ("patch_embed", "conv1", "bn1")
FIRST = (*STEM, "norm", "head", "stages_", *(f"layer{s}_" for s in range(1, 10)))  # what begins the names of layers


def depth_of(path: str, depths: tuple) -> int:
    """Depth of a variable's layer: 0 for a Swin's patch embedding or a ResNet's stem, then the blocks, then the head.

    A merging is of the layer of the block after it, the last norm of that of the block before it.

    Args:
        path: of the variable, in a Swin or ResNet or in a model that has its layers.
        depths: blocks of each stage.
    """
    part = path.split("/")[0] if path.startswith(FIRST) else path.split("/")[1]
    bottleneck = re.match(r"layer(\d+)_(\d+)_", part)
    if bottleneck:
        return 1 + sum(depths[: int(bottleneck[1]) - 1]) + int(bottleneck[2])
    blocks = re.fullmatch(r"stages_(\d+)_blocks_(\d+)(_norm3)?", part)
    merging = re.fullmatch(r"stages_(\d+)_downsample", part)
    if part in STEM:
        return 0
    if blocks:
        stage, block = int(blocks[1]), int(blocks[2])
        return 1 + sum(depths[:stage]) + block
    if merging:
        return 1 + sum(depths[: int(merging[1])])
    return sum(depths) + (part == "head")


def depths_of(model) -> dict[str, int]:
    """{path of a trainable variable: depth of its layer} of a Swin or ResNet; the head's is the largest."""
    return {variable.path: depth_of(variable.path, model.variant.depths) for variable in model.trainable_variables}
