"""Heads for a network of one's own in one call: the pipeline's own jobs, in this process, without a config file.

    images --dataset--> index --features--> cache --task loss, heads--> heads --export--> checkpoint

What is made on the way lies in a folder of results, so a call that was stopped goes on, and the checkpoint has the
bytes that a run with the same settings gives it.
"""

from __future__ import annotations

import contextlib
import math
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from pipeline_lib.config.config import Config
from pipeline_lib.config.faults import describe
from pipeline_lib.config.features import Device, Precision
from pipeline_lib.config.section import Section, Seeds
from pipeline_lib.config.task_losses import CROSS_ENTROPY, TaskLoss
from pipeline_lib.core import artefacts
from pipeline_lib.core.cores import usable_cores
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Ref
from pipeline_lib.core.locks import held
from pipeline_lib.core.ownership import RUN_LOCK, require_replaceable, require_results
from pipeline_lib.datasets.archive_members import list_members
from pipeline_lib.datasets.base import has_ignored_part, is_image_name
from pipeline_lib.datasets.files import list_images
from pipeline_lib.stages.graph import Graph, load_stage
from pipeline_lib.stages.in_process import make

VARIANT = "default"
_TRAIN, _TEST = "train", "test"
_TEST_NAMES = ("test", "val", "validation")
_TABLES = (".csv", ".tsv", ".parquet")
_ARCHIVES = (".zip", ".tar")
# What teaches heads where the classifier can't, with labels and without.
_BY_LABELS, _BY_NOTHING = "knn", "contrastive"
_BATCHES = (128, 2048)
# A block is what a kill costs.
_BLOCK_SAMPLES = 256


class Recipe(Section):
    """How heads are learnt; the defaults suit some hundred images and more."""

    seeds: Seeds = Field((1, 2, 3), description="One head each.")
    task_loss: TaskLoss | None = Field(
        None,
        description="What images are ranked by: cross_entropy of the network's classifier, knn, probe or contrastive. "
        "Default: the classifier's where it has as many outputs as there are classes, or --outputs says which they "
        "are; else knn; contrastive without labels.",
    )
    outputs: str | None = Field(None, description="Which outputs the classes are: imagenet1k, imagenet21k, or a file.")
    epochs: int = Field(10, ge=1, description="Augmentations of each image.")
    steps: int = Field(600, ge=1, description="Optimiser steps that each head takes at least.")
    test_share: float = Field(0.2, gt=0, lt=1, description="Share of the images that is held out.")
    unlabelled: bool = Field(False, description="Folders of images are no classes.")
    label_column: str = Field("label", description="Column of a table with the class of each image.")
    skip_unreadable: int = Field(0, ge=0, description="How many images may fail to decode.")
    batch_size: int = Field(64, ge=1, description="Images at a time.")
    workers: int | None = Field(None, ge=0, description="Processes that decode. Default: half of the cores.")
    threads: int | None = Field(None, ge=1, description="Threads of the network. Default: half of the cores.")
    dtype: Literal["float16", "float32"] = Field("float16", description="Of the representations that heads learn from.")
    device: Device = Field("auto", description="auto, cpu or cuda.")
    precision: Precision = Field("float32", description="Of the network: float32 or bfloat16.")


def recipe_of(**fields: Any) -> Recipe:
    """Return a recipe; raises `PipelineError` of one line for values that are not valid."""
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise PipelineError(describe(error, Recipe)) from None


@contextlib.contextmanager
def work_folder(out: Path, work: Path | None) -> Iterator[Path]:
    """Hold the folder of what is made on the way to a checkpoint: `work`, or one beside it that is deleted at the end.

    Raises `PipelineError` where it, or `out`, is somebody else's, or another process is at work there.
    """
    require_replaceable(out, "export")
    folder = out.with_name(f".{out.resolve().name}.fit") if work is None else work
    require_results(folder)
    if work is None and folder.exists() and not (folder / RUN_LOCK).exists():
        raise PipelineError(f"{folder}: is needed for what is made on the way, but there already; move it")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / RUN_LOCK, "a") as lock:
        if not held(lock):
            raise PipelineError(f"{folder}: another fit is at work there; wait, or choose another folder")
        yield folder
    if work is None:
        shutil.rmtree(folder)


def fit_heads(backbone: Mapping[str, Any], images: Path, out: Path, recipe: Recipe, folder: Path) -> None:
    """Learn heads for a backbone and write a checkpoint of both.

    Parameters
    ----------
    backbone
        A section of the config's `backbones`.
    images
        Folder or archive of class folders (or of `train` and `test` with class folders), a table, or images without
        labels.
    out
        Folder of the checkpoint; an earlier one is replaced.
    recipe
        How.
    folder
        Where results of the way are; those that are there already are used.

    Raises
    ------
    PipelineError
        For images or a network that don't do.
    """
    dataset, is_labelled = _dataset(images, recipe, folder)
    name = _name(str(backbone.get("model") or backbone.get("factory")))
    source = _name(images.resolve().stem)
    config = config_of(name, backbone, source, dataset, recipe, images=2, task_loss=_BY_LABELS)
    graph = Graph(config, folder, folder)
    first = [Ref.to("dataset", dataset=source), Ref.to("backbone", backbone=name)]
    make(graph, first, _say)
    listed, network = (artefacts.read(graph.folder(ref), verify=False).facts for ref in first)
    if not {_TRAIN, _TEST} <= listed["splits"].keys():
        raise PipelineError(f"{images}: has too few images to hold some out; give some dozens at least")
    count, classes = listed["splits"][_TRAIN], len(listed["classes"])
    task_loss = recipe.task_loss
    if task_loss is None and is_labelled:
        task_loss = CROSS_ENTROPY if recipe.outputs or network["num_classes"] == classes else _BY_LABELS
    task_loss = task_loss or _BY_NOTHING
    print(
        f"{count:,} images to learn from and {listed['splits'][_TEST]:,} held out, "
        f"{f'{classes:,} classes' if is_labelled else 'no labels'}; {name}: {network['dim']:,} numbers an image, "
        f"{network['num_classes']:,} outputs; task loss: {task_loss}",
        flush=True,
    )
    graph = Graph(config_of(name, backbone, source, dataset, recipe, count, task_loss), folder, folder)
    export = Ref.to("export", backbone=name, variant=VARIANT)
    make(graph, graph.sources(export), _say)
    load_stage("export").run(graph.job(export, elsewhere=out))


