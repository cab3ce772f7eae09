"""Specs that nobody would write: each is a job, or one line that says why not."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.__main__ import main
from pipeline_lib.config.load import load_config
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Ref
from pipeline_lib.stages.command import validated
from pipeline_lib.stages.graph import Graph, load_stage

ROOT = Path(__file__).parents[2]
ODD = [
    *(None, True, "", 0, -1, 1e308, float("nan"), "1e-3", [], {}, [1], "../x", "a\nb", 10**12, -0.5, 0.5, [None]),
    *({"kind": "x"}, "\x00", "ü", [[]], 2, 1.5, "x" * 500, {"a": {"b": 1}}),
]
TARGETS = [
    *(Ref.to("metrics"), Ref.to("table", name="zero_shot"), Ref.to("figure", name="zero_shot")),
    *(Ref.to("export", backbone="resnet", variant="default"), Ref.to("dataset_card", dataset="greek")),
    Ref.to("deteriorations", backbone="resnet", variant="default", dataset="greek", split="test"),
    Ref.to("calibrate", backbone="resnet", variant="default", dataset="greek", split="test"),
]


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in items:
        yield (*above, key)
        yield from places(item, (*above, key))


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """A spec of each stage, as plain values."""
    config = load_config(ROOT / "workflow/configs/tiny.yaml")
    graph = Graph(config, tmp_path_factory.mktemp("results"), ROOT / "workflow/published")
    found: dict[str, dict[str, Any]] = {}
    for ref in graph.behind(TARGETS):
        stage = load_stage(ref.stage)
        found.setdefault(ref.stage, stage.Spec.of(config, **dict(ref.wildcards)).complete())
    return found


@pytest.mark.parametrize("seed", range(4))
def test_every_odd_value_is_a_spec_or_one_line(specs: dict[str, dict[str, Any]], seed: int) -> None:
    draw = random.Random(seed)
    for name, plain in specs.items():
        for _ in range(25):
            spec = copy.deepcopy(plain)
            *above, last = draw.choice(list(places(spec)) or [("new",)])
            section: Any = spec
            for key in above:
                section = section[key]
            section[last] = draw.choice(ODD)
            try:
                made = validated(name, load_stage(name), spec)
            except PipelineError as error:
                assert str(error) and "\n" not in str(error), f"{name}: {spec}"
            else:
                assert validated(name, load_stage(name), made.complete()) == made, f"{name}: {spec}"


def test_a_spec_that_is_no_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["metrics", "--spec", str(tmp_path), "--output", str(tmp_path / "out")])
    assert f"{tmp_path}: can't be read (Is a directory)" in capsys.readouterr().err
