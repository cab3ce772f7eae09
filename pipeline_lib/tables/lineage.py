"""Where the numbers come from: every artefact behind them, what it was made from, and the software that made them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import Manifest
from pipeline_lib.core.walk import folders_of_artefacts


def artefacts_behind(results: Path, roots: Sequence[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one row per root and per artefact that the roots were made from, at any depth, and one per software.

    Files are not checked against their checksums; stage `verify` does that.

    Parameters
    ----------
    results
        The results folder.
    roots
        Folders of artefacts below it.

    Returns
    -------
    artefacts : DataFrame
        Columns `artefact` (folder below `results`), `stage`, `digest` of its manifest, `made_from` (the artefacts that
        it read, joined by blanks; one that is no longer there is `name=content`), `rows`, `bytes`.
    software : DataFrame
        Columns `software`, `version`, and `artefacts`, how many of these artefacts were made with it.
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
    made_with = Counter(pair for directory in behind for pair in found[directory].software.items())
    software = [(name, version, number) for (name, version), number in sorted(made_with.items())]
    return (
        pd.DataFrame(rows).astype({"rows": "Int64"}),
        pd.DataFrame(software, columns=["software", "version", "artefacts"]),
    )


def mixed(software: pd.DataFrame) -> list[str]:
    """Return a line for each software of which several versions made the artefacts of one results folder."""
    return [
        f"made with several versions of {name}: "
        + ", ".join(f"{row.version} ({row.artefacts} artefacts)" for row in rows.itertuples())
        for name, rows in software.groupby("software")
        if len(rows) > 1
    ]