def config_of(
    name: str,
    backbone: Mapping[str, Any],
    source: str,
    dataset: Mapping[str, Any],
    recipe: Recipe,
    images: int,
    task_loss: str,
) -> Config:
    """Return the config that says what a fit does.

    name, source: of backbone and dataset. images: how many there are to learn from, by which batches and passes are
    chosen. task_loss: as there.
    """
    cores = usable_cores()
    batch = max(2, min(max(images * recipe.epochs // recipe.steps, _BATCHES[0]), _BATCHES[1], images) // 2 * 2)
    passes = max(recipe.epochs, math.ceil(recipe.steps * batch / images))
    config = {
        "upstream": {"dataset": source, "train_split": _TRAIN, "eval_split": _TEST},
        "downstream": [],
        "data_dir": ".",
        "datasets": {source: dataset},
        "backbones": {name: backbone},
        "variants": {VARIANT: {}},
        "seeds": list(recipe.seeds),
        "features": {
            "batch_size": recipe.batch_size,
            "workers": max(1, cores // 2) if recipe.workers is None else recipe.workers,
            "threads": max(1, cores - cores // 2) if recipe.threads is None else recipe.threads,
            "device": recipe.device,
            "dtype": recipe.dtype,
            "precision": recipe.precision,
            "block_samples": _BLOCK_SAMPLES,
            "block_epochs": recipe.epochs,
            "views": {"train": {"epochs": recipe.epochs}},
        },
        "training": {
            "task_loss": task_loss,
            "batch_size": batch,
            "epochs": passes,
            "episode_samples": max(batch, passes * images // 100),
            "warmup_episodes": 5,
            "device": recipe.device,
        },
        # An honest share must leave neighbours of the few images that are held out.
        "evaluation": {"safe_retrieval": {"shares": [0, 0.1], "table_share": 0.1}},
    }
    try:
        return Config.model_validate(config)
    except ValidationError as error:
        raise PipelineError(describe(error, Config)) from None


def _dataset(images: Path, recipe: Recipe, folder: Path) -> tuple[dict[str, Any], bool]:
    """Return the section of a dataset for what the user gave, and whether its images have labels."""
    if not images.exists():
        raise PipelineError(f"{images}: no such folder, archive or table of images")
    path = str(images.resolve())
    split = {"split_by": {_TRAIN: 1 - recipe.test_share, _TEST: recipe.test_share}}
    common: dict[str, Any] = {"skip_unreadable": recipe.skip_unreadable}
    if recipe.outputs is not None:
        common["outputs"] = recipe.outputs
    if images.name.lower().endswith(_TABLES):
        table = {"kind": "table", "path": path, "images": str(Path(path).parent), "label_column": recipe.label_column}
        return {**table, **split, **common}, True
    names = _image_names(images)
    top = {name.split("/", 1)[0] for name in names if "/" in name}
    if recipe.unlabelled or not top:
        listed = folder / "images.csv"
        _write_list(names, listed)
        table = {"kind": "table", "path": str(listed.resolve()), "images": path, "label_column": "label"}
        return {**table, **split, **common}, False
    kind = {"kind": "folder" if images.is_dir() else "archive", "path": path}
    held_out = [name for name in _TEST_NAMES if name in top]
    if _TRAIN in top and held_out:
        others = [name for name in names if name.split("/", 1)[0] not in (_TRAIN, held_out[0])]
        if others:
            print(
                f"{images}: the images in '{_TRAIN}' are learnt from, those in '{held_out[0]}' held out; the other "
                f"{len(others):,} are left out (the first: {others[0]})",
                file=sys.stderr,
            )
        return {**kind, "splits": {_TRAIN: _TRAIN, _TEST: held_out[0]}, **common}, True
    return {**kind, **split, **common}, True


def _image_names(images: Path) -> list[str]:
    if images.is_dir():
        return sorted(list_images(images, "")[0])
    if not images.name.lower().endswith(_ARCHIVES):
        raise PipelineError(f"{images}: is no folder, .zip, .tar, {', '.join(_TABLES)}; give one of these")
    names = [member.name for member in list_members(images, checksum=False)]
    return [name for name in names if is_image_name(name) and not has_ignored_part(name)]


def _write_list(names: Sequence[str], path: Path) -> None:
    """Write the table of images without labels, unless it is the same already."""
    import pandas as pd

    text = pd.DataFrame({"path": names, "label": "image"}).to_csv(index=False)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with artefacts.writing_file(path) as file:
            file.write(text)


def _name(text: str) -> str:
    """Return a name for the config: letters, digits and some signs."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text.rpartition(":")[2]).lstrip("_.-")[:80] or "mine"


def _say(ref: Ref, left: int) -> None:
    what = " ".join(value for name, value in ref.wildcards if name not in ("backbone", "dataset", "variant"))
    print(f"[{left} left] {ref.stage} {what}".rstrip(), file=sys.stderr, flush=True)
