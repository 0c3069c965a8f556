"""The site that `make docs` builds: strict, whole, without anything from elsewhere, and readable in a browser."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from browser import BROWSER, reported
from PIL import Image
from shared_fixtures import ROOT, needs_tensorflow, script

import swins

WIDTH = 390  # pixels of a phone
SOME = ["repository/recipes/", "repository/benchmarks/", "repository/recipes/results/cifar10_swinv2_tiny_cpu/"]
SOME += ["repository/swins/v1.py/", "repository/notebooks/hub.ipynb/"]  # files of the repository, one of a kind
WITH_SCRIPTS = ["./", "reference/networks/", "sizes/", *SOME[-2:]]  # the others are only measured
PROBE = """<!doctype html><meta charset="utf-8"><body><script>
const wait = ms => new Promise(done => setTimeout(done, ms));
const report = {wide: [], elsewhere: [], results: []};
async function open_page(path, width, look, scripts) {
  const frame = document.createElement("iframe");
  if (!scripts) frame.sandbox = "allow-same-origin";
  Object.assign(frame, {width, height: 800, src: path});
  const loaded = new Promise(done => { frame.onload = done; });
  document.body.append(frame);
  await loaded;
  await look(frame.contentWindow);
  for (const {name} of frame.contentWindow.performance.getEntriesByType("resource"))
    if (!name.startsWith(location.origin) && !name.startsWith("data:")) report.elsewhere.push([path, name]);
  frame.remove();
}
async function measure(page, path) {
  const side = page.document.documentElement.scrollWidth;
  if (side > WIDTH) report.wide.push([path, side]);
}
async function search(page) {
  for (let i = 0; i < 300 && !report.results.length; i++) {
    await wait(100);
    report.results = [...page.document.querySelectorAll(".md-search-result__link")].map(link => link.href);
  }
}
(async () => {
  await open_page("index.html?q=MaskRCNN", 1280, search, true);
  for (const path of PATHS) await open_page(path, WIDTH, page => measure(page, path), WITH_SCRIPTS.includes(path));
  console.error("the probe's own line");
  await fetch("/report", {method: "POST", body: JSON.stringify(report)});
})();
</script>"""


@pytest.fixture(scope="module")
def hooks():
    return script("docs/repository_pages.py")


def settings_of_mkdocs():
    """What mkdocs.yml says, but for a setting that is a Python function."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)
    return yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)


def build(settings, folder):
    """Build a site as `make docs` does -> the finished process."""
    options = re.search(r"-m mkdocs (build .*)", (ROOT / "Makefile").read_text())[1].split()
    command = [
        sys.executable,
        "-P",
        "-m",
        "mkdocs",
        *options,
        "--config-file",
        str(settings),
        "--site-dir",
        str(folder),
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_each_broken_link_is_named_and_ends_the_build(tmp_path):
    links = ["none.md", "../outside.py", "#none", "other.md#gone", "/absolute.md", "other.txt"]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("".join(f"[a link]({link})\n\n" for link in links))
    (tmp_path / "docs" / "other.md").write_text("# Another\n")
    settings = {"site_name": "broken", "plugins": [], "validation": settings_of_mkdocs()["validation"]}
    (tmp_path / "mkdocs.yml").write_text(yaml.dump(settings))
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode and f"{len(links)} warnings in strict mode" in done.stdout + done.stderr
    assert all(f"'{link}'" in done.stderr for link in links)


@pytest.mark.slow
def test_it_is_built_strict_and_loads_nothing_from_elsewhere(site):
    pages = {path.relative_to(site).parent.as_posix(): path.read_text() for path in site.rglob("index.html")}
    for name in ("repository/swins/v1.py", "repository/notebooks/hub.ipynb", "training-step", "reference", "."):
        assert name in pages
    for name in swins.__all__:  # each has a signature or a docstring at its own address
        path = f"{name}.{name}" if name in ("backbone", "resize", "deploy") else name  # of modules of the same name
        assert any(f'id="swins.{path}"' in text for text in pages.values()), name
    for name, text in pages.items():
        assert not re.search(r"<(?:script|img|iframe|source)[^>]+src=\"?(?:https?:)?//", text), name
        assert not re.search(r"<link[^>]+href=\"?(?:https?:)?//", text), name
        assert "<!-- table" not in text, name


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="needs Chromium")
def test_search_console_and_a_phones_width(site, tmp_path):
    paths = sorted(f"{path.relative_to(site).parent.as_posix()}/" for path in site.rglob("index.html"))
    paths = [path for path in paths if not path.startswith("repository/") or path in SOME]
    assert {*WITH_SCRIPTS, *SOME} < {*paths}
    probe = PROBE
    for name, value in (("PATHS", paths), ("WIDTH", WIDTH), ("WITH_SCRIPTS", WITH_SCRIPTS)):
        probe = re.sub(rf"\b{name}\b", json.dumps(value), probe)
    (site / "probe.html").write_text(probe)
    report, console = reported(site, "probe.html", tmp_path / "profile")
    assert any("reference/networks/?h=maskrcnn#swins.MaskRCNN" in link for link in report["results"]), report
    assert not report["wide"] and not report["elsewhere"]
    lines = [line for line in console if "frame is sandboxed" not in line]  # of pages that are only measured
    assert len(lines) == 1 and "the probe's own line" in lines[0], lines


