"""The benchmark's own arithmetic, and that what is committed is complete. No timing is asserted."""

import ast
import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from shared_fixtures import ROOT, needs_tensorflow, script

from swins import recipes

HERE = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    return script("benchmarks/run.py")


def test_ratios_are_medians_of_ratios_of_the_same_round(bench):
    seconds = {bench.REFERENCES[0]: [4.0, 8.0, 6.0], bench.FLOOR: [1.0, 2.0, 1.0], "ours": [2.0, 4.0, 1.0]}
    answers = [{"first": 3.0, "peak_MiB": 100.0}] * 3
    row = bench.row_of("inference", "float32", 8, "ours", seconds, answers)
    assert row["images_per_second"] == "4.00" and (row["slowest_round"], row["fastest_round"]) == ("2.00", "8.00")
    assert row["over_reference"] == "2.000" and row["over_floor"] == "0.500"
    assert row["first_call_s"] == "3.0" and row["peak_MiB"] == "100.0"
    assert bench.row_of("growth", "float32", 448, "ours", {"ours": [0.5]}, answers)["images_per_second"] == "2.00"


def test_every_contender_exists_and_was_measured(bench):
    functions = set()
    others = ("detector_contenders", "mask_rcnn_contenders", "segmenter_contenders", "denoiser_contenders")
    for module, prefix in (("contenders", ""), *((name, f"{name}:") for name in others)):
        for node in ast.parse((HERE / f"{module}.py").read_text()).body:
            if isinstance(node, ast.FunctionDef):
                functions.add(prefix + node.name)
            elif isinstance(node, ast.Assign):
                functions |= {prefix + name.id for name in ast.walk(node.targets[0]) if isinstance(name, ast.Name)}
    with open(HERE / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    measured = {(r["group"], r["precision"], int(r["size"]), r["contender"]) for r in rows}
    for *_, contenders in (*bench.RUNS, *bench.DENSE_RUNS):
        assert {function for function, _ in contenders.values()} <= functions
    for group, precision, sizes, contenders in bench.RUNS:
        for size in sizes:
            assert {(group, precision, size, label) for label in contenders} <= measured
    assert (HERE / "machine.txt").read_text().count("\n") == 3
    assert (HERE / "profiles.txt").read_text().count(" ms\n") == 9


@pytest.mark.slow
def test_a_contender_answers_and_a_failing_one_tells_why(bench, tmp_path):
    command = [sys.executable, "-P", HERE / "contenders.py", "nonsense", "float32", "inference", tmp_path]
    assert subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL).returncode
    contender = bench.Contender("nonsense", "", "float32", "inference", tmp_path)
    with pytest.raises(RuntimeError, match="KeyError: 'nonsense'"):
        contender.time(1, 0)
    contender.end()
    command = [sys.executable, "-P", HERE / "contenders.py", "swins_deploy", "float32", "inference", tmp_path]
    requests = json.dumps({"size": 1, "seconds": 0}) + "\n"
    done = subprocess.run(command, capture_output=True, input=requests, text=True)
    answer = json.loads(done.stdout)
    assert len(answer["seconds"]) == 1 and answer["first"] > 0 and answer["peak_MiB"] > 0


@pytest.mark.slow
@needs_tensorflow
def test_reading_is_timed_beside_the_step(tmp_path, monkeypatch):
    pipeline = script("benchmarks/input_pipeline.py")
    monkeypatch.setattr(pipeline, "SECONDS", 0.0)
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.full((28, 28), 60 * i, "uint8")
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    recipe = recipes.load(ROOT / "recipes" / "fashion_mnist_swin_mini.py")
    recipe = recipes.with_settings(recipe, ["data.batch=2", "model.depths=(1, 1)", "model.compile=False"])
    for part in (pipeline.reading, pipeline.step, pipeline.fit):
        assert part(recipe, tmp_path / "data", tmp_path) > 0
    rates = {"reading": [30, 40, 50], "reading_timm": [None], "step": [10], "fit": [6]}
    row = pipeline.row_of("x", {"batch": 2}, rates)
    assert row["reading"] == "40.0" and row["reading_timm"] == row["reading_over_timm"] == ""
    assert (row["reading_over_step"], row["fit_over_step"], row["fit_over_sum"]) == ("4.00", "0.60", "0.75")


def test_both_phases_had_the_same_search_and_the_committed_runs_are_of_it():
    bench = script("benchmarks/phases.py")
    table = bench.rows()
    scored = [(row["phases"], row["seed"]) for row in table.values() if row["test_top1"]]
    assert len({row["epochs"] for row in table.values()}) == 1
    for phases, name in bench.RECIPES.items():
        tried = {(rate, decay) for kind, rate, decay, seed in table if (kind, seed) == (phases, "0")}
        rate, decay = bench.best(table, phases)
        assert {*((rate, bench.DECAYS[0]) for rate in bench.RATES), (rate, bench.DECAYS[1])} <= tried
        assert {(phases, str(seed)) for seed in bench.SEEDS} <= {*scored}
        row = table[phases, rate, decay, "0"]
        result = json.loads((ROOT / "recipes/results" / name / "result.json").read_text())
        assert (
            result["recipe"]["optim.learning_rate"] == float(rate) and f"{100 * result['top1']:.2f}" == row["val_top1"]
        )
