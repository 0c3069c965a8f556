"""One phase of fine-tuning beside two on 300 pictures, both with the same search of rates -> benchmarks/phases.csv.

    python recipes/data/weather_garments.py weather_garments
    python benchmarks/phases.py weather_garments RUNS        trains into RUNS; what has a row is not run again

Every row is a `swins train` of its own, of the same epochs. The search, with seed 0, is the same for both: the rates,
then another layer_decay at the best of them. The settings with the best top-1 of the 400 validation images at the end
(of equals the lowest loss) are trained with more seeds, and these are scored on the test images, of which nothing was
chosen. The head alone, all epochs, is the third. cpu_s: CPU seconds of the whole process, its start and compilation
with it.
"""

import csv
import itertools
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
TABLE = HERE / "phases.csv"
RECIPES = {"one": "weather_garments_one_phase", "two": "weather_garments_two_phases"}
RATES, DECAYS, SEEDS = ("3e-4", "1e-3", "3e-3"), ("0.8", "0.5"), (0, 1, 2)
HEAD = ("head", "1e-2", "")  # which is not searched: the rate of the two phases' first
COLUMNS = (
    *("phases", "learning_rate", "layer_decay", "seed", "epochs", "frozen_epochs", "val_top1", "val_loss"),
    *("test_top1", "cpu_s"),
)


def rows():
    """Rows that there are, by what was trained."""
    if not TABLE.is_file():
        return {}
    with open(TABLE, newline="") as file:
        return {tuple(row[c] for c in COLUMNS[:4]): row for row in csv.DictReader(file)}


def write(table):
    """All rows anew."""
    with open(TABLE, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table.values())


def swins(*arguments):
    """A command of swins in a process of its own -> its CPU seconds."""
    process = subprocess.Popen([sys.executable, "-P", "-m", "swins.cli", *map(str, arguments)], cwd=HERE.parent)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"swins {' '.join(map(str, arguments))} failed")
    return usage.ru_utime + usage.ru_stime


def folder_of(runs, trial):
    """The folder of a trial's run."""
    return runs / "_".join(trial)


def trained(trial, data, runs):
    """The row of a trial, which is run: (phases, rate, decay, seed)."""
    phases, rate, decay, seed = trial
    settings = [f"optim.learning_rate={rate}", f"optim.layer_decay={decay}", f"seed={seed}"]
    if phases == "head":  # whose rate is frozen.learning_rate
        settings = ["frozen.epochs=15", f"frozen.learning_rate={rate}", f"seed={seed}"]
    recipe, folder = f"recipes/{RECIPES.get(phases, RECIPES['two'])}.py", folder_of(runs, trial)
    flags = [flag for setting in settings for flag in ("--set", setting)]
    seconds = swins("train", recipe, "--data", data, "-o", folder, "--overwrite", *flags)
    result = json.loads((folder / "result.json").read_text())
    with open(folder / "log.csv", newline="") as file:
        *_, last = csv.DictReader(file)
    return {
        **dict(zip(COLUMNS, trial, strict=False)),
        "epochs": result["recipe"]["epochs"],
        "frozen_epochs": result["recipe"]["frozen.epochs"] or 0,
        "val_top1": f"{100 * result['top1']:.2f}",
        "val_loss": last["val_loss"],
        "test_top1": "",
        "cpu_s": f"{seconds:.0f}",
    }


def tested(trial, data, runs):
    """Top-1 of a trial's run on the test images."""
    table = folder_of(runs, trial) / "test.csv"
    table.unlink(missing_ok=True)
    swins("eval", folder_of(runs, trial), "--data", data / "test", "--results", table, "--quiet")
    with open(table, newline="") as file:
        (row,) = csv.DictReader(file)
    return f"{100 * float(row['top1']):.2f}"


def best(table, phases):
    """(rate, decay) of the search's best of one kind."""
    search = [row for row in table.values() if row["phases"] == phases and str(row["seed"]) == "0"]
    row = max(search, key=lambda row: (float(row["val_top1"]), -float(row["val_loss"])))
    return row["learning_rate"], row["layer_decay"]


def main(data, runs):
    data, runs = pathlib.Path(data).resolve(), pathlib.Path(runs).resolve()
    table = rows()

    def have(trial):
        if trial not in table:
            table[trial] = trained(trial, data, runs)
            write(table)

    for rate, phases in itertools.product(RATES, RECIPES):
        have((phases, rate, DECAYS[0], "0"))
    for phases in RECIPES:
        have((phases, best(table, phases)[0], DECAYS[1], "0"))
    chosen = [(phases, *best(table, phases)) for phases in RECIPES]
    for seed, settings in [*itertools.product(SEEDS, chosen), *itertools.product(SEEDS, [HEAD])]:
        have(trial := (*settings, str(seed)))
        if not table[trial]["test_top1"]:
            table[trial]["test_top1"] = tested(trial, data, runs)
            write(table)


if __name__ == "__main__":
    main(*sys.argv[1:])
