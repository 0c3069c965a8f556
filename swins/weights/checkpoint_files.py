"""Checkpoint files: read any, write safetensors."""

import functools
import hashlib
import json
import pathlib
import re
from dataclasses import dataclass, field, replace

import numpy as np

from swins import files
from swins.errors import SwinsError, missing_package
from swins.labels import ade20k_names, coco_names
from swins.reference import oracle
from swins.weights import dialects, exported, facts, hub_folder, identify, identify_rcnn, upernet_rules
from swins.weights.facts import NOTHING, Facts
from swins.weights.networks import MASK_RCNN, NETWORKS, SWIN, UPERNET, Network

PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
SAFE = ".safetensors"
TIMMS = ("state_dict_ema", "model_ema", "state_dict", "model")  # the keys that timm's loader takes, in its order
PARALLEL = ("_orig_mod.", "module.", "_orig_mod.")  # of torch.compile and DataParallel, which timm's loader strips
AVERAGED = re.compile(
    r"(?:^|_)(?:ema|averaged?|swa|teacher|momentum)(?:$|_)"
)  # weights that are evaluated, not trained


@dataclass(frozen=True)
class Checkpoint:
    """A file's tensors, a network's in today's timm names, and where they came from.

    tensors holds all, under the names that `dialects.Translation` says; wrappers are the keys and prefixes taken off;
    translated is True for files that timm's own loader does not take; facts are what the file, or one beside it, says
    of the model besides its tensors; dense whether it is a detector's or segmenter's backbone; program is what runs
    such files here, None if nothing does; original holds the Swin's tensors under its names; key names these weights
    among the several that a file holds, others the rest; network is the kind that they are of, inside that of a
    detector's or segmenter's backbone; trunk, of a segmenter, the Checkpoint that its backbone is read from.
    """

    path: pathlib.Path
    tensors: dict
    dialect: str
    wrappers: tuple
    translated: bool = False
    facts: Facts = NOTHING
    dense: bool = False
    program: str | None = None
    original: dict = field(default_factory=dict)
    key: str = ""
    others: tuple = ()
    network: Network = SWIN
    inside: Network | None = None
    trunk: "Checkpoint | None" = field(default=None, repr=False)

    @functools.cached_property
    def state(self):
        """The tensors that the network takes, by their names in today's timm."""
        return {name: value for name, value in self.tensors.items() if not self.network.leaves_out(name)}

    @functools.cached_property
    def left_out(self):
        """The others: buffers, and what does not belong to the network."""
        return {name: value for name, value in self.tensors.items() if name not in self.state}

    @property
    def choice(self):
        """Which of several networks' weights these are, in a line; "" where the file holds one."""
        if not self.others:
            return ""
        return (
            f"took the weights under {self.key or 'no key'}; the file also holds {', '.join(self.others)}: choose with "
            "--weights-key, in Python with weights_key="
        )

    @property
    def num_classes(self):
        """Rows of the classifier; 0 without one."""
        names = (f"{self.network.head}.{part}" for part in ("weight", "bias"))
        heads = [self.state[name] for name in names if name in self.state]
        return next((head.shape[0] for head in heads if head.ndim), 0)

    @property
    def features(self):
        """Columns of the classifier, one for each channel of the last map; None without one."""
        kernel = self.state.get(f"{self.network.head}.weight")
        return kernel.shape[1] if kernel is not None and kernel.ndim == 2 else None

    @property
    def in_chans(self):
        """Image channels that the first layer expects."""
        kernel = self.state.get((self.inside or self.network).stem)
        return kernel.shape[1] if kernel is not None and kernel.ndim == 4 else None

    def backbone(self):
        """The Checkpoint of a whole network's backbone alone, beside which lies the rest; of others, itself."""
        if self.trunk is not None:
            return self.trunk
        return replace(self, network=self.inside, inside=None) if self.inside else self

    def norm_of(self, stage):
        """{"weight": ..., "bias": ...} with which a dense backbone norms a stage's map; empty if it does not."""
        last = stage == dialects.stages(self.state) - 1
        name, tensors = ("norm", self.state) if last and self.dense else (f"norm{stage}", self.left_out)
        parts = {part: tensors[f"{name}.{part}"] for part in ("weight", "bias") if f"{name}.{part}" in tensors}
        return parts if len(parts) == 2 else {}


