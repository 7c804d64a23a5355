"""No import from the package root or from the own folder's __init__: that is where circles come from (DESIGN 3)."""

import ast
from collections.abc import Iterator

from tests.style.source import Module, modules, report


def test_no_module_imports_the_root_or_its_own_folder():
    report(
        "import from the module that defines the name, not from an __init__",
        [
            f"{module.at(node)} imports from {source}"
            for module in modules()
            if not module.is_package
            for node, source in imported(module)
            if source in {"headrace", module.package}
        ],
    )


def test_init_files_only_re_export():
    report(
        "an __init__ holds a docstring, imports, __all__, and nothing else",
        [
            f"{module.at(node)} holds more than re-exports"
            for module in modules()
            if module.is_package
            for node in module.tree.body
            if not is_re_export(node)
        ],
    )


def imported(module: Module) -> Iterator[tuple[ast.stmt, str]]:
    """Where each import takes its names from; a sibling module taken whole comes from itself."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            names = {alias.name for alias in node.names}
            yield node, f"{source}.*" if source != "headrace" and names <= submodules(source) else source


def submodules(package: str) -> set[str]:
    return {module.name.rpartition(".")[2] for module in modules() if module.name.rpartition(".")[0] == package}


def is_re_export(node: ast.stmt) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__version__")]):
            return True
        case _:
            return False
