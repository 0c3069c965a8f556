"""What the README and the pages of docs/ print runs as printed."""

import pathlib
import re
import shutil
import tomllib

import numpy as np
import pytest
from shared_fixtures import DATA, NAME, needs_tensorflow, swins_lines

import swins
from swins.cli.command_line import parser
from swins.exports import saved_models
from swins.images import read_idx
from swins.weights import artefacts, pretrained

README = pathlib.Path(__file__).parents[1] / "README.md"
PAGES = README.parent / "docs"


def block(page, first_line):
    """The Python block of a page that starts so."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    return next(code for code in blocks if code.startswith(first_line))


def test_the_readme_is_one_page_with_a_small_picture():
    text = README.read_text()
    assert len(text.splitlines()) <= 160
    (picture,) = re.findall(r"!\[.+\]\((.+)\)", text)
    assert (README.parent / picture).stat().st_size < 250_000


def test_eight_lines(perturbed, monkeypatch, tmp_path):
    from PIL import Image

    monkeypatch.setattr(pretrained, "fetch", lambda name: perturbed("swin_tiny_patch4_window7_224"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").symlink_to(README.parent / "demo")
    code = block(README, "import swins")
    assert len([line for line in code.splitlines() if line]) == 8
    names = {}
    exec(code, names)
    with Image.open("found.png") as picture:
        assert len(names["found"]) >= 1 and picture.size == (480, 480)
    assert {level: x.shape[-1] for level, x in names["pyramid"].output.items()}["P2"] == 96
    assert names["detector"].numbers.num_classes == 80


@pytest.mark.slow  # create, preprocess and grad_cam have quicker tests, as the eight lines above
def test_ten_lines(perturbed, monkeypatch, tmp_path, rng):
    from PIL import Image

    monkeypatch.setattr(pretrained, "fetch", lambda name: perturbed("swin_tiny_patch4_window7_224"))
    monkeypatch.chdir(tmp_path)
    Image.fromarray(rng.integers(0, 256, (300, 400, 3), "uint8")).save("photo.jpg")
    code = block(PAGES / "classification.md", "import swins, keras")
    assert len([line for line in code.splitlines() if line]) == 10
    names = {}
    exec(code, names)
    assert names["logits"].shape == (1, 1000)
    assert names["pets"].output.shape == (None, 37)
    assert list(names["pyramid"].output) == ["P2", "P3", "P4", "P5"]
    assert names["mine"].count_params() > 80e6


@pytest.mark.slow
def test_resize_lines(perturbed, monkeypatch):
    monkeypatch.setattr(pretrained, "fetch", lambda name: perturbed("swin_tiny_patch4_window7_224"))
    names = {}
    exec(block(PAGES / "sizes.md", "import swins"), names)
    for name in ("large", "authors"):
        assert names[name].input.shape == (None, 384, 384, 3)
        assert names[name].get_layer("stages_3_blocks_1").window_size == (12, 12)
    assert names["wide"].input.shape == (None, 240, 272, 3)
    assert names["every"].input.shape == (None, None, None, 3)
    exec(block(PAGES / "speed.md", "import swins"), names)
    assert names["fast"].input.shape == names["fast16"].input.shape == (None, 224, 224, 3)


def run_page(name, names, command=None, more=lambda line: []):
    """Run the Python of a page as one program, and its `swins` lines in their places, with more arguments for some."""
    for kind, code in re.findall(r"```(python|sh)\n(.*?)```", (PAGES / name).read_text(), re.DOTALL):
        if kind == "python":
            exec(code, names)
        for line in swins_lines(f"```sh\n{code}```") if kind == "sh" and command else ():
            code, _, err = command(*line, *more(line))
            assert code == 0, f"{line}: {err}"
    return names


@pytest.fixture
def fashion():
    """48 prepared images, their classes, and the model's logits for them."""
    pixels, labels = (read_idx(DATA / f"t10k-{kind}-ubyte.gz")[:48] for kind in ("images-idx3", "labels-idx1"))
    return {"images": swins.preprocess(NAME)(list(pixels)), "labels": labels % 3, "pixels": pixels}


@pytest.mark.slow
def test_keras_page(perturbed, monkeypatch, tmp_path, rng, command):
    from PIL import Image

    monkeypatch.setattr(pretrained, "fetch", lambda name: perturbed("swin_tiny_patch4_window7_224"))
    monkeypatch.chdir(tmp_path)
    Image.fromarray(rng.integers(0, 256, (300, 400, 3), "uint8")).save("photo.jpg")
    names = run_page("keras.md", {}, command)
    assert names["again"].output.shape == (None, 37)
    assert names["places"]["stage_1/block_1"].shape == names["cam"].shape == (1, 224, 224)
    assert names["in1k"].output.shape == (None, 1000) and names["features"].output.shape == (None, 768)
    assert (tmp_path / "photo_explained.png").is_file()


