"""MkDocs' hooks: files of the repository as pages of the site, where pages link to them, and a look at the reference.

The pages of docs/ are written for GitHub: their links lead to files of the repository. In the site README.md is the
first page, and whatever else is linked becomes a page of its own below repository/: Markdown as it is, notebooks cell
by cell, programs and tables as code, folders as lists.
"""

import json
import logging
import os
import pathlib
import re

import griffe
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = "repository"  # of the site, for files from beside docs/
LOG = logging.getLogger("mkdocs.hooks.repository_pages")  # whose warnings end a strict build
FENCE = "`" * 6
LINK = re.compile(r"(\]\()(?!\w+:|#|<)([^)#\s]+)((?:#[^)\s]*)?\))")
CODE = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)
PICTURES = (".png", ".svg", ".jpg")
LANGUAGES = {".py": "python", ".json": "json", ".csv": "text", ".txt": "text", ".sh": "bash", ".slurm": "bash"}
RESULTS = ("results.", "samples.")  # modules whose classes are described too, as what public names give
LARGEST = 200_000  # bytes of a text that is shown
WIDE, WITHOUT_SIDE = "---\nhide: [navigation]\n---\n", ("index.md", "house.md")  # whose lines are long
UNLISTED = "---\nsearch:\n  exclude: true\n---\n"


def place(path):
    """The file of the site, below docs/ or not, that a file or folder of the repository is: README.md -> index.md."""
    if path.is_dir():
        path = path / "README.md" if (path / "README.md").is_file() else path / "index.md"
    name = path.relative_to(ROOT).as_posix()
    if name == "README.md":
        return "index.md"
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    return f"{FOLDER}/{name}" if path.suffix in (".md", *PICTURES) else f"{FOLDER}/{name}.md"


def shown(path):
    """Whether a file or folder becomes a page or a picture."""
    if path.is_dir():
        return True
    return path.suffix in (".md", ".ipynb", *PICTURES) or (path.suffix in LANGUAGES and path.stat().st_size <= LARGEST)


def target(path, link):
    """What a relative link in a file of the repository leads to -> an absolute path; None for what is not there."""
    found = pathlib.Path(os.path.normpath(path.parent / link))
    return found if found.exists() and found.is_relative_to(ROOT) else None


def outside_of_code(text, change):
    """A page whose parts between blocks of code underwent a change."""
    parts, last = [], 0
    for block in CODE.finditer(text):
        parts += [change(text[last : block.start()]), block[0]]
        last = block.end()
    return "".join([*parts, change(text[last:])])


def links(path, text):
    """Files and folders of the repository that a page's links lead to, and that have a page."""
    found = []
    outside_of_code(text, lambda part: found.extend(m[2] for m in LINK.finditer(part)) or part)
    leads = {target(path, link) for link in found} - {None}
    return sorted(lead for lead in leads if shown(lead))


def relinked(path, text):
    """A page of a file of the repository whose links lead to the site's files; what has none keeps its name alone."""
    here = pathlib.PurePosixPath(place(path)).parent

    def link(match):
        lead = target(path, match[2])
        if lead is None or not shown(lead):
            return match[0]  # of which a strict build says that it leads nowhere
        return f"{match[1]}{os.path.relpath(place(lead), here)}{match[3]}"

    return outside_of_code(text, lambda part: LINK.sub(link, part))


def cell_page(cell):
    """A cell of a notebook as Markdown: text, or code and what it printed and drew."""
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        return source
    parts = [f"{FENCE}python\n{source}\n{FENCE}"]
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            parts.append(f"![what the cell draws](data:image/png;base64,{''.join(data['image/png']).strip()})")
        elif text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
            parts.append(f"{FENCE}text\n{text}\n{FENCE}")
    return "\n\n".join(parts)


def page_of(path):
    """The Markdown of a file's or folder's page."""
    if path.suffix == ".md":
        return path.read_text()
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        names = sorted(child.name for child in path.iterdir() if child.name[0] not in "._")
        lines = [f"- [`{child}`]({child})" if shown(path / child) else f"- `{child}`" for child in names]
        return f"{UNLISTED}# {name}/\n\n" + "\n".join(lines) + "\n"
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text())["cells"]
        return "\n\n".join(cell_page(cell) for cell in cells) + "\n"
    return f"{UNLISTED}# {path.name}\n\n`{name}`\n\n{FENCE}{LANGUAGES[path.suffix]}\n{path.read_text()}\n{FENCE}\n"


def base_of(path):
    """The file whose folder a page's links are relative to."""
    return path / "index.md" if path.is_dir() else path


def sources():
    """Pages of docs/, and whatever they link to, and so on -> {path: Markdown}; None of pictures."""
    pages = {path: path.read_text() for path in sorted((ROOT / "docs").rglob("*.md"))}
    pages[ROOT / "README.md"] = (ROOT / "README.md").read_text()
    waiting = list(pages)
    while waiting:
        path = waiting.pop()
        for lead in links(base_of(path), pages[path] or ""):
            if lead.is_dir() and (lead / "README.md").is_file():
                lead = lead / "README.md"
            if lead not in pages:
                pages[lead] = None if lead.suffix in PICTURES else page_of(lead)
                waiting.append(lead)
    return pages


def on_files(files, config):
    """Add the pages and pictures that lie beside docs/, and lead all links to them."""
    pages = sources()
    for path, text in pages.items():
        name = place(path)
        if text is not None:
            text = re.sub(r"^<!-- .* -->$", "", relinked(base_of(path), text), flags=re.MULTILINE)
            text = WIDE * (name in WITHOUT_SIDE) + text
        if known := files.get_file_from_path(name):
            if text is not None:
                files.remove(known)
                files.append(File.generated(config, name, content=text))
        elif text is None:
            files.append(File.generated(config, name, abs_src_path=str(path)))
        else:
            files.append(File.generated(config, name, content=text))
    look_at_reference(pages)
    return files


def look_at_reference(pages):
    """Warn of public names that have no docstring, or no place in docs/reference/."""
    package = griffe.load("swins", search_paths=[str(ROOT)])
    folder = ROOT / "docs" / "reference"
    text = "".join(text for path, text in pages.items() if path.parent == folder)
    described = re.findall(r"^::: swins\.(\w+(?:\.\w+)?)$", text, re.MULTILINE)
    described = [path for path in described if not path.startswith(RESULTS)]
    names = [str(name) for name in package.exports]
    paths = [f"{name}.{name}" if package[name].is_module else name for name in names]  # Griffe knows the module alone
    for path in sorted({*paths} ^ {*described}):
        LOG.warning("swins.%s: docs/reference/ must have the names of swins.__all__, these and no others", path)
    for path in paths:
        if not package[path].has_docstring:
            LOG.warning("swins.%s has no docstring", path)
