"""Where the numbers come from: every artefact behind them, what it was made from, and the software that made it."""

from __future__ import annotations

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import Manifest
from pipeline_lib.core.walk import folders_of_artefacts

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

    Files are not checked against their checksums; stage `verify` does that.

    Parameters
    ----------
    results
        The results folder.
    roots
        Folders of artefacts below it.

    Returns
    -------
    DataFrame
        Columns `artefact` (folder below `results`), `stage`, `digest` of its manifest, `made_from` (the artefacts that
        it read, joined by blanks; one that is no longer there is `name=content`), `rows`, `bytes`.
    """
    found = {path: artefacts.read(path, verify=False) for path in folders_of_artefacts(results, worlds=False)}
    made = {(manifest.derivation, manifest.content): folder for folder, manifest in found.items()}
    # One that was made again in another way, but came out the same.
    counts = Counter(content for _, content in made)
    same = {content: folder for (_, content), folder in made.items() if counts[content] == 1}

    def sources(manifest: Manifest) -> Iterator[tuple[str, Path | None]]:
        """Yield name and folder of each artefact that was read; of one that is gone no folder."""
        for name, records in manifest.inputs.items():
            for record in records:
                content = record["content"]
                folder = made.get((record["derivation"], content), same.get(content))
                yield f"{name}={content}" if folder is None else folder.relative_to(results).as_posix(), folder

    waiting, behind = [Path(root) for root in roots], set[Path]()
    while waiting:
        directory = waiting.pop()
        if directory not in behind:
            behind.add(directory)
            waiting += [folder for _, folder in sources(found[directory]) if folder is not None]
    rows = [
        {
            "artefact": directory.relative_to(results).as_posix(),
            "stage": found[directory].stage,
            "digest": found[directory].digest,
            "made_from": " ".join(name for name, _ in sources(found[directory])),
            "rows": found[directory].facts.get("rows", found[directory].facts.get("samples")),
            "bytes": sum(file["bytes"] for file in found[directory].files.values()),
        }
        for directory in sorted(behind)
    ]
    return pd.DataFrame(rows).astype({"rows": "Int64"})


def software() -> pd.DataFrame:
    """Return the version of the interpreter, the platform, and each package that results depend on."""
    versions = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for package in SOFTWARE:
        versions[package] = importlib.metadata.version(package)
    return pd.DataFrame({"software": list(versions), "version": list(versions.values())})
