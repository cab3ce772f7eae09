"""Kinds of dataset, backbone, method, task loss and head loss, metrics, figures and tables: modules, found by name.

A module in the folder of such things that defines a class `Options` (a config `Section` whose `kind` field is the
module's name) is a kind; one in `pipeline_lib/figures/` that defines `figure_of` is a figure, one in
`pipeline_lib/tables/` with a `Spec` a table, one in `pipeline_lib/metrics/` that lists `METRICS` has metrics. Nothing
needs to be registered: adding one is adding a file. Modules are found by listing the folder and imported only when
they are used.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import BeforeValidator, ValidationError

from pipeline_lib.config.faults import describe
from pipeline_lib.config.section import KindSection
from pipeline_lib.core.errors import PipelineError, did_you_mean, one_of

Family = Literal[
    "datasets",
    "backbones",
    "methods",
    "task_losses",
    "heads.losses",
    "metrics",
    "metrics.representation",
    "figures",
    "tables",
]
# By what a module is known; the others in its folder are what these share.
_DEFINES = {
    "metrics": r"METRICS\b.*=",
    "metrics.representation": r"METRICS\b.*=",
    "figures": r"def figure_of\(",
    "tables": r"class Spec\(",
}
_PACKAGE_ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def kinds(family: Family) -> tuple[str, ...]:
    """Return the names of all kinds of a family, sorted."""
    mark = re.compile("^" + _DEFINES.get(family, r"class Options\("), re.MULTILINE)
    files = _PACKAGE_ROOT.joinpath(*family.split(".")).glob("*.py")
    return tuple(sorted(path.stem for path in files if mark.search(path.read_text(encoding="utf-8"))))


def module_name(family: Family, kind: str) -> str:
    """Return the dotted module of a kind; raises `PipelineError` with the known kinds when there is none."""
    if kind not in kinds(family):
        raise PipelineError(
            f"kind '{kind}' of {family} is unknown; allowed: {one_of(kinds(family))}{did_you_mean(kind, kinds(family))}"
        )
    return f"pipeline_lib.{family}.{kind}"


def load(family: Family, kind: str) -> ModuleType:
    """Import the module of a kind."""
    return importlib.import_module(module_name(family, kind))


def wanted(family: Literal["figures", "tables"], config: Any) -> dict[str, ModuleType]:
    """Return the figures or tables that a config has, by name: all, but those whose function `wanted` says no."""
    found = {name: load(family, name) for name in kinds(family)}
    return {name: module for name, module in found.items() if not hasattr(module, "wanted") or module.wanted(config)}


def components(family: Literal["figures", "tables"], name: str, config: Any) -> list[str]:
    """Return the components whose code makes a figure or table: its module, and what its function `plugins` names."""
    module = load(family, name)
    return [f"{family}.{name}", *(module.plugins(config) if hasattr(module, "plugins") else ())]


def label(module: ModuleType) -> str:
    """Return what the report calls a figure or table, with its number in the paper."""
    return f"{module.LABEL} ({module.PAPER})" if module.PAPER else str(module.LABEL)


def options_class(family: Family, kind: str) -> type[KindSection]:
    """Return the class that validates the config section of a kind."""
    name = module_name(family, kind)
    # Networks are classes of torch, so that the module of a method can't but import it.
    module = _options_alone(name) if family == "methods" else importlib.import_module(name)
    options: type[KindSection] = module.Options
    return options


@functools.cache
def _options_alone(name: str) -> ModuleType:
    """Return a module with the `Options` of a file: the class, and the imports of the names in it, are run.

    The config needs no more of a method. Importing torch takes 2.5 seconds and 300 MB.
    """
    path = _PACKAGE_ROOT.joinpath(*name.split(".")[1:]).with_suffix(".py")
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    options = next(node for node in statements if isinstance(node, ast.ClassDef) and node.name == "Options")
    used = {node.id for node in ast.walk(options) if isinstance(node, ast.Name)} | {"annotations"}
    run: list[ast.stmt] = []
    for statement in statements:
        if isinstance(statement, ast.ImportFrom):
            statement.names = [alias for alias in statement.names if (alias.asname or alias.name) in used]
            run += [statement] if statement.names else []
    module = ModuleType(f"{name}:Options")
    sys.modules[module.__name__] = module  # where pydantic looks up the names in annotations
    exec(compile(ast.Module([*run, options], []), path, "exec"), module.__dict__)
    return module


def kinds_by_option(family: Family) -> dict[str, list[str]]:
    """Return the options of a family's kinds, each with the kinds that have it."""
    found: dict[str, list[str]] = {}
    for kind in kinds(family):
        for name in options_class(family, kind).model_fields.keys() - {"kind"}:
            found.setdefault(name, []).append(kind)
    return found


def option_schemas(family: Family) -> dict[str, Any]:
    """Return the JSON Schema of each option of a family's kinds, by name."""
    schemas = [options_class(family, kind).model_json_schema()["properties"] for kind in kinds(family)]
    return {name: schema for properties in schemas for name, schema in properties.items() if name != "kind"}


def validated(family: Family, section: Any, where: str) -> KindSection:
    """Return a config section, validated with the class of its kind; raises `ValueError` of one line about `where`."""
    if isinstance(section, KindSection):
        return section
    if not isinstance(section, Mapping) or "kind" not in section:
        raise ValueError(f"{where}: needs a 'kind'; allowed: {one_of(kinds(family))}")
    try:
        options = options_class(family, str(section["kind"]))
        return options.model_validate(dict(section))
    except PipelineError as error:
        raise ValueError(f"{where}: {error}") from None
    except ValidationError as error:
        raise ValueError(describe(error, options, prefix=where)) from None


def dispatched(family: Family, where: str) -> BeforeValidator:
    """Return what lets a field hold a section of any kind of a family, validated by the class of its kind."""
    return BeforeValidator(lambda section: validated(family, section, where), json_schema_input_type=Any)
