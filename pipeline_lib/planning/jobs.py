"""The jobs of a config: what the workflow's rules will ask for once every dataset is listed.

Tables and figures, seconds each, are left out. A test compares these numbers with Snakemake's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline_lib.config.config import Config
from pipeline_lib.config.features import EVALUATION_VIEWS
from pipeline_lib.features.blocks import block_ranges
from pipeline_lib.planning.split_sizes import SplitSize


@dataclass(frozen=True)
class Extraction:
    """The jobs of one rule that extract views of one split by one backbone; each decodes its images once.

    Attributes
    ----------
    rule : str
        The workflow's name.
    backbone, dataset, split : str
        What is extracted.
    views : tuple of str
        The views that a job extracts together.
    images : int
        Of the split.
    samples : tuple of int
        The images of each range that is one job.
    epochs : mapping from str to tuple of int
        By view, the epochs of each range that is one job.
    """

    rule: str
    backbone: str
    dataset: str
    split: str
    views: tuple[str, ...]
    images: int
    samples: tuple[int, ...]
    epochs: Mapping[str, tuple[int, ...]]

    @property
    def jobs(self) -> int:
        """How many jobs there are."""
        return len(self.samples) * len(self.epochs[self.views[0]])

    @property
    def decoded(self) -> int:
        """How many images are decoded: one for each range of epochs."""
        return self.images * len(self.epochs[self.views[0]])

    def draws(self, view: str) -> int:
        """How many images of a view the backbone sees."""
        return self.images * sum(self.epochs[view])


def extractions(config: Config, sizes: Mapping[tuple[str, str], SplitSize]) -> list[Extraction]:
    """Return all extractions of a config; those of splits of unknown size are left out."""
    found: list[tuple[str, str, tuple[str, str], tuple[str, ...]]] = []
    train = (config.upstream.dataset, config.upstream.train_split)
    deteriorated = [(entry.dataset, entry.split) for entry in config.deteriorated_sets]
    for backbone in (*config.backbones, *config.benchmark_backbones):
        for entry in config.evaluation_sets:
            found.append(("evaluation_features", backbone, (entry.dataset, entry.split), EVALUATION_VIEWS))
        for view in _learnt_views(config, backbone):
            found.append(("features", backbone, train, (view,)))
        joint = tuple(config.joint_views)
        if joint and config.ablations and backbone in config.ablations.backbones:
            found.append(("ablation_features", backbone, train, joint))
        if backbone == next(iter(config.backbones)):
            found += [("features", backbone, split, ("deteriorations",)) for split in deteriorated]
    return [
        _extraction(config, rule, backbone, split, views, images)
        for rule, backbone, split, views in found
        if (images := sizes[split].images) is not None
    ]


def _learnt_views(config: Config, backbone: str) -> list[str]:
    """Return the views from which heads of a backbone learn and that are extracted one by one."""
    if backbone not in config.backbones:
        return []
    views = dict.fromkeys(variant.view for variant in config.variants.values())
    if config.ablations and backbone in config.ablations.backbones:
        views |= dict.fromkeys(view for view in config.ablation_views() if view not in config.joint_views)
    return list(views)


def _extraction(
    config: Config, rule: str, backbone: str, split: tuple[str, str], views: tuple[str, ...], images: int
) -> Extraction:
    def lengths(total: int, size: int) -> tuple[int, ...]:
        return tuple(stop - start for start, stop in block_ranges(total, size))

    epochs = {view: lengths(config.view_epochs(view), config.block_epochs(view)) for view in views}
    return Extraction(rule, backbone, *split, views, images, lengths(images, config.features.block_samples), epochs)


def other_jobs(config: Config) -> dict[tuple[str, str], int]:
    """Return the number of all other jobs by (rule, backbone); backbone "" = not of one backbone."""
    sets, averaged = config.evaluation_sets, config.averaged_sets
    datasets = dict.fromkeys(entry.dataset for entry in sets)
    jobs = {
        ("download", ""): len(set(datasets) & set(config.downloaded_datasets)),
        ("prepare_tfds", ""): len(set(datasets) & set(config.tfds_datasets)),
        ("dataset", ""): len(datasets),
        ("dataset_card", ""): len(datasets),
    }
    methods = config.method_backbones
    for backbone in (*config.backbones, *config.benchmark_backbones):
        jobs["method" if backbone in methods else "backbone", backbone] = 1
        jobs["cache", backbone] = len(sets) * len(EVALUATION_VIEWS) + _trained_views(config, backbone)
        jobs["neighbours", backbone] = jobs["baselines", backbone] = len(sets)
        if backbone not in config.backbones:
            continue
        jobs["task_loss", backbone] = _task_losses(config, backbone)
        jobs["head", backbone] = len(config.variants) * len(config.seeds)
        jobs["export", backbone] = len(config.variants)
        jobs["evaluate", backbone] = len(config.variants) * len(sets)
        jobs["safe_retrieval", backbone] = len(sets)
        if config.ablations and backbone in config.ablations.backbones:
            jobs["ablation_heads", backbone] = len(config.ablation_views())
            jobs["evaluate_ablations", backbone] = len(averaged)
    first = next(iter(config.backbones))
    if config.joint_training:
        jobs["joint_training", config.joint_training.backbone] = 2 * len(config.joint_training.seeds)
    jobs["cache", first] += len(config.deteriorated_sets)
    jobs["deteriorations", first] = len(config.deteriorated_sets)
    jobs |= {("projection", first): 1, ("projection_page", first): 1, ("metrics", ""): 1, ("provenance", ""): 1}
    return {key: count for key, count in jobs.items() if count}


def _task_losses(config: Config, backbone: str) -> int:
    """Return how many task losses are computed from views of a backbone, besides its classifier's."""
    variants = list(config.variants)
    if config.ablations and backbone in config.ablations.backbones:
        variants += [variant for names in config.ablation_views().values() for variant in names]
    found = {(config.variant(name).view, config.task_loss_of(backbone, name)) for name in variants}
    return sum(task_loss != "cross_entropy" for _, task_loss in found)


def _trained_views(config: Config, backbone: str) -> int:
    views = set(_learnt_views(config, backbone))
    if config.ablations and backbone in config.ablations.backbones:
        views |= set(config.ablation_views())
    return len(views)


def block_bytes(config: Config, extraction: Extraction, dim: int, extras: Mapping[str, int]) -> int:
    """Return the bytes that the blocks of an extraction take on the disk.

    Whole chunks are written, also where a block ends within one. What a block says of itself is not counted: some
    kilobytes, which matter for blocks of less than a thousand images alone.

    Parameters
    ----------
    config : Config
        How features are stored.
    extraction : Extraction
        The blocks.
    dim : int
        Length of a representation.
    extras : mapping from str to int
        How many float32 values each view adds to a draw.
    """
    width = dim * {"float16": 2, "float32": 4}[config.features.dtype]
    scalars = 4 + (8 if extraction.dataset == config.upstream.dataset else 0)
    total = 0
    for images in extraction.samples:
        chunk = min(config.features.chunk_rows, images)
        stored = math.ceil(images / chunk) * chunk
        for view in extraction.views:
            per_draw = width + scalars + 4 * extras[view]
            for epochs in extraction.epochs[view]:
                total += epochs * stored * per_draw + images * 16 + epochs * 8
    return total
