"""Functions of at most 40 lines, files of at most 400 (DESIGN 15)."""

import ast

from tests.style.source import Function, modules, report

FUNCTION_LINES = 40
FILE_LINES = 400


def test_functions_are_short():
    report(
        f"a function has at most {FUNCTION_LINES} lines, its decorators and docstring included",
        [
            f"{module.at(node)} {node.name} has {lines}"
            for module in modules()
            for node in ast.walk(module.tree)
            if isinstance(node, Function) and (lines := length(node)) > FUNCTION_LINES
        ],
    )


def test_files_are_short():
    report(
        f"a file has at most {FILE_LINES} lines",
        [f"{module.at()} has {lines}" for module in modules() if (lines := len(module.text.splitlines())) > FILE_LINES],
    )


def length(node: Function) -> int:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return node.end_lineno - first + 1
