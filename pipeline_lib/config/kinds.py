"""Kinds of dataset, backbone and method, figures and tables: each is a module, found by its name.

A module in `pipeline_lib/datasets/`, `pipeline_lib/backbones/` or `pipeline_lib/methods/` that defines a class
`Options` (a config `Section` whose `kind` field is the module's name) is a kind; one in `pipeline_lib/figures/` that
defines `figure_of` is a figure, one in `pipeline_lib/tables/` with a `Spec` a table. Nothing needs to be registered:
adding one is adding a file. Modules are found by listing the folder and imported only when a config uses them.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import ValidationError

from pipeline_lib.config.faults import describe
from pipeline_lib.config.section import Section
from pipeline_lib.core.errors import PipelineError, did_you_mean, one_of

Family = Literal["datasets", "backbones", "methods", "figures", "tables"]
# By what a module is known; the others in its folder are what these share.
_DEFINES = {"figures": "def figure_of(", "tables": "class Spec("}
_PACKAGE_ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def kinds(family: Family) -> tuple[str, ...]:
    """Return the names of all kinds of a family, sorted."""
    mark = f"\n{_DEFINES.get(family, 'class Options(')}"
    return tuple(sorted(path.stem for path in (_PACKAGE_ROOT / family).glob("*.py") if mark in path.read_text()))


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


def label(module: ModuleType) -> str:
    """Return what the report calls a figure or table, with its number in the paper."""
    return f"{module.LABEL} ({module.PAPER})" if module.PAPER else str(module.LABEL)


def options_class(family: Family, kind: str) -> type[Section]:
    """Return the class that validates the config section of a kind."""
    return load(family, kind).Options


def validated(family: Family, section: Any, where: str) -> Section:
    """Return a config section, validated with the class of its kind; raises `ValueError` of one line about `where`."""
    if isinstance(section, Section):
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
