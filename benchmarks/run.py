"""Us and the peers in one run -> benchmarks/results.csv, machine.txt: make bench.

Every contender lives in a process of its own (contenders.py) and waits while the others work. They take turns, in
another order each round; a turn is one call that is not timed, then calls for half a second. A round's time is the
median of its calls; ratios are of times of the same round, and the table has their medians. A first call includes
tracing and compiling, and for files their loading. What grows has a process for each size. Run it on a quiet machine.

TensorFlow runs with oneDNN, as the commands of swins make it, but for the contenders of the group onednn that say off.

    python benchmarks/run.py [GROUP ...]    groups: inference, onednn, training, growth; rows of other groups stay

Groups of dense networks, ssd_*, mask_rcnn_*, upernet_* and swin_unet*, run only if they are named. Some need
SSD_REFERENCE or MMDET_PYTHON: see detector_contenders.py, mask_rcnn_contenders.py and denoiser_contenders.py.
"""

import contextlib
import csv
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
PEERS = HERE / ".peers"  # packages that only peers need: see requirements.txt
TABLE = HERE / "results.csv"
MACHINE = HERE / "machine.txt"
COLUMNS = (
    "group",
    "precision",
    "size",
    "contender",
    "images_per_second",
    "slowest_round",
    "fastest_round",
    "over_reference",
    "over_floor",
    "first_call_s",
    "peak_MiB",
)
ROUNDS = {1: 5, 8: 7, 32: 3}
SECONDS = 0.5  # of a turn, at least
PACKAGES = ("tensorflow", "keras", "torch", "timm", "jax", "onnxruntime", "openvino", "keras-hub", "tfswin")
OFF = "tensorflow without oneDNN"  # which is what TensorFlow does by itself on processors without AVX-512
ELSEWHERE = "MMDET_PYTHON"  # of a contender that runs in the environment of the Python that this variable names

BOTH = {  # label: (function of contenders.py, backend of Keras)
    "timm eager": ("timm", ""),
    "timm torch.compile": ("timm_compile", ""),
    "KerasHub, TensorFlow graph": ("keras_hub", "tensorflow"),
    "KerasHub, TensorFlow XLA": ("keras_hub_xla", "tensorflow"),
    "swins, TensorFlow graph": ("swins_plain", "tensorflow"),
    "swins, TensorFlow XLA": ("swins_xla", "tensorflow"),
}
INFERENCE = {
    "matrix product (floor)": ("floor", "tensorflow"),
    **BOTH,
    "swins.deploy, TensorFlow graph": ("swins_deploy", "tensorflow"),
    "swins.deploy, JAX": ("swins_deploy", "jax"),
    "swins.deploy, PyTorch eager": ("swins_deploy", "torch"),
    "OpenVINO on timm's ONNX": ("openvino", ""),
    "OpenVINO on timm's PyTorch": ("openvino_torch", ""),
    "OpenVINO on swins --deploy": ("swins_openvino", ""),
}
FLOAT32 = {
    "tfswin, TensorFlow graph": ("tfswin", "tensorflow"),
    "onnxruntime on timm's ONNX": ("onnxruntime", ""),
    "onnxruntime on swins --deploy": ("swins_onnxruntime", ""),
}
ONEDNN = {  # each with it and without
    "swins, TensorFlow graph": ("swins_plain", "tensorflow"),
    "swins, TensorFlow graph, oneDNN off": ("swins_plain", OFF),
    "swins, TensorFlow XLA": ("swins_xla", "tensorflow"),
    "swins, TensorFlow XLA, oneDNN off": ("swins_xla", OFF),
    "swins.deploy, TensorFlow graph": ("swins_deploy", "tensorflow"),
    "swins.deploy, TensorFlow graph, oneDNN off": ("swins_deploy", OFF),
}
TRAINING = {
    **BOTH,
    "swins, JAX": ("swins_plain", "jax"),
    "swins, PyTorch eager": ("swins_plain", "torch"),
}
THEIRS = "R. Greenhead's SSD, PyTorch eager"


def detectors(kind):
    """Contenders of a group of detectors."""
    return {
        THEIRS: (f"detector_contenders:reference_{kind}", ""),
        "swins, TensorFlow graph": (f"detector_contenders:swins_{kind}", "tensorflow"),
        "swins, TensorFlow XLA": (f"detector_contenders:swins_{kind}_xla", "tensorflow"),
    }


def forward(kind):
    """Contenders of a group of detectors that do not train."""
    return {
        **detectors(kind),
        "swins deployed, TensorFlow graph": (f"detector_contenders:deployed_{kind}", "tensorflow"),
    }


