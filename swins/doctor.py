"""What this installation has, whether it works, and what is missing for what: `swins doctor`. It asks no network.

Packages are imported by swins/import_probe.py, those that bear each other in one process: importing timm after
TensorFlow aborts. A process that ends is asked anew for what it had not come to.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor

import swins
from swins import host
from swins.errors import ending

PURPOSES = {  # of the extras of pyproject.toml, as docs/install.md has them
    "tensorflow": "the backend TensorFlow, Keras' own choice; it alone writes SavedModels and what is made of them",
    "jax": "the backend JAX, with KERAS_BACKEND=jax",
    "torch": "the backend PyTorch, with KERAS_BACKEND=torch",
    "classification": "predict, evaluate, train and draw classifiers, published weights fetched",
    "detection": "the same of detectors and Mask R-CNNs, with COCO's scores",
    "segmentation": "the same of segmenters",
    "diffusion": "the same of diffusion models, and sampling",
    "eval": "predict and evaluate alone: images and safetensors are read",
    "train": "what the four kinds of work have in common",
    "plot": "drawing: curves, reports, attention",
    "pretrained": "fetching published weights of the Hugging Face Hub",
    "datasets": "data sets of tensorflow-datasets: --data tfds:NAME",
    "convert": "PyTorch's files in (.pth, .bin), and certificates that compare with timm, torchvision or transformers",
    "hub": "hub.load and hub.KerasLayer beside swins",
    "onnx": "export --to onnx",
    "litert": "export --to litert",
    "openvino": "export --to openvino",
    "ray": "predict and eval over many machines: --engine ray",
    "serve": "ONNX behind FastAPI, as docs/serving.md has it",
    "notebooks": "running the notebooks of a clone",
    "docs": "building the site of a clone: make docs",
    "dev": "building and testing a clone",
}
PROCESSES = {  # modules that are imported in one process; all others share one more
    "tensorflow": ("tensorflow", "tensorflow_hub", "tf_keras", "tensorflow_datasets", "tf2onnx", "ai_edge_litert"),
    "torch": ("torch", "torchvision", "timm", "transformers"),
    "jax": ("jax",),
}
MODULES = {"pillow": "PIL", "pytest-xdist": "xdist", "mkdocs-material": "material"}  # not called as their packages
FOLDER = pathlib.Path(__file__).parents[1]
PROBE = pathlib.Path(__file__).with_name("import_probe.py")
LONGEST = 300  # seconds that a process may take
QUIET = {  # settings of these processes: no network, no memory of a graphics card kept, no lines of their own
    "HF_HUB_OFFLINE": "1",
    "PYTHONWARNINGS": "ignore",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
ON_CARDS = {  # what makes a backend use NVIDIA's cards
    "tensorflow": "pip install 'tensorflow[and-cuda]'",
    "jax": "pip install 'jax[cuda13]'",
    "torch": "pip install torch anew, for the driver's CUDA: pytorch.org/get-started",
}


def stated() -> tuple[list[str], dict[str, list[str]]]:
    """What swins says that it needs: (always, {extra: for it}), in a clone's pyproject.toml or as it was installed."""
    file = FOLDER / "pyproject.toml"
    if file.is_file():
        project = tomllib.loads(file.read_text())["project"]
        return project["dependencies"], project["optional-dependencies"]
    always, extras = [], {}
    for text in importlib.metadata.requires("swins") or ():
        requirement, _, marker = text.partition(";")
        extra = re.search(r"""extra\s*==\s*["']([\w.-]+)["']""", marker)
        (extras.setdefault(extra[1], []) if extra else always).append(requirement.strip())
    return always, {name: extras[name] for name in sorted(extras, key=[*PURPOSES, *extras].index)}


def resolved(texts, extras) -> dict[str, str]:
    """{package: versions that do} of requirements, with those of the extras of swins that they name."""
    needs = {}
    for text in texts:
        name, inner, versions = re.fullmatch(r"([\w.-]+)(?:\[([\w,. -]+)\])?\s*(.*)", text).groups()
        if name == "swins":
            for extra in inner.split(","):
                needs |= resolved(extras[extra.strip()], extras)
        else:
            needs[name] = versions
    return needs


def chosen_backend() -> tuple[str, str]:
    """(Keras' backend, what chooses it), as Keras finds it."""
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"], "KERAS_BACKEND"
    home = os.path.expanduser("~")
    folder = os.path.join(home if os.access(home, os.W_OK) else "/tmp", ".keras")
    file = pathlib.Path(os.path.expanduser(os.environ.get("KERAS_HOME", folder)), "keras.json")
    try:
        return str(json.loads(file.read_text())["backend"]), str(file)
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow", "Keras' default"


def grouped(modules) -> dict[str, list[str]]:
    """{process: modules that it imports, in their order}."""
    groups = {name: [module for module in own if module in modules] for name, own in PROCESSES.items()}
    apart = {module for own in PROCESSES.values() for module in own}
    return {**groups, "others": sorted(set(modules) - apart)}


def ask(modules, core=False) -> dict[str, dict]:
    """{module: what import_probe.py says of it}, asked in a process of its own.

    Args:
        core: whether it is also asked, first, if swins works; the answer is that of the module "swins".
    """
    answers, left = {}, [*(["swins"] if core else []), *modules]
    while left:
        names = [name for name in left if name != "swins"]
        command = [sys.executable, "-P", str(PROBE), *(["--core", str(FOLDER)] if "swins" in left else []), *names]
        out, ending = run(command)
        begun = None
        for line in out.splitlines():
            row = json.loads(line)
            begun = row.get("begins")
            if not begun:
                answers[row["module"]] = row
        for name in [begun] if begun else set(left) - set(answers):
            answers[name] = {"module": name, "version": None, "error": ending, "missing": False}
        left = [name for name in left if name not in answers]
    return answers


