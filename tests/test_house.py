"""The house rules: floors, sizes, and files that must agree with each other."""

import ast
import csv
import itertools
import pathlib
import re

import pytest
from shared_fixtures import script

import swins

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = (  # a module imports only from earlier rows; a package's modules may import each other
    ("errors", "size_rules", "sequential", "renamed", "box_drawing", "host", "import_probe", "notices", "processes"),
    ("one_program",),
    ("map_sides",),
    ("recipe_files", "demo_files", "doctor", "fresh_weights"),
    ("mask_drawing", "changes", "windows", "settings", "checked_numbers", "run_lengths", "score"),
    ("image_files", "pillow_resampling"),
    ("layers", "convolutions", "boxes", "recipes", "pixel_tensors"),
    ("plans", "v1", "bias_tables", "run_result", "files"),
    ("part_files",),
    (
        "resnet_plan",
        "v2",
        "task",
        "ssd_numbers",
        "rcnn_numbers",
        "upernet_numbers",
        "swin_unet_numbers",
        "patch_expanding",
    ),
    ("model_configs", "detector_configs", "segmenter_configs", "denoiser_configs", "v2_cr", "resnet"),
    ("tags", "reference", "deformable"),
    ("images",),
    ("models", "fused", "results", "keep_ratio", "samples", "pixel_classifier"),
    ("build", "describe", "attention", "resize", "labels", "archives", "devices", "layer_depths", "initial_weights"),
    ("explain", "hub", "deploy", "detection", "segmentation", "diffusion", "data", "weights"),
    ("backbone", "detector_checkpoints"),
    ("detectors",),
    ("segmenters", "denoisers"),
    ("creation",),
    ("opening",),
    ("tasks",),
    ("convert", "evaluate"),
    ("predictor",),
    ("exports", "train", "ray_engine"),
    ("public",),
    ("cli", "__init__"),
)
CORE = (
    "size_rules",
    "windows",
    "layers",
    "v1",
    "model_configs",
    "models",
)  # the rows and classes of V2 and V2-CR among them


def floor_of(module):
    return next(i for i, row in enumerate(FLOORS) if module in row)


def imports(path):
    """Modules of swins that a file imports, by their first name below swins."""
    for node in ast.walk(ast.parse(path.read_text())):
        assert not getattr(node, "level", 0), f"{path} imports relatively, which this walk does not follow"
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "swins":
            below = node.module.split(".")[1:2]
            yield from below or [alias.name for alias in node.names if alias.name[0] != "_"]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("swins."))


