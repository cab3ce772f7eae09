"""The digest of the code that a stage runs.

Snakemake sees a rule's own text, not the modules behind it. Each rule therefore has a parameter with the
digest of the modules that its stage imports, directly and indirectly: an edit of their logic re-runs exactly
the stages that import them. Comments, docstrings, blank lines and formatting don't count.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

PACKAGE = "pipeline_lib"
_ROOT = Path(__file__).resolve().parent


def code_digest(*modules: str) -> str:
    """Return a digest of the logic of these modules and of all modules of this package that they import.

    modules: dotted names, such as `pipeline_lib.features.extract`. Kinds are found by name at run time and
    so are invisible to an import search: name the kind's module too.
    """
    digest = hashlib.sha256()
    for module in sorted(imported_modules(*modules)):
        digest.update(f"{module}\0{_logic(module)}\0".encode())
    return digest.hexdigest()[:16]


def imported_modules(*modules: str) -> set[str]:
    """Return these modules and every module of this package that they import, at any depth."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting.extend(_imports(module))
    return found


def _path(module: str) -> Path | None:
    """Return the file of a module of this package, or None when there is none of that name."""
    if module != PACKAGE and not module.startswith(PACKAGE + "."):
        return None
    base = _ROOT.joinpath(*module.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@functools.cache
def _tree(module: str) -> ast.Module:
    path = _path(module)
    if path is None:
        raise ValueError(f"{module}: no such module in {PACKAGE}")
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """Return the modules of this package that a module names in its import statements, wherever they stand.

    Imports for type checking only are no logic and are left out, as are the package's own `__init__` files,
    which are empty. Imports are absolute in this package.
    """
    found = set()
    waiting: list[ast.AST] = [_tree(module)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if _path(submodule) else node.module)
        waiting.extend(ast.iter_child_nodes(node))
    return frozenset(name for name in found if _path(name) and _path(name).name != "__init__.py")


@functools.cache
def _logic(module: str) -> str:
    """Return the syntax tree of a module as text, without its documentation.

    Docstrings and the descriptions of config fields are left out; comments are not in the tree to begin with.
    """
    tree = _tree(module)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
        elif isinstance(node, ast.Call):
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "description"]
    return ast.dump(tree)
