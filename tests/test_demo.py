"""The demo says in its last line whether it worked; `make demo` runs it whole."""

import itertools
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image
from shared_fixtures import DATA, NAME, ROOT, needs_tensorflow, script

from swins.data import labelled
from swins.errors import SwinsError
from swins.labels import FASHION_MNIST
from swins.results import Classes, Detections, Segmentation
from swins.samples import Samples
from swins.tasks import detection, instances, segmentation
from swins.weights import artefacts


@pytest.fixture
def demo():
    return script("demo/run.py")


@pytest.mark.parametrize("error", [SwinsError("a\n- b\n- c"), RuntimeError("graph"), OSError(28, "No space left")])
def test_any_failure_is_said_in_the_last_line(demo, monkeypatch, capsys, error):
    def fail():
        raise error

    monkeypatch.setattr(demo, "demo", fail)
    assert demo.main() == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"demo: FAILED {type(error).__name__}: ") and last.endswith(" s")


def test_facts_out_of_bounds_fail(demo, monkeypatch, capsys):
    monkeypatch.setattr(demo, "demo", lambda: ("disagree=1", False))
    assert demo.main() == 1
    assert capsys.readouterr().out.splitlines()[-1] == "demo: FAILED disagree=1 in 0 s"


class Perfect:
    """Stands for the predictor of an embedded network of canvases: answers with what is there."""

    def __init__(self, task, split):
        self.task, self.split = task, split

    def __call__(self, images):
        return [self.result(self.split[i][2]) for i in range(len(images))]

    def result(self, truth):
        classes = self.split.classes
        if self.task is segmentation.SEGMENTATION:
            return Segmentation(truth.pixels(), classes)
        names = tuple(classes[label] for label in truth.labels)
        return Detections(truth.boxes, np.ones(len(truth), "float32"), truth.labels, names, truth.bitmaps())


def ten_samples(**_):
    """Stands for the embedded sampler: the first test image of each class, and that of coats for shirts."""
    images, labels = (labelled.read_idx(DATA / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    chosen = [int(np.flatnonzero(labels == label)[0]) for label in range(10)]
    return Samples(images[chosen][..., None], np.arange(10), FASHION_MNIST)


@pytest.mark.slow
def test_the_other_networks_are_scored_and_drawn_on_one_sheet(demo, monkeypatch, tmp_path):
    """By stand-ins that are right but of shirts; the networks themselves have tests of their own."""
    embedded, asked = demo.embedded, []

    def load(path, variant=None):
        asked.append(pathlib.Path(path).name)
        if variant:
            labels = [4 if label == 6 else label for label in range(10)]
            return lambda images: [Classes((label,), (FASHION_MNIST[label],), (1.0,)) for label in labels]
        if "unet" in asked[-1]:
            return ten_samples
        kinds = {"ssd": detection.DETECTION, "mas": instances.INSTANCES, "upe": segmentation.SEGMENTATION}
        (network,) = (own for own in embedded.NETWORKS if own.folder == path)
        return Perfect(kinds[asked[-1][:3]], network.truths(embedded.CANVASES))

    monkeypatch.setattr(embedded.swins, "load", load)
    monkeypatch.setattr(embedded, "COUNT", 20)
    monkeypatch.setattr(demo, "OUT", tmp_path)
    assert demo.others() == ("box_AP50=1.000 mask_AP50=1.000 mIoU=1.000 recognised=0.900", True)
    assert asked[:3] == ["ssd64_swin_mini", "mask_rcnn_swin_mini_fpn", "upernet_swin_mini"] and len(asked) == 5
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 1280 and sheet.height > 4 * 150
    monkeypatch.setattr(demo, "LEAST", {**demo.LEAST, "recognised": 0.95})
    assert demo.others()[1] is False


@pytest.mark.slow
@needs_tensorflow
def test_every_step_works_on_two_hundred_images(demo, exported, tmp_path, monkeypatch, capsys):
    """Converting and exporting, which other tests do, are taken as done; the other networks see a few canvases."""
    folder = shutil.copytree(exported, tmp_path / NAME)
    proof, find = artefacts.read_certificate(folder), labelled.find_dataset
    monkeypatch.setattr(demo, "OUT", tmp_path)
    monkeypatch.setattr(demo.conversion, "convert", lambda *_, **__: (folder, proof))
    monkeypatch.setattr(demo.saved_models, "export", lambda *_, **__: (folder, proof))

    def find_some(*given):
        return labelled.Dataset("some", 200, list(itertools.islice(find(*given).samples, 200)))

    monkeypatch.setattr(demo.labelled, "find_dataset", find_some)
    for name, few in {"COUNT": 8, "SAMPLES": 10, "STEPS": 2}.items():
        monkeypatch.setattr(demo.embedded, name, few)
    monkeypatch.setattr(demo, "LEAST", {"box_AP50": 0.5, "mask_AP50": 0.5, "mIoU": 0.3, "recognised": 0})
    assert demo.main() == 0
    out = capsys.readouterr().out
    assert "predictions that differ: 0 of 200" in out and out.splitlines()[-1].startswith("demo: ok logits_diff=")
    assert all((tmp_path / name).is_file() for name in ("attention.png", "results.csv", "sheet.png"))


def test_the_committed_data_is_whole():
    images, labels = (
        labelled.read_idx(ROOT / "demo" / "fashion_mnist" / f"t10k-{kind}-ubyte.gz")
        for kind in ("images-idx3", "labels-idx1")
    )
    assert images.shape == (10_000, 28, 28) and labels.shape == (10_000,)