def test_links_lead_to_pages_of_the_site_or_are_left_for_the_strict_build(hooks):
    page = ROOT / "docs" / "reference" / "README.md"
    text = "[a](../../swins/v1.py#x) [b](../keras.md) [c](../../recipes/) [d](none.md) [e](https://a.b/c)\n```\n[f](x.md)\n```\n"
    assert hooks.relinked(page, text) == (
        "[a](../repository/swins/v1.py.md#x) [b](../keras.md) [c](../repository/recipes/README.md) [d](none.md) "
        "[e](https://a.b/c)\n```\n[f](x.md)\n```\n"
    )
    assert hooks.links(page, text) == [ROOT / "docs/keras.md", ROOT / "recipes", ROOT / "swins/v1.py"]
    assert hooks.target(page, "../../../outside.md") is None and hooks.place(ROOT / "README.md") == "index.md"
    assert "- [`LICENSE`]" not in hooks.page_of(ROOT / "demo" / "fashion_mnist")


@pytest.mark.slow
def test_a_name_without_docstring_or_place_is_warned_of(hooks, caplog, monkeypatch):
    pages, load = hooks.sources(), hooks.griffe.load

    def load_without_a_docstring(*arguments, **options):
        package = load(*arguments, **options)
        package["SSD"].docstring = None
        return package

    hooks.look_at_reference(pages)
    assert not caplog.records
    page = next(path for path in pages if path.name == "networks.md")
    monkeypatch.setattr(hooks.griffe, "load", load_without_a_docstring)
    hooks.look_at_reference({**pages, page: pages[page].replace("::: swins.MaskRCNN\n", "::: swins.Mask\n")})
    said = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert said == ["swins.Mask", "swins.MaskRCNN", "swins.SSD has no docstring"]


def test_examples_become_a_section():
    change = script("docs/docstring_examples.py")
    text = "What it does.\n\nExample:\n>>> f(1)\n2\n\nMore.\n"
    changed = change.EXAMPLE.sub(change.indented, text)
    assert changed == "What it does.\n\nExamples:\n    >>> f(1)\n    2\n\nMore.\n"


def test_every_page_is_in_the_navigation():
    def leaves(part):
        parts = part.values() if isinstance(part, dict) else part
        return [part] if isinstance(part, str) else [leaf for child in parts for leaf in leaves(child)]

    listed = leaves(settings_of_mkdocs()["nav"])
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert pages == {name for name in listed if not name.startswith("repository/")} - {"index.md"}
    assert len(listed) == len(set(listed))


def test_one_training_step_names_what_there_is():
    page = ROOT / "docs" / "training-step.md"
    for name, path in re.findall(r"\[`(\w+)`\]\(([\w./]+\.py)\)", page.read_text()):
        text = (page.parent / path).read_text()
        assert re.search(rf"^ *(?:def|class) {name}\b", text, re.MULTILINE), (name, path)


def test_the_map_names_every_module():
    text = (ROOT / "docs" / "house.md").read_text()
    for path in (ROOT / "swins").iterdir():
        name = f"{path.name}/" if path.is_dir() else path.name
        if path.name[0] not in "_." and (path.suffix == ".py" or (path / "__init__.py").is_file()):
            assert re.search(rf"[ /]{re.escape(name)}(?= |$)", text, re.MULTILINE), name


@pytest.mark.slow
@needs_tensorflow
def test_the_picture_at_the_top_is_what_its_command_draws(tmp_path, monkeypatch):
    front = script("demo/front.py")
    committed = front.OUT
    monkeypatch.setattr(front, "ROOT", tmp_path)
    monkeypatch.setattr(front, "OUT", tmp_path / "docs.png")
    front.main()
    with Image.open(front.OUT) as drawn, Image.open(committed) as kept:
        assert drawn.size == kept.size
        assert np.abs(np.float32(drawn.convert("RGB")) - np.float32(kept.convert("RGB"))).mean() < 1