def run(command) -> tuple[str, str]:
    """(Standard output, how it ended) of a process that may take LONGEST seconds."""
    try:
        done = subprocess.run(command, capture_output=True, env={**os.environ, **QUIET}, timeout=LONGEST)
    except subprocess.TimeoutExpired as expired:
        return (expired.stdout or b"").decode(), f"its process had not ended after {LONGEST} seconds"
    return done.stdout.decode(), ending(done.returncode, done.stderr.decode(errors="replace"))


def package_facts(name, versions, answer) -> dict:
    """What is known of a package: {"version", "needed", "problem"}, the problem None where it can be used."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = answer.get("version")  # as of tensorflow-cpu, which has another name
    problem = None
    if answer["missing"]:
        problem = "is not installed"
    elif answer["error"]:
        problem = f"cannot be imported: {answer['error']}"
    elif version and not fits(version, versions):
        problem = f"is {version}, and {versions} is needed"
    return {"version": version, "needed": versions, "problem": problem}


def fits(version, versions) -> bool:
    """Whether a version is one of those that do; without the package that compares them, it is taken to be."""
    try:
        from packaging.specifiers import SpecifierSet
    except ModuleNotFoundError:
        return True
    return SpecifierSet(versions).contains(version, prereleases=True)


def caches() -> dict[str, dict]:
    """Where what is fetched is kept: {what: folder_facts}."""
    home = pathlib.Path.home()
    hub = pathlib.Path(os.environ.get("HF_HOME") or os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    hub = hub / "hub" if os.environ.get("HF_HOME") else hub / "huggingface" / "hub"
    archives = os.environ.get("SWINS_CACHE_DIR") or home / ".cache" / "swins"  # as swins/archives.py has it
    places = {"weights": os.environ.get("HF_HUB_CACHE") or hub, "archives of SavedModels": archives}
    return {name: host.folder_facts(folder) for name, folder in places.items()}


def examine() -> dict:
    """Everything that `swins doctor` says, as plain values.

    "works" tells whether the core does, "reasons" why not; "extras" has of each what it lacks and what to type.
    """
    always, extras = stated()
    needs = {"": resolved(always, extras), **{name: resolved(texts, extras) for name, texts in extras.items()}}
    modules = {name: module_of(name) for own in needs.values() for name in own}
    groups, (backend, chosen_by) = grouped(modules.values()), chosen_backend()
    home = backend if backend in groups else "others"
    with ThreadPoolExecutor(len(groups)) as pool:
        parts = pool.map(lambda name: ask(groups[name], core=name == home), groups)
        answers = {module: answer for part in parts for module, answer in part.items()}
    wanted = {name: versions for own in reversed(needs.values()) for name, versions in own.items()}
    packages = {name: package_facts(name, wanted[name], answers[module]) for name, module in modules.items()}
    core = answers["swins"]
    lacking = {extra: {n: p for n in own if (p := packages[n]["problem"])} for extra, own in needs.items()}
    backends = {
        name: {"version": packages[name]["version"], "devices": answers[name].get("devices", []), "problem": problem}
        for name in ("tensorflow", "jax", "torch")
        for problem in [packages[name]["problem"]]
    }
    return {
        "works": not core["error"] and not lacking[""],
        "reasons": reasons(core, lacking[""], needs[""], backend, backends),
        "swins": {"version": swins.__version__, "folder": str(PROBE.parent)},
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": host.cores(),
            "memory": host.memory(),
            "nvidia": host.nvidia_cards(),
        },
        "keras": {
            "version": packages["keras"]["version"],
            "backend": backend,
            "chosen_by": chosen_by,
            "seconds": core.get("seconds"),
        },
        "backends": backends,
        "packages": packages,
        "extras": {
            name: {"purpose": PURPOSES.get(name, ""), "lacks": lacking[name], "install": remedy(name, lacking[name])}
            for name in extras
        },
        "caches": caches(),
        "hints": hints(host.nvidia_cards(), backends),
    }


def module_of(package) -> str:
    """The module that a package is imported by."""
    return MODULES.get(package, package.replace("-", "_"))


def reasons(core, lacking, needs, backend, backends) -> list[str]:
    """Why the core does not work, each with what to do; none if it does."""
    found = [f"{name} {problem}: {reinstall(name, problem, needs[name])}" for name, problem in lacking.items()]
    if core["error"]:
        found.append(core["error"])
        working = [name for name, facts in backends.items() if not facts["problem"] and name != backend]
        if working and (backend not in backends or backends[backend]["problem"]):
            found.append(f"{' and '.join(working)} can be used in its place: KERAS_BACKEND={working[0]}")
    return found


def reinstall(name, problem, versions="") -> str:
    """What to type for a package with a problem."""
    anew = "" if "needed" in problem or "not installed" in problem else "--force-reinstall "
    return f"pip install {anew}'{name}{versions}'"


def remedy(extra, lacks) -> str | None:
    """What to type for what an extra lacks; None if that is nothing."""
    if not lacks:
        return None
    if all("imported" in problem for problem in lacks.values()):
        return f"pip install --force-reinstall {' '.join(lacks)}"
    try:
        importlib.metadata.distribution("swins")
    except importlib.metadata.PackageNotFoundError:
        return f"pip install '.[{extra}]'"  # in the clone, which is not installed
    return f"pip install 'swins[{extra}]'"


def hints(cards, backends) -> list[str]:
    """What could be better, and how."""
    return [
        f"{name} sees none of {len(cards)} NVIDIA cards ({cards[0]}): {ON_CARDS[name]}"
        for name, facts in backends.items()
        if cards and not facts["problem"] and not set(facts["devices"]) - {"CPU"}
    ]
