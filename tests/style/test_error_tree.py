"""The tree drawn at the top of core/errors.py is the tree of its classes."""

import inspect
import re

from headrace.core import errors

DRAWN = re.compile(r"^(?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w*Error)\b")
COLUMNS_PER_LEVEL = 2


def test_the_drawn_tree_is_the_real_one():
    assert drawn(errors.__doc__) == real()


def drawn(text: str) -> dict[str, str | None]:
    """name -> parent, read from the drawing; what stands behind a name is a remark."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in text.splitlines():
        if (match := DRAWN.match(line)) and (match["branch"] or not parents):
            depth = len(match["branch"]) // COLUMNS_PER_LEVEL
            path[depth:] = [match["name"]]
            parents[match["name"]] = path[depth - 1] if depth else None
    return parents


def real() -> dict[str, str | None]:
    """name -> parent, of the classes that errors.py itself defines; the first base counts."""
    return {
        name: parent_of(error)
        for name, error in inspect.getmembers(errors, inspect.isclass)
        if issubclass(error, Exception) and error.__module__ == errors.__name__
    }


def parent_of(error: type[Exception]) -> str | None:
    return None if error is errors.HeadraceError else error.__bases__[0].__name__
