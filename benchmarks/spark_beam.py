"""The Python programs of docs/many-machines.md, run as they stand, beside one process -> spark_beam.csv.

    python benchmarks/spark_beam.py prepare FOLDER      images and the exported model; what one process says of them
    python benchmarks/spark_beam.py run PROGRAM FOLDER  ray, spark or beam, where that is installed: ray[data]; pyspark,
                                                        pandas and Java; apache-beam (they need different protobufs)

A row: the program, its version, images, how many it gave an answer to, how many of these once, and how many are of the
class, with the score to 0.001, that `swins predict` says. `run` replaces the program's row.
"""

import csv
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
DATA = ROOT / "demo" / "fashion_mnist"
CHECKPOINT = DATA / "swin_mini_patch2_window4_28.fashion_mnist.safetensors"
TABLE = pathlib.Path(__file__).with_suffix(".csv")
PROGRAMS = {
    "ray": ("map_batches", "ray"),
    "spark": ("predict_batch_udf", "pyspark"),
    "beam": ("RunInference", "apache-beam"),
}
COUNT = 200
HEADER = ("program", "version", "images", "answers", "distinct", "agree")


def swins(*arguments, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(
        [sys.executable, "-P", "-m", "swins.cli", *map(str, arguments)], cwd=folder, check=True, env=environment
    )


def prepare(folder):
    """photographs/, artefacts/my_swin (unless it is there) and said.json in a folder."""
    from PIL import Image

    from swins.images import read_idx

    folder = pathlib.Path(folder)
    images = read_idx(DATA / "t10k-images-idx3-ubyte.gz")
    for i in range(COUNT):
        place = folder / "photographs" / f"part{i % 3}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).save(place / f"{i:03}.png")
    model = pathlib.Path("artefacts", "my_swin")
    if not (folder / model).is_dir():
        swins("convert", "-m", CHECKPOINT.stem, "--checkpoint", CHECKPOINT, "-o", model, folder=folder)
        swins("export", model, folder=folder)
    swins("predict", "photographs", "-m", model, "--json", "said.json", folder=folder)


def program_of(word):
    """The Python block of the page that has a word."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "many-machines.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if word in block]
    return block


def answers(name, folder):
    """[(file name, class, score)] that a program wrote."""
    if name == "beam":
        lines = [line for path in folder.glob("said-*.csv") for line in path.read_text().splitlines()]
        return [(pathlib.Path(path).name, said, float(score)) for path, said, score in (x.split(",") for x in lines)]
    from pyarrow import parquet

    rows = parquet.read_table(folder / "said").to_pylist()
    return [(pathlib.Path(row["path"]).name, row["name"], row["score"]) for row in rows]


def run(name, folder):
    """Run a program in a prepared folder, and replace its row."""
    folder, (word, package) = pathlib.Path(folder), PROGRAMS[name]
    for path in folder.glob("said*"):
        if path.name != "said.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / "program.py").write_text(program_of(word))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "program.py"], cwd=folder, check=True, env=environment)
    wanted = {
        pathlib.Path(row["image"]).name: (row["classes"][0]["name"], row["classes"][0]["probability"])
        for row in json.loads((folder / "said.json").read_text())
    }
    found = answers(name, folder)
    alike = [said == wanted[file][0] and abs(score - wanted[file][1]) < 1e-3 for file, said, score in found]
    row = (name, importlib.metadata.version(package), len(wanted), len(found), len({x for x, *_ in found}), sum(alike))
    table = {}
    if TABLE.is_file():
        with open(TABLE, newline="") as file:
            table = {line["program"]: tuple(line.values()) for line in csv.DictReader(file)}
    table[name] = row
    with open(TABLE, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *(table[key] for key in PROGRAMS if key in table)])
    print(*row, sep=",")


if __name__ == "__main__":
    {"prepare": prepare, "run": run}[sys.argv[1]](*sys.argv[2:])
