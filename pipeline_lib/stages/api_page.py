"""Print the page of the Python interface (docs/api.md) from the docstrings."""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pipeline_lib

# What a practitioner calls; a module's public functions and classes in its own order, or those that are named.
CONTENTS: dict[str, dict[str, tuple[str, ...] | None]] = {
    "Load a checkpoint": {
        "pipeline_lib.pretrained.loading": ("load",),
        "pipeline_lib.pretrained.model": ("PretrainedModel", "Transform", "rank"),
    },
    "Pass a checkpoint on": {
        "pipeline_lib.pretrained.hub": ("push",),
        "pipeline_lib.pretrained.exchange": ("write_onnx", "write_program"),
        "pipeline_lib.pretrained.reference": ("convert_reference",),
        "pipeline_lib.pretrained.overhead": None,
    },
    "Score images": {
        "pipeline_lib.scoring.images": ("ImageList",),
        "pipeline_lib.scoring.run": ("score_images",),
        "pipeline_lib.scoring.unfinished": None,
        "pipeline_lib.scoring.table": ("score_table", "write_scores"),
        "pipeline_lib.scoring.atlas": ("write_atlas",),
    },
    "Evaluate arrays": {
        "pipeline_lib.arrays.inputs": None,
        "pipeline_lib.arrays.evaluation": None,
        "pipeline_lib.arrays.report": ("write_report",),
    },
    "Use uncertainties": {
        "pipeline_lib.retrieval.safe_index": ("SafeIndex", "Found"),
        "pipeline_lib.calibration.calibrator": ("Calibrator",),
        "pipeline_lib.calibration.reliability": None,
        "pipeline_lib.figures.reliability": None,
        "pipeline_lib.calibration.risk_control": None,
        "pipeline_lib.calibration.simulation": None,
    },
    "Retrieval": {
        "pipeline_lib.retrieval.neighbours": None,
        "pipeline_lib.retrieval.restricted": None,
    },
    "Metrics": {
        "pipeline_lib.metrics.auroc": None,
        "pipeline_lib.metrics.retrieval": None,
        "pipeline_lib.metrics.selective": None,
        "pipeline_lib.metrics.correlation": None,
        "pipeline_lib.metrics.ood": None,
        "pipeline_lib.metrics.bootstrap": None,
        "pipeline_lib.metrics.classification": None,
        "pipeline_lib.metrics.summary": None,
    },
}
_INTRODUCTION = """\
# Python interface

What a practitioner calls from Python. `n` is a number of images, `d` the width of a representation. Made from the
docstrings by `make api`. What stands on the command line is in `python -m pipeline_lib --help`.
"""
_LINE = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This stage has no options."""


def run(arguments: argparse.Namespace) -> None:
    """Print the page."""
    sys.stdout.write(page())


def page() -> str:
    """Return the page as Markdown. The modules are read, not imported: it needs no torch."""
    parts = [_INTRODUCTION]
    for title, modules in CONTENTS.items():
        parts.append(f"## {title}\n")
        for module, names in modules.items():
            parts += _module(module, names)
    return "\n".join(parts)


def _module(module: str, names: tuple[str, ...] | None) -> Iterator[str]:
    path = Path(pipeline_lib.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    definitions = {
        node.name: node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    }
    for name in definitions if names is None else names:
        yield f"### {name}\n\n`{module}`\n"
        yield from _definition(definitions[name])


def _definition(node: ast.FunctionDef | ast.ClassDef) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef):
        yield f"```python\n{_signature(node.name, node)}\n```\n"
        yield _markdown(ast.get_docstring(node) or "")
        return
    methods = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
    fields = [ast.unparse(each) for each in node.body if isinstance(each, ast.AnnAssign)]
    made = _signature(node.name, methods["__init__"], is_method=True) if "__init__" in methods else f"class {node.name}"
    yield "```python\n" + "\n".join([made.removesuffix(" -> None"), *(f"    {field}" for field in fields)]) + "\n```\n"
    yield _markdown(ast.get_docstring(node) or "")
    for name, method in methods.items():
        # A magic method but the constructor and the call is Python's business, and its docstring not there.
        docstring = ast.get_docstring(method)
        if docstring and (not name.startswith("_") or name in ("__init__", "__call__")):
            yield f"#### {node.name}.{name}\n" if name != "__init__" else f"#### {node.name}(...)\n"
            if name != "__init__" and not any(ast.unparse(each) == "property" for each in method.decorator_list):
                yield f"```python\n{_signature(name, method, is_method=True)}\n```\n"
            yield _markdown(docstring)


def _signature(name: str, node: ast.FunctionDef, is_method: bool = False) -> str:
    """Return `name(arguments) -> type`, an argument per line where it is long."""
    arguments = [each.strip() for each in _split(ast.unparse(node.args))][int(is_method) :]
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    text = f"{name}({', '.join(arguments)}){returned}"
    if len(text) <= _LINE:
        return text
    return f"{name}(\n" + "".join(f"    {each},\n" for each in arguments) + f"){returned}"


def _split(arguments: str) -> list[str]:
    """Split at the commas that are not inside brackets."""
    parts, depth, start = [], 0, 0
    for place, character in enumerate(arguments):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(arguments[start:place])
            start = place + 1
    return [*parts, arguments[start:]] if arguments else []


def _markdown(docstring: str) -> str:
    """Return a docstring as Markdown: its headings in bold, its descriptions of parameters as a list."""
    pieces = re.split(r"(`[^`]*`)", docstring)
    text = "".join(piece if piece.startswith("`") else re.sub(r"([<*])", r"\\\1", piece) for piece in pieces)
    text = re.sub(r"^(\w+)\n-{3,}\n", r"**\1**\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"^(\w[\w, ]*)\n((?: {4}.*\n?)+)", _item, text, flags=re.MULTILINE)
    text = re.sub(r"^(\w+(?:, \w+)*): ", r"- `\1`: ", text, flags=re.MULTILINE)
    # A list needs an empty line before it and after it.
    text = re.sub(r"(?<!\n)\n(?=Raises |Returns )", "\n\n", text)
    return re.sub(r"^(?!- | |\n)(.*)\n- ", r"\1\n\n- ", text, flags=re.MULTILINE) + "\n"


def _item(match: re.Match[str]) -> str:
    described = " ".join(line.strip() for line in match[2].splitlines())
    return f"- `{match[1]}`: {described}\n"
