"""The table of Mask R-CNN and Cascade Mask R-CNN: which Keras variable is which tensor of mmdet's, its backbone's too.

A detector's variables, by their paths, say what it is made of: the backbone's rules are those of its own network, and
its tensors have the names of that network's table (`swins.weights.dialects`). {i} is a level of the pyramid, a
convolution or a dense layer of a head, {k} a stage of a cascade.
"""

import functools
import re
from collections.abc import Iterable

from swins.errors import SwinsError
from swins.weights import dialects, resnet_rules, swin_rules
from swins.weights.conversion_table import Rule, Table, batch_norm, dense, norm

CONV, DECONV = "oihw->hwio", "iohw->hwoi"
FLAT = "o(chw)->(hwc)o, h=7, w=7"  # the first dense layer's, of the 7x7 features of a region
PYRAMID = "pyramid"  # what the backbone in a detector is called
BUFFERS = (*dialects.BUFFERS, *resnet_rules.BUFFERS)
NUMBER = re.compile(r"\{(\w)\}")


def conv(keras_path: str, torch_name: str, axes: str = CONV) -> tuple:
    """The rules of a convolution's kernel and bias."""
    return Rule(f"{keras_path}/kernel", f"{torch_name}.weight", axes), Rule(f"{keras_path}/bias", f"{torch_name}.bias")


def box_head(keras_path: str, torch_name: str) -> tuple:
    """The rules of a box head, with or without convolutions."""
    return (
        Rule(f"{keras_path}/shared_convs_{{i}}_conv/kernel", f"{torch_name}.shared_convs.{{i}}.conv.weight", CONV),
        *batch_norm(f"{keras_path}/shared_convs_{{i}}_bn", f"{torch_name}.shared_convs.{{i}}.bn"),
        Rule(f"{keras_path}/shared_fcs_0/kernel", f"{torch_name}.shared_fcs.0.weight", FLAT),
        *dense(f"{keras_path}/shared_fcs_{{i}}", f"{torch_name}.shared_fcs.{{i}}"),
        *dense(f"{keras_path}/fc_cls", f"{torch_name}.fc_cls"),
        *dense(f"{keras_path}/fc_reg", f"{torch_name}.fc_reg"),
    )


def mask_head(keras_path: str, torch_name: str) -> tuple:
    """The rules of a mask head."""
    return (
        *conv(f"{keras_path}/convs_{{i}}", f"{torch_name}.convs.{{i}}.conv"),
        *conv(f"{keras_path}/upsample", f"{torch_name}.upsample", DECONV),
        *conv(f"{keras_path}/conv_logits", f"{torch_name}.conv_logits"),
    )


HEADS = (
    *conv("neck/lateral_convs_{i}", "neck.lateral_convs.{i}.conv"),
    *conv("neck/fpn_convs_{i}", "neck.fpn_convs.{i}.conv"),
    *(rule for part in ("rpn_conv", "rpn_cls", "rpn_reg") for rule in conv(f"rpn_head/{part}", f"rpn_head.{part}")),
    *box_head("bbox_head", "roi_head.bbox_head"),
    *box_head("bbox_head_{k}", "roi_head.bbox_head.{k}"),
    *mask_head("mask_head", "roi_head.mask_head"),
    *mask_head("mask_head_{k}", "roi_head.mask_head.{k}"),
)
BACKBONES = {  # rules, and a word that only paths of such a backbone have; the first that fits counts
    "meta_mlp": swin_rules.V2_CR,
    "cpb_mlp": swin_rules.V2,
    "stages_": swin_rules.V1,
    "layer1_": resnet_rules.RESNET,
}


@functools.cache
def pattern(keras_path: str) -> re.Pattern:
    """What matches the paths of a rule, with its numbers as groups: "convs_{i}/bias" -> convs_(?P<i>\\d+)/bias."""
    return re.compile(NUMBER.sub(r"(?P<\1>\\d+)", re.escape(keras_path).replace(r"\{", "{").replace(r"\}", "}")))


def rule_of(path: str, rules: Iterable[Rule]) -> Rule | None:
    """The rule of a variable, the first that fits, with its numbers; None where there is none."""
    matches = ((rule, pattern(rule.keras_path).fullmatch(path)) for rule in rules)
    rule, match = next(((rule, match) for rule, match in matches if match), (None, None))
    return rule and rule.at(match.groupdict())


def backbone_rules(paths: Iterable[str]) -> tuple:
    """The rules of a backbone, by the paths of its variables, with those of norms on its maps.

    A Swin's last such norm has the name of a classifier's final one, as `dialects.last_norm` gives it.
    """
    rules = next((rules for word, rules in BACKBONES.items() if any(word in path for path in paths)), ())
    stages = [int(match[1]) for path in paths if (match := re.match(r"stages_(\d+)_", path))]
    last = max(stages, default=-1)
    own = tuple(rule for rule in rules if not rule.keras_path.startswith(("norm/", "head/")))
    return (*norm(f"norm{last}", "norm"), *norm("norm{i}", "norm{i}"), *own)


def table_of(paths: Iterable[str], heads: tuple = HEADS) -> Table:
    """The Table of a detector whose variables have these paths, those of its backbone beginning with "pyramid/".

    Args:
        paths: of variables.
        heads: the Rules of what is not the backbone; a detector's by default.

    Raises:
        SwinsError: a variable that no file has, such as of a user's own pyramid.
    """
    paths = list(paths)
    begin = f"{PYRAMID}/"
    inner = backbone_rules([path.removeprefix(begin) for path in paths if path.startswith(begin)])
    rules, unknown = [], []
    for path in paths:
        rule = rule_of(path.removeprefix(begin), inner) if path.startswith(begin) else rule_of(path, heads)
        if rule is None:
            unknown.append(path)
        else:
            rules.append(Rule(path, rule.torch_name, rule.axes))
    if unknown:
        raise SwinsError(
            f"a checkpoint holds a network on a Swin or a ResNet under Open-MMLab's names; {unknown[0]} has none there "
            f"({len(unknown)} in all); save the model as .keras"
        )
    return Table(tuple(rules), leaves_out=leaves_out)


def leaves_out(name: str) -> bool:
    """Whether a detector leaves out a tensor: a buffer, or what training keeps beside it."""
    return name.rpartition(".")[2] in BUFFERS or bool(dialects.COMPANY.match(name))
