"""Many machines: parts, rows and counts as one process gives them; benchmarks/ray_cluster.py shows it on Ray itself."""

import contextlib
import csv
import json
import pickle
import sys
from unittest import mock

import pytest
from PIL import Image

from swins import part_files, ray_engine
from swins.errors import SwinsError
from swins.part_files import Parts
from swins.ray_engine import Share, divided

COUNT, PART = 70, 16


@pytest.fixture
def cluster(monkeypatch):
    """A cluster that is this process; parts come back in another order -> the list of those that were handed out."""
    handed = []

    def on_ray(address, work, parts, workers, say):
        worker, parts = ray_engine.Worker(work, {}), list(parts)

        def answers():
            for number, samples in reversed(parts):
                print("(raylet) as Ray does of a machine that died: on standard output, where results are")
                handed.append(number)
                answer = worker({"part": [number], "samples": [pickle.dumps(samples)]})
                yield number, *opened(pickle.loads(answer["rows"][0]))

        return "Ray, 1 workers", answers()

    def opened(answer):
        if isinstance(answer, SwinsError):
            raise answer
        return answer

    monkeypatch.setattr(ray_engine, "connect", lambda address: None)
    monkeypatch.setattr(ray_engine, "on_ray", on_ray)
    monkeypatch.setattr(ray_engine, "LEAST", PART)
    return handed


def test_a_cluster_is_divided_by_machines_or_cards():
    assert divided([{"CPU": 8.0}, {"CPU": 8.0, "memory": 1.0}, {}]) == Share(2, 8)
    assert divided([{"CPU": 4}, {"CPU": 9}]) == Share(3, 4)
    assert divided([{"CPU": 8}, {"CPU": 2}], 4) == Share(4, 2)
    assert divided([{"CPU": 8, "GPU": 2}, {"CPU": 16, "GPU": 1}, {"CPU": 64}]) == Share(3, 4, 1)
    assert divided([{"CPU": 8, "GPU": 2}], 1) == Share(1, 4, 1)
    with pytest.raises(SwinsError, match="at most 3 have a CPU"):
        divided([{"CPU": 1}, {"CPU": 2}], 4)
    with pytest.raises(SwinsError, match="this one has none: ray start --num-cpus"):
        divided([{"node:a": 1.0}])


@pytest.mark.slow
def test_evaluation_gives_the_row_and_the_table_of_one_process(
    command, cluster, small_artefact, class_folders, tmp_path
):
    (class_folders / "boots" / "broken.png").write_bytes(b"no image")
    tables = {}
    for name, more in (("one", ()), ("many", ("--engine", "ray"))):
        target = tmp_path / f"{name}.csv"
        arguments = ("--data", class_folders, "--class-order", "sorted", "--batch", 8, "--quiet")
        arguments += ("--predictions", target, "--skip-unreadable")
        code, out, err = command("eval", small_artefact, *arguments, *more)
        assert code == 0 and "unreadable: " in err and "broken.png" in err, err
        row = json.loads(out)
        assert (row["images"], row["unreadable"]) == (42, 1)
        tables[name] = target.read_text(), row["top1"]
    assert tables["one"] == tables["many"] and "Ray, 1 workers" in row["machine"]
    assert sorted(cluster) == [0, 1, 2] and not list(tmp_path.glob(".*.csv*"))


