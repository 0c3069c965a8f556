"""`swins benchmark`: what is timed, ratios of rounds, what it refuses; and real exports timed."""

import contextlib
import re

import numpy as np
import pytest
from shared_fixtures import needs_tensorflow

from swins.errors import SwinsError
from swins.exports import benchmark
from swins.weights import artefacts

pytestmark = needs_tensorflow


@pytest.fixture
def timed(small_artefact, monkeypatch):
    """An artefact with records of two exports, and processes that take a round's seconds of a table."""
    proof = artefacts.read_certificate(small_artefact)
    proof["exports"], proof["targets"] = {"saved_model": {}}, {"model.onnx": {"files": {}}}
    artefacts.write_json(small_artefact / "certificate.json", proof)
    (small_artefact / "saved_model").mkdir()
    (small_artefact / "model.onnx").touch()
    seconds = {"model.keras": [4.0, 8.0, 4.0], "saved_model": [2.0, 8.0, 4.0], "model.onnx": [1.0, 1.0, 2.0]}

    @contextlib.contextmanager
    def process(path, images, duration):
        rounds = iter(seconds[path.name])
        yield lambda: next(rounds)

    monkeypatch.setattr(benchmark, "process", process)
    return small_artefact


@pytest.mark.slow
def test_ratios_are_of_the_same_round_and_what_was_measured_is_said(timed, command):
    measured, timings = benchmark.benchmark(timed, batch=2, rounds=3)
    assert re.fullmatch(r".+, \d+ cores, \w+; batch 2 of 28x28x1; 3 rounds in turns; Keras on tensorflow", measured)
    assert [(t.file, t.milliseconds, t.times_keras) for t in timings] == [
        ("model.keras", 4000.0, 1.0),
        ("saved_model", 4000.0, 1.0),
        ("model.onnx", 1000.0, 4.0),
    ]
    code, out, err = command("benchmark", timed, "--rounds", 2, "--batch", 4)
    assert code == 0, err
    _, words, first, *_, last = out.splitlines()
    assert "median (fastest to slowest)" in words and "times as fast as model.keras in the same round" in words
    assert " ".join(first.split()) == "model.keras 6000.00 ms (4000.00 to 8000.00) 1 images/s 1.00 x (1.00 to 1.00)"
    assert " ".join(last.split()) == "model.onnx 1000.00 ms (1000.00 to 1000.00) 4 images/s 6.00 x (4.00 to 8.00)"


def test_the_quotient_of_the_medians_lies_among_the_ratios(rng):
    for rounds in (1, 2, 5, 6):
        keras_rounds, own = rng.lognormal(size=(2, 50, rounds))
        for pair in zip(own, keras_rounds, strict=True):
            timing = benchmark.Timing("model.onnx", *map(tuple, pair))
            quotient = np.median(timing.keras_rounds) / timing.milliseconds
            assert 0.999 * min(timing.ratios) <= quotient <= 1.001 * max(timing.ratios)


def test_what_cannot_be_timed(timed, small_run, command, tmp_path):
    (timed / "model.onnx").unlink()
    with pytest.raises(SwinsError, match=r"model\.onnx of its certificate are missing; export again"):
        benchmark.benchmark(timed)
    proof = artefacts.read_certificate(timed)
    artefacts.write_json(timed / "certificate.json", {**proof, "exports": {}, "targets": {}})
    code, _, err = command("benchmark", timed)
    assert code == 1 and "has no exports to time; make some: swins export" in err
    code, _, err = command("benchmark", tmp_path / "none")
    assert code == 1 and "an artefact is a folder with" in err
    code, _, err = command("benchmark", small_run)
    place = f"artefacts/{small_run.name}"
    assert code == 1 and f"swins export {small_run} --to saved_model onnx; then: swins benchmark {place}" in err
    code, _, err = command("benchmark", timed / "model.keras")
    assert code == 1 and err.endswith(f"are timed; swins benchmark {timed}\n")


@pytest.mark.slow
def test_real_exports_are_timed(targeted, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "exports_of", lambda *_: ["model.keras", "model.onnx", "model.tflite", "model.xml"])
    _, timings = benchmark.benchmark(targeted, rounds=1, seconds=0.05)
    assert len(timings) == 4 and all(0 < t.milliseconds < 10_000 and t.times_keras > 0 for t in timings)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    np.save(tmp_path / "images.npy", np.zeros((1, 28, 28, 1), "float32"))
    with (
        pytest.raises(SwinsError, match=r"broken\.onnx does not run: "),
        benchmark.process(tmp_path / "broken.onnx", tmp_path / "images.npy", 0.1),
    ):
        pass
