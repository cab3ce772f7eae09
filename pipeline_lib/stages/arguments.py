"""Arguments that several stages share."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pipeline_lib.core.errors import PipelineError


def add_spec(parser: argparse.ArgumentParser, keys: str) -> None:
    """Add `--spec`; `keys` says what it holds."""
    parser.add_argument(
        "--spec",
        type=read_spec,
        required=True,
        metavar="JSON|FILE",
        help=f"what to make, as JSON or as a file with JSON (a manifest.json will do): {keys}",
    )


def add_path(parser: argparse.ArgumentParser, name: str, help: str, required: bool = True) -> None:
    """Add an option that names a file or folder."""
    parser.add_argument(name, type=Path, required=required, metavar="PATH", help=help)


def read_spec(text: str) -> dict[str, Any]:
    """Return a spec from JSON text, from a JSON file, or from the `spec` of a manifest."""
    try:
        content = json.loads(text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise argparse.ArgumentTypeError(f"{text}: neither JSON nor a file") from None
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(content, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return content["spec"] if {"stage", "spec", "files"} <= content.keys() else content


def named_paths(pairs: list[str]) -> dict[str, Path]:
    """Return {name: path} from `name=path` arguments."""
    split = [pair.partition("=") for pair in pairs]
    for name, separator, path in split:
        if not (name and separator and path):
            raise PipelineError(f"'{name}{separator}{path}': expected name=path")
    return {name: Path(path) for name, _, path in split}
