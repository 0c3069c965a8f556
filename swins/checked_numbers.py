"""Numbers that describe a network, of whatever kind: checked, and brought to one form."""

import operator

from swins.errors import SwinsError

ANY = (None, None)  # the image_size of a model that takes every size


def integers(name, value, count):
    """An integer, repeated, or `count` integers -> a tuple of them. Raises SwinsError for anything else."""
    try:
        sides = (value,) * count if hasattr(value, "__index__") else tuple(value)
        found = tuple(operator.index(side) for side in sides)
    except TypeError as error:
        raise SwinsError(f"{name} must be an integer or {count} integers; got {value!r}") from error
    if len(found) != count:
        raise SwinsError(f"{name} must have one value or {count}; got {len(found)}: {value!r}")
    return found


def natural(name, value):
    """An integer of at least 0."""
    (number,) = integers(name, value, 1)
    if number < 0:
        raise SwinsError(f"{name} must be at least 0; got {number}")
    return number


def pair(value):
    """Pixels or a pair of them -> (vertical, horizontal); ANY stays."""
    return ANY if isinstance(value, list | tuple) and tuple(value) == ANY else integers("image_size", value, 2)


def tuples(value):
    """Lists, as JSON has them, as tuples."""
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value
