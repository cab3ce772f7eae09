"""The plan of a config: jobs, images, bytes of cache and hours per stage and backbone, before anything runs."""

from __future__ import annotations

import functools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline_lib.config.policies import MIXING_POLICIES
from pipeline_lib.core.cores import usable_cores
from pipeline_lib.core.jobs import Ref
from pipeline_lib.planning.extractions import Extraction, block_bytes, extractions
from pipeline_lib.planning.split_sizes import SplitSize, split_sizes
from pipeline_lib.planning.widths import known_width

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config
    from pipeline_lib.planning.probe import Probe

# What a view adds to each draw, as float32: what it drew, or the label that it mixed in.
_EXTRAS = {"centre_crop": 1}
_MIXING_EXTRAS = 2
_EXTRACTIONS = ("evaluation_features", "training_features", "ablation_features")
_COLUMNS = ("jobs", "images", "draws", "bytes", "hours", "device_hours")


@dataclass(frozen=True)
class Speed:
    """A backbone: length of its representation, whether it has an uncertainty, how images must look, and its speed.

    `images_per_second` is that of the forward pass in batches of `batch`; None where it was not measured.
    """

    dim: int
    has_uncertainty: bool
    data_config: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 0
    images_per_second: float | None = None


@dataclass(frozen=True)
class Row:
    """A line of the plan; None: nothing of the kind, or not estimated.

    Attributes
    ----------
    stage, backbone : str
        What it is about; backbone "" = not of one backbone.
    jobs, images, draws : int
        How many jobs there are, how many images they decode, and how many the backbone sees.
    bytes : int
        What is written to the disk.
    hours : float
        One job after the other.
    device_hours : float
        Hours of the GPU, or of CPU cores where there is none.
    bound : str
        What takes longest: "decoding and augmentation" or "backbone".
    """

    stage: str
    backbone: str
    jobs: int
    images: int | None = None
    draws: int | None = None
    bytes: int | None = None
    hours: float | None = None
    device_hours: float | None = None
    bound: str | None = None


@dataclass(frozen=True)
class Plan:
    """Rows in the order of the data, sizes of all splits, speeds by backbone; on which device, with how many cores.

    device: "cuda", "cpu", or "" where nothing was measured.
    """

    rows: list[Row]
    sizes: Mapping[tuple[str, str], SplitSize]
    speeds: Mapping[str, Speed]
    device: str
    cores: int

    @property
    def total(self) -> Row:
        """The sum of every column."""
        return _sum("total", "", self.rows)

    def as_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        return {
            "device": self.device,
            "cores": self.cores,
            "rows": [asdict(row) for row in self.rows],
            "total": {column: getattr(self.total, column) or 0 for column in _COLUMNS},
            "sizes": {"/".join(split): asdict(size) for split, size in self.sizes.items()},
            "speeds": {name: asdict(speed) for name, speed in self.speeds.items()},
        }


def make_plan(
    config: Config, processes: Sequence[Sequence[Ref]], given: Mapping[tuple[str, str], int], seconds: float
) -> Plan:
    """Plan a config.

    Parameters
    ----------
    config : Config
        What is to be done.
    processes : sequence of sequences of Ref
        The artefacts that each process makes, in the order of the data, without blocks of features: how many of these
        there are depends on the number of images.
    given : mapping
        The number of images in splits, by (dataset, split), where the user knows better.
    seconds : float
        About how long each backbone is measured; 0 = no hours are estimated.

    Raises
    ------
    PipelineError
        A given size is of a split that no job reads, a dataset lacks a split, or a backbone can't be built.
    """
    cores = usable_cores()
    sizes = split_sizes(config, given)
    classes = sizes[config.upstream.dataset, config.upstream.train_split].classes
    rows: list[Row] = []
    speeds: dict[str, Speed] = {}
    with tempfile.TemporaryDirectory() as directory:

        @functools.cache
        def probe() -> Probe:
            from pipeline_lib.planning.probe import Probe  # torch: seconds, and most of a gigabyte

            return Probe(config, Path(directory), seconds)

        caches = [ref for process in processes for ref in process if ref.stage == "cache"]
        for extraction in extractions(config, caches, sizes):
            name = extraction.backbone
            if name not in speeds:
                options = config.backbone(name)
                known = None if seconds else known_width(options)
                speeds[name] = Speed(known, options.kind == "method") if known else probe().backbone(name, classes)
            rows.append(_extraction_row(config, extraction, speeds[name], probe if seconds else None, cores))
        device = probe().device.type if seconds else ""
    jobs = Counter((process[0].stage, dict(process[0].wildcards).get("backbone", "")) for process in processes)
    others = [Row(stage, backbone, count) for (stage, backbone), count in jobs.items()]
    before = next(position for position, row in enumerate(others) if row.stage == "cache")
    extracted = sorted(_summed(rows), key=lambda row: _EXTRACTIONS.index(row.stage))
    return Plan([*others[:before], *extracted, *others[before:]], sizes, speeds, device, cores)