def modules():
    return sorted((ROOT / "swins").rglob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_from_floors_below(path):
    own = path.relative_to(ROOT / "swins").with_suffix("").parts[0]
    upward = [name for name in imports(path) if name != own and floor_of(name) >= floor_of(own)]
    assert not upward, f"{own} (floor {floor_of(own)}) imports {upward}"


def test_the_walk_sees_an_upward_import(tmp_path):
    path = tmp_path / "windows.py"
    path.write_text("from swins import models\nfrom swins.convert import rules\nimport swins.cli\n")
    assert list(imports(path)) == ["models", "convert", "cli"]


SWINS_OWN = {"windows", "attention", "bias_tables", "plans", "v1", "v2", "v2_cr", "deformable", "model_configs", "tags"}
SWINS_OWN |= {"models", "build", "backbone", "resize", "deploy", "fused", "explain", "hub", "weights"}


ROOMS = ("swins/detection/*.py", "swins/segmentation/*.py", "swins/tasks/detection*.py")


@pytest.mark.parametrize("path", [path for place in ROOMS for path in ROOT.glob(place)])
def test_rooms_take_a_pyramid_and_know_nothing_of_swin(path):
    assert not SWINS_OWN & set(imports(path))


def test_no_keras_process_imports_torch_or_timm():
    for path in modules():
        if path.parent.name != "reference":
            names = re.findall(r"^\s*(?:import|from) (\w+)", path.read_text(), re.MULTILINE)
            assert not {"torch", "timm", "torchvision"} & set(names), path


def test_only_public_interfaces_of_keras():
    for path in modules():
        assert "keras.src" not in path.read_text(), path


def test_core_can_be_read_in_one_sitting():
    lines = {name: len((ROOT / "swins" / f"{name}.py").read_text().splitlines()) for name in CORE}
    assert sum(lines.values()) < 750, lines


@pytest.mark.parametrize("paper", ["v2", "v2_cr", "deformable"])
def test_papers_read_as_differences(paper):
    assert len((ROOT / "swins" / f"{paper}.py").read_text().splitlines()) < 120


def test_public_names_are_documented():
    for name in swins.__all__:
        assert getattr(swins, name).__doc__, name


def test_generated_tables_of_the_readme_are_current():
    tables = script("in1k_eval/tables.py")
    for page in tables.PAGES:
        text = (ROOT / page).read_text()
        assert tables.regenerate(text) == text, f"{page}: make tables"


def test_tables_fill_empty_places_and_touch_nothing_else():
    tables = script("in1k_eval/tables.py")
    empty = "a\n<!-- table: parity -->\n<!-- end -->\nb\n<!-- table: variants -->\n<!-- end -->\nc\n"
    once = tables.regenerate(empty)
    assert once.startswith("a\n") and "\nb\n" in once and once.endswith("\nc\n") and once.count("---") > 4
    assert tables.regenerate(once) == once


def test_parity_table_covers_every_architecture_within_tolerance():
    with open(ROOT / "in1k_eval" / "parity.csv", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    theirs = [name for name in swins.list_variants("swin*") if not re.search("mini|transformer|unet", name)]
    wanted = set(theirs)
    assert len(wanted) == 37
    assert wanted <= {name.partition(".")[0] for name in rows}
    assert any(name.endswith("in22k") for name in rows)
    for row in rows.values():
        assert float(row["logits_relative"]) <= 2e-5
        assert float(row["worst_block_relative"]) <= 1e-5
        assert row["parameters_keras"] == row["parameters_torch"]


def test_version_is_stated_once():
    assert f'version = "{swins.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_every_test_is_in_make_test_or_in_make_slow():
    """Once: under TensorFlow each, and those marked `backends` under JAX and PyTorch; and in `make check`, CI's."""
    recipes = dict(
        re.findall(r"^(test|slow|check): env.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    )
    runs = {name: re.findall(r"TESTS,(\w+),([\w ]+)\)", recipe) for name, recipe in recipes.items()}
    markers = ("slow", "backends", "core")
    for values in itertools.product((False, True), repeat=len(markers)):
        item = dict(zip(markers, values, strict=True))
        if item["core"] and not item["backends"]:  # conftest.py refuses it
            continue
        for backend, wanted in (("tensorflow", 1), ("jax", item["backends"]), ("torch", item["backends"])):
            for sessions in (runs["test"] + runs["slow"], runs["check"]):
                count = sum(eval(expression, {}, item) for name, expression in sessions if name == backend)
                assert count == wanted, (backend, item)
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make lint check"


def test_a_name_is_one_files_and_no_file_is_long():
    """A file's name says its job, so that no two have it, and none is renamed when it is imported."""
    names = [path.name for path in modules() if path.name != "__init__.py"]
    assert len(names) == len(set(names)), sorted(name for name in set(names) if names.count(name) > 1)
    for path in [*modules(), *(ROOT / "tests").rglob("*.py")]:
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path
        for module, other in re.findall(r"from (swins[\w.]*) import (\w+) as \w+", text):
            assert not (ROOT / module.replace(".", "/") / f"{other}.py").is_file(), f"{path} renames {module}.{other}"


def test_importing_a_script_of_tests_changes_no_module():
    """pytest imports every file of tests/, also those that other processes run: what they set would be set for all."""
    for path in (ROOT / "tests").glob("*.py"):
        assigned = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)]
        changed = [ast.unparse(name) for node in assigned for name in node.targets if isinstance(name, ast.Attribute)]
        assert changed == (["kept_process.IDLE"] if path.name == "shared_fixtures.py" else []), path


def test_workshops_know_no_kind_of_work():
    """What is of classification lies in its Task; `swins/train/recipe.py` tells recipes of before what they were."""
    for name in ("train", "evaluate", "exports", "convert"):
        for path in sorted((ROOT / "swins" / name).rglob("*")):
            if path.suffix in (".py", ".md") and path.name != "recipe.py":
                assert not re.search("classification|top-?1|top-?5|logits", path.read_text(), re.IGNORECASE), path
