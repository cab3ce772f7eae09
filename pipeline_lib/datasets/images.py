"""The dataset artefact: an index of every image, written once and opened by every later stage."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from PIL.Image import Image

from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import Manifest, canonical_json
from pipeline_lib.core.errors import PipelineError, did_you_mean, one_of
from pipeline_lib.core.jobs import Job
from pipeline_lib.datasets.base import ImageOpener, Index, opaque
from pipeline_lib.datasets.outputs import positions_in_outputs
from pipeline_lib.datasets.spec import DatasetSpec

STAGE = "dataset"
INDEX = "index.parquet"
# Who reads a range of images reads whole groups of rows.
_GROUP_ROWS = 1 << 17
_DIGEST_ROWS = 1 << 16


def write_dataset(job: Job[DatasetSpec]) -> None:
    """List the images of a dataset and write `index.parquet`; the manifest's facts hold classes and split sizes."""
    spec = job.spec
    index: Index = spec.reader.build_index(spec.options, Path(spec.data_dir))
    _check(spec.name, index)
    outputs = positions_in_outputs(index.classes, spec.options.outputs or (), Path(spec.data_dir), spec.name)
    with job.writing() as draft:
        splits, locations = _texts(index.split), _texts(index.location)
        with contextlib.ExitStack() as stack:
            writer = None
            for start in range(0, len(index.label), _GROUP_ROWS):
                rows = slice(start, start + _GROUP_ROWS)
                group = _table(index, splits[rows], locations[rows], rows)
                writer = writer or stack.enter_context(pq.ParquetWriter(draft.path / INDEX, group.schema))
                writer.write_table(group)
        draft.facts.update(
            classes=index.classes,
            samples=len(index.label),
            splits={entry["values"]: entry["counts"] for entry in pc.value_counts(splits).to_pylist()},
            skip_unreadable=spec.options.skip_unreadable,
            fingerprint=hashlib.sha256(index.fingerprint.encode()).hexdigest(),
        )
        if outputs:
            draft.facts["outputs"] = outputs
        draft.content = content_of(index, draft.facts)


class ImageDataset:
    """The images of one split of a dataset artefact.

    `sample_id` and `label` are int64 [n]; `classes` lists the class names; `image(i)` decodes the i-th image;
    `drawn_label(seed, epoch, i)` is its label in one epoch of training.

    samples: which images of the split, from the first to before the last; None = all. Only these are in memory, and
    position 0 is the first of them.
    """

    def __init__(self, directory: Path, split: str, samples: tuple[int, int] | None = None) -> None:
        self.manifest = artefacts.read(directory, STAGE)
        spec = DatasetSpec.model_validate(self.manifest.spec)
        self.name = spec.name
        self.split = split
        self.classes: list[str] = self.manifest.facts["classes"]
        splits = self.manifest.facts["splits"]
        if split not in splits:
            raise PipelineError(
                f"dataset '{self.name}' has no split '{split}'; it has {one_of(splits)}{did_you_mean(split, splits)}"
            )
        table = _rows_of(Path(directory) / INDEX, split, *(samples or (0, splits[split])))
        self.sample_id: np.ndarray = table["sample_id"].to_numpy()
        self.label: np.ndarray = table["label"].to_numpy()
        self._location = table["location"]  # stays in Arrow: 14 million paths as Python strings are 1.4 GB
        self._label_counts = table["label_counts"] if "label_counts" in table.column_names else None
        self.skip_unreadable = spec.options.skip_unreadable
        self._background = spec.options.background or "white"
        self._open: ImageOpener = spec.reader.open_images(spec.options, Path(spec.data_dir))

    def __len__(self) -> int:
        return len(self.sample_id)

    def location(self, position: int) -> str:
        """Return where the image at a position is: a path, an archive member, or a record number."""
        return self._location[position].as_py()

    def image(self, position: int) -> Image:
        """Decode the image at a position as RGB; raises `UnreadableImageError`."""
        return opaque(self._open(self.location(position)), self._background)

    def drawn_label(self, seed: int, epoch: int, position: int) -> int:
        """Return the label with which the image at a position is trained on in an epoch: c with probability p_c.

        p_c is the share of the image's votes for class c; an image without votes keeps its label. A function of
        (seed, epoch, sample_id) that is unrelated to the augmentation drawn for the same three.
        """
        if self._vote_shares is not None:
            offsets, classes, cumulative = self._vote_shares
            start, stop = offsets[position], offsets[position + 1]
            if start < stop:
                uniform = _uniform(seed, epoch, int(self.sample_id[position]))
                return int(classes[start + np.searchsorted(cumulative[start:stop], uniform, side="right")])
        return int(self.label[position])

    def vote_entropy(self) -> np.ndarray | None:
        """Return the entropy in nats of each image's votes, float64 [n], NaN without votes; None for no votes.

        H = -sum_c p_c ln p_c with p_c the share of votes for class c.
        """
        if self._label_counts is None:
            return None
        return np.array([_entropy([count for _, count in votes or []]) for votes in self._label_counts.to_pylist()])

    @functools.cached_property
    def _vote_shares(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Offsets [n + 1] of each image's votes; their classes and the running sum of their shares; None: no votes."""
        if self._label_counts is None:
            return None
        classes: list[int] = []
        cumulative: list[float] = []
        ends = [0]
        for votes in self._label_counts.to_pylist():
            voted = [(label, count) for label, count in votes or [] if count > 0]
            running = np.cumsum([count for _, count in voted])
            classes += [label for label, _ in voted]
            cumulative += (running / running[-1]).tolist() if voted else []
            ends.append(len(classes))
        return np.array(ends), np.array(classes, np.int64), np.array(cumulative)


def _rows_of(path: Path, split: str, start: int, stop: int) -> pa.Table:
    """Return the images of a split from `start` to before `stop`; other groups of rows are not read but for `split`."""
    before = 0
    with pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if name != "split"]
        found = [file.schema_arrow.empty_table().select(names)]
        for group in range(file.num_row_groups):
            inside = pc.equal(file.read_row_group(group, ["split"])["split"], split)
            images = pc.sum(inside).as_py()
            first, last = max(start - before, 0), min(stop - before, images)
            if first < last:
                found.append(file.read_row_group(group, names).filter(inside)[first:last])
            before += images
    return pa.concat_tables(found)


