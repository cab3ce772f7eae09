"""The names of timm's architectures and weights, without importing timm (which takes seconds).

The config is checked each time Snakemake starts, so a misspelt name must be found quickly: the names of the
functions and of the weights that timm registers are read from its source.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path

from pipeline_lib.core.errors import did_you_mean, one_of

_REGISTERED = re.compile(r"^@register_model\s+def (\w+)\(", re.MULTILINE)
_WEIGHTS = re.compile(r"""^\s*['"](\w+\.\w+)['"]\s*:""", re.MULTILINE)  # the keys of `generate_default_cfgs({...})`


@functools.cache
def timm_names() -> tuple[frozenset[str], frozenset[str]]:
    """Return the architectures that the installed timm can create, and its weights as `architecture.tag`.

    The weights of the few architectures for which timm builds the tags in a loop are not among them.
    """
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        return frozenset(), frozenset()
    sources = [path.read_text("utf-8") for path in (Path(spec.origin).parent / "models").glob("*.py")]
    architectures, weights = (
        frozenset(name for source in sources for name in pattern.findall(source)) for pattern in (_REGISTERED, _WEIGHTS)
    )
    return architectures, weights


def check_architecture(name: str) -> str:
    """Return a timm model name (`architecture` or `architecture.tag`) if timm has it, else raise `ValueError`.

    Names such as `hf-hub:owner/model` are looked up by timm itself when the backbone is made.
    """
    if ":" in name:
        return name
    architecture, _, tag = name.partition(".")
    architectures, weights = timm_names()
    if architectures and architecture not in architectures:
        raise ValueError(f"timm has no architecture '{architecture}'{did_you_mean(architecture, architectures)}")
    tags = [weight.partition(".")[2] for weight in weights if weight.startswith(f"{architecture}.")]
    if tag and tags and tag not in tags:
        raise ValueError(
            f"timm has no weights '{tag}' of {architecture}; it has {one_of(tags)}{did_you_mean(tag, tags)}"
        )
    return name
