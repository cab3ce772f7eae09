"""Arguments that several stages share."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_path(parser: argparse.ArgumentParser, name: str, help: str, required: bool = True) -> None:
    """Add an option that names a file or folder."""
    parser.add_argument(name, type=Path, required=required, metavar="PATH", help=help)


def read_object(text: str) -> dict[str, Any]:
    """Return a JSON object, as an option's value."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(content, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return content


def read_spec(text: str) -> dict[str, Any]:
    """Return a spec from JSON text, from a JSON file, or from the `spec` of a manifest."""
    try:
        content = read_object(text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise argparse.ArgumentTypeError(f"{text}: neither JSON nor a file") from None
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: can't be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    return content["spec"] if {"stage", "spec", "files"} <= content.keys() else content