@pytest.mark.slow
def test_an_evaluation_that_was_ended_goes_on_with_the_same_command(
    command, cluster, converted, folders, tmp_path, monkeypatch
):
    target = tmp_path / "p.csv"
    again = ("eval", converted, "--data", folders, "--batch", 8, "--predictions", target, "--engine", "ray", "--quiet")
    real = Parts.write

    def ends(self, number, *others):
        if number == 1:
            raise KeyboardInterrupt
        real(self, number, *others)

    monkeypatch.setattr(Parts, "write", ends)
    assert command(*again)[0] == 130 and not target.exists() and cluster == [4, 3, 2, 1]
    monkeypatch.setattr(Parts, "write", real)
    next((folders / "bag").iterdir()).unlink()  # bag is the first class but one: what follows moves up
    cluster.clear()
    code, out, err = command(*again)
    assert code == 0 and json.loads(out)["images"] == COUNT - 1 and "going on" not in err, err
    with open(target, newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    assert len(set(names)) == len(names) == COUNT - 1 and len(cluster) == 5


@pytest.mark.slow
def test_rows_of_predictions_are_those_of_one_process(command, cluster, converted, folders, tmp_path):
    broken = folders / "bag" / "broken.png"
    broken.write_bytes(b"no image")
    code, _, err = command("predict", folders, "-m", converted, "--json", tmp_path / "one.json", "--skip-unreadable")
    assert code == 0, err
    wanted = json.loads((tmp_path / "one.json").read_text())
    code, _, err = command(
        "predict", folders, "-m", converted, "--engine", "ray", "--rows", tmp_path / "r", "--threshold", 0.5
    )
    assert code == 1 and "--threshold: not of" in err, err
    for rows in (tmp_path / "many.jsonl", tmp_path / "many"):
        cluster.clear()
        again = ("predict", folders, "-m", converted, "--engine", "ray", "--rows", rows, "--batch", 8)
        code, out, err = command(*again)
        assert code == 1 and "1 of 71 images cannot be read" in err and "unreadable: " in err, err
        assert out.startswith("71 images, 1 unreadable, ") and cluster == [4, 3, 2, 1, 0]
        cluster.clear()
        code, out, err = command(*again, "--skip-unreadable")  # all are there
        assert code == 0 and not cluster and "going on after 71 of 71 images" in err, err
        parts = Parts.__new__(Parts)
        parts.folder, parts.ending = rows, ".jsonl" if rows.suffix else ".parquet"
        found = [row for number in range(5) for row in parts.read(number)]
        said = [row for row in found if row["unreadable"]]
        assert [row["image"] for row in said] == [str(broken)] and "not a readable image" in said[0]["unreadable"]
        good = [row for row in found if not row["unreadable"]]
        assert len(good) == COUNT and [row["image"] for row in good] == [row["image"] for row in wanted]
        for row, one in zip(good, wanted, strict=True):
            labels = [[c["label"] for c in r["classes"]] for r in (row, one)]
            odds = [[c["probability"] for c in r["classes"]] for r in (row, one)]
            assert labels[0] == labels[1] and odds[0] == pytest.approx(odds[1], abs=1e-5)
        (path,) = folders.glob("bag/broken.png")
        Image.new("L", (28, 28)).save(path)  # mended: its part alone is done again
        code, out, err = command(*again)
        assert code == 0 and out.startswith("71 images, 0 unreadable") and len(cluster) == 1, err
        path.write_bytes(b"no image")
    code, _, err = command(*again, "--variant", "swin_mini_patch2_window4_28")
    assert code == 1 and "holds rows of another model, other images or options; pass --overwrite" in err
    (rows / "mine.txt").write_text("mine")
    code, _, err = command(*again, "--variant", "swin_mini_patch2_window4_28", "--overwrite")
    assert code == 1 and "holds other files, as " in err and len(list(rows.glob("part-*"))) == 5


def test_parts_are_of_one_model_and_one_schema(tmp_path):
    parquet = part_files.arrow()[1]
    kinds = {"detections": [{"label": int, "name": str, "box": [float], "score": float}]}
    parts = Parts(tmp_path / "rows", {"model": "a"})
    one = {"label": 1, "name": "cat", "box": [0.0, 1.0, 2.0, 3.0], "score": 0.5}
    parts.write(0, [{"image": "a.png", "detections": []}, {"image": "b.png", "unreadable": "no"}], kinds)
    parts.write(1, [{"image": "c.png", "detections": [one]}], kinds)
    table = parquet.read_table(tmp_path / "rows")  # what begins with _ is none of it
    assert table.column("image").to_pylist() == ["a.png", "b.png", "c.png"]
    assert table.column("detections").to_pylist() == [[], None, [one]]
    with pytest.raises(SwinsError, match="needs to know what angle of these results are"):
        parts.write(2, [{"image": "d.png", "angle": 1}], {})
    assert Parts(tmp_path / "rows", {"model": "a"}).path(1).is_file()
    with pytest.raises(SwinsError, match="pass --overwrite"):
        Parts(tmp_path / "rows", {"model": "b"})
    assert not Parts(tmp_path / "rows", {"model": "b"}, overwrite=True).path(1).is_file()
    (tmp_path / "file").touch()
    with pytest.raises(SwinsError, match="is a file"):
        Parts(tmp_path / "file", {})


def test_what_does_not_go_with_many_machines_is_refused(command, cluster, tmp_path):
    Image.new("L", (28, 28)).save(tmp_path / "a.png")
    predict = ("predict", tmp_path, "-m", "no_model")
    for arguments, words in (
        ((*predict, "--engine", "ray"), "needs --rows DIR"),
        ((*predict, "--engine", "ray", "--rows", tmp_path / "r", "-o", tmp_path), "does not go with -o"),
        ((*predict, "--rows", tmp_path / "r"), "--rows: of many machines; add --engine ray"),
        (("eval", "no_model", "--data", tmp_path, "--workers", 2), "--workers: of many machines"),
        (("predict", "--demo", "--engine", "ray"), "--demo brings its models"),
    ):
        code, _, err = command(*arguments)
        assert code == 1 and words in err, err


def test_a_worker_with_other_weights_says_so(small_artefact):
    work = ray_engine.Scoring(str(small_artefact), "0", None, {}, 8)
    answer = ray_engine.Worker(work, {})({"part": [0], "samples": [pickle.dumps([])]})
    assert "every machine must have the same model" in str(pickle.loads(answer["rows"][0]))


def test_no_ray_and_no_cluster_are_said_before_anything_is_loaded(monkeypatch, unused_port):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SwinsError, match=r"--engine ray needs Ray: pip install 'swins\[ray\]'"):
        ray_engine.connect()
    fake = type(sys)("ray")
    fake.data, fake.is_initialized = type(sys)("ray.data"), lambda: False
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setitem(sys.modules, "ray.data", fake.data)
    with pytest.raises(SwinsError, match=rf"127.0.0.1:{unused_port}: no Ray cluster answers there .*ray start --head"):
        ray_engine.connect(f"127.0.0.1:{unused_port}")

    def init(**_):
        raise ConnectionError("Could not find any running Ray instance.\nMore")

    fake.init = init
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(SwinsError, match=r"auto: no Ray cluster .*find any running Ray instance\.\); start one"):
        ray_engine.connect()


@pytest.mark.parametrize("namespace", [ray_engine.NAMESPACE, "a user's"])
@pytest.mark.parametrize("failing", [False, True])
def test_a_cluster_that_was_joined_is_left_when_the_work_ends(namespace, failing, monkeypatch, capsys):
    """Ray's own lines, which a thread prints on standard output, come until then: before the results."""
    ray = mock.MagicMock()
    ray.get_runtime_context.return_value.namespace = namespace
    ray.shutdown = lambda: print("the last line")
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(SwinsError) if failing else contextlib.nullcontext(), ray_engine.lines_apart():
        print("a line")
        if failing:
            raise SwinsError("a worker's")
    out, err = capsys.readouterr()
    assert not out and err.split("\n")[:-1] == ["a line", "the last line"][: 1 + (namespace == ray_engine.NAMESPACE)]


@pytest.fixture
def unused_port():
    """A port of this machine that nobody listens on."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