def files_of(path):
    """The files that a checkpoint's bytes lie in: the file itself, the one of a folder, an index and its parts."""
    path = pathlib.Path(path)
    if path.is_dir():
        path = hub_folder.weights_of(path, (*PICKLED, SAFE))
    return [path, *hub_folder.shards(path)] if path.name.endswith(hub_folder.INDEX) else [path]


def sha256(path):
    """Hex digest of a file's bytes; of a checkpoint in several files, of their digests."""
    digests = [files.sha256(part) for part in files_of(path)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def read_safetensors(path):
    """{name: array} of a safetensors file, without torch; half precisions become float32."""
    try:
        import safetensors
        from safetensors.numpy import load_file
    except ModuleNotFoundError as error:
        raise missing_package("reading .safetensors", "safetensors", "pretrained") from error
    try:
        state = load_file(path)
    except (safetensors.SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise SwinsError(f"{path}: not a readable safetensors file ({error}); download or save it again") from error
    half = ("float16", "bfloat16")
    return {name: value.astype("float32") if value.dtype.name in half else value for name, value in state.items()}


def read_pickled(path):
    """Nested dict of arrays in a .pth, .pt or .bin file, and its Facts, read by torch in the reference's process."""
    try:
        with oracle.ask("read", file=str(path)) as results:
            flat = read_safetensors(results / "tensors.safetensors")
            names = json.loads((results / "class_names.json").read_text())
    except SwinsError as error:
        raise SwinsError(f"{path}: {error}") from error
    nested = {}
    for key, value in flat.items():
        *parents, name = json.loads(key)
        folder = nested
        for parent in parents:
            folder = folder.setdefault(parent, {})
        folder[name] = value
    return nested, Facts(class_names=tuple(names))


@dataclass(frozen=True)
class Weights:
    """One model's tensors in a file.

    place are the keys that its state dict lies under; parallel what of PARALLEL was taken off its names; prefix what
    else comes before them all, such as "model."; company what training keeps beside a network, by name.
    """

    place: tuple
    parallel: tuple
    prefix: str
    state: dict = field(repr=False)
    company: dict = field(repr=False)

    @property
    def key(self):
        """The name by which a user chooses it."""
        return ".".join((*self.place, *filter(None, self.prefix.split("."))))


def state_dicts(content, place=()):
    """Every dict of a nested dict that holds arrays itself -> pairs of the keys it lies under and {name: array}."""
    arrays = {name: value for name, value in content.items() if not isinstance(value, dict)}
    if arrays:
        yield place, arrays
    for name, value in content.items():
        if isinstance(value, dict):
            yield from state_dicts(value, (*place, name))


def without_parallel(name):
    """A tensor's name without what torch.compile and DataParallel put before it."""
    for prefix in PARALLEL:
        name = name.removeprefix(prefix)
    return name


def prefix_of(name):
    """What comes before a dialect's sign in a tensor's name, up to a dot; None where there is no sign."""
    starts = (0, *(place + 1 for place, letter in enumerate(name) if letter == "."))
    return next(
        (name[:start] for start in starts if any(re.match(d.sign, name[start:]) for d in dialects.DIALECTS)), None
    )


def networks(place, arrays):
    """The models of a state dict, told apart by what comes before their names -> [Weights, ...]."""
    plain = {name: without_parallel(name) for name in arrays}
    parallel = tuple(p for p in dict.fromkeys(PARALLEL) if any(p in n[: len(n) - len(plain[n])] for n in arrays))
    prefixes = dict.fromkeys(p for name in plain.values() if (p := prefix_of(name)) is not None)
    several = []
    for prefix in prefixes:
        first = prefix.partition(".")[0]
        foreign = tuple(f"{word}." for other in prefixes if other and (word := other.partition(".")[0]) != first)
        state, company = {}, {}
        for name, value in arrays.items():
            short = plain[name].removeprefix(prefix)
            if foreign and plain[name].startswith(foreign):
                continue
            dialects.put(company if dialects.COMPANY.match(short) else state, short, value)
        several.append(Weights(place, parallel, prefix, state, company))
    return several


def choose(content, key=None):
    """The weights to take from a file's nested dict -> (Weights, names of the others).

    An average comes before the weights it is of, as in timm; else the first in the file.

    Raises:
        SwinsError: if none, or more than one, has the key that a user asks for.
    """
    everything = list(state_dicts(content))
    several = [weights for place, arrays in everything for weights in networks(place, arrays)]
    if not several:  # the largest, for an error that says what it holds
        place, arrays = max(everything, key=lambda pair: len(pair[1]), default=((), {}))
        several = [Weights(place, (), "", {without_parallel(name): value for name, value in arrays.items()}, {})]
    several.sort(key=lambda weights: not AVERAGED.search(weights.key.replace(".", "_")))
    keys = [weights.key for weights in several]
    if key is not None:
        asked = [weights for weights in several if key == weights.key] or [
            weights for weights in several if key in weights.key.split(".")
        ]
        if len(asked) != 1:
            raise SwinsError(f"{key!r} must name one network of the file; it holds {', '.join(keys) or 'one, unnamed'}")
        several = [*asked, *(weights for weights in several if weights is not asked[0])]
    return several[0], tuple(weights.key for weights in several[1:])


def timms_place(content):
    """The keys under which timm's own loader takes its weights."""
    place = ()
    for key in TIMMS:
        if isinstance(content.get(key), dict) and content[key]:
            place, content = (*place, key), content[key]
    return place


def read_content(path):
    """Nested dict of arrays in a file of any kind, or in the parts that an index names."""
    return read_whole(path)[0]


def read_whole(path):
    """Nested dict of arrays as `read_content` gives it, and the Facts that the file states of its model."""
    name = path.name.lower()
    if name.endswith(hub_folder.INDEX):
        content = {}
        for part in hub_folder.shards(path):
            for tensor, value in read_content(part).items():
                dialects.put(content, tensor, value)
        return content, NOTHING
    if name.endswith(SAFE):
        return read_safetensors(path), read_facts(path)
    if name.endswith(PICKLED):
        return read_pickled(path)
    raise SwinsError(f"{path}: a checkpoint ends in {', '.join((*PICKLED, SAFE))}; got {path.suffix or 'no suffix'!r}")


def read(path, key=None):
    """Read a checkpoint of any known dialect -> Checkpoint.

    Args:
        path: a file; or a folder that `save_pretrained`, a Trainer or timm's hub wrote. A config.json beside a Swin's
            weights is read too.
        key: which network, where a file holds several; default: an average, or the first.

    Raises:
        SwinsError: no such file, a format that is not known, an exported model, a file that cannot be read, a pickle
            that wants to run code, no network in it that is known, or a config.json that says another one.
    """
    path = given = pathlib.Path(path)
    if path.is_dir():
        path = hub_folder.weights_of(path, (*PICKLED, SAFE))
    if not path.is_file():
        raise SwinsError(f"{path}: no such checkpoint file")
    exported.refuse(path)
    content, header = read_whole(path)
    try:
        weights, others = choose(content, key)
        translation = dialects.to_timm(weights.state)
    except SwinsError as error:
        raise SwinsError(f"{path}: {error}") from error
    dialect, prefix = translation.dialect, translation.prefix
    wrappers = (*weights.place, *weights.parallel, weights.prefix, prefix)
    alone = len(translation.original)  # of as many tensors, if nothing lies beside it
    as_timm = weights.place == timms_place(content) and not (
        weights.prefix or weights.company or alone != len(weights.state)
    )
    checkpoint = Checkpoint(
        path=path,
        tensors=translation.tensors | weights.company,
        dialect=dialect.name,
        wrappers=tuple(filter(None, wrappers)),
        translated=not (dialect.program == "timm" and as_timm) or path.name.endswith(hub_folder.INDEX),
        facts=facts.join(facts.of_program(translation), header),
        dense=translation.dense,
        program=dialect.program,
        original=translation.original,
        key=weights.key,
        others=others,
        network=NETWORKS[dialect.network],
    )
    if identify_rcnn.holds_detector(checkpoint.tensors):
        return of_detector(checkpoint)
    if checkpoint.network is not SWIN:
        return of_segmenter(checkpoint)
    strict = given.is_dir() or path.name in hub_folder.WEIGHTS
    beside = hub_folder.facts_beside(path, strict)
    if differences := hub_folder.disagreements(beside, identify.identify(checkpoint), checkpoint.num_classes):
        if strict:
            raise SwinsError(
                f"{beside.source} and {path.name} must be of one model; the weights have {'; '.join(differences)}; "
                "mend config.json, or take the file out of its folder"
            )
        beside = NOTHING
    if beside is not NOTHING:
        hub_folder.require_computed(path)
    return of_segmenter(replace(checkpoint, facts=facts.join(beside, checkpoint.facts)))


def of_detector(checkpoint):
    """The Checkpoint of a whole detector; its classes have the names that the file states, or COCO's if they are 80."""
    detector = replace(checkpoint, network=MASK_RCNN, inside=checkpoint.network, translated=True, program=None)
    count = identify.identify(detector).num_classes
    stated = detector.facts.class_names
    names = stated if len(stated) == count else coco_names() if count == len(coco_names()) else ()
    return replace(detector, facts=replace(detector.facts, class_names=names))


def of_segmenter(checkpoint):
    """The Checkpoint of a whole UPerNet, if this holds one; else itself.

    Its classes have the names that the file states, or a config.json beside it, or ADE20K's if they are 150.
    """
    tensors = upernet_rules.in_mmseg_names(checkpoint.tensors, checkpoint.dialect)
    if not upernet_rules.holds_upernet(tensors):
        return checkpoint
    segmenter = replace(
        checkpoint, tensors=tensors, network=UPERNET, inside=checkpoint.network, trunk=checkpoint, translated=True
    )
    count = identify.identify(segmenter).num_classes
    stated = facts.join(checkpoint.facts, hub_folder.segmenter_facts(checkpoint.path))
    ade20k = ade20k_names() if count == len(ade20k_names()) else ()
    names = stated.class_names if len(stated.class_names) == count else ade20k
    return replace(segmenter, facts=replace(stated, class_names=names))


def read_facts(path):
    """What a safetensors file written by swins says in its header -> Facts; of other files, NOTHING."""
    if not path.name.endswith(SAFE):
        return NOTHING
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return facts.from_text((file.metadata() or {}).get(facts.KEY), path)


def write(state, path, metadata=None):
    """Write {name: array} as safetensors, as timm writes its own; the file appears whole or not at all.

    Args:
        state: the arrays by name.
        path: of the file.
        metadata: {name: text} for the file's header, besides its format.
    """
    try:
        from safetensors.numpy import save_file
    except ModuleNotFoundError as error:
        raise missing_package("writing .safetensors", "safetensors", "pretrained") from error
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows_first = {name: np.asarray(value, order="C") for name, value in state.items()}  # save_file ignores strides
    with files.replacing(path) as partial:
        save_file(rows_first, partial, {"format": "pt", **(metadata or {})})


def digest(state):
    """Hex digest of a state dict's names, shapes and values: equal weights have equal digests, whatever the file."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = np.ascontiguousarray(state[name])
        total.update(f"{name} {value.shape} {value.dtype}\n".encode())
        total.update(value.data)
    return total.hexdigest()
