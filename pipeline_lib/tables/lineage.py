"""Where the numbers come from: every artefact behind them, what it was made from, and the software that made it."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import Manifest

SOFTWARE = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "zarr",
    "h5py",
    "snakemake",
    "matplotlib",
)


def artefacts_behind(results: Path, roots: Sequence[Path]) -> pd.DataFrame:
    """Return one row per root and per artefact that the roots were made from, at any depth.

    Columns: `artefact` (folder below `results`), `stage`, `digest` of its manifest, `made_from` (the artefacts that
    it read, joined by blanks; an input that is no longer there is `name=digest`), `rows`, `bytes`. Files are not
    checked against their checksums; stage `verify` does that.

    roots: folders of artefacts below `results`.
    """
    found = {
        folder: artefacts.read(folder, artefacts.stage_of(folder), verify=False)
        for folder in artefacts.folders(results)
    }
    by_digest = {manifest.digest: directory for directory, manifest in found.items()}
    waiting, behind = [Path(root) for root in roots], set()
    while waiting:
        directory = waiting.pop()
        if directory in behind:
            continue
        behind.add(directory)
        waiting += [by_digest[digest] for digest in _inputs(found[directory]).values() if digest in by_digest]
    rows = []
    for directory in sorted(behind):
        manifest = found[directory]
        sources = [
            by_digest[digest].relative_to(results).as_posix() if digest in by_digest else f"{name}={digest}"
            for name, digest in _inputs(manifest).items()
        ]
        rows.append(
            {
                "artefact": directory.relative_to(results).as_posix(),
                "stage": manifest.stage,
                "digest": manifest.digest,
                "made_from": " ".join(sources),
                "rows": manifest.facts.get("rows", manifest.facts.get("samples")),
                "bytes": sum(file["bytes"] for file in manifest.files.values()),
            }
        )
    return pd.DataFrame(rows).astype({"rows": "Int64"})


def software() -> pd.DataFrame:
    """Return the version of the interpreter, the platform, and each package that results depend on."""
    versions = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for package in SOFTWARE:
        versions[package] = importlib.metadata.version(package)
    return pd.DataFrame({"software": list(versions), "version": list(versions.values())})


def _inputs(manifest: Manifest) -> dict[str, str]:
    """Return the digests of what an artefact was made from; the record of a view also answers for its blocks."""
    blocks = {f"block {block['name']}": block["digest"] for block in manifest.facts.get("blocks", [])}
    return {**manifest.inputs, **blocks}
