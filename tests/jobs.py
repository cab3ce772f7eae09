"""Run one job of a stage in this process, as `python -m pipeline_lib <stage>` would."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline_lib.core.jobs import Settings
from pipeline_lib.stages import command


def run(
    stage: str,
    spec: Mapping[str, Any],
    output: Path,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    **inputs: Path | Sequence[Path] | None,
) -> Path:
    """Make an artefact from a spec of plain values and the folders of its inputs; returns `output`."""
    module = importlib.import_module(f"pipeline_lib.stages.{stage}")
    if hasattr(module, "INPUTS"):
        module.run(command.by_hand(stage, module, spec, output, inputs, settings))
    else:  # TRANSITION: until every stage is typed
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        defaults = {action.dest: action.default for action in parser._actions if action.dest != "help"}
        several = stage == "features"
        given = {"spec": [dict(spec)] if several else dict(spec), "output": [output] if several else output}
        module.run(argparse.Namespace(**{**defaults, **vars_of(settings, defaults), **inputs, **given}))
    return output


def vars_of(settings: Settings, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a stage takes."""
    return {name: value for name, value in vars(settings).items() if name in defaults}
