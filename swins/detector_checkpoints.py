"""PyTorch's weights of detectors: what a Mask R-CNN takes of a file of mmdet's names, and gives back."""

from swins import changes
from swins.errors import SwinsError
from swins.weights import axes, identify, identify_rcnn, rcnn_rules
from swins.weights.conversion_table import fill

CLASS_LAYERS = (  # whose shapes the classes decide
    *("fc_cls", "fc_reg", "conv_logits"),
    *("conv_seg", "auxiliary_conv_seg"),  # a segmenter's
)


def by_path(detector, values: dict) -> dict:
    """{path: value} of a detector in which its backbone is called "pyramid", whatever its name is."""
    begin = f"{detector.backbone.name}/"
    return {
        f"{rcnn_rules.PYRAMID}/{path.removeprefix(begin)}" if path.startswith(begin) else path: value
        for path, value in values.items()
    }


def layer_of(path: str) -> str:
    """The name of the layer that has a variable."""
    return path.split("/")[-2]


def state_dict(detector, tables=rcnn_rules.table_of) -> dict:
    """A Mask R-CNN's weights {torch name: array}: heads under mmdet's names, the backbone under those of its table.

    Another network's with its own tables: paths of variables -> their Table.
    """
    changes.floats(detector, "a state dict")
    filled = tables(by_path(detector, changes.variables(detector))).filled
    return {
        filled[path].torch_name: axes.permute(value, axes.inverse(filled[path].axes))
        for path, value in by_path(detector, changes.values(detector)).items()
    }


def require_kind(name: str, row, checkpoint) -> identify_rcnn.RCNNIdentity:
    """What a detector's Checkpoint is, if it is of the kind of a row of this name.

    Raises:
        SwinsError: a Cascade for a Mask R-CNN, or the reverse; heads of different classes.
    """
    identity = identify.identify(checkpoint)
    kind = identify_rcnn.kind_name(3 if row.cascade else 1, row.masks)
    if (identity.stages > 1) != row.cascade:
        fits = identify.fitting(checkpoint)
        remedy = f"name that variant: -m {fits[0]}" if fits else "choose a variant of that kind, or another file"
        raise SwinsError(
            f"weights must be of the variant's kind of detector; {name} is a {kind}, {checkpoint.path} holds a "
            f"{identity.kind} ({checkpoint.dialect}: {identity}); {remedy}"
        )
    if identity.mask_classes not in (None, identity.num_classes):
        raise SwinsError(
            f"{checkpoint.path}: heads of one detector have the same classes; its box head has {identity.num_classes}, "
            f"its mask head {identity.mask_classes}; save the model's state_dict() again"
        )
    return identity


def assign(detector, checkpoint, state: dict | None = None) -> list:
    """Give a detector the weights of a Checkpoint, strictly -> layers that stay fresh, for it has other classes.

    Args:
        detector: a MaskRCNN; without masks it leaves a file's mask heads out.
        checkpoint: of a detector of its kind.
        state: its tensors, if they were changed.

    Raises:
        SwinsError: every other difference; all are listed, and nothing is changed.
    """
    state = checkpoint.state if state is None else state
    identity, variables = identify.identify(checkpoint), by_path(detector, changes.variables(detector))
    fresh = []
    if identity.num_classes != detector.numbers.num_classes:
        fresh = list(dict.fromkeys(p.rpartition("/")[0] for p in variables if layer_of(p) in CLASS_LAYERS))
    masks = "roi_head.mask_head."
    state = {name: value for name, value in state.items() if detector.mask_heads or not name.startswith(masks)}
    fill_but(fresh, detector, checkpoint, state, rcnn_rules.table_of)
    return fresh


def fill_but(fresh: list, model, checkpoint, state: dict, tables) -> None:
    """Give a model the weights of a Checkpoint, strictly, but for layers that stay fresh.

    Args:
        fresh: names of layers.
        model: a detector or segmenter.
        checkpoint: whose tensors they are.
        state: {torch name: array}.
        tables: paths of variables -> their Table.

    Raises:
        SwinsError: every other difference; all are listed, and nothing is changed.
    """
    variables = by_path(model, changes.variables(model))
    rest = {path: v for path, v in variables.items() if path.rpartition("/")[0] not in fresh}
    unwanted = {rule.torch_name for path, rule in tables(variables).filled.items() if path not in rest}
    state = {name: value for name, value in state.items() if name not in unwanted}
    try:
        fill(rest, state, tables(rest), model.name, checkpoint.path.name)
    except SwinsError as error:
        raise SwinsError(identify.explained(error, checkpoint, model.name)) from error