MMDET = "mmdetection, PyTorch eager"
MASK_RCNN = {
    MMDET: ("mask_rcnn_contenders:mmdet", ELSEWHERE),
    "torchvision on timm's Swin, PyTorch eager": ("mask_rcnn_contenders:torchvision", ""),
    "swins, TensorFlow graph": ("mask_rcnn_contenders:swins_graph", "tensorflow"),
}
MASK_RCNN_FORMS = {
    "swins, SavedModel": ("mask_rcnn_contenders:swins_saved", "tensorflow"),
    "swins deployed, TensorFlow graph": ("mask_rcnn_contenders:swins_deployed", "tensorflow"),
}
TRANSFORMERS = "transformers, PyTorch eager"
UPERNET = {
    TRANSFORMERS: ("segmenter_contenders:transformers", ""),
    "transformers, torch.compile": ("segmenter_contenders:transformers_compiled", ""),
    "swins, TensorFlow graph": ("segmenter_contenders:swins_graph", "tensorflow"),
    "swins, TensorFlow XLA": ("segmenter_contenders:swins_xla", "tensorflow"),
    "swins deployed, TensorFlow graph": ("segmenter_contenders:swins_deployed", "tensorflow"),
    "OpenVINO on transformers' PyTorch": ("segmenter_contenders:transformers_openvino", ""),
    "OpenVINO on swins' export": ("segmenter_contenders:swins_openvino", "tensorflow"),
}
SWIN_UNET_THEIRS = "R. Greenhead's SwinUNet, PyTorch eager"
SWIN_UNET = {
    SWIN_UNET_THEIRS: ("denoiser_contenders:reference", ""),
    "swins, TensorFlow graph": ("denoiser_contenders:swins_graph", "tensorflow"),
    "swins, TensorFlow XLA": ("denoiser_contenders:swins_xla", "tensorflow"),
}
SIDES = (224, 320, 448, 640, 768, 1024)
WINDOWS = (7, 14, 28, 56)
RUNS = (  # group, precision, sizes, contenders
    ("inference", "float32", (1, 8, 32), INFERENCE | FLOAT32),
    ("inference", "bfloat16", (1, 8, 32), INFERENCE),
    ("onednn", "float32", (8,), ONEDNN),
    ("training", "float32", (8,), TRAINING),
    ("growth", "float32", SIDES, {"image side": ("growth_side", "tensorflow")}),
    ("growth", "float32", SIDES, {"image side, open size": ("growth_open", "tensorflow")}),
    ("growth", "float32", WINDOWS, {"window at 448 pixels": ("growth_window", "tensorflow")}),
)
DENSE_RUNS = (  # only if they are named
    ("ssd_resnet50_b", "float32", (1, 8), forward("resnet")),
    ("ssd_swin_tiny_b", "float32", (1, 8), forward("swin")),
    ("ssd_resnet50_b_training", "float32", (8,), detectors("resnet")),
    ("ssd_swin_tiny_b_training", "float32", (8,), detectors("swin")),
    ("ssd_suppression", "float32", (1, 8), {"swins, NMS alone": ("detector_contenders:suppression", "tensorflow")}),
    ("mask_rcnn_swin_tiny", "float32", (1,), MASK_RCNN | MASK_RCNN_FORMS),
    ("mask_rcnn_swin_tiny_training", "float32", (2,), MASK_RCNN),
    ("upernet_swin_tiny", "float32", (1, 4), UPERNET),
    ("swin_unet", "float32", (1, 4), SWIN_UNET),
    ("swin_unet_training", "float32", (4,), SWIN_UNET),
)
REFERENCES, FLOOR = ("timm eager", THEIRS, MMDET, TRANSFORMERS, SWIN_UNET_THEIRS), "matrix product (floor)"


