"""A folder on one evaluation: its tables, drawn figures, and a sheet of the worst mistakes."""

import csv
import os
import pathlib
from collections.abc import Callable

from swins.box_drawing import shortened
from swins.errors import SwinsError, missing_package
from swins.evaluate.result_tables import TEXT, cells
from swins.files import replacing
from swins.results import as_picture

SHOWN, ACROSS = 24, 6  # pictures of a sheet, and of a row of it
SIDE, LINE, GAP = 160, 16, 8  # pixels of a picture, of a line below it, and around
TEXT_SIZE = 12  # pixels of the letters


def check_folder(path) -> None:
    """Find out before a long run that a report can be written into a folder, which `write` makes.

    Raises:
        SwinsError: if there is a file of that name, or nothing may be written there.
    """
    path = pathlib.Path(path)
    if path.exists() and not path.is_dir():
        raise SwinsError(f"--report takes a folder; {path} is a file; choose another name")
    above = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise SwinsError(f"--report takes a folder that can be written; got {path}, and {above} cannot; choose another")


def ending(name) -> str:
    """An image's name with the folder that it is in, of which there may be one of that name in each."""
    return "/".join(pathlib.PurePath(name).parts[-2:])


def sheet(pictures):
    """A page of pictures with lines of text below each -> a PIL image.

    Args:
        pictures: (image as `open_image` takes it, lines) each.
    """
    from PIL import Image, ImageDraw, ImageFont

    lines = max(len(texts) for _, texts in pictures)
    wide, high = SIDE + 2 * GAP, SIDE + lines * LINE + 2 * GAP
    across = min(ACROSS, len(pictures))
    page = Image.new("RGB", (across * wide, -(-len(pictures) // across) * high), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(TEXT_SIZE)
    for place, (image, texts) in enumerate(pictures):
        left, top = place % across * wide + GAP, place // across * high + GAP
        picture = as_picture(image)
        scale = SIDE / max(picture.size)
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize(size, Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC)
        page.paste(picture, (left + (SIDE - size[0]) // 2, top + (SIDE - size[1]) // 2))
        for number, text in enumerate(texts):
            pen.text((left, top + SIDE + 2 + number * LINE), shortened(pen, text, SIDE, font), "black", font=font)
    return page


def write(task, rows, facts, samples, folder, say: Callable = lambda text: None) -> list[pathlib.Path]:
    """Write what a kind of work reports of its records -> the files written.

    Args:
        rows: [(name of an image, record)]; facts: of the model.
        samples: (name, image, truth) again, of which the mistakes' pictures are taken; they are read as far as needed.
        say: called with a line on what is left out for want of a package.
    """
    folder, records, written = pathlib.Path(folder), [record for _, record in rows], []
    folder.mkdir(parents=True, exist_ok=True)
    tables, made = dict(task.tables(records, facts)), task.report and task.report(rows, facts)
    for name, (header, lines) in {**tables, **(made.tables if made else {})}.items():
        with replacing(folder / f"{name}.csv") as partial, open(partial, "w", **TEXT) as file:
            csv.writer(file, lineterminator="\n").writerows([header, *map(cells, lines)])
        written.append(folder / f"{name}.csv")
    if not made:
        return written
    for name, draw in made.figures.items():
        try:
            figure = draw(records, facts)
        except ModuleNotFoundError as error:
            (folder / f"{name}.png").unlink(missing_ok=True)  # of an evaluation before
            package = error.name.partition(".")[0]
            say(f"left out: {missing_package(f'drawing {name}.png', package, 'plot')}; {name}.csv has its numbers")
            continue
        with replacing(folder / f"{name}.png") as partial:
            figure.savefig(partial, dpi=110, format="png")
        written.append(folder / f"{name}.png")
    wanted, found = dict(made.worst[:SHOWN]), {}
    for name, image, _ in samples:
        if len(found) == len(wanted):
            break
        if name in wanted:
            found[name] = image
    pictures = [(found[name], (*lines, ending(name))) for name, lines in wanted.items() if name in found]
    if pictures:
        with replacing(folder / "mistakes.png") as partial:
            sheet(pictures).save(partial, "PNG")
        written.append(folder / "mistakes.png")
    else:
        (folder / "mistakes.png").unlink(missing_ok=True)  # of an evaluation before
    return written
