"""The one error that doors catch: its text states the rule, the fact and the remedy."""

import difflib
import re
import signal

ADDRESS = re.compile(r" <[\w.]+ object at 0x[0-9a-fA-F]+>")  # of the object that a library could not read


class SwinsError(ValueError):
    """Bad input from a user: a name, a size, a file or a checkpoint that cannot work."""


def install(*extras):
    """What to type for the packages of extras: swins that is installed, whichever way, has them by its name."""
    names = ",".join(extras)
    return f"pip install 'swins[{names}]' where swins is installed, pip install '.[{names}]' in a clone"


def missing_package(purpose, package, extra):
    """SwinsError for a package that something needs and an extra brings."""
    return SwinsError(f"{purpose} needs {package}: {install(extra)}")


def first_line(error):
    """The first line of an error's text without objects' addresses, or its type when it has none."""
    return ADDRESS.sub("", next(iter(str(error).splitlines()), "")) or type(error).__name__


def ending(code, said, most=400):
    """How a process ended that failed, and the last it said without the lines of a traceback.

    Args:
        code: its exit code, negative for a signal's number.
        said: text of its standard error.
        most: characters of it that are given.
    """
    how = signal.Signals(-code).name if code < 0 else f"code {code}"
    lines = said.strip().splitlines()
    begin = next((i for i in range(len(lines), 0, -1) if lines[i - 1].startswith((" ", "Traceback "))), len(lines) - 1)
    last = " ".join(lines[begin:] or lines[-1:])[:most].strip()
    return f"its process ended with {how}{last and f'; the last that it said: {last}'}"


def words(name):
    """The words of a name, in small letters: "microsoft/SwinV2-T" -> ["swinv2", "t"]."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.rpartition("/")[2]).lower()
    return [word for word in re.split(r"[^a-z0-9]+", re.sub(r"_(v\d)", r"\1", name)) if word]


def likeness(word, candidate, i):
    """How well a word of a name stands for word i of a candidate's: 1 the same, 0 not at all.

    It may be its beginning, as t is of tiny; the initials of it and those that follow, as lr is of learning_rate; or
    misspelt.
    """
    if word == candidate[i] and len(word) > 1:  # a letter alone says no more than a beginning
        return 1.0
    if candidate[i].startswith(word):
        return 0.9
    if len(word) > 1 and word == "".join(part[0] for part in candidate[i : i + len(word)]):
        return 0.9
    letters = [re.sub(r"\d", "", text) for text in (word, candidate[i])]
    if letters[0] == letters[1] and len(letters[0]) > 1:  # of another size
        return 0.8
    ratio = difflib.SequenceMatcher(None, word, candidate[i]).ratio()
    return 0.8 * ratio if ratio >= 0.7 else 0.0


def closeness(name, candidate):
    """How close a candidate is to a name: the share of its words that it has, in their order; whether it begins so."""
    asked, there, start, total = words(name), words(candidate), 0, 0.0
    for word in asked:
        scores = [likeness(word, there, i) for i in range(start, len(there))]
        if scores and max(scores):
            total += max(scores)
            start += scores.index(max(scores)) + 1
    joined = "_".join(asked)
    begins = "_".join(there).startswith(joined) or all(a.startswith(b) for a, b in zip(there, asked, strict=False))
    return round(total / max(len(asked), 1), 6), begins


def unknown_name(kind, name, known):
    """SwinsError for a name that is not in `known`, listing the three closest names."""
    close = {candidate: closeness(name, candidate) for candidate in known}
    best = sorted(close, key=lambda candidate: close[candidate], reverse=True)[:3]  # those alike as they are listed
    best = [candidate for candidate in best if close[candidate][0] >= 0.3]
    best = best or difflib.get_close_matches(name, known, n=3, cutoff=0.3)
    hint = f"the closest are {', '.join(best)}" if best else f"known: {', '.join(sorted(known)[:5])}, ..."
    remedy = "; `swins list` prints all" if kind == "variant" else ""
    return SwinsError(f"unknown {kind} {name!r}: {hint}{remedy}")
