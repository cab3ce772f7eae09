"""From YAML to a checked `Config`, or to one line that says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline_lib.config.config import Config
from pipeline_lib.config.faults import describe
from pipeline_lib.core.errors import PipelineError


def load_config(path: Path) -> Config:
    """Read and check a YAML file; raises `PipelineError` with one line per file."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PipelineError(f"{path}: no such config file") from None
    except yaml.YAMLError as error:
        raise PipelineError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    return parse_config(content, source=str(path))


def parse_config(content: Any, source: str = "config") -> Config:
    """Check a config that is already a mapping; raises `PipelineError` with one line."""
    if not isinstance(content, Mapping):
        raise PipelineError(f"{source}: must be a mapping of keys to values, not {type(content).__name__}")
    try:
        return Config.model_validate(dict(content))
    except ValidationError as error:
        raise PipelineError(f"{source}: {describe(error, Config)}") from None
