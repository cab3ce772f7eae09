"""Check artefacts, many at once: every file against its checksum and, when asked for, every cached value.

A block of features is checked where a worker of the scheduler runs, chunk by chunk; what comes back is a line or
nothing. The record of a view lists its blocks: it is damaged when one of them is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xxhash
from dask.delayed import delayed

from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import Manifest
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.core.walk import folders_of_artefacts
from pipeline_lib.features.cache import BLOCK_STAGE, CACHE_STAGE, block_remedy, recorded_blocks
from pipeline_lib.features.dask_cache import computing
from pipeline_lib.features.spec import BlockSpec, Range
from pipeline_lib.features.store import BlockArrays

_PIECE_BYTES = 32 << 20


@dataclass(frozen=True)
class Finding:
    """What was found out about an artefact: its first fault (None: none), its stage and content, a block's images.

    sample_ids: first, last, checksum of all ids; None unless values were checked. unread: the fault is that one could
    not look, so nobody knows whether the artefact is damaged.
    """

    fault: str | None
    stage: str = ""
    content: str = ""
    sample_ids: tuple[int, int, str] | None = None
    unread: bool = False


def audit(results: Path, values: bool, scheduler: str | None) -> dict[Path, Finding]:
    """Check every artefact below a folder; returns what was found of each by its folder, sorted.

    Folders that can't be listed are among them. values: also read every array of every block: floats must be finite,
    the images those of the block's range, each once and in order, and the same in every epoch. scheduler: see
    `computing`.
    """
    unlisted: dict[Path, Finding] = {}

    def note(error: OSError) -> None:
        folder = Path(error.filename)
        unlisted[folder] = Finding(f"{folder}: can't be listed ({error.strerror})", unread=True)

    folders = sorted(folders_of_artefacts(results, note))
    with computing(scheduler) as running:
        checks = [delayed(_check)(str(folder.absolute()), values) for folder in folders]
        found = dict(zip(folders, running.in_order(checks), strict=True))
    for folder in folders:
        if found[folder].stage == CACHE_STAGE and found[folder].fault is None:
            found[folder] = _check_record(folder, found)
    return dict(sorted((found | unlisted).items()))


def _check(directory: str, values: bool) -> Finding:
    """Check one artefact against its manifest, and a block's values."""
    folder = Path(directory)
    try:
        manifest = artefacts.read(folder)
        ids = _check_values(manifest) if values and manifest.stage == BLOCK_STAGE else None
    except ArtefactError as error:
        return Finding(str(error))
    except PipelineError as error:
        return Finding(str(error), unread=True)
    except OSError as error:
        return Finding(f"{error.filename or folder}: can't be read ({error.strerror or error})", unread=True)
    return Finding(None, manifest.stage, manifest.content, ids)


def _check_values(manifest: Manifest) -> tuple[int, int, str] | None:
    """Check the values of a block; returns the first and the last sample_id and the checksum of all, None for no rows.

    Raises `ArtefactError` naming the array.
    """
    folder, facts = manifest.directory, manifest.facts
    spec = BlockSpec.model_validate(manifest.spec)
    arrays, rows = BlockArrays(folder), facts["rows"]
    start, stop = spec.samples
    remedy = f"delete {folder} and run snakemake again"
    if rows + len(facts["skipped"]) != stop - start:
        raise ArtefactError(
            f"{folder}: {rows} images and {len(facts['skipped'])} that don't decode, but {stop - start} were asked "
            f"for; {remedy}"
        )
    for name in facts["arrays"]:
        if arrays.dtype(name).kind != "f":
            continue
        width: tuple[int, ...] = (facts["dim"],) if name == "embedding" else ()
        step = max(1, _PIECE_BYTES // (math.prod(width) * arrays.dtype(name).itemsize))
        for position in range(spec.epochs[1] - spec.epochs[0]):
            for first in range(0, rows, step):
                last = min(first + step, rows)
                piece = np.empty((last - first, *width), arrays.dtype(name))
                arrays.read_into(name, (position, slice(first, last)), piece)
                if not np.isfinite(piece).all():
                    row = first + int(np.argmin(np.isfinite(piece).reshape(len(piece), -1).all(axis=1)))
                    raise ArtefactError(f"{folder}: '{name}' is not finite in row {row}; {remedy}")
    if rows == 0:
        return None
    ids = np.empty(rows, arrays.dtype("sample_id"))
    arrays.read_into("sample_id", (slice(0, rows),), ids)
    if (np.diff(ids) <= 0).any() or ids[0] < 0:
        raise ArtefactError(f"{folder}: 'sample_id' is not strictly increasing from 0 up; {remedy}")
    return int(ids[0]), int(ids[-1]), xxhash.xxh3_128_hexdigest(ids.tobytes())


def _check_record(folder: Path, found: dict[Path, Finding]) -> Finding:
    """Return what was found of a view's record, with the first fault of the blocks that it lists."""
    try:
        _check_blocks(folder, found)
    except ArtefactError as error:
        return replace(found[folder], fault=str(error))
    except PipelineError as error:
        return replace(found[folder], fault=str(error), unread=True)
    return found[folder]


def _check_blocks(folder: Path, found: dict[Path, Finding]) -> None:
    """Raise `ArtefactError` for the first fault of the blocks behind a record, `PipelineError` for one unread."""
    view_dir = folder.parent
    last_of_epochs: dict[Range, int] = {}
    ids_of_samples: dict[str, tuple[int, int, str]] = {}
    for block in recorded_blocks(artefacts.read(folder, CACHE_STAGE, verify=False)):
        directory, remedy = view_dir / "blocks" / block.name, block_remedy(view_dir, block.name)
        finding = found.get(directory)
        if finding is None:
            raise ArtefactError(
                f"{directory / artefacts.MANIFEST}: missing, so {directory} is not a complete artefact; {remedy}"
            )
        if finding.unread:
            raise PipelineError(f"{folder}: lists a block that can't be read ({finding.fault})")
        if finding.fault is not None:
            raise ArtefactError(f"{folder}: lists a damaged block ({finding.fault})")
        if finding.content != block.content:
            raise ArtefactError(f"{directory}: is not the block that {folder} recorded; {remedy}")
        if finding.sample_ids is None:
            continue
        first, last, _ = finding.sample_ids
        samples = block.name.split("_epochs")[0]
        if first <= last_of_epochs.get(block.epochs, -1):
            raise ArtefactError(
                f"{directory}: 'sample_id' starts at {first}, which an earlier block has passed; {remedy}"
            )
        if ids_of_samples.setdefault(samples, finding.sample_ids) != finding.sample_ids:
            raise ArtefactError(f"{directory}: has other images than the same range in another epoch; {remedy}")
        last_of_epochs[block.epochs] = last
