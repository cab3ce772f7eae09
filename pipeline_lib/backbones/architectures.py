"""The names of timm's architectures, without importing timm (which takes seconds).

The config is checked each time Snakemake starts, so a misspelt name must be found quickly: the names of the
functions that timm registers are read from its source.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path

from pipeline_lib.errors import did_you_mean

_REGISTERED = re.compile(r"^@register_model\s+def (\w+)\(", re.MULTILINE)


@functools.cache
def timm_architectures() -> frozenset[str]:
    """Return the names of all architectures that the installed timm can create."""
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        return frozenset()
    models = Path(spec.origin).parent / "models"
    return frozenset(name for path in models.glob("*.py") for name in _REGISTERED.findall(path.read_text("utf-8")))


def check_architecture(name: str) -> str:
    """Return a timm model name (`architecture` or `architecture.tag`) if timm has it, else raise `ValueError`.

    Names such as `hf-hub:owner/model` are looked up by timm itself when the backbone is made.
    """
    architecture = name.split(".")[0]
    known = timm_architectures()
    if ":" not in name and known and architecture not in known:
        hint = did_you_mean(architecture, known)
        raise ValueError(f"timm has no architecture '{architecture}'{hint}")
    return name