def outputs_of(dataset: Manifest, count: int) -> np.ndarray | None:
    """Return which of so many outputs of a classifier each class is, int64 [k]; None where the two don't fit.

    The classes are the outputs, in their order, where the dataset doesn't say otherwise.
    """
    classes = range(len(dataset.facts["classes"]))
    found = {str(len(classes)): classes, **dataset.facts.get("outputs", {})}.get(str(count))
    return None if found is None else np.array(found, np.int64)


def _uniform(seed: int, epoch: int, sample_id: int) -> float:
    """Return a number from U[0, 1) for the label of a draw."""
    return (xxhash.xxh3_64_intdigest(f"label/{seed}/{epoch}/{sample_id}".encode()) >> 11) * 2.0**-53


def _entropy(counts: list[float]) -> float:
    votes = np.asarray(counts, dtype=np.float64)
    # Sorted, so that the same votes for other classes give the same entropy to the last bit: ties stay ties.
    votes = np.sort(votes[votes > 0])
    if votes.size == 0:
        return float("nan")
    share = votes / votes.sum()
    return float(-(share * np.log(share)).sum()) + 0.0


def _check(name: str, index: Index) -> None:
    if len(index.label) == 0:
        raise PipelineError(f"dataset '{name}': no images found")
    if not len(index.label) == len(index.split) == len(index.location):
        raise ValueError("an index must have one split, label and location per image")
    if index.label.min() < 0 or index.label.max() >= len(index.classes):
        raise ValueError("labels must be positions in the list of classes")
    if index.label.min() == index.label.max():
        print(
            f"WARNING: dataset '{name}': all images are of one class, '{index.classes[int(index.label[0])]}', so every "
            "neighbour is right and no metric says anything; give each class a folder or a label",
            file=sys.stderr,
        )


def _table(index: Index, splits: pa.ChunkedArray, locations: pa.ChunkedArray, rows: slice) -> pa.Table:
    columns = {
        "sample_id": pa.array(np.arange(rows.start, rows.start + len(splits)), pa.int64()),
        "split": splits,
        "label": pa.array(index.label[rows], pa.int64()),
        "location": locations,
    }
    if index.label_counts is not None:
        votes = [sorted(counts.items()) for counts in index.label_counts[rows]]
        columns["label_counts"] = pa.array(votes, pa.map_(pa.int32(), pa.float64()))
    return pa.table(columns)


def _texts(values: list[str] | pa.ChunkedArray) -> pa.ChunkedArray:
    return values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([pa.array(values, pa.string())])


def content_of(index: Index, facts: dict[str, Any]) -> str:
    """Return the digest of what readers find: rows and facts, whatever version of Arrow wrote the file."""
    digest = xxhash.xxh3_128(canonical_json(facts).encode())
    digest.update(np.ascontiguousarray(index.label, "<i8").data)
    votes = [",".join(f"{label}:{count}" for label, count in sorted(row.items())) for row in index.label_counts or []]
    for column in (index.split, index.location, votes):
        for start in range(0, len(column), _DIGEST_ROWS):
            piece = column[start : start + _DIGEST_ROWS]
            texts = piece.to_pylist() if isinstance(piece, pa.ChunkedArray) else piece
            digest.update("\0".join(texts).encode() + b"\0")
    return digest.hexdigest()
