"""Back to PyTorch: a model's weights as a safetensors file under the names that a program has for them."""

import pathlib

from swins import detector_checkpoints
from swins.convert import upernet_layouts
from swins.detection.mask_rcnn import MaskRCNN
from swins.errors import SwinsError
from swins.run_result import model_file
from swins.segmentation.upernet import UPerNet
from swins.weights import artefacts, checkpoint_files, detector_layouts, facts, load, rcnn_rules, upernet_rules

TIMM = "timm"
WHOLE = {  # networks: their tables by paths, and the layouts of their files
    MaskRCNN: (rcnn_rules.table_of, detector_layouts),
    UPerNet: (upernet_rules.table_of, upernet_layouts),
}


def layout_of(source, state: dict, layouts) -> str:
    """The names that an artefact was converted from, of the `layouts` that there are, or those that are usual."""
    folder = pathlib.Path(source)
    dialect = None
    if (folder / artefacts.CERTIFICATE).is_file():
        dialect = artefacts.read_certificate(folder)["source"].get("dialect")
    return dialect if dialect in layouts.LAYOUTS else layouts.default_layout(state)


def program_state(model, source) -> tuple:
    """A detector's or segmenter's weights under the names of `export_torch` -> ({torch name: array}, whose they are).

    Args:
        model: of the .keras file, run or artefact `source`.

    Raises:
        SwinsError: a model that no program has names for.
    """
    whole = next((parts for kind, parts in WHOLE.items() if isinstance(model, kind)), None)
    if whole is None:
        raise SwinsError(f"{source}: holds a {type(model).__name__}, whose weights no program has names for")
    tables, layouts = whole
    state = detector_checkpoints.state_dict(model, tables)
    layout = layout_of(source, state, layouts)
    return layouts.in_layout(state, layout), layout


def export_torch(source, target, overwrite: bool = False) -> tuple:
    """Write the weights of a .keras file or artefact as safetensors -> (number of tensors, whose names they have).

    A Swin's and a ResNet's have timm's names, a detector's or segmenter's those of the file that it was converted from,
    else those of Swin-Transformer-Object-Detection, which are Swin-Transformer-Semantic-Segmentation's too.

    Raises:
        SwinsError: a target that is there or is no .safetensors file, a model that no program has names for.
    """
    target = load.torch_target(target, overwrite)
    model = artefacts.read_model(model_file(source))
    if hasattr(model, "variant"):
        return load.write_torch(model, source, target), TIMM
    state, layout = program_state(model, source)
    stated = facts.join(facts.Facts(architecture=model.name), load.known_of(source))
    checkpoint_files.write(state, target, {facts.KEY: facts.as_text(stated)})
    return len(state), layout
