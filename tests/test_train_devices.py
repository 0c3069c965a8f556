"""One device, several, and several processes: the same losses."""

import contextlib
import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
from shared_fixtures import ROOT, needs_tensorflow
from training import SMALL, quiet

from swins import devices
from swins.errors import SwinsError
from swins.train import loop

# of JAX, beside what conftest.py says for quick compilation
FOUR_DEVICES = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"


def together(place, idx, environments):
    """Run tests/devices.py once in each environment, at the same time -> [(exit code, what it printed, errors)]."""
    return started(place, "devices.py", [str(idx), str(place)], environments)


def started(place, script, arguments, environments):
    """Run a script of tests/ once in each environment, at the same time -> [(exit code, what it printed, errors)]."""
    command = [sys.executable, "-P", str(ROOT / "tests" / script), *arguments]
    common = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
    common |= {
        "JAX_COMPILATION_CACHE_DIR": str(place.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with contextlib.ExitStack() as ended:
        processes = []
        for environment in environments:
            options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            process = subprocess.Popen(command, env={**common, **environment}, **options)
            processes.append(ended.enter_context(process))
            ended.callback(process.kill)
        answers = [process.communicate(timeout=1200) for process in processes]
    return [(process.returncode, *answer) for process, answer in zip(processes, answers, strict=True)]


def two_processes(**more):
    """Environments of two processes of JAX on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    joined = {"KERAS_DISTRIBUTION_JOB_ADDRESSES": address, "KERAS_DISTRIBUTION_NUM_PROCESSES": "2", **more}
    return [{"KERAS_BACKEND": "jax", "KERAS_DISTRIBUTION_PROCESS_ID": str(i), **joined} for i in (0, 1)]


@pytest.mark.slow
@needs_tensorflow
def test_several_devices_and_processes_give_the_losses_of_one(idx, tmp_path):
    """One device, four virtual ones on JAX and TensorFlow, and two processes of JAX, one of which is asked to end."""
    cases = {
        "jax 2 processes": two_processes(),
        "jax": [{"KERAS_BACKEND": "jax", "XLA_FLAGS": FOUR_DEVICES}],
        "tensorflow": [{"KERAS_BACKEND": "tensorflow", "TF_DEVICES": "4"}],
    }
    for step in ("1", "6"):  # and again when it has gone on
        for code, _, err in together(tmp_path / "jax_2_processes", idx, two_processes(ASKED_AT=step)):
            assert code == 143 and "the state after step" in err, err[-2000:]
    losses, counts, evaluated = {}, {}, {}
    for case, environments in cases.items():
        for code, out, err in together(tmp_path / case.replace(" ", "_"), idx, environments):
            assert code == 0, (case, err[-2000:])
            results = json.loads(out.splitlines()[-1])
            names = [case] if "processes" in case else [f"{case} 1", f"{case} 4"]
            for name, told in zip(names, results, strict=True):
                counts[name], evaluated[name] = told["devices"], told.get("evaluated")
                found = [[float(row[k]) for k in ("loss", "val_loss", "val_top1")] for row in told["rows"]]
                losses.setdefault(name, found)
                assert losses[name] == found and (len(found) == 2 or told["went_on"])
                assert {row["val_images"] for row in told["rows"]} == {"70"}
                assert told["went_on"] == (name == "jax 2 processes")
    assert counts["jax 4"] == counts["tensorflow 4"] == "4 device(s)" and counts["jax 2 processes"] == "2 device(s)"
    for name in ("jax 4", "jax 2 processes", "tensorflow 4"):
        alone = losses[f"{name.split()[0]} 1"][-len(losses[name]) :]  # what went on tells of the epochs since
        np.testing.assert_allclose(losses[name], alone, rtol=1e-5, err_msg=name)
    for backend in ("jax", "tensorflow"):
        assert evaluated[f"{backend} 4"] == evaluated[f"{backend} 1"] and evaluated[f"{backend} 4"][0] == 1009


def test_an_evaluation_is_one_process(monkeypatch):
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(SwinsError, match=r"an evaluation is one process.*is 2; unset it"):
        devices.start(join=False)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX takes several processes")
def test_several_processes_without_jax_are_refused(idx, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(SwinsError, match=r"several processes are JAX's; .*set KERAS_BACKEND=jax"):
        loop.train(SMALL, idx, tmp_path / "run", say=quiet)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@needs_tensorflow
@pytest.mark.parametrize(
    ("name", "backend", "count", "tolerance"),
    [("ssd", "jax", 4, 1e-5), ("ssd", "tensorflow", 2, 0.25), ("mask_rcnn", "jax", 4, 1e-5)],
)
def test_detectors_have_the_losses_of_one_device_on_several(name, backend, count, tolerance, tmp_path):
    """JAX: the whole batch's. TensorFlow: each device divides by its own part's objects, so near them.

    A Mask R-CNN passes there too (2 devices, measured), but takes minutes to trace.
    """
    environment = {"KERAS_BACKEND": backend, "XLA_FLAGS": FOUR_DEVICES, "TF_DEVICES": str(count)}
    ((code, out, err),) = started(tmp_path, "dense_devices.py", [name, str(tmp_path / "runs")], [environment])
    assert code == 0, err[-2000:]
    one, several = json.loads(out.splitlines()[-1])
    assert (one.pop("devices"), several.pop("devices")) == (1, count)
    assert several == pytest.approx(one, rel=tolerance)
