"""NaN in a cache ends whatever reads it, with one line that names the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Job
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.stages import head
from tests.jobs import run
from tests.unit import worlds
from tests.unit.heads_world import head_spec, small_training
from tests.unit.test_large_caches import rewrite
from tests.unit.worlds import block_name, extract_view

ROW = 77
SET = {"backbone": "mine", "dataset": "latin", "split": "train"}
TRAINING = small_training(batch_size=16, episode_samples=64)
SEARCH = SET | {"search": {"backend": "torch", "device": "cpu", "block_rows": 50}, "mix": {"images": 100, "seed": 0}}
LOSS = SET | {"view": "train", "options": {"kind": "knn", "images": 100, "device": "cpu"}}


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same view twice, whole and with NaN in the representation of an image."""
    directory = tmp_path_factory.mktemp("world")
    worlds.glyphs(directory)
    worlds.backbone(directory)
    for name in ("whole", "broken"):
        cache = extract_view(directory, directory / name)
    values = np.stack([cache.read_all("embedding", epoch) for epoch in range(3)])
    values[0, ROW, 5] = np.nan
    rewrite(directory / "broken", block_name((0, 124), (0, 3)), embedding=values)
    return {name: directory / name for name in ("whole", "broken")}


@pytest.mark.parametrize(
    ("stage", "spec", "views_read"),
    [
        ("head", head_spec(training=TRAINING).plain(), {"features": "broken"}),
        ("task_loss", LOSS, {"features": "broken"}),
        ("neighbours", SEARCH, {"features": "broken"}),
        ("neighbours", SEARCH, {"features": "whole", "upstream_features": "broken"}),
    ],
    ids=["head", "task loss", "neighbours", "neighbours in a mix"],
)
def test_the_image_behind_nan_is_named_and_nothing_is_left_behind(
    views: dict[str, Path], tmp_path: Path, stage: str, spec: dict, views_read: dict[str, str]
) -> None:
    with raises_of_image(views):
        run(stage, spec, tmp_path / "out" / "made", **{name: views[of] / "cache" for name, of in views_read.items()})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_heads_that_are_trained_together_name_it_too(views: dict[str, Path], tmp_path: Path) -> None:
    inputs = {"features": (views["broken"] / "cache",)}
    specs = [head_spec(seed, TRAINING) for seed in (1, 2)]
    with raises_of_image(views):
        head.run_together([Job("head", spec, inputs, tmp_path / f"seed{spec.seed}") for spec in specs])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def raises_of_image(views: dict[str, Path]) -> pytest.RaisesExc[PipelineError]:
    sample_id = FeatureCache(views["whole"]).read_all("sample_id")[ROW]
    return pytest.raises(
        PipelineError, match=rf"{views['broken']}: sample_id {sample_id} of dataset 'latin': .*NaN(,| or) inf"
    )
