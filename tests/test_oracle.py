"""The PyTorch reference as a process that stays: what it is asked from where, when it is gone, and when it is noisy."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from shared_fixtures import NAME

from swins.errors import SwinsError
from swins.processes import kept_process
from swins.reference import oracle
from swins.weights import checkpoint_files

WRITE = "import torch, sys; torch.save({'norm.weight': torch.full((3,), float(sys.argv[2]))}, sys.argv[1])"


@pytest.mark.slow
def test_relative_paths_are_of_the_caller(tmp_path, monkeypatch):
    for value in (1, 2):
        (tmp_path / str(value)).mkdir()
        subprocess.run([sys.executable, "-c", WRITE, str(tmp_path / str(value) / "m.pth"), str(value)], check=True)
    for value in (1, 2, 1):
        monkeypatch.chdir(tmp_path / str(value))
        assert checkpoint_files.read_pickled("m.pth")[0]["norm.weight"].tolist() == [value] * 3


@pytest.mark.slow
def test_one_process_answers_until_it_is_killed(checkpoint):
    def ask():
        with oracle.ask("read", file=str(checkpoint)) as results:
            assert list(results.iterdir())
        return oracle.THE_REFERENCE.process.pid

    first = ask()
    assert ask() == first
    os.kill(first, signal.SIGKILL)
    time.sleep(0.2)
    assert ask() != first


def test_an_interrupted_request_leaves_nothing_for_the_next(checkpoint, monkeypatch):
    reference = kept_process.KeptProcess(oracle.THE_REFERENCE.script)
    reference.start()

    class Interrupted:
        def __init__(self, stream):
            self.stream = stream

        def __getattr__(self, name):
            return getattr(self.stream, name)

        def readline(self):
            raise KeyboardInterrupt

    real = reference.process
    monkeypatch.setattr(real, "stdout", Interrupted(real.stdout))
    with pytest.raises(KeyboardInterrupt):
        reference.ask({"command": "read", "out": "/nowhere", "file": str(checkpoint)})
    assert reference.process is None and real.poll() is not None


def test_a_crash_is_told(tmp_path):
    with pytest.raises(SwinsError, match=r"(?s)the PyTorch reference failed: .*KeyError"), oracle.ask("forward"):
        pass


FORK = """
import os, sys
from swins.reference import oracle
oracle.THE_REFERENCE.start()
if not os.fork():
    sys.exit()
os.wait()
assert oracle.THE_REFERENCE.process.poll() is None, "a fork of ours stopped it"
"""


@pytest.mark.slow
def test_forks_leave_it_alone():
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=120)


NOISE = """
import sys
import numpy as np
from swins.reference import oracle
from swins.tags import look_up
name, file = sys.argv[1:]
x = np.zeros((1, 28, 28, 1), "float32")
print(oracle.forward(file, name.partition(".")[0], look_up(name).variant, x)["logits"].shape)
"""


@pytest.mark.slow
def test_what_libraries_print_is_no_answer(checkpoint):
    environment = {**os.environ, "ONEDNN_VERBOSE": "1", "DNNL_VERBOSE": "1", "MKL_VERBOSE": "1"}
    command = [sys.executable, "-c", NOISE, NAME, str(checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0 and "(1, 10)" in done.stdout, done.stderr


def test_a_process_that_cannot_begin_says_why_and_one_of_other_settings_is_another(tmp_path, monkeypatch):
    broken = tmp_path / "broken.py"
    broken.write_text("import os, sys; sys.stderr.write('no such driver'); sys.stderr.flush(); os.abort()")
    answer = kept_process.KeptProcess(broken).ask({"out": str(tmp_path)})
    assert answer == {"crash": "no such driver", "code": -signal.SIGABRT}
    loop = pathlib.Path(kept_process.__file__).with_name("forked_answers.py").read_text()
    script = tmp_path / "script.py"
    script.write_text(f"{loop}\n\ndef answer(request):\n    return dict(os.environ)\n\n\nserve(answer)\n")
    process = kept_process.KeptProcess(script)
    for value in ("1", "2"):
        monkeypatch.setenv("TF_OF_A_TEST", value)
        assert process.ask({"out": str(tmp_path)})["TF_OF_A_TEST"] == value
    process.stop()


def test_a_fork_that_is_killed_says_so(tmp_path):
    loop = pathlib.Path(kept_process.__file__).with_name("forked_answers.py").read_text()
    script = tmp_path / "script.py"
    ends = "print('last words', flush=True); os.kill(os.getpid(), 9)"
    script.write_text(f"{loop}\n\ndef answer(request):\n    {ends}\n\n\nserve(answer)\n")
    process = kept_process.KeptProcess(script)
    assert process.ask({"out": str(tmp_path)}) == {"crash": "last words\n", "code": -9}
    process.stop()
