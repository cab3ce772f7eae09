"""Versions of the code: what stands in a derivation, so that a release makes nothing stale that it doesn't change.

`versions.json` records, per component, its version and the digest of its code at that version. A component whose code
is the recorded one is known by its version, and so is every unmodified checkout; after a local edit it is known by the
digest of its code, and what it made is stale. `make bless` compares the bytes that old and new code write, and records
the new digest: under the same version where they are equal, else under a higher one.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import NamedTuple

from pipeline_lib.core.code import code_digest

VERSIONS = Path(__file__).resolve().parents[1] / "versions.json"


class Recorded(NamedTuple):
    """A component's version, and the digest of its code at that version."""

    version: int
    code: str


@functools.cache
def recorded() -> dict[str, Recorded]:
    """Return what `versions.json` says of each component."""
    content = json.loads(VERSIONS.read_text(encoding="utf-8"))
    return {component: Recorded(**entry) for component, entry in content.items()}


@functools.cache
def version_of(component: str) -> str:
    """Return what stands for a component's code in a derivation.

    Parameters
    ----------
    component : str
        Its module without the package's name, such as `stages.head` or `datasets.folder`.

    Returns
    -------
    str
        Its version, such as `"3"`; after a local edit the digest of its code.
    """
    known = recorded().get(component)
    digest = code_digest(component)
    return str(known.version) if known is not None and known.code == digest else digest
