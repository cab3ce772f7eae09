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
    return parse_config(read_yaml(path), source=str(path))


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file; raises `PipelineError` for a key that a mapping has twice.

    YAML's reader would take the last one in silence.
    """
    try:
        loader = yaml.SafeLoader(Path(path).read_text(encoding="utf-8"))
        root = loader.get_single_node()
        if root is None:
            return None
        _require_distinct_keys(root, str(path))
        return loader.construct_document(root)
    except FileNotFoundError:
        raise PipelineError(f"{path}: no such config file") from None
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: can't be read ({error}); save it as UTF-8") from None
    except OSError as error:
        raise PipelineError(f"{path}: can't be read ({error})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PipelineError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def _require_distinct_keys(root: yaml.Node, source: str) -> None:
    waiting, seen = [("", root)], set[int]()
    while waiting:
        where, node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(f"{where}{number}.", item) for number, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            continue
        first: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            waiting.append((f"{where}{key.value}.", value))
            name, line = (key.tag, str(key.value)), key.start_mark.line + 1
            if name in first and key.value != "<<":
                raise PipelineError(
                    f"{source}: line {line}: '{where}{key.value}' is there already, in line {first[name]}; keep one"
                )
            first[name] = line


def parse_config(content: Any, source: str = "config") -> Config:
    """Check a config that is already a mapping; raises `PipelineError` with one line."""
    if not isinstance(content, Mapping):
        raise PipelineError(f"{source}: must be a mapping of keys to values, not {type(content).__name__}")
    if content.get("downstream") in ([], ()):
        raise PipelineError(f"{source}: downstream: must name at least 1 set")
    try:
        return Config.model_validate(dict(content))
    except ValidationError as error:
        raise PipelineError(f"{source}: {describe(error, Config)}") from None
