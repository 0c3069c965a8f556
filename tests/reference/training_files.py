"""Files as training scripts leave them: python training_files.py STATE.safetensors FOLDER.

Of one state dict, under the keys, names and beside the objects that scripts save with it. Packages that are not
installed are modules made here, whose classes have the packages' own names and ways to be pickled.
"""

import argparse
import collections
import pathlib
import sys
import types

import numpy as np
import torch
from safetensors.torch import load_file

STATE, OUT = load_file(sys.argv[1]), pathlib.Path(sys.argv[2])
HEADLESS = {name: value for name, value in STATE.items() if not name.startswith("head.")}
WORSE = {name: value * 1.1 for name, value in STATE.items()}
ADAM = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}


def package_class(path, base=object):
    """A class that pickles under a package's name."""
    module, _, name = path.rpartition(".")
    parts = module.split(".")
    for i in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
    made = type(name, (base,), {"__module__": module})
    setattr(sys.modules[module], name, made)
    return made


def prefixed(prefix, state=STATE):
    return {prefix + name: value for name, value in state.items()}


def config():
    """As yacs' CfgNode: a dict whose own settings lie in its __dict__."""
    node = package_class("yacs.config.CfgNode", dict)
    inner = node(NAME="swin", WINDOW=[4, 4])
    whole = node(MODEL=inner, TRAIN=node(), EPOCHS=300)
    whole.__dict__["_immutable"] = inner.__dict__["_immutable"] = True
    return whole


yacs = config()
arguments = argparse.Namespace(lr=0.1, output=pathlib.Path("out"), decay=np.float32(0.05), names=["a"])
attributes = package_class("pytorch_lightning.utilities.parsing.AttributeDict", dict)
history = package_class("mmengine.logging.history_buffer.HistoryBuffer")()
history.__dict__.update(_log_history=np.zeros(3), max_length=10)
lightning = {
    "epoch": 3,
    "pytorch-lightning_version": "2.5.0",
    "state_dict": {**prefixed("model."), "criterion.weight": torch.ones(10), "train_acc.tp": torch.ones(1)},
    "hyper_parameters": attributes(lr=0.1, optimizer=attributes(name="adam")),
    "optimizer_states": [ADAM],
    "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best_model_score": torch.tensor(0.5)}},
    "loops": {"fit_loop": {"state_dict": {}}},
}
files = {
    "model_state_dict.pth": {"model_state_dict": STATE, "optimizer_state_dict": ADAM, "epoch": 3},
    "net.pt": prefixed("net."),
    "network.pth": {"network": STATE, "criterion": {"weight": torch.ones(10)}},
    "UPPER.PTH": {"model": STATE},
    "best.pth.tar": {"state_dict": prefixed("module."), "best_acc1": torch.tensor(0.9), "optimizer": ADAM},
    "lightning.ckpt": lightning,
    "compiled.ckpt": {"state_dict": prefixed("net._orig_mod.")},
    "microsoft.pth": {"model": STATE, "optimizer": ADAM, "max_accuracy": np.float64(81.2), "epoch": 3, "config": yacs},
    "arguments.pth": {
        "model": STATE,
        "args": arguments,
        "log": collections.defaultdict(list, loss=[np.float64(1.0)]),
        "random": np.random.RandomState(0).get_state(),
        "more": types.SimpleNamespace(a=1),
    },
    "mm.pth": {"state_dict": STATE, "message_hub": {"log": history}, "meta": {"time": np.int64(3)}},
    "torchvision_ema.pth": {
        "model": WORSE,
        "model_ema": {"n_averaged": torch.tensor(5), **prefixed("module.")},
        "optimizer": ADAM,
        "args": arguments,
    },
    "lightning_ema.ckpt": {
        "state_dict": {
            **prefixed("model.", WORSE),
            **prefixed("ema_model.module."),
            "ema_model.n_averaged": torch.tensor(5),
        }
    },
    "dino.pth": {
        "student": {**prefixed("module.backbone.", WORSE), "module.head.mlp.0.weight": torch.zeros(3, 96)},
        "teacher": {**prefixed("backbone.", HEADLESS), "head.last_layer.weight_v": torch.zeros(3, 96)},
        "epoch": 3,
    },
    "broken_ema.pth": {"model": STATE, "model_ema": {**STATE, "norm.bias": torch.zeros(7)}},
}
for file, content in files.items():
    torch.save(content, OUT / file)
torch.save(files["microsoft.pth"], OUT / "old.pth", _use_new_zipfile_serialization=False)
(OUT / "folder").mkdir()
torch.save(STATE, OUT / "folder" / "epoch_3.bin")
torch.save(ADAM, OUT / "folder" / "optimizer.pt")


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)


package_class("project.settings.Settings")
torch.save(Net(), OUT / "whole.pth")
torch.save({"model": STATE, "cfg": sys.modules["project.settings"].Settings()}, OUT / "project.pth")
torch.jit.script(torch.nn.Linear(3, 3)).save(OUT / "script.pt")


def hostile(path, name):
    """A file that asks to call a function of a package whose harmless objects are read."""

    class Call:
        def __reduce__(self):
            return function, (f"open({str(OUT / 'executed')!r}, 'w')",)

    module, _, last = path.rpartition(".")
    function = types.FunctionType((lambda text: exec(text)).__code__, globals(), last)
    function.__module__, function.__qualname__ = module, last
    if module not in sys.modules:
        package_class(f"{module}.Any")
    kept = getattr(sys.modules[module], last, None)
    setattr(sys.modules[module], last, function)
    torch.save({"model": STATE, "config": Call()}, OUT / name)
    setattr(sys.modules[module], last, kept)


hostile("numpy.testing._private.utils.runstring", "hostile_numpy.pth")
hostile("yacs.config.load", "hostile_yacs.pth")
hostile("builtins.exec", "hostile_builtin.pth")
hostile("project.settings.run", "hostile_project.pth")
