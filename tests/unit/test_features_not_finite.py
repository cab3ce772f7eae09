"""NaN in a cache ends whatever reads it, with one line that names the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.__main__ import main
from pipeline_lib.core.artefacts import canonical_json
from pipeline_lib.features.blocks import block_name
from pipeline_lib.features.cache import FeatureCache
from tests.unit import worlds
from tests.unit.heads_world import small_training
from tests.unit.test_features import extract_view
from tests.unit.test_large_caches import rewrite

ROW = 77
RECIPE = {"batch_size": 16, "episode_samples": 64}
HEAD = {"backbone": "mine", "variant": "v", "seed": 1, "dataset": "latin", "split": "train", "view": "train"}
HEAD |= {"training": small_training(**RECIPE).model_dump(mode="json")}
SEARCH = {"backbone": "mine", "dataset": "latin", "split": "train", "backend": "torch", "device": "cpu", "threads": 1}
SEARCH |= {"block_rows": 50, "mix": {"images": 100, "seed": 0}}
LOSS = {"backbone": "mine", "dataset": "latin", "split": "train", "view": "train", "task_loss": "knn"}
LOSS |= {"temperature": 0.1, "images": 100, "seed": 0, "device": "cpu", "threads": 1}


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
        ("head", HEAD, {"--features": "broken"}),
        ("ablation_heads", {"heads": [HEAD]}, {"--features": "broken"}),
        ("task_loss", LOSS, {"--features": "broken"}),
        ("neighbours", SEARCH, {"--features": "broken"}),
        ("neighbours", SEARCH, {"--features": "whole", "--upstream-features": "broken"}),
    ],
    ids=["head", "ablations", "task loss", "neighbours", "neighbours in a mix"],
)
def test_the_image_behind_nan_is_named_and_nothing_is_left_behind(
    views: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    spec: dict,
    views_read: dict[str, str],
) -> None:
    paths = [text for option, name in views_read.items() for text in (option, str(views[name]))]
    assert main([stage, "--spec", canonical_json(spec), *paths, "--output", str(tmp_path / "out" / "made")]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    sample_id = FeatureCache(views["whole"]).read_all("sample_id")[ROW]
    assert f"{stage}: error: {views['broken']}: sample_id {sample_id} of dataset 'latin': " in line
    assert "NaN or inf" in line
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
