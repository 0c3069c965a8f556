"""Griffe's extension of the site: examples in docstrings, which doctest runs, as its Google style knows them."""

import re

import griffe

EXAMPLE = re.compile(r"^Example:\n((?:(?:>>>|\.\.\.|\S|[ \t]).*\n?)+)", re.MULTILINE)


class Examples(griffe.Extension):
    """Turns "Example:" above lines of doctest into a section "Examples:" whose lines are indented."""

    def on_object(self, *, obj, **kwargs):
        """Change the docstring of a function, class or module that was read."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(indented, obj.docstring.value)


def indented(match):
    """The section of an example."""
    return "Examples:\n" + "".join(f"    {line}\n" for line in match[1].splitlines())