def _extraction_row(
    config: Config, extraction: Extraction, speed: Speed, measuring: Callable[[], Probe] | None, cores: int
) -> Row:
    """Return the line of one extraction; measuring None = without hours."""
    draws = sum(extraction.draws(view) for view in extraction.views)
    extras = {view: _extras(config, view) + speed.has_uncertainty for view in extraction.views}
    size = block_bytes(config, extraction, speed.dim, extras)
    row = Row(extraction.rule, extraction.backbone, extraction.jobs, extraction.decoded, draws, size)
    if measuring is None or speed.images_per_second is None:
        return row
    probe = measuring()
    preparing = extraction.decoded * probe.decoding_seconds(extraction.dataset)
    for view in extraction.views:
        drawing = probe.drawing_seconds(extraction.dataset, view, speed.data_config)
        preparing += extraction.draws(view) * drawing
    encoding = draws / speed.images_per_second
    features = config.features
    times = job_times(preparing, encoding, features.workers, features.threads, cores, probe.device.type)
    return replace(row, **times._asdict())


class Times(NamedTuple):
    """Hours of jobs one after the other, those of the device, and what takes longest: see `Row`."""

    hours: float
    device_hours: float
    bound: str


def job_times(preparing: float, encoding: float, workers: int, threads: int, cores: int, device: str) -> Times:
    """Return the times of jobs.

    Without workers, decoding and the backbone take turns; with workers both go on at once, on a CPU sharing its cores.

    Parameters
    ----------
    preparing : float
        Core-seconds of decoding and augmentation.
    encoding : float
        Seconds of the backbone, on `threads` cores of a CPU or on the GPU.
    workers, threads, cores : int
        Processes that decode, CPU threads of the backbone, cores of the machine.
    device : str
        "cpu" or "cuda".
    """
    prepared_in = preparing / max(1, min(workers, cores))
    if workers == 0:
        seconds = preparing + encoding
    else:
        seconds = max(prepared_in, encoding)
        if device == "cpu":
            seconds = max(seconds, (preparing + encoding * threads) / cores)
    core_seconds = preparing + encoding * threads
    return Times(
        hours=seconds / 3600,
        device_hours=(core_seconds if device == "cpu" else seconds) / 3600,
        bound="backbone" if encoding > prepared_in else "decoding and augmentation",
    )


def _extras(config: Config, view: str) -> int:
    """Return how many float32 values a view adds to each draw."""
    policy = config.features.views[view].policy if view in config.features.views else None
    mixes = policy is not None and policy.kind in MIXING_POLICIES
    return _MIXING_EXTRAS if mixes else _EXTRAS.get(view, 0)


def _summed(rows: list[Row]) -> list[Row]:
    """Return one row per stage and backbone; the bound is that of the longest."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.stage, row.backbone), []).append(row)
    return [
        replace(_sum(*key, group), bound=max(group, key=lambda row: row.hours or 0).bound)
        for key, group in groups.items()
    ]


def _sum(stage: str, backbone: str, rows: Iterable[Row]) -> Row:
    """Return the sum of rows; a column that is None in all of them stays None."""
    sums: dict[str, Any] = {}
    for column in _COLUMNS:
        values = [value for row in rows if (value := getattr(row, column)) is not None]
        sums[column] = sum(values) if values else None
    return Row(stage, backbone, **sums)
