"""The record that makes one cache of the blocks of a view: all are there, and fit together."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import xxhash

from pipeline_lib.backbones.spec import read_manifest
from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import Manifest, canonical_json
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.core.jobs import Job
from pipeline_lib.features.cache import BLOCK_STAGE, BlockRecord
from pipeline_lib.features.spec import BlockSpec, CacheSpec, RowsSpec


class _Block(NamedTuple):
    manifest: Manifest
    spec: BlockSpec


def write_cache(job: Job[CacheSpec]) -> None:
    """Record the blocks of a view, once they are all there and fit together.

    The content of the artefact is that of its rows: it changes with any value of any row, and not with how they are
    cut into blocks, chunked and stored.

    Raises
    ------
    ArtefactError
        For a block that is missing or was made from something else.
    PipelineError
        When more images were unreadable than the dataset allows.
    """
    spec, view_dir = job.spec, job.output.parent
    dataset = artefacts.read(job.input("dataset"), "dataset", verify=False)
    backbone = read_manifest(job.input("backbone"), verify=False)
    found = [artefacts.read(path, BLOCK_STAGE, verify=False) for path in job.all_inputs("blocks")]
    blocks = [_Block(manifest, BlockSpec.model_validate(manifest.spec)) for manifest in found]
    blocks = _in_order(blocks, dataset.facts["splits"][spec.split], spec.epochs, view_dir)
    for block in blocks:
        _require_fitting(block, spec, view_dir, {"dataset": dataset, "backbone": backbone})
    facts = [block.manifest.facts for block in blocks]
    for block in blocks:
        if any(block.manifest.facts[name] != facts[0][name] for name in ("dim", "arrays")):
            raise ArtefactError(f"{block.manifest.directory}: has other arrays than the rest; {_remedy(view_dir)}")
    skipped = {entry["sample_id"]: entry for block in facts for entry in block["skipped"]}
    allowed = dataset.facts["skip_unreadable"]
    if len(skipped) > allowed:
        raise PipelineError(
            f"{len(skipped)} images of dataset '{spec.dataset}' are unreadable, skip_unreadable allows "
            f"{allowed}; the first: {skipped[min(skipped)]['error']}"
        )
    table = {
        "dim": facts[0]["dim"],
        "arrays": facts[0]["arrays"],
        "rows": sum(block.manifest.facts["rows"] for block in blocks if block.spec.epochs == blocks[0].spec.epochs),
        "epochs": spec.epochs,
    }
    records = [
        BlockRecord(
            block.manifest.directory.name, block.manifest.content, block.manifest.facts["rows"], block.spec.epochs
        )
        for block in blocks
    ]
    with job.writing() as draft:
        draft.facts.update(
            **table,
            blocks=[dataclasses.asdict(record) for record in records],
            skipped=[skipped[sample_id] for sample_id in sorted(skipped)],
            dataset=dataset.content,
            backbone=backbone.content,
        )
        digest = sum(int(block["rows_digest"], 16) for block in facts) % (1 << 128)
        content = {**table, "dtype": spec.dtype, "skipped": sorted(skipped), "digest": f"{digest:032x}"}
        draft.content = xxhash.xxh3_128_hexdigest(canonical_json(content).encode())


def _require_fitting(block: _Block, spec: CacheSpec, view_dir: Path, made_from: dict[str, Manifest]) -> None:
    """Raise `ArtefactError` for a block that lies elsewhere, or whose rows were made in another way."""
    directory = block.manifest.directory
    if directory.parent.resolve() != (view_dir / "blocks").resolve():
        raise ArtefactError(f"{directory}: lies outside of {view_dir / 'blocks'}, where the blocks of this view are")
    for field in RowsSpec.model_fields:
        if (found := getattr(block.spec, field)) != (expected := getattr(spec, field)):
            raise ArtefactError(
                f"{directory}: '{field}' is {found!r}, but {expected!r} was asked for; {_remedy(view_dir)}"
            )
    for name, manifest in made_from.items():
        if [record["content"] for record in block.manifest.inputs[name]] != [manifest.content]:
            raise ArtefactError(
                f"{directory}: was made from another {name} than {manifest.directory}; {_remedy(view_dir)}"
            )


def _in_order(blocks: Sequence[_Block], samples: int, epochs: int, view_dir: Path) -> list[_Block]:
    """Return blocks by epoch and sample; raises `ArtefactError` unless they hold each sample of each epoch once."""
    ordered = sorted(blocks, key=lambda block: (block.spec.epochs, block.spec.samples))
    by_epochs = {
        found: [block.spec.samples for block in group]
        for found, group in itertools.groupby(ordered, key=lambda block: block.spec.epochs)
    }
    for ranges, total, what in [
        (list(by_epochs), epochs, "epochs"),
        *((some, samples, f"samples of epochs {first} to {last}") for (first, last), some in by_epochs.items()),
    ]:
        borders = [0, *(stop for _, stop in ranges)]
        if [start for start, _ in ranges] != borders[:-1] or borders[-1] != total:
            found = ", ".join(f"{start} to {stop}" for start, stop in ranges) or "none"
            raise ArtefactError(
                f"{view_dir / 'blocks'}: must hold the {what} from 0 to {total} once each, but there are {found}; "
                "run snakemake again"
            )
    return ordered


def _remedy(view_dir: Path) -> str:
    return f"delete {view_dir} and run snakemake again"
