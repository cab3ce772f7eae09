"""The digest of the code that a stage runs.

Snakemake sees a rule's own text, not the modules behind it. Each rule therefore has a parameter with the
digest of the modules that its stage imports, directly and indirectly: an edit of their logic re-runs exactly
the stages that import them. Comments, docstrings, blank lines and formatting don't count.

What was found out about a module is kept beside its bytecode, by the checksum of its text: every run of Snakemake asks
again, and to parse the whole library takes longer than all else that happens before the first job.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

PACKAGE = "pipeline_lib"
_ROOT = Path(__file__).resolve().parents[1]


class _Facts(NamedTuple):
    """What a module's text alone says: (module, name) of each import, name "" for the module itself; logic's digest."""

    named: tuple[tuple[str, str], ...]
    logic: str


@functools.cache
def code_digest(*modules: str) -> str:
    """Return a digest of the logic of these modules and of all modules of this package that they import.

    modules: dotted names, such as `pipeline_lib.features.extract`. Kinds are found by name at run time and
    so are invisible to an import search: name the kind's module too.
    """
    digest = hashlib.sha256()
    for module in sorted(imported_modules(*modules)):
        digest.update(f"{module}\0{_facts(module).logic}\0".encode())
    _keep()
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
def _text(module: str) -> str:
    path = _path(module)
    if path is None:
        raise ValueError(f"{module}: no such module in {PACKAGE}")
    return path.read_text(encoding="utf-8")


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_text(module))


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """Return the modules of this package that a module names in its import statements, wherever they stand.

    Imports for type checking only are no logic and are left out, as are the package's own `__init__` files,
    which are empty. Imports are absolute in this package.
    """
    found = set()
    for package, name in _facts(module).named:
        submodule = f"{package}.{name}"
        found.add(submodule if name and _path(submodule) else package)
    return frozenset(name for name in found if _path(name) and _path(name).name != "__init__.py")


@functools.cache
def _facts(module: str) -> _Facts:
    """Return what was kept about a module of this text, or parse it."""
    key, kept = _key(_text(module)), _kept()
    if module not in kept or kept[module][0] != key:
        logic = hashlib.sha256(_logic(module).encode()).hexdigest()
        kept[module] = [key, _named(_tree(module)), logic]
        _new.append(module)
    _, named, logic = kept[module]
    return _Facts(tuple((package, name) for package, name in named), logic)


def _named(tree: ast.Module) -> list[tuple[str, str]]:
    """Return (module, name) of every import of this package; name "" = the module itself."""
    found = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found += [(node.module, alias.name) for alias in node.names]
        waiting.extend(ast.iter_child_nodes(node))
    return sorted({(module, name) for module, name in found if module.split(".")[0] == PACKAGE})


def _logic(module: str) -> str:
    """Return the syntax tree of a module as text, without its documentation.

    Docstrings and the descriptions of config fields are left out; comments are not in the tree to begin with.
    """
    tree = ast.parse(_text(module))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
        elif isinstance(node, ast.Call):
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "description"]
    return ast.dump(tree)


_new: list[str] = []


def _key(text: str) -> str:
    """Return the checksum of a module's text and of the rules by which it is read, which stand in this file."""
    return hashlib.sha256(f"{_rules()}\0{text}".encode()).hexdigest()


@functools.cache
def _rules() -> str:
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def _kept_file() -> Path:
    # Python of another version writes another syntax tree.
    return _ROOT / "__pycache__" / f"code_digests.{sys.implementation.cache_tag}.json"


@functools.cache
def _kept() -> dict[str, list]:
    """Return the key, the imports and the digest of the logic of each module, as far as they were kept."""
    try:
        return json.loads(_kept_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _keep() -> None:
    """Write what is new beside the bytecode; where that can't be written, the next run parses again."""
    if not _new:
        return
    path = _kept_file()
    draft = path.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        draft.write_text(json.dumps(_kept()), encoding="utf-8")
        os.replace(draft, path)
    _new.clear()
