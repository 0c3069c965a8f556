"""Every model that the repository brings is its recipe's, is small, is as good as is said, and works."""

import json

import numpy as np
import pytest
from shared_fixtures import DATA, NAME, ROOT

import swins
from swins import recipes
from swins.data.garments import Garments
from swins.tasks.diffusion_sampling import ImageSampler

DEMO = ROOT / "demo"
SSD, MASK_RCNN, UPERNET = "ssd64_swin_mini", "mask_rcnn_swin_mini_fpn", "upernet_swin_mini"
SWIN_UNET = "swin_unet_mini_patch2_window7_28"
RECIPES = {
    SSD: "ssd_garments_swin_mini",
    MASK_RCNN: "mask_rcnn_garments_swin_mini",
    UPERNET: "upernet_garments_swin_mini_more",
    SWIN_UNET: "diffusion_fashion_mnist",
}
MOST = {SSD: 4, MASK_RCNN: 6, UPERNET: 4, SWIN_UNET: 6}  # MiB
SAID = {  # of a run's scores in percent, by its recipe and on pages
    SSD: {"recipe": ["AP50 {AP50:.2f}"], "README.md": ["AP50 {AP50:.1f}"], "docs/detection.md": ["AP50 {AP50:.1f}"]},
    MASK_RCNN: {"recipe": ["{AP50:.2f}", "{mask_AP50:.2f}"], "README.md": ["{AP:.1f}", "{mask_AP:.1f}"]},
    UPERNET: {
        "recipe": ["mIoU {mIoU:.2f}"],
        "README.md": ["mIoU {mIoU:.1f}"],
        "docs/segmentation.md": ["mIoU {mIoU:.1f}"],
    },
}


def result_of(name):
    """What the run of a model came to."""
    return json.loads((DEMO / name / "result.json").read_text())


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_its_recipes_and_small(name):
    recipe = recipes.load(ROOT / "recipes" / f"{RECIPES[name]}.py")
    made, today = recipes.today(result_of(name)["recipe"]), json.loads(json.dumps(recipes.as_json(recipe)))
    assert {**made, **{key: today[key] for key in recipes.FREE if key in today}} == today
    assert (DEMO / name / "model.keras").stat().st_size <= MOST[name] * 2**20
    present = {path.name for path in (DEMO / name).iterdir()}
    assert present >= {"log.csv", "curves.png", "recipe.json", "README.md"}


@pytest.mark.parametrize("name", SAID)
def test_pages_say_its_scores(name):
    percent = {score: 100 * value for score, value in result_of(name).items() if isinstance(value, float)}
    for page, texts in SAID[name].items():
        path = ROOT / (f"recipes/{RECIPES[name]}.py" if page == "recipe" else page)
        for text in texts:
            assert text.format(**percent) in path.read_text(), page


@pytest.mark.parametrize("guidance", [2, 4])
@pytest.mark.parametrize(
    "scored", [DEMO / SWIN_UNET / "scores", ROOT / "benchmarks/diffusers_unet"], ids=["ours", "diffusers"]
)
def test_its_page_says_how_good_samples_are(scored, guidance):
    """The files have what `swins eval` and benchmarks/diffusers_unet.py printed."""
    scores = json.loads((scored.parent / f"{scored.name}_guidance_{guidance}.json").read_text())
    row = [f"{100 * scores[name]:.1f}" for name in ("recognised", "recognised_least", "recognised_real")]
    row += [f"{scores[name]:.3f}" for name in ("frechet", "frechet_real")]
    assert f"| {guidance} | {' | '.join(row)} |" in (DEMO / SWIN_UNET / "README.md").read_text()


@pytest.mark.parametrize("name", ["ddim", "ddpm"])
def test_its_page_says_what_few_steps_cost(name):
    scores = json.loads((DEMO / SWIN_UNET / f"scores_300_{name}.json").read_text())
    sampler, steps = scores["protocol"].split()[:2]
    assert sampler == name and scores["images"] == 300
    row = [name.upper(), steps, f"{scores['images_per_second']:.1f}", f"{100 * scores['recognised']:.1f}"]
    row += [f"{scores[score]:.3f}" for score in ("frechet", "frechet_real")]
    assert f"| {' | '.join(row)} |" in (DEMO / SWIN_UNET / "README.md").read_text()


@pytest.fixture(scope="module")
def canvases():
    """50 canvases of test images, which no embedded network was trained on."""
    garments = Garments(DATA, "val", count=50, size=64, objects=(1, 2), scale=(21, 48), colour=False)
    return [garments[i] for i in range(len(garments))]


@pytest.mark.slow
def test_mask_rcnn_outlines_garments(canvases):
    """Most garments have a mask that is theirs, pixel for pixel, wherever the name is right or not."""
    results = swins.load(DEMO / MASK_RCNN)([canvas.image for canvas in canvases])
    overlaps = []
    for canvas, result in zip(canvases, results, strict=True):
        found = result.masks[result.scores >= 0.5][:, None]
        both = (found & canvas.masks).sum((2, 3)) / np.maximum((found | canvas.masks).sum((2, 3)), 1)
        overlaps.extend(both.max(0, initial=0))
    assert np.mean(np.array(overlaps) >= 0.75) >= 0.85


@pytest.mark.slow
def test_upernet_knows_garments_pixels(canvases):
    """Where a garment is, whatever it is called, and mostly which."""
    results = swins.load(DEMO / UPERNET)([canvas.image for canvas in canvases])
    ours, theirs = np.stack([result.mask for result in results]), np.stack([canvas.semantic for canvas in canvases])
    covered = ((ours > 0) & (theirs > 0)).sum() / ((ours > 0) | (theirs > 0)).sum()
    assert covered >= 0.95 and (ours == theirs)[theirs > 0].mean() >= 0.7


@pytest.mark.slow
def test_swin_unets_samples_are_recognised():
    """40 images of ten classes, by the embedded classifier, which was trained apart."""
    sampler: ImageSampler = swins.load(DEMO / SWIN_UNET)
    samples = sampler(count=40, steps=20, seed=1)
    answers = swins.load(DATA / f"{NAME}.safetensors", variant=NAME)(list(samples.images))
    assert np.mean([answer.names[0] == name for answer, name in zip(answers, samples.names, strict=True)]) >= 0.8