@pytest.mark.slow
@needs_tensorflow
@pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")  # tensorflow_hub 0.16.1 imports it
@pytest.mark.filterwarnings("ignore:.*declare_namespace:DeprecationWarning")  # pkg_resources again
@pytest.mark.filterwarnings("ignore::DeprecationWarning:tf_keras")
def test_tf_hub_page(exported, fashion, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWINS_CACHE_DIR", str(tmp_path / "cache"))
    shutil.copytree(exported, tmp_path / "artefacts" / "my_swin")  # which the page's lines made
    names = run_page("tf-hub.md", {**fashion, "files": saved_models.photographs((28, 28))})
    assert {"saved_model", "model.onnx", "1", "2"} <= {path.name for path in names["folder"].iterdir()}
    answers = names["answers"]
    assert (names["logits"].shape, answers["logits"].shape, answers["names"].shape) == ((48, 10), (6, 10), (6, 5))
    assert {"logits", "features", "attention_stage1_block3"} <= set(names["outputs"])
    page = (exported.parent / "README.md").read_text()
    assert page.startswith("# Collection ") and "[feature vector](my_swin/model_fe.tar.gz)" in page


@pytest.mark.slow
@needs_tensorflow
def test_runtimes_page(targeted, fashion, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artefacts").symlink_to(targeted.parent)  # which the page's lines made
    blocks = re.findall(r"```python\n(.*?)```", (PAGES / "runtimes.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    expected, names = artefacts.load_model(targeted).predict(fashion["images"], verbose=0), dict(fashion)
    for code in blocks:  # each runtime's own logits
        exec(code, names)
        assert np.abs(names["logits"] - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.slow
def test_training_page(checkpoint, fashion, monkeypatch, tmp_path, command):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for part in ("recipes", "demo"):
        (tmp_path / part).symlink_to(README.parent / part)
    Image.fromarray(fashion["pixels"][0]).save(tmp_path / "photo.jpg")
    for i, (pixels, label) in enumerate(zip(fashion["pixels"], fashion["labels"], strict=True)):
        (tmp_path / "my_images" / f"class_{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "my_images" / f"class_{label}" / f"{i}.png")
    assert "swins train finetune --data my_images" in README.read_text()

    def more(line):
        settings = ["epochs=2", "data.batch=16", "model.compile=False", "augment.scale=None"]
        if not any("model.weights" in part for part in line):  # there is no network
            settings += [f"model.name={NAME}", f"model.weights={checkpoint}"]
        return [part for text in settings for part in ("--set", text)] if "train" in line and "finetune" in line else []

    names = run_page("training.md", {}, command, more)
    assert names["logits"].shape == (1, 3) and names["names"] == ["class_0", "class_1", "class_2"]
    assert (tmp_path / "predictions.csv").is_file() and (tmp_path / "photo_explained.png").is_file()
    assert (tmp_path / "runs" / "finetune" / "curves.png").is_file()


def test_the_commands_of_the_readme_are_understood():
    """The path from pictures to a server in its order, which docs/training.md and docs/serving.md run."""
    for page in (README, PAGES / "classification.md"):
        lines = [parser().parse_args(line) for line in swins_lines(page.read_text())]
        path = [line.command for line in lines if "finetune" in " ".join(map(str, vars(line).values()))]
        assert [name for name in path if name != "train"][:4] == ["eval", "predict", "export", "serve"]
    extras = tomllib.loads((README.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for page in (README, *PAGES.glob("*.md")):
        for names in re.findall(r"pip install '\.\[([\w,]+)\]'", page.read_text()):
            assert set(names.split(",")) <= set(extras), names


def test_the_commands_of_the_pages_are_understood():
    """Those of every page; of the table of commands each verb, of which none is left out."""
    known = parser()
    for page in PAGES.glob("*.md"):
        for line in swins_lines(page.read_text()):
            known.parse_args(line)
    verbs = set(re.findall(r"`swins (\w+)", (PAGES / "commands.md").read_text()))
    assert {*known._subparsers._group_actions[0].choices} == verbs - {"COMMAND"}


def test_pages_are_reachable_and_whole():
    for page in (README, *PAGES.rglob("*.md"), README.parent / "hub_export" / "README.md"):
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (page.parent / target).exists(), f"{page}: {target}"
    assert all(f"docs/{page.name}" in README.read_text() for page in PAGES.glob("*.md"))
    index = (PAGES / "reference" / "README.md").read_text()
    assert "docs/reference/README.md" in README.read_text()
    assert all(f"({page.name}" in index for page in PAGES.glob("reference/*.md") if page.name != "README.md")
