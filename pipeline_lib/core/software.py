"""The software that makes an artefact: the interpreter, and each package that the code behind it imports.

A manifest records it, so that a result says what it was made with. It is no part of a derivation: a new version makes
nothing stale.
"""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from collections.abc import Iterable

from pipeline_lib.core.code import packages

# What has another name where it is installed, does its work through another package, or changes no byte.
_INSTALLED_AS: dict[str, tuple[str, ...]] = {
    "PIL": ("pillow",),
    "faiss": ("faiss-cpu", "faiss-gpu-cu12"),
    "pandas": ("pandas", "pyarrow"),
    "pydantic": (),
    "pydantic_core": (),
    "sklearn": ("scikit-learn",),
    "tqdm": (),
    "umap": ("umap-learn",),
    "xxhash": (),
    "yaml": ("pyyaml",),
}


def software_behind(components: Iterable[str]) -> dict[str, str]:
    """Return the version of Python, and of each installed package that components of the code import."""
    imported = sorted({package for component in components for package in packages(component)})
    installed = [name for package in imported for name in _INSTALLED_AS.get(package, (package,))]
    found = {name: version for name in installed if (version := _version(name))}
    return {"python": platform.python_version()} | found


def versions(*packages: str) -> dict[str, str]:
    """Return the version of each of these packages."""
    return {package: importlib.metadata.version(package) for package in packages}


@functools.cache
def _version(package: str) -> str:
    """Return the version of an installed package; "" where it isn't."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
