"""The spec of each job: exactly the config values that its stage reads, and nothing else.

A spec is a plain mapping. As one sorted-JSON string it is the parameter by which Snakemake decides whether a
job is stale, the argument that the stage gets, and the record in the artefact's manifest. A value that can't
change the result (number of workers) is no part of it.
"""

from __future__ import annotations

from typing import Any

from pipeline_lib.config import kinds
from pipeline_lib.config.config import Config, Downstream
from pipeline_lib.config.deteriorations import draws
from pipeline_lib.config.section import Section

Spec = dict[str, Any]


def dump(section: Section) -> dict[str, Any]:
    """Return a config section as plain JSON values."""
    return section.model_dump(mode="json")


def dataset_spec(config: Config, dataset: str) -> Spec:
    """Spec of listing a dataset's images; where its files come from is no part of it."""
    options = dump(config.datasets[dataset])
    return {"name": dataset, "options": options, "data_dir": config.data_dir}


def download_spec(config: Config, dataset: str) -> Spec:
    """Spec of fetching a dataset's files."""
    download = [dump(entry) for entry in config.datasets[dataset].download]
    return {"name": dataset, "download": download, "data_dir": config.data_dir}


def downloaded_files_spec(config: Config, dataset: str) -> Spec:
    """Spec of which files are fetched, wherever they come from: addresses and checksums change none of them."""
    files = [{"file": entry.file, "unpack_to": entry.unpack_to} for entry in config.datasets[dataset].download]
    return {"name": dataset, "files": files, "data_dir": config.data_dir}


def downloaded_datasets(config: Config) -> list[str]:
    """Return the datasets whose files are fetched."""
    return [name for name, options in config.datasets.items() if options.download]


def tfds_datasets(config: Config) -> list[str]:
    """Return the datasets that TensorFlow Datasets fetches and prepares."""
    return [name for name, options in config.datasets.items() if options.kind == "tfds"]


def backbone_spec(config: Config, backbone: str) -> Spec:
    """Spec of making a backbone."""
    spec = {"name": backbone, "options": dump(config.backbone(backbone))}
    if trains(config, backbone):
        spec["train_split"] = config.upstream.train_split
    return spec


def trains(config: Config, backbone: str) -> bool:
    """Return whether a backbone is trained here, on the upstream dataset."""
    return config.backbone(backbone).kind == "trained"


def method_spec(config: Config, backbone: str) -> Spec:
    """Spec of training a method: a backbone of kind `method`."""
    upstream = config.upstream
    spec = {"name": backbone, "options": dump(config.backbone(backbone))}
    return {**spec, "train_split": upstream.train_split, "eval_split": upstream.eval_split}


def method_backbones(config: Config) -> list[str]:
    """Return the backbones that a method trains: those of kind `method`, and the models of the benchmark."""
    own = [name for name, options in config.backbones.items() if options.kind == "method"]
    return [*own, *config.benchmark_backbones]


def method_module(config: Config, backbone: str) -> str:
    """Return the module of a backbone's method, for the digest of the code that its training runs."""
    return kinds.module_name("methods", config.backbone(backbone).method.kind)


def view_spec(config: Config, view: str) -> Spec:
    """Spec of what is done to the images; the number of epochs is not part of it, so more only add blocks."""
    if view == "eval":
        return {"kind": "eval"}
    if view == "centre_crop":
        return {"kind": "centre_crop", **dump(config.features.centre_crop)}
    if view == "deteriorations":
        section = config.features.deteriorations
        return {"kind": "deteriorations", "seed": section.seed, "draws": [dump(draw) for draw in draws(section)]}
    options = dump(config.features.views[view])
    del options["epochs"]
    if options["policy"] is None:
        del options["policy"]
    return {"kind": "augmented", **options}


def view_epochs(config: Config, view: str) -> int:
    """Return how many epochs of a view are cached; a deterioration's draws count as epochs."""
    if view == "deteriorations":
        return len(draws(config.features.deteriorations))
    return config.features.views[view].epochs if view in config.features.views else 1


def joint_views(config: Config) -> list[str]:
    """Return the views that only ablations learn from: they are extracted together, from images decoded once."""
    views = {variant.view for variant in config.variants.values()}
    return [view for view in config.ablation_views() if view not in views]


def block_epochs(config: Config, view: str) -> int:
    """Return how many epochs of a view one block holds: all of those that are few or are extracted together."""
    if view == "deteriorations" or view in joint_views(config):
        return view_epochs(config, view)
    return config.features.block_epochs


def features_spec(config: Config, backbone: str, dataset: str, split: str, view: str) -> Spec:
    """Spec that all blocks of a view share; a block adds its ranges of `samples` and `epochs`."""
    features = config.features
    return {
        "backbone": backbone,
        "dataset": dataset,
        "split": split,
        "view": view_spec(config, view),
        "with_task_loss": dataset == config.upstream.dataset and config.has_classifier(backbone),
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
        "block_epochs": block_epochs(config, view),
    }


def feature_statistics_spec(config: Config, backbone: str, dataset: str, split: str, view: str) -> Spec:
    """Spec of describing the representations of a view; where that is computed is no part of it."""
    return {"backbone": backbone, "dataset": dataset, "split": split, "view": view}


def neighbours_spec(config: Config, backbone: str, dataset: str, split: str) -> Spec:
    """Spec of finding each image's nearest neighbour."""
    is_upstream = (dataset, split) == (config.upstream.dataset, config.upstream.eval_split)
    return {
        "backbone": backbone,
        "dataset": dataset,
        "split": split,
        "mix": None if is_upstream else dump(config.evaluation.mix),
        **dump(config.evaluation.neighbours),
    }


