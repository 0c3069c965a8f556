"""Names of classes, and classifiers over some of a model's classes.

The lists in swins/classes/ are made by in1k_eval/classes.py, which tells where they are from.
"""

import contextlib
import os
from importlib import resources

import numpy as np

from swins.changes import assign, values
from swins.errors import SwinsError
from swins.run_result import kept_facts, training_of
from swins.tags import look_up, names_variant, training_run

FASHION_MNIST = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
ALSO = {"t-shirt": ("T-shirt/top",)}  # other names that Fashion-MNIST's classes have
LISTS = {1000: "imagenet1k", 21841: "imagenet22k"}  # of heads with so many classes


def table(name):
    """Rows of one of the lists, without its header."""
    lines = resources.files("swins").joinpath("classes", f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines[1:]]


def coco_names() -> tuple:
    """Names of COCO's 80 classes, in the order of its detectors' outputs; swins/classes/coco.tsv has their ids too."""
    return tuple(row[1] for row in table("coco"))


def ade20k_names() -> tuple:
    """Names of ADE20K's 150 classes, in the order of its segmenters' outputs."""
    return tuple(row[1] for row in table("ade20k"))


def class_names(source):
    """Names of the classes of a published head or a trained model, in order -> list of text.

    Args:
        source: how many classes: 1000 (ImageNet-1k) or 21841 (ImageNet-22k, in Microsoft's order, which is not timm's
            list); or the name of a published set of weights, "architecture.tag"; or the folder or .keras file of a run
            of `swins train`, an artefact, or another .keras file ("./NAME" where it is called as a variant is).

    Raises:
        SwinsError: for other numbers and names, and runs of so many classes that they were not named.

    Example:
    >>> class_names(1000)[207]
    'golden retriever'
    """
    run = training_run(source) if isinstance(source, (str, os.PathLike)) else None
    kept = kept_facts(source) if isinstance(source, os.PathLike | str) and not names_variant(source) else {}
    if len(kept.get("class_names") or ()) == kept.get("num_classes", 0) > 0:
        return list(kept["class_names"])
    classes = run and run.get("classes")
    if isinstance(classes, list):
        return classes
    if run and classes is None:
        raise SwinsError(
            f"{source}: a run of {run['task']}, whose results have no such list of classes; load it: swins.load"
        )
    if run:
        raise SwinsError(f"{source}: its {classes} classes are not named; they are its data's folders, in order")
    if kept:
        source = kept["name"] if "." in kept["name"] else kept["num_classes"]
    if isinstance(source, str):
        variant, weights = look_up(source).variant, look_up(source).weights
        if weights.dataset == "fashion-mnist":
            return list(FASHION_MNIST)
        source = variant.num_classes
    if source not in LISTS:
        raise SwinsError(
            f"names are known for {' and '.join(map(str, LISTS))} classes, or by a name with its tag; got {source}"
        )
    return [row[1] for row in table(LISTS[source])]


def known_classes(path, model, certificate):
    """`named_classes` of a path that may be the folder or .keras file of a training run, whose result.json names them.

    Args:
        path, model: a Swin; certificate: of an artefact.
    """
    return named_classes(model, certificate, training_of(path))


def named_classes(model, certificate, run=None):
    """Names of a model's classes, in the order of its logits -> tuple of text; empty where they are not known.

    Args:
        model: a Swin.
        certificate: an artefact's, which has `class_names`, `training`, or a `name` whose tag says what the weights are
            of.
        run: the result.json of the training run that made the model.
    """
    run, name = run or certificate.get("training"), certificate.get("name", "")
    found = [certificate.get("class_names"), run and run.get("classes"), model.origin.get("class_names")]
    if "." in name and not run:
        with contextlib.suppress(SwinsError):  # a registered tag, whose classes have no list
            found.append(class_names(name))
    count = model.variant.num_classes
    return next((tuple(map(str, n)) for n in found if isinstance(n, list | tuple) and len(n) == count), ())


def synonyms(names):
    """For each name of a class, others: ImageNet's synset, its names, and each of them -> a tuple of tuples of text."""
    texts = {synset: text for name in reversed(LISTS.values()) for synset, text, *_ in table(name)}
    synsets = {}
    for synset, text in texts.items():
        synsets.setdefault(text, []).append(synset)
    whole = table(LISTS[len(names)]) if len(names) in LISTS else []
    if [row[1] for row in whole] == list(names):  # among which are two cranes, told apart by their places alone
        own = [(row[0],) for row in whole]
    else:
        own = [same if len(same := synsets.get(name, ())) == 1 else () for name in names]
    words = [texts.get(name, name) for name in names]
    parts = [text.split(", ") if text in synsets else () for text in words]
    return tuple((*ALSO.get(n, ()), *own[i], words[i], *parts[i]) for i, n in enumerate(names))


def imagenet1k_in_22k():
    """Classes of the 22k heads that are ImageNet-1k's, in its order: 1000 integers, equal to Microsoft's map22kto1k.

    ImageNet-22k has no teddy bear (class 850): as in that map, the garment "teddy" takes its place.
    """
    return [int(row[2]) for row in table(LISTS[1000])]


def select_classes(model, classes, *, name=None):
    """A classifier over some classes of a trained one: same weights, the head's columns picked.

    What was done to layers (frozen, quantized, other rates) is kept, low-rank adapters are merged.

    `select_classes(create("swin_tiny_patch4_window7_224.ms_in22k", weights="pretrained"), imagenet1k_in_22k())` is an
    ImageNet-1k classifier from 22k weights.

    Args:
        model: a Swin with a classifier; it stays as it is.
        classes: numbers of its classes, in the new order.
        name: of the new model; None keeps the model's.

    Raises:
        SwinsError: no classifier, numbers that it has not, or a head in 4 or floating 8 bits.
    """
    variant = getattr(model, "variant", None)
    if not getattr(variant, "num_classes", 0):
        raise SwinsError(f"classes are selected of a Swin with a classifier; got {model!r}")
    classes = np.asarray(classes)
    whole = classes.ndim == 1 and classes.size and np.issubdtype(classes.dtype, np.integer)
    if not (whole and classes.min() >= 0 and classes.max() < variant.num_classes):
        raise SwinsError(f"classes must be integers from 0 to {variant.num_classes - 1}, at least one; got {classes}")
    if model.get_layer("head").quantization_mode not in (None, "int8"):
        raise SwinsError(
            "columns can be picked of a head in floating point or int8; got "
            f"{model.get_layer('head').quantization_mode}; select classes, then quantize"
        )
    config, origin = model.get_config(), dict(model.origin)
    if names := origin.get("class_names"):
        config["origin"] = {**origin, "class_names": [names[i] for i in classes]}
    chosen = type(model)(**{**config, "num_classes": len(classes), "name": name or model.name})
    arrays = values(model)
    for path in arrays:
        if path.startswith("head/"):
            arrays[path] = arrays[path][..., classes]
    assign(chosen, arrays)
    return chosen
