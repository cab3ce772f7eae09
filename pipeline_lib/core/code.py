"""The digest of the code behind a component: a stage, or a kind, loss, metric, figure ... that is found by name.

It covers the logic of the component's module and of every module of this package that it imports, at any depth.
What can't change a result doesn't count: comments, docstrings, formatting, the texts of raised messages, of progress,
logs and help, and the version of Python. Modules that only talk to the user or the scheduler are left out whole.

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
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "pipeline_lib"
_ROOT = Path(__file__).resolve().parents[1]
# They say something, watch something or decide what runs; no byte of an artefact depends on them.
_SILENT = frozenset(
    f"{PACKAGE}.{name}"
    for name in (
        *("core.code", "core.drafts", "core.errors", "core.gpu_slots", "core.jobs", "core.progress", "core.runner"),
        *("core.software", "core.spec", "core.versions", "config.faults", "stages.command", "stages.arguments"),
    )
)
# What is said to the user through these counts as little as what is raised.
_TEXT_CALLS = frozenset({"print", "warn", "Progress", "Input", "add_argument", "debug", "info", "warning", "error"})
_TEXT_KEYWORDS = frozenset({"description", "help", "metavar"})


class _Facts(NamedTuple):
    """What a module's text alone says: (module, name) of each import, name "" for the module itself; logic's digest."""

    named: tuple[tuple[str, str], ...]
    logic: str


@functools.cache
def code_digest(component: str) -> str:
    """Return the digest of the logic behind a component.

    Parameters
    ----------
    component : str
        Its module without the package's name, such as `stages.head` or `datasets.folder`.
    """
    digest = hashlib.sha256()
    for module in sorted(imported_modules(f"{PACKAGE}.{component}") - _SILENT):
        digest.update(f"{module}\0{_facts(module).logic}\0".encode())
        for template in _templates(module):
            digest.update(template.read_bytes())
    _keep()
    return digest.hexdigest()[:16]


def imported_modules(module: str) -> set[str]:
    """Return a module and every module of this package that it imports, at any depth."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting.extend(_imports(current))
    return found


def packages(component: str) -> set[str]:
    """Return the packages of others that a component's code imports, at any depth, by the name that is imported."""
    module = f"{PACKAGE}.{component}"
    modules = imported_modules(module) - _SILENT if _path(module) else ()
    named = {package.split(".")[0] for module in modules for package, _ in _facts(module).named}
    _keep()
    return named - sys.stdlib_module_names - {PACKAGE}


@functools.cache
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
def _templates(module: str) -> list[Path]:
    """Return the pages that lie beside a module under its name, such as `card_page.html`."""
    path = _path(module)
    found = (path.with_suffix(suffix) for suffix in (".css", ".html", ".js")) if path else ()
    return [template for template in found if template.exists()]


@functools.cache
def _text(module: str) -> str:
    path = _path(module)
    if path is None:
        raise ValueError(f"{module}: no such module in {PACKAGE}")
    return path.read_text(encoding="utf-8")


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """Return the modules of this package that a module names in its import statements, wherever they stand.

    Imports for type checking only are no logic and are left out. Imports are absolute in this package.
    """
    found = set()
    for package, name in _facts(module).named:
        submodule = f"{package}.{name}"
        found.add(submodule if name and _path(submodule) else package)
    return frozenset(name for name in found if _path(name) is not None)


@functools.cache
def _facts(module: str) -> _Facts:
    """Return what was kept about a module of this text, or parse it."""
    key, kept = hashlib.sha256(f"{_rules()}\0{_text(module)}".encode()).hexdigest(), _kept()
    if module not in kept or kept[module][0] != key:
        kept[module] = [key, _named(ast.parse(_text(module))), logic_digest(_text(module))]
        _new.append(module)
    _, named, logic = kept[module]
    return _Facts(tuple((package, name) for package, name in named), logic)


def _named(tree: ast.Module) -> list[tuple[str, str]]:
    """Return (module, name) of every import; name "" = the module itself."""
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
    return sorted(set(found))


def logic_digest(source: str) -> str:
    """Return the digest of the logic of a Python file: its syntax tree without what only a person reads."""
    tree = _WithoutTexts().visit(ast.parse(source))
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            _drop_unused_texts(node)
    return hashlib.sha256("\n".join(_lines(tree)).encode()).hexdigest()


class _WithoutTexts(ast.NodeTransformer):
    """Removes docstrings, and the texts that are raised, printed, or shown as help or progress."""

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
        return super().visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return None
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return _Emptied().visit(self.generic_visit(node))

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        node.keywords = [keyword for keyword in node.keywords if keyword.arg not in _TEXT_KEYWORDS]
        function = node.func
        name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", None)
        return _Emptied().visit(node) if name in _TEXT_CALLS else node


class _Emptied(ast.NodeTransformer):
    """Makes every text in an expression empty."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return ast.Constant("")

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        return ast.Constant("") if _is_empty(node.left) or _is_empty(node.right) else node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        return ast.Constant("") if _is_empty(node.body) or _is_empty(node.orelse) else node


def _is_empty(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == ""


def _drop_unused_texts(function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Remove `name = "text"` where nothing but the text of a message, by now removed, read the name."""
    used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    for node in ast.walk(function):
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, None)
            if isinstance(statements, list):
                setattr(node, field, [each for each in statements if not _is_unused_text(each, used)])


def _is_unused_text(statement: ast.stmt, used: set[str]) -> bool:
    return (
        isinstance(statement, ast.Assign)
        and isinstance(statement.value, (ast.Constant, ast.JoinedStr))
        and (not isinstance(statement.value, ast.Constant) or isinstance(statement.value.value, str))
        and all(isinstance(target, ast.Name) and target.id not in used for target in statement.targets)
    )


def _lines(node: ast.AST, depth: int = 0) -> Iterator[str]:
    """Yield a syntax tree as text that every version of Python writes alike: fields that are empty are left out."""
    yield f"{' ' * depth}{type(node).__name__}"
    for name, value in ast.iter_fields(node):
        if name in ("type_comment", "kind", "returns") or (name == "annotation" and isinstance(node, ast.arg)):
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                yield f"{' ' * depth}.{name}"
                yield from _lines(item, depth + 1)
            elif item is not None:
                yield f"{' ' * depth}.{name}={item!r}"


_new: list[str] = []


@functools.cache
def _rules() -> str:
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def _kept_file() -> Path:
    return _ROOT / "__pycache__" / "code_digests.json"


@functools.cache
def _kept() -> dict[str, list]:
    """Return the key, the imports and the digest of the logic of each module, as far as they were kept."""
    try:
        kept = json.loads(_kept_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


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
