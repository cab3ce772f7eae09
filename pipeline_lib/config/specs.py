"""The spec of each job: exactly the config values that its stage reads, and nothing else.

A spec is a plain mapping. As one sorted-JSON string it is the parameter by which Snakemake decides whether a
job is stale, the argument that the stage gets, and the record in the artefact's manifest. A value that can't
change the result (number of workers) is no part of it.
"""

from __future__ import annotations

from typing import Any

from pipeline_lib.config import kinds
from pipeline_lib.config.config import Config, Downstream
from pipeline_lib.config.section import Section

Spec = dict[str, Any]


def dump(section: Section) -> dict[str, Any]:
    """Return a config section as plain JSON values."""
    return section.model_dump(mode="json")


def dataset_spec(config: Config, dataset: str) -> Spec:
    """Spec of listing a dataset's images."""
    return {"name": dataset, "options": dump(config.datasets[dataset]), "data_dir": config.data_dir}


def backbone_spec(config: Config, backbone: str) -> Spec:
    """Spec of making a backbone."""
    spec = {"name": backbone, "options": dump(config.backbones[backbone])}
    if trains(config, backbone):
        spec["train_split"] = config.upstream.train_split
    return spec


def trains(config: Config, backbone: str) -> bool:
    """Return whether a backbone is trained here, on the upstream dataset."""
    return config.backbones[backbone].kind == "trained"


def view_spec(config: Config, view: str) -> Spec:
    """Spec of what is done to the images; the number of epochs is not part of it, so more only add blocks."""
    if view == "eval":
        return {"kind": "eval"}
    if view == "centre_crop":
        return {"kind": "centre_crop", **dump(config.features.centre_crop)}
    options = dump(config.features.views[view])
    del options["epochs"]
    return {"kind": "augmented", **options}


def view_epochs(config: Config, view: str) -> int:
    """Return how many epochs of a view are cached."""
    return config.features.views[view].epochs if view in config.features.views else 1


def features_spec(config: Config, backbone: str, dataset: str, split: str, view: str) -> Spec:
    """Spec that all blocks of a view share; a block adds its ranges of `samples` and `epochs`."""
    features = config.features
    return {
        "backbone": backbone,
        "dataset": dataset,
        "split": split,
        "view": view_spec(config, view),
        "with_task_loss": dataset == config.upstream.dataset,
        "format": features.format,
        "dtype": features.dtype,
        "precision": features.precision,
        "device": features.device,
        "batch_size": features.batch_size,
        "chunk_rows": features.chunk_rows,
        "threads": features.threads,
    }


def cache_spec(config: Config, backbone: str, dataset: str, split: str, view: str) -> Spec:
    """Spec of recording the blocks of a view; the number of images in the split is read from the dataset."""
    return {
        "block": features_spec(config, backbone, dataset, split, view),
        "epochs": view_epochs(config, view),
        "block_samples": config.features.block_samples,
        "block_epochs": config.features.block_epochs,
    }


def neighbours_spec(config: Config, backbone: str, dataset: str, split: str) -> Spec:
    """Spec of finding each image's nearest neighbour."""
    return {"backbone": backbone, "dataset": dataset, "split": split, **dump(config.evaluation.neighbours)}


def head_spec(config: Config, backbone: str, variant: str, seed: int) -> Spec:
    """Spec of training one head."""
    return {
        "backbone": backbone,
        "variant": variant,
        "seed": seed,
        "dataset": config.upstream.dataset,
        "split": config.upstream.train_split,
        "view": config.variants[variant].view,
        "training": dump(config.training_of(variant)),
    }


def evaluation_spec(config: Config, backbone: str, dataset: str, split: str, variant: str | None) -> Spec:
    """Spec of evaluating one dataset: the heads of a variant, or (None) the baselines."""
    spec = {
        "backbone": backbone,
        "dataset": dataset,
        "split": split,
        "is_upstream": (dataset, split) == (config.upstream.dataset, config.upstream.eval_split),
        "bootstrap": dump(config.evaluation.bootstrap),
    }
    if variant is not None:
        spec |= {"variant": variant, "seeds": list(config.seeds)}
    return spec


def evaluation_sets(config: Config) -> list[Downstream]:
    """Return every set that is evaluated: the upstream evaluation split first, then downstream in order."""
    upstream = Downstream(dataset=config.upstream.dataset, split=config.upstream.eval_split)
    return [upstream, *config.downstream]


def summary_spec(config: Config) -> Spec:
    """Spec of what tables and figures need to know: the sets and their order, the variants and seeds."""
    return {
        "upstream": f"{config.upstream.dataset}",
        "upstream_split": config.upstream.eval_split,
        "downstream": [dump(entry) for entry in config.downstream],
        "backbones": list(config.backbones),
        "variants": list(config.variants),
        "seeds": list(config.seeds),
    }


def plot_spec(config: Config, plot: str) -> Spec:
    """Spec of one figure."""
    return {**summary_spec(config), "size": dump(getattr(config.evaluation.plots, plot))}


def kind_module(config: Config, family: kinds.Family, name: str) -> str:
    """Return the module of a dataset's or backbone's kind, for the digest of the code that a job runs."""
    return kinds.module_name(family, getattr(config, family)[name].kind)
