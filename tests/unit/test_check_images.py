"""What a number of images decides is checked as soon as the dataset is indexed, before anything is extracted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.config.load import parse_config
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Ref
from pipeline_lib.stages import head
from pipeline_lib.stages.graph import Graph
from tests.jobs import make

CONFIG: dict[str, Any] = {
    "upstream": {"dataset": "latin"},
    "downstream": ["greek"],
    "datasets": {
        "latin": {"kind": "glyphs", "script": "latin", "per_class": {"train": 2, "test": 1}},
        "greek": {"kind": "glyphs", "script": "greek", "per_class": {"test": 1}},
    },
    "backbones": {"resnet": {"kind": "trained", "architecture": "test_resnet", "image_size": 32}},
    "variants": {"default": {}, "knn": {"training": {"task_loss": "knn"}}},
    "seeds": [1],
    "features": {"views": {"train": {"epochs": 2}}},
    "training": {"batch_size": 32, "episode_samples": 100, "warmup_episodes": 1, "epochs": 100},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both datasets are indexed: 124 upstream images of 62 classes to train on, and 48 of greek to test on."""
    folder = tmp_path_factory.mktemp("results")
    make(Graph(parse_config(CONFIG), folder, folder), *(Ref.to("dataset", dataset=name) for name in ("latin", "greek")))
    return folder


HEAD = Ref.to("head", backbone="resnet", variant="default", seed=1)
SET = {"backbone": "resnet", "dataset": "greek", "split": "test"}


@pytest.mark.parametrize(
    ("changes", "ref", "message"),
    [
        (
            {"training": {"batch_size": 2048, "epochs": 10}},
            HEAD,
            r"variant 'default' on upstream 'latin/train' \(124 images\): training.batch_size is 2048, but 10 ",
        ),
        (
            {"training": {"batch_size": 32, "epochs": 10}},
            HEAD,
            r"'latin/train' \(124 images\): training.warmup_episodes is 25, but 1216 images are only 1 episodes",
        ),
        (
            {"task_losses": {"folds": 200}},
            Ref.to("task_loss", backbone="resnet", view="train", task_loss="probe"),
            "task_loss 'probe' needs 200 images, but upstream 'latin/train' has 124",
        ),
        (
            {"evaluation": {"safe_retrieval": {"shares": [0, 0.98], "table_share": 0.98}}},
            Ref.to("safe_retrieval", variant="default", **SET),
            r"'greek/test' has 48 images, of which evaluation.safe_retrieval.shares up to 0.98 leave 1",
        ),
        (
            {},
            Ref.to("calibrate", variant="default", **SET),
            "'greek/test' has 48 images; with 300 to .* lower evaluation.calibration.images to 24 or less",
        ),
    ],
)
def test_too_few_images_are_refused_before_anything_is_extracted(
    results: Path, tmp_path: Path, changes: dict[str, Any], ref: Ref, message: str
) -> None:
    config = parse_config(CONFIG | changes)
    Graph(config, tmp_path, tmp_path).inputs(ref)  # nothing is known of a dataset that isn't indexed
    with pytest.raises(PipelineError, match=message):
        Graph(config, results, results).inputs(ref)


def test_few_optimiser_steps_and_a_small_sample_are_said(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head._warn_once.cache_clear()
    enough = Graph(parse_config(CONFIG), results, results)
    enough.inputs(HEAD)
    assert capsys.readouterr().err == ""
    few = {"training": CONFIG["training"] | {"epochs": 10}, "task_losses": {"images": 100}}
    graph = Graph(parse_config(CONFIG | few), results, results)
    for _ in range(2):
        graph.inputs(HEAD)
        graph.inputs(Ref.to("task_loss", backbone="resnet", view="train", task_loss="knn"))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0].startswith("WARNING: heads of variant 'default' take only 38 optimiser steps: 300 or more")
    assert said[1].startswith("WARNING: task_losses.images is 100, but 'knn' needs two of each of 62 classes")
