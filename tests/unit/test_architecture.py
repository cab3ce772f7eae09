"""The rooms of the library are those of docs/architecture.md, and import in that order; light stages stay light."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_lib.core.code import imported_modules
from tests.benchmarks.__main__ import BENCHMARKS

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "pipeline_lib"
ROOMS = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
TORCHLESS = [
    "baselines",
    "evaluate_heads",
    "safe_retrieval",
    "deteriorations",
    "projection",
    "projection_page",
    "metrics",
]
TORCHLESS += [
    "provenance",
    "table",
    "figure",
    "report",
    "evaluate",
    "dataset",
    "dataset_card",
    "calibrate",
    "export",
    "verify",
]
TORCHLESS += ["feature_statistics", "score_features"]


def imports(source: str) -> Iterator[str]:
    """Yield what a file imports, as dotted names; imports for type checking are left out."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        waiting += ast.iter_child_nodes(node)


def test_the_page_lists_every_room() -> None:
    assert sorted(ROOMS) == sorted(path.parent.name for path in LIBRARY.glob("*/__init__.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_those_above_it(room: str) -> None:
    allowed = ROOMS[: ROOMS.index(room) + 1]
    for path in (LIBRARY / room).rglob("*.py"):
        for name in imports(path.read_text()):
            package, _, rest = name.partition(".")
            other = rest.split(".")[0]
            assert package != "pipeline_lib" or other not in ROOMS or other in allowed, f"{path} imports {name}"


@pytest.mark.parametrize("stage", TORCHLESS)
def test_a_stage_that_needs_no_torch_does_not_import_it(stage: str) -> None:
    """Evaluation, tables and figures: torch alone takes seconds."""
    for module in imported_modules(f"pipeline_lib.stages.{stage}"):
        path = ROOT.joinpath(*module.split("."))
        source = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        assert "torch" not in {name.split(".")[0] for name in imports(source.read_text())}, f"{module} imports torch"


def test_a_dry_run_imports_nothing_heavy() -> None:
    code = (
        "import importlib, pkgutil, sys, pipeline_lib.stages as stages\n"
        "for module in pkgutil.iter_modules(stages.__path__):\n"
        "    importlib.import_module(f'pipeline_lib.stages.{module.name}')\n"
        "print(*{'torch', 'timm', 'pandas', 'matplotlib', 'sklearn', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_can_be_started(name: str) -> None:
    """None is run here, so that one which the library has left behind would be noticed by a user alone."""
    assert callable(importlib.import_module(f"tests.benchmarks.benchmark_{name}").main)
