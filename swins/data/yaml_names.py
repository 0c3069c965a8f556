"""The part of YAML that Ultralytics' data.yaml is written in: texts, lists of texts, and numbered texts.

Nothing is executed, no tag obeyed, no alias followed: a value of another kind is left out.
"""

import json
import re

from swins.errors import SwinsError

QUOTED = r"(?<![^\s,\[{:\-])(?:\"(?:\\.|[^\"\\])*\"|'(?:''|[^'])*')"  # where a value can begin
MEANT_OTHERWISE = tuple("[]{}&*!|>%@`")  # what no plain text begins with
KEY = re.compile(rf"({QUOTED}|[^\s\"'\[{{#\-:][^:#]*?|\d+)\s*:(?:\s+(.*))?$")


def without_comment(line):
    """A line up to a # that is in no quotes and after a space or at the beginning."""
    kept = re.match(rf"(?:{QUOTED}|(?<=\S)#|[^#])*", line)
    return kept.group().rstrip()


def text_of(token):
    """The text of a scalar, plain or in quotes. Raises ValueError for what is no text."""
    token = token.strip()
    if token[:1] == "'" == token[-1:] and len(token) > 1:
        return token[1:-1].replace("''", "'")
    if token[:1] == '"' == token[-1:] and len(token) > 1:
        return json.loads(token)
    if token.startswith(MEANT_OTHERWISE):
        raise ValueError(f"{token:.50} is no text")
    return token


def pieces(text):
    """The parts of a list or mapping in brackets, between commas that are in no quotes."""
    parts = re.findall(rf"\s*((?:{QUOTED}|[^,])*)(?:,|$)", text.strip()[1:-1].strip())
    return [part for part in parts if part.strip()]


def paired(part):
    """(key, value) of "key: value" as texts. Raises ValueError for other texts."""
    match = KEY.match(part.strip())
    if match is None:
        raise ValueError(f"{part.strip():.50} is no key: value")
    return text_of(match[1]), text_of(match[2] or "")


def value_of(lines):
    """What the lines of a key hold, the first being what stands beside it: a text, a list or a dict of texts."""
    first, rest = lines[0].strip(), [line for line in lines[1:] if line.strip()]
    whole = " ".join([first, *(line.strip() for line in rest)])
    if whole[:1] in "[{" and whole:
        if whole[-1:] != {"[": "]", "{": "}"}[whole[0]]:
            raise ValueError(f"{whole:.50} does not end")
        parts = pieces(whole)
        return [text_of(part) for part in parts] if whole[0] == "[" else dict(map(paired, parts))
    if first or not rest:
        return text_of(whole)
    if all(re.match(r"\s*-(\s|$)", line) for line in rest):
        return [text_of(line.strip()[1:]) for line in rest]
    return dict(map(paired, rest))


def read_yaml(path) -> dict:
    """{key: text, list of texts, or dict of texts} of a file's outermost mapping; what is none of these is left out.

    Raises:
        SwinsError: if it is no text in UTF-8, or a list of names cannot be read.
    """
    try:
        lines = [without_comment(line) for line in path.read_text(encoding="utf-8-sig").splitlines()]
        blocks = {}
        for line in lines:
            match = None if line[:1] in ("", " ", "\t", "-", "]", "}") else KEY.match(line)
            if match:
                key = text_of(match[1])
                blocks[key] = [match[2] or ""]
            elif blocks and line.strip():
                blocks[key].append(line)
    except (OSError, ValueError) as error:
        raise SwinsError(f"{path}: not a YAML in UTF-8 ({error}); save it as such") from error
    facts = {}
    for key, block in blocks.items():
        try:
            facts[key] = value_of(block)
        except (ValueError, RecursionError) as error:
            if key == "names":
                raise SwinsError(f"{path}: names must be a list, or numbers with names; {error}") from error
    return facts
