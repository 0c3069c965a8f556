"""Size and time of each extra of a wheel, by `uv pip install` into a fresh environment -> extras.csv.

Command: python benchmarks/extras.py dist/swins-*.whl [EXTRA ...]; `make extras` builds the wheel first. Needs PyPI.
Where extras are named, the rows of others stay as they are.

An extra is measured beside what it is of use with: its own rows of the environment's size (du) are what it adds. All is
downloaded before, into uv's cache: seconds are of the resolver, unpacking and linking, not of the network.
"""

import csv
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

from swins import doctor, files

TABLE = pathlib.Path(__file__).with_suffix(".csv")
UV = pathlib.Path(sys.executable).with_name("uv")
BACKENDS = ("tensorflow", "jax", "torch")
SMALLER = "tensorflow-cpu"  # the package, without what NVIDIA's cards need
HEADER = ("extra", "beside", "packages", "MB", "seconds", "cpu_seconds")


def uv(*arguments):
    done = subprocess.run([UV, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"uv {' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


def size_of(environment):
    """(MB by du, packages) of an environment."""
    text = subprocess.run(["du", "-s", "--block-size=1MB", environment], capture_output=True, text=True, check=True)
    return int(text.stdout.split()[0]), len(list(environment.glob("lib/*/site-packages/*.dist-info")))


def beside(extra, extras):
    """The extra in whose company an extra is measured; "" for none."""
    needed = doctor.resolved(extras[extra], extras)
    return next((name for name in ("tensorflow", "torch") if name in needed and name != extra), "")


def measured(wheel, extra, company):
    """A row of HEADER: what installing an extra adds, and takes."""
    with tempfile.TemporaryDirectory() as folder:
        environment = pathlib.Path(folder, "env")
        uv("venv", "--quiet", "--python", sys.executable, environment)
        into = ("pip", "install", "--quiet", "--python", environment / "bin" / "python")
        if extra:
            uv(*into, f"{wheel}[{company}]" if company else wheel)
        before, packages = size_of(environment)
        wanted = [wheel, SMALLER] if extra == SMALLER else [f"{wheel}[{extra}]" if extra else wheel]
        start, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        uv(*into, *wanted)
        seconds, now = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        after, more = size_of(environment)
    return extra, company, more - packages, after - before, f"{seconds:.1f}", f"{cpu:.1f}"


def main(wheel, *names):
    _, extras = doctor.stated()
    wheel = pathlib.Path(wheel).absolute()
    with tempfile.TemporaryDirectory() as folder:  # downloads all
        environment = pathlib.Path(folder, "env")
        uv("venv", "--quiet", "--python", sys.executable, environment)
        python = environment / "bin" / "python"
        wanted = [f"{wheel}[{','.join(names or extras)}]", *([] if names else [SMALLER])]
        uv("pip", "install", "--quiet", "--python", python, *wanted)
    order = ("", *BACKENDS, SMALLER, *(name for name in extras if name not in BACKENDS))
    rows = {}
    if names:
        with open(TABLE, newline="", encoding="utf-8") as file:
            rows = {row[0]: row for row in list(csv.reader(file))[1:]}
    for extra in names or order:
        rows[extra] = measured(wheel, extra, "" if extra in ("", SMALLER) else beside(extra, extras))
        print(*rows[extra], sep=",", flush=True)
    with files.replacing(TABLE) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        kept = [rows[extra] for extra in order if extra in rows]
        csv.writer(file, lineterminator="\n").writerows([HEADER, *kept])


if __name__ == "__main__":
    main(*sys.argv[1:])
