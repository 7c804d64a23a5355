"""Every public module, class and function says what it is for."""

import ast
from collections.abc import Iterator

from tests.style.source import Function, Module, modules, report


def test_public_names_have_docstrings():
    report(
        "what is public has a docstring",
        [
            f"{module.at(node)} {getattr(node, 'name', module.name)}"
            for module in modules()
            for node in public(module)
            if not ast.get_docstring(node)
        ],
    )


def public(module: Module) -> Iterator[ast.Module | ast.ClassDef | Function]:
    if any(part.startswith("_") for part in module.name.split(".")):
        return
    yield module.tree
    for node in module.tree.body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield node
