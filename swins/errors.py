"""The one error that doors catch: its text states the rule, the fact and the remedy."""

import difflib


class SwinsError(ValueError):
    """Bad input from a user: a name, a size, a file or a checkpoint that cannot work."""


def first_line(error):
    """The first line of an error's text, or its type when it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def unknown_name(kind, name, known):
    """SwinsError for a name that is not in `known`, listing the three closest names."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
    hint = f"the closest are {', '.join(close)}" if close else f"known: {', '.join(sorted(known)[:5])}, ..."
    remedy = "; `swins list --pretrained` prints all" if kind == "variant" else ""
    return SwinsError(f"unknown {kind} {name!r}: {hint}{remedy}")
