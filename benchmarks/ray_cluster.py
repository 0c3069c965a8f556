"""`swins eval` and `predict` of 10,007 garments on a Ray cluster of two nodes beside one process -> ray_cluster.csv.

Command: python benchmarks/ray_cluster.py [IMAGES [MODEL]], where Ray is (pip install 'swins[ray]'). It takes the
embedded model, or one that was exported of it, and the embedded test images, the first seven of them twice, writes
these as PNG files, and starts two nodes on this machine, each of one CPU; one process has both. Then:

    one process     swins eval
    two nodes       the same on the cluster: the table must be equal, byte for byte
    a node killed   the same, the second node killed (SIGKILL) when a third of the parts is there
    command killed  the same, the command killed then, and given again, on a new second node
    SavedModel      swins predict of the exported model, into Parquet: each image once, the classes of the table

Each row has what the command says of itself, seconds from its start to its end, and its images a second over the first
row's: these leave out what comes before its first images, such as imports and the loading of models, and of one process
the first batch. With a node killed they are of what is left, and of what Ray takes to miss it.
"""

import contextlib
import csv
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

from swins import files
from swins.images import read_idx
from swins.labels import FASHION_MNIST

ROOT = pathlib.Path(__file__).parents[1]
DATA = ROOT / "demo" / "fashion_mnist"
CHECKPOINT = DATA / "swin_mini_patch2_window4_28.fashion_mnist.safetensors"
RAY = pathlib.Path(sys.executable).with_name("ray")
IMAGES, AGAIN = 10_000, 7
BATCH, LONGEST = 32, 1800  # images at a time; seconds that a node may take to start
HEADER = (
    *("run", "images", "distinct", "unreadable", "table_equal", "top1", "seconds", "images_per_second"),
    *("over_one_process", "done_before"),
)
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_failure_threshold": "20",  # machines may be busy
    "RAY_agent_register_timeout_ms": str(1000 * LONGEST),
    "RAY_worker_register_timeout_seconds": str(LONGEST),
}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def write_images(folder, count):
    """A folder a class: the first test images, and seven of them again."""
    images, labels = (read_idx(DATA / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    for number, i in enumerate([*range(count), *range(AGAIN)]):
        place = folder / FASHION_MNIST[labels[i]]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).save(place / f"{number:05}.png")


class Cluster:
    """Two nodes on this machine, each a group of processes, of one CPU."""

    def __init__(self, folder):
        self.folder, self.port, self.nodes = folder, free_port(), []
        self.address = f"127.0.0.1:{self.port}"

    def begin(self):
        """Start both nodes."""
        head = ("--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={self.folder}/ray")
        self.start(*head)
        self.replace_second()

    def start(self, *arguments):
        """Start a node, and wait until it says so; where Ray gives up, as on a busy machine, it is asked again."""
        command = [RAY, "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
        command += ["--object-store-memory=200000000", "--node-ip-address=127.0.0.1", *arguments]
        log_path, deadline, node = self.folder / f"node{len(self.nodes)}.log", time.monotonic() + LONGEST, None
        while not (node and "Ray runtime started" in log_path.read_text()):
            if time.monotonic() > deadline:
                sys.exit(f"a node did not start: {log_path.read_text()}")
            if node is None or node.poll() is not None:
                if node:
                    end(self.nodes.pop(), signal.SIGKILL)
                with open(log_path, "w") as log:
                    node = subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT, start_new_session=True)
                self.nodes.append(node)
            time.sleep(1)

    def replace_second(self):
        """Start a second node."""
        self.start(f"--address={self.address}")

    def kill_second(self):
        end(self.nodes[-1], signal.SIGKILL)

    def stop(self):
        for node in reversed(self.nodes):
            end(node, signal.SIGTERM)


def end(process, signum):
    """End a group of processes that was started here."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signum)
    process.wait()


def start_command(*arguments):
    command = [sys.executable, "-P", "-m", "swins.cli", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True, **pipes)


def run(*arguments, parts=None, until=0, then=None):
    """Run a command -> (standard output, standard error, seconds).

    Args:
        parts: a folder in which it writes parts; as soon as there are so many (`until`), `then` is called with the
            process.
    """
    start, process = time.perf_counter(), start_command(*arguments)
    while then and process.poll() is None:
        if len(list(parts.glob("part-*"))) >= until:
            then(process)
            break
        time.sleep(0.1)
    out, err = process.communicate()
    return out, err, time.perf_counter() - start


def evaluated(name, predictions, one, out, err, seconds):
    """A row of HEADER of an evaluation."""
    if not (predictions.is_file() and out.startswith("{")):
        sys.exit(f"{name}: {out[-2000:]}{err[-8000:]}")
    print(*(line for line in err.splitlines() if "going on" in line or "lost" in line), sep="\n", flush=True)
    row, lines = json.loads(out), predictions.read_text().splitlines()[1:]
    before = [line for line in err.splitlines() if line.startswith("going on after ")]
    return {
        "run": name,
        "images": row["images"],
        "distinct": len({line.partition(",")[0] for line in lines}),
        "unreadable": row["unreadable"],
        "table_equal": predictions.read_bytes() == one.read_bytes(),
        "top1": row["top1"],
        "seconds": f"{seconds:.0f}",
        "images_per_second": row["images_per_second"] or 0.0,
        "done_before": int(before[0].split()[3]) if before else 0,
    }


def predicted(name, rows, one, out, seconds):
    """A row of HEADER of a prediction into Parquet."""
    from pyarrow import parquet

    table = parquet.read_table(rows).to_pylist()
    with open(one, newline="") as file:
        wanted = {row["file"]: int(row["top1"]) for row in csv.DictReader(file)}
    told = {"/".join(pathlib.Path(row["image"]).parts[-2:]): row["classes"][0]["label"] for row in table}
    return {
        "run": name,
        "images": len(table),
        "distinct": len(told),
        "unreadable": int(out.split()[2]),
        "table_equal": told == wanted,
        "seconds": f"{seconds:.0f}",
        "images_per_second": float(out.split()[4]),
        "done_before": 0,
    }


def main(count=IMAGES, exported=None):
    rows, count = [], int(count)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        folder = pathlib.Path(folder)
        data, model, one = folder / "data", exported or folder / "model", folder / "one.csv"
        write_images(data, count)
        if not exported:
            run("convert", "-m", CHECKPOINT.stem, "--checkpoint", CHECKPOINT, "-o", model)
            run("export", model)
        evaluation = ("eval", model, "--data", data, "--batch", BATCH, "--quiet", "--predictions")

        def add(row):
            row["over_one_process"] = f"{row['images_per_second'] / (rows or [row])[0]['images_per_second']:.2f}"
            rows.append(row)
            print(*(row.get(column, "") for column in HEADER), sep=",", flush=True)

        cluster = Cluster(folder)
        stack.callback(cluster.stop)
        cluster.begin()
        add(evaluated("one process", one, one, *run(*evaluation, one)))
        engine = ("--engine", "ray", "--address", cluster.address)
        third = -(-(count + AGAIN) // 256) // 3 + 1

        target = folder / "two.csv"
        add(evaluated("two nodes", target, one, *run(*evaluation, target, *engine)))

        target = folder / "killed.csv"
        killing = {"parts": folder / ".killed.csv.jsonl", "until": third, "then": lambda _: cluster.kill_second()}
        add(evaluated("a node killed", target, one, *run(*evaluation, target, *engine, **killing)))
        cluster.replace_second()

        target = folder / "again.csv"
        killing = {
            "parts": folder / ".again.csv.jsonl",
            "until": third,
            "then": lambda process: end(process, signal.SIGKILL),
        }
        run(*evaluation, target, *engine, **killing)
        add(evaluated("command killed, given again", target, one, *run(*evaluation, target, *engine)))

        target = folder / "rows"
        saved = ("predict", data, "-m", pathlib.Path(model, "saved_model"), "--batch", BATCH, "--rows", target, *engine)
        out, err, seconds = run(*saved)
        if not out:
            sys.exit(err)
        add(predicted("SavedModel into Parquet", target, one, out, seconds))
    with files.replacing(pathlib.Path(__file__).with_suffix(".csv")) as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, HEADER, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    assert all(row["table_equal"] and row["images"] == row["distinct"] == count + AGAIN for row in rows)
    assert np.ptp([row["top1"] for row in rows if "top1" in row]) == 0


if __name__ == "__main__":
    main(*sys.argv[1:])
