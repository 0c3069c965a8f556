"""`make demo`: convert, prove, evaluate, export and reload the embedded checkpoint, on its 10,000 real test images.

Then predict with the embedded detector, Mask R-CNN, UPerNet and sampler, and draw a sheet of what they give. Ends with
`demo: ok ...`, the numbers of all, and exit code 0, or `demo: FAILED ...` and 1. Writes below artefacts/.
"""

import pathlib
import subprocess
import sys
import tempfile
import time
import traceback

import embedded
import front
import numpy as np
from embedded import CHECKPOINT, NETWORKS
from embedded import CLASSIFIER as NAME
from pictures import SOURCE

from swins import explain, files, images
from swins.convert import certificate, conversion
from swins.data import labelled
from swins.errors import SwinsError
from swins.evaluate import records, result_tables
from swins.evaluate.evaluation import Evaluation
from swins.exports import saved_models
from swins.exports.statements import Statement
from swins.labels import class_names
from swins.opening import open_model
from swins.reference import oracle
from swins.tags import look_up
from swins.task import Prepared
from swins.weights import artefacts

HERE = pathlib.Path(__file__).parent
OUT = HERE.parent / "artefacts"
TOLERANCE = 1e-5
LEAST_TOP1 = 0.90
LEAST = {"box_AP50": 0.8, "mask_AP50": 0.8, "mIoU": 0.6, "recognised": 0.8}  # of the last line's scores
BATCH = 250
DRAWN = 7  # canvases of the sheet


def step(text):
    print(f"\n== {text}", flush=True)


def torch_logits(test):
    """timm's logits of the prepared test images, from the original checkpoint."""
    return oracle.forward(CHECKPOINT, NAME.partition(".")[0], look_up(NAME).variant, test, batch=BATCH)["logits"]


def hub_logits(folder, test):
    """Logits through `hub.load`, in a fresh process that has no swins."""
    with tempfile.TemporaryDirectory() as temporary:
        source, target = pathlib.Path(temporary, "in.npy"), pathlib.Path(temporary, "out.npy")
        np.save(source, test)
        command = [sys.executable, "-P", str(HERE / "hub_load.py"), str(folder), str(source), str(target)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SwinsError(f"hub.load failed: {done.stderr.strip()[-1500:]}")
        print(done.stdout.strip())
        return np.load(target)


def draw(model, prepared, pixels, labels, predicted):
    """A picture of attention, rollout and Grad-CAM over one image of each of six classes."""
    names = class_names(NAME)
    chosen = [int(np.flatnonzero(labels == c)[0]) for c in (9, 1, 2, 8, 5, 3)]
    titles = [f"{names[labels[i]]}\n-> {names[predicted[i]]}" for i in chosen]
    maps = explain.panels(model, prepared[chosen])
    explain.draw(pixels[chosen], maps, titles, OUT / "attention.png", "What the embedded model looks at")


def classifier():
    """Every step of the embedded checkpoint -> (facts for the last line, whether all are within bounds)."""
    step("convert the checkpoint that PyTorch trained, and prove it")
    (OUT / "results.csv").unlink(missing_ok=True)
    folder, proof = conversion.convert(NAME, CHECKPOINT, OUT / NAME, overwrite=True)
    print(certificate.summary(proof))

    step("evaluate PyTorch and Keras on the 10,000 test images")
    model = artefacts.load_model(folder)
    prepare = images.preprocess(NAME)
    dataset = labelled.find_dataset(SOURCE, model.variant.num_classes)
    samples = list(dataset.samples)
    pixels, labels = np.stack([image for _, image, _ in samples]), np.array([label for *_, label in samples])
    prepared = prepare(list(pixels))
    theirs = torch_logits(prepared)
    opened, prepared_as = open_model(folder), Prepared(NAME, "timm", prepare)
    dataset = labelled.Dataset(dataset.name, len(samples), samples)
    scored = records.run(opened, prepare, dataset, {}, Evaluation(batch=BATCH))
    row = result_tables.row_of(opened, prepared_as, dataset, scored, opened.task.known(opened))
    predicted = np.array([record["top"][0] for _, record in scored.rows])
    result_tables.append_row(row, OUT / "results.csv")
    top1_torch = float(np.mean(theirs.argmax(1) == labels))
    disagree = int(np.sum(theirs.argmax(1) != predicted))
    rate = row["images_per_second"]
    speed = "" if rate is None else f", {rate:.0f} images/s"  # one batch has no speed: it includes compiling
    print(f"PyTorch top-1 {top1_torch:.4f}; Keras top-1 {row['top1']:.4f}{speed}")
    print(f"predictions that differ: {disagree} of {len(labels)}")

    step("export SavedModels, each run where swins is not")
    folder, proof = saved_models.export(folder, statement=Statement(results=OUT / "results.csv"))
    for part, record in proof["exports"].items():
        print(f"{part}: {record['output']} differ by {record['call']:.1e}")

    step("reload through hub.load in a fresh process")
    ours = model.predict(prepared, batch_size=BATCH, verbose=0)
    logits_diff = max(certificate.worst_output(proof), certificate.difference(ours, theirs)["relative"])
    hub_diff = certificate.difference(hub_logits(folder / "saved_model", prepared), ours)["relative"]

    step("draw what the model looks at")
    draw(model, prepared, pixels, labels, predicted)
    print(OUT / "attention.png")

    good = max(logits_diff, hub_diff) <= TOLERANCE and disagree == 0 and min(top1_torch, row["top1"]) >= LEAST_TOP1
    facts = (
        f"logits_diff={logits_diff:.1e} top1_torch={top1_torch:.4f} top1_keras={row['top1']:.4f} "
        f"disagree={disagree} hub_diff={hub_diff:.1e}"
    )
    return facts, good


def others():
    """Predict with the other embedded networks and draw a sheet -> (facts, whether all are within bounds)."""
    facts, rows = {}, []
    for network in NETWORKS:
        step(network.title)
        canvases, results, scores = embedded.scored(network)
        print(f"on {len(canvases)} canvases: {in_words(scores)}")
        rows.append(front.results_row(network, canvases[:DRAWN], results[:DRAWN]))
        facts |= scores
    step(front.SAMPLES_TITLE)
    samples, scores = embedded.sampled()
    print(f"{len(samples)} images, by the classifier: {in_words(scores)}")
    rows.append(front.samples_row(samples))
    facts |= scores
    with files.replacing(OUT / "sheet.png") as partial:
        front.sheet(rows).save(partial, format="PNG", optimize=True)
    print(OUT / "sheet.png")
    kept = {name: facts[name] for name in LEAST}
    return in_words(kept), all(kept[name] >= least for name, least in LEAST.items())


def in_words(scores):
    """Numbers by their names, as the last line has them."""
    return " ".join(f"{name}={value:.3f}" for name, value in scores.items())


def demo():
    """Run every step -> (facts for the last line, whether all are within bounds)."""
    parts, good = zip(classifier(), others(), strict=True)
    return " ".join(parts), all(good)


def main():
    start = time.time()
    try:
        facts, good = demo()
    except Exception as error:  # whatever went wrong, the last line says so
        traceback.print_exc()
        facts, good = " ".join(f"{type(error).__name__}: {error}".split()), False
    print(f"\ndemo: {'ok' if good else 'FAILED'} {facts} in {time.time() - start:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
