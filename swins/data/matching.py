"""Names of a data set's classes and of a model's, matched; and the orders that are taken where no names are known."""

import functools
import json
import pathlib
import re
import unicodedata
from dataclasses import dataclass

from swins.errors import SwinsError, first_line

MOST_LISTED = 20


@dataclass(frozen=True)
class Numbering:
    """The class number of each name of a data set, and lines on what was taken for what."""

    numbers: tuple
    notes: tuple = ()


def natural(name):
    """Sorting key of timm's folders: class2 before class10, whatever the case."""
    parts = re.split(r"(\d+)", name.lower())  # every other one is a number
    return [(0, int(part), "") if i % 2 else (1, 0, part) for i, part in enumerate(parts)]


ORDERS = {"natural": natural, "sorted": str}  # timm's; torchvision's ImageFolder's, Keras' and `swins train`'s


def spelling(name):
    """A name without case, spaces, hyphens and other punctuation; composed and decomposed letters are the same."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in text if unicodedata.category(c)[0] not in "PZC")


def listing(names):
    """Names in a line, at most 20."""
    shown = [*names[:MOST_LISTED], *["..."] * (len(names) > MOST_LISTED)]
    return ("; " if any("," in name for name in shown) else ", ").join(shown)


def places(key, texts):
    """{key of a text: numbers of the classes that have such a text}, for the texts of each class."""
    found = {}
    for number, own in enumerate(texts):
        for text in own:
            if key(text):  # a name of punctuation alone is spelt nohow
                found.setdefault(key(text), set()).add(number)
    return found


def by_name(source, names, known, synonyms=(), whose="the model's", remedy="rename the folders"):
    """Match names with known ones -> Numbering. Exactly first; then case and separators are forgiven, and that is said.

    Args:
        source: what an error names; whose: classes the known ones are; remedy: what to do.
        names: of the data's classes; known: of all classes, in the order of their numbers.
        synonyms: for each known name, others that mean the same.

    Raises:
        SwinsError: for names that are no known one, or could be several, or are one class twice, with both lists.
    """
    own = [(name,) for name in known]
    steps = ((str, own), (str, synonyms), (spelling, own), (spelling, synonyms))
    table = functools.cache(lambda step: places(*steps[step]))  # one of 22k classes takes a second
    found, wrong, respelt = {}, [], []
    for name in names:
        matches = ((table(i).get(key(name)), key is spelling) for i, (key, _) in enumerate(steps))
        numbers, forgiven = next((match for match in matches if match[0]), ((), False))
        if len(numbers) != 1:
            wrong.append(f"{name} (could be {len(numbers)})" if numbers else name)
            continue
        (number,) = numbers
        if number in found:
            wrong.append(f"{name} (is {known[number]} again)")
        found[number] = name
        if forgiven:
            respelt.append(f"{name} = {known[number]}")
    if wrong:
        raise SwinsError(
            f"{source}: classes must be {whose}; {len(wrong)} are not: {listing(wrong)}; {whose} are {len(known)}: "
            f"{listing(known)}; {remedy}"
        )
    notes = [f"classes that are spelt otherwise, and taken as the same: {listing(respelt)}"] if respelt else []
    if len(names) < len(known):
        notes.append(f"{source} has {len(names)} of the {len(known)} classes")
    return Numbering(tuple(found), tuple(notes))


def by_number(names, count):
    """Numbering of names that are numbers of classes, 0, 1, 2 ..., as ImageNet-V2's; None if they are not."""
    if not all(re.fullmatch("[0-9]+", name) for name in names):
        return None
    numbers = tuple(map(int, names))
    if len(set(numbers)) < len(numbers) or max(numbers, default=0) >= count:
        return None
    whole = set(numbers) == set(range(count))
    some = f"names of classes are taken as numbers from 0; {len(names)} of {count} classes are in the data"
    return Numbering(numbers, () if whole else (some,))


def by_order(names, order, choice=True):
    """Numbering of names by their place in an order of ORDERS; choice: say that another may be chosen."""
    ordered = sorted(names, key=lambda name: (ORDERS[order](name), name))
    place = {name: i for i, name in enumerate(ordered)}
    other = next(o for o in ORDERS if o != order)
    differs = sorted(names, key=lambda name: (ORDERS[other](name), name)) != ordered
    hint = f" (timm's folders are in natural order, ImageFolder's sorted; --class-order {other} takes the other)"
    note = f"classes are taken in {order} order: {listing(ordered)}{hint if differs and choice else ''}"
    return Numbering(tuple(place[name] for name in names), (note,))


def read_names(path):
    """Names of classes in the order of their numbers: a line a name, or JSON: a list, {name: number}, {number: name}.

    Raises:
        SwinsError: if it is none of these.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
        names = json.loads(text) if text.lstrip()[:1] in "[{" else [line for line in text.splitlines() if line.strip()]
        if isinstance(names, dict):
            pairs = [(int(v), k) if isinstance(v, int) else (int(k), v) for k, v in names.items()]
            names = [name for _, name in sorted(pairs)]
            if [number for number, _ in sorted(pairs)] != list(range(len(pairs))):
                raise ValueError("numbers must be 0, 1, 2 ..., each once")
        if not (names and all(isinstance(name, str) for name in names) and len(set(names)) == len(names)):
            raise ValueError("names must be texts, each once")
    except (OSError, ValueError, TypeError) as error:
        raise SwinsError(
            "--class-order must be natural, sorted or a file of class names, a line or an entry of JSON each; got "
            f"{path} ({first_line(error)})"
        ) from error
    return tuple(name.strip() for name in names)