class Contender:
    """A process of contenders.py."""

    def __init__(self, function, backend, precision, task, files):
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(HERE), str(PEERS))))
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore", "PYTHONPATH": path}
        settings = {"KERAS_BACKEND": "tensorflow" if backend in ("", OFF, ELSEWHERE) else backend}
        settings["TF_ENABLE_ONEDNN_OPTS"] = "0" if backend == OFF else "1"
        python = os.environ.get(ELSEWHERE, sys.executable) if backend == ELSEWHERE else sys.executable
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        self.process = subprocess.Popen(
            [python, "-P", str(HERE / "contenders.py"), function, precision, task, str(files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, **quiet, **settings},
        )

    def time(self, size, seconds):
        """The answer to one turn. Raises RuntimeError with the process' last words if there is none."""
        try:
            self.process.stdin.write(json.dumps({"size": size, "seconds": seconds}) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            self.log.seek(0)
            raise RuntimeError(self.log.read()[-1500:]) from None

    def end(self):
        with contextlib.suppress(BrokenPipeError):  # of a process that ended before
            self.process.stdin.close()
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


def measure(group, precision, sizes, contenders, files, say):
    """Rows of the table. A contender that fails is left out, and its last words are said."""
    task = "training" if group.endswith("training") else "inference"
    if group == "growth":
        alive = {(label, size): contenders[label] for label in contenders for size in sizes}
    else:
        alive = {(label, None): facts for label, facts in contenders.items()}
    answers = {}

    def turn(key, size, seconds):
        try:
            answers.setdefault((key[0], size), []).append(alive[key].time(size, seconds))
        except RuntimeError as error:
            say(f"{key[0]} fails at size {size}:\n{error}")
            answers.pop((key[0], size), None)
            alive.pop(key).end()

    try:
        for key in list(alive):  # one after the other: first calls are timed too
            alive[key] = Contender(*alive[key], precision, task, files)
            turn(key, key[1] or sizes[0], 0)
        for size in sizes:
            for i in range(ROUNDS.get(size, 5)):
                say(f"{group} {precision} size {size} round {i + 1}")
                here = [key for key in alive if key[1] in (None, size)]
                for key in random.Random(f"{size} {i}").sample(here, len(here)):
                    turn(key, size, SECONDS)
    finally:
        for contender in alive.values():
            if isinstance(contender, Contender):
                contender.end()
    rows = []
    for size in sizes:
        here = {label: told for (label, its), told in answers.items() if its == size}
        seconds = {
            label: [statistics.median(a["seconds"]) for a in told[-ROUNDS.get(size, 5) :]]
            for label, told in here.items()
        }
        rows += [row_of(group, precision, size, label, seconds, here[label]) for label in here]
    return rows


def row_of(group, precision, size, label, seconds, answers):
    images, mine = 1 if group == "growth" else size, seconds[label]

    def over(other):
        if other not in seconds:
            return ""
        return f"{statistics.median(a / b for a, b in zip(seconds[other], mine, strict=True)):.3f}"

    memory = {} if label == FLOOR else {"first_call_s": answers[0]["first"], "peak_MiB": answers[-1]["peak_MiB"]}
    return {
        "group": group,
        "precision": precision,
        "size": size,
        "contender": label,
        "images_per_second": f"{images / statistics.median(mine):.2f}",
        "slowest_round": f"{images / max(mine):.2f}",
        "fastest_round": f"{images / min(mine):.2f}",
        "over_reference": over(next((label for label in REFERENCES if label in seconds), "")),
        "over_floor": over(FLOOR),
        **{key: f"{value:.1f}" for key, value in memory.items()},
    }


def describe_machine():
    """What the numbers were measured on."""
    facts = pathlib.Path("/proc/cpuinfo").read_text() if pathlib.Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in facts.splitlines() if line.startswith("model name")]
    flags = next((line.split(":")[1].split() for line in facts.splitlines() if line.startswith("flags")), [])
    wide = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    sys.path.append(str(PEERS))
    found = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    versions = [f"{package} {found[package]}" for package in PACKAGES if package in found]
    return "\n".join(
        (
            f"{(names or ['?'])[0]}, {os.cpu_count()} cores ({', '.join(wide)}), {memory:.0f} GiB",
            ", ".join(versions),
            f"{platform.system()}, Python {platform.python_version()}, {datetime.date.today()}",
        )
    )


def say(text):
    print(f"{datetime.datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


def main(groups):
    known_to_all = list(dict.fromkeys(group for group, *_ in RUNS))
    known = [*known_to_all, *(group for group, *_ in DENSE_RUNS)]
    if not set(groups) <= set(known):
        sys.exit(f"groups are {', '.join(known)}; got {' '.join(groups)}")
    rows = []
    if TABLE.is_file():
        with open(TABLE, newline="") as file:
            before = list(csv.DictReader(file))
        rows = [row for row in before if not (row["group"] in groups if groups else row["group"] in known_to_all)]
    load = os.getloadavg()[0]
    if load > 0.5:
        say(f"the machine is busy (load {load:.1f}): the numbers will show it")
    if not groups:  # else it is another run's
        MACHINE.write_text(describe_machine() + "\n")
    with tempfile.TemporaryDirectory() as temporary:
        files = pathlib.Path(temporary)
        for export in ("export_timm", "export_swins") if not groups or "inference" in groups else ():
            say(export)
            quiet = {**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONWARNINGS": "ignore"}
            quiet["TF_ENABLE_ONEDNN_OPTS"] = "1"
            command = [sys.executable, "-P", str(HERE / "contenders.py"), export, temporary]
            done = subprocess.run(command, env=quiet, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{export} fails:\n{done.stderr[-3000:]}")
        for group, precision, sizes, contenders in (*RUNS, *DENSE_RUNS):
            if group in (groups or known_to_all):
                rows += measure(group, precision, sizes, contenders, files, say)
                with open(TABLE, "w", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