def head_spec(config: Config, backbone: str, variant: str, seed: int) -> Spec:
    """Spec of training one head."""
    return {
        "backbone": backbone,
        "variant": variant,
        "seed": seed,
        "dataset": config.upstream.dataset,
        "split": config.upstream.train_split,
        "view": config.variant(variant).view,
        "training": {**dump(config.training_of(variant)), "task_loss": config.task_loss_of(backbone, variant)},
    }


def task_loss_spec(config: Config, backbone: str, view: str, task_loss: str) -> Spec:
    """Spec of computing a task loss that needs no classifier."""
    upstream = {"dataset": config.upstream.dataset, "split": config.upstream.train_split}
    return {"backbone": backbone, **upstream, "view": view, "task_loss": task_loss, **dump(config.task_losses)}


def ablation_heads_spec(config: Config, backbone: str, view: str) -> Spec:
    """Spec of training all ablations that learn from a view: that of each head."""
    variants = config.ablation_views()[view]
    return {"heads": [head_spec(config, backbone, variant, seed) for variant in variants for seed in config.seeds]}


def ablation_evaluations_spec(config: Config, backbone: str, dataset: str, split: str) -> Spec:
    """Spec of evaluating all ablations on one set."""
    variants = sorted(config.ablations.variants)
    return {"evaluations": [evaluation_spec(config, backbone, dataset, split, variant) for variant in variants]}


def evaluation_spec(config: Config, backbone: str, dataset: str, split: str, variant: str | None) -> Spec:
    """Spec of evaluating one dataset: the heads of a variant, or (None) the baselines."""
    spec = {
        "backbone": backbone,
        "dataset": dataset,
        "split": split,
        "is_upstream": (dataset, split) == (config.upstream.dataset, config.upstream.eval_split),
        "bootstrap": dump(config.evaluation.bootstrap),
        "target_accuracies": list(config.evaluation.target_accuracies),
        "compat": config.evaluation.compat,
    }
    if variant is not None:
        spec |= {"variant": variant, "seeds": list(config.seeds)}
    return spec


def safe_retrieval_spec(config: Config, backbone: str, dataset: str, split: str, variant: str) -> Spec:
    """Spec of leaving out uncertain queries and database images of one set."""
    return {
        **_heads_on_set(config, backbone, dataset, split, variant),
        "shares": list(config.evaluation.safe_retrieval.shares),
        "table_share": config.evaluation.safe_retrieval.table_share,
    }


def calibration_spec(config: Config, backbone: str, dataset: str, split: str, variant: str) -> Spec:
    """Spec of calibrating the uncertainties of one set."""
    heads_on_set = _heads_on_set(config, backbone, dataset, split, variant)
    calibration = dump(config.evaluation.calibration)
    return {**heads_on_set, **calibration, "size": dump(config.figures.look("reliability"))}


def deteriorations_spec(config: Config, backbone: str, dataset: str, split: str, variant: str) -> Spec:
    """Spec of evaluating heads on deteriorated images of one set."""
    heads_on_set = _heads_on_set(config, backbone, dataset, split, variant)
    return {**heads_on_set, "draws": [dump(draw) for draw in draws(config.features.deteriorations)]}


def _heads_on_set(config: Config, backbone: str, dataset: str, split: str, variant: str) -> Spec:
    return {
        "backbone": backbone,
        "variant": variant,
        "seeds": list(config.seeds),
        "dataset": dataset,
        "split": split,
        "is_upstream": (dataset, split) == (config.upstream.dataset, config.upstream.eval_split),
    }


def projection_spec(config: Config) -> Spec:
    """Spec of the maps of one set, on the first backbone."""
    options = dump(config.evaluation.projection)
    return {**options, "backbone": next(iter(config.backbones)), **dump(projected_set(config))}


def projected_set(config: Config) -> Downstream:
    """Return the downstream set that is mapped."""
    wanted = config.evaluation.projection.dataset
    return next(entry for entry in config.downstream if wanted in (None, entry.dataset))


def joint_training_spec(config: Config, stop_gradient: bool, seed: int) -> Spec:
    """Spec of training classifier and head together."""
    return {
        "backbone": config.joint_training.backbone,
        "dataset": config.upstream.dataset,
        "train_split": config.upstream.train_split,
        "eval_split": config.upstream.eval_split,
        "stop_gradient": stop_gradient,
        "seed": seed,
        "options": dump(config.joint_training.options),
    }


def deteriorated_sets(config: Config) -> list[Downstream]:
    """Return the downstream sets whose images are also deteriorated."""
    return [entry for entry in config.downstream if entry.dataset in config.evaluation.deteriorated]


def averaged_sets(config: Config) -> list[Downstream]:
    """Return the downstream sets that Table 3 and Figure 4 average over."""
    names = config.evaluation.averaged
    return [entry for entry in config.downstream if not names or entry.dataset in names]


def evaluation_sets(config: Config) -> list[Downstream]:
    """Return every set that is evaluated: the upstream evaluation split first, then downstream in order."""
    upstream = Downstream(dataset=config.upstream.dataset, split=config.upstream.eval_split)
    return [upstream, *config.downstream]


def export_spec(config: Config, backbone: str, variant: str) -> Spec:
    """Spec of writing the checkpoint of a backbone's variant."""
    return {
        "backbone": backbone,
        "variant": variant,
        "seeds": list(config.seeds),
        "include_backbone": config.export.backbone,
        "sets": [dump(entry) for entry in evaluation_sets(config)],
    }


def kind_module(config: Config, family: kinds.Family, name: str) -> str:
    """Return the module of a dataset's or backbone's kind, for the digest of the code that a job runs."""
    options = config.backbone(name) if family == "backbones" else config.datasets[name]
    return kinds.module_name(family, options.kind)
