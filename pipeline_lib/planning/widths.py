"""Lengths of the representations of timm's architectures, without importing timm: seconds, and most of a gigabyte.

`python -m pipeline_lib.planning.widths` writes `widths.json` anew, by length, from the installed timm (minutes).
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import cast

from pipeline_lib.config.section import KindSection

_FILE = Path(__file__).with_name("widths.json")


def known_width(options: KindSection) -> int | None:
    """Return the length of a backbone's representation; None where only building the network would tell."""
    names = {"timm": "model", "trained": "architecture", "method": "architecture"}
    return _widths().get(getattr(options, names[options.kind]).partition(".")[0]) if options.kind in names else None


@functools.cache
def _widths() -> dict[str, int]:
    by_width: dict[str, list[str]] = json.loads(_FILE.read_text(encoding="utf-8"))
    return {name: int(width) for width, names in by_width.items() for name in names}


def built_width(architecture: str) -> int:
    """Return the length that timm says, of an architecture without weights."""
    import timm
    import torch

    with torch.device("meta"):
        return cast(int, timm.create_model(architecture).head_hidden_size)


def _write() -> None:
    from pipeline_lib.backbones.architectures import timm_names

    by_width: dict[int, list[str]] = {}
    for name in sorted(timm_names()[0]):
        try:
            by_width.setdefault(built_width(name), []).append(name)
        except (AttributeError, NotImplementedError, RuntimeError) as error:
            print(f"{name} is left out: {error}")
    lines = (f'"{width}": {json.dumps(names)}' for width, names in sorted(by_width.items()))
    _FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    _write()
