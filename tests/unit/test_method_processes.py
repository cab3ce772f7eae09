"""Training a method in several processes, one for each GPU; here two on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline_lib.__main__ import main
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.base import UnreadableImageError
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.plain_views import EvaluationView
from pipeline_lib.training import method, processes
from pipeline_lib.training.images import ImageBatches
from tests import jobs
from tests.unit import train_together, worlds
from tests.unit.test_method_training import batches, make_spec, trainer

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL_STEPS = {"optimizer": "sgd", "learning_rate": 0.1, "warmup_epochs": 0, "selection": "last"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """62 classes of characters: 62 to train on, 62 to validate on."""
    return worlds.glyphs(tmp_path_factory.mktemp("world"), per_class={"train": 1, "test": 1})


def spec_of(kind: str, method: dict[str, Any] | None = None, **training: Any) -> dict[str, Any]:
    """A ViT has no BatchNorm; under gradient descent a small difference of the gradient stays one of the weights."""
    spec = make_spec(kind, "test_vit", **SMALL_STEPS | {"epochs": 1, "batch_size": 16} | training)
    spec["options"]["method"] |= method or {}
    return spec


def assert_equal_up_to_rounding(one: Path, other: Path) -> None:
    first, second = (load_file(folder / "weights.safetensors") for folder in (one, other))
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: name + text)
    losses = [json.loads((folder / "curve.jsonl").read_text().splitlines()[-1])["loss"] for folder in (one, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_two_processes_train_as_one(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contrastive with two crops and samples; with inner layers; with statistics, and after a kill.

    And what the stage started them for: accumulated batches and averaged weights.
    """
    specs = {
        "mcinfonce": spec_of("mcinfonce"),
        "loss_prediction": spec_of("loss_prediction", {"layers": ["blocks.0", "norm"], "hidden": [16, 16]}),
        "whole": (whole := spec_of("sngp", {"features": 64}, epochs=2)),
        "resumed": whole,
    }
    first = {"images": str(images), "output": str(tmp_path / "two"), "specs": specs}
    monkeypatch.setenv(train_together.VARIABLE, json.dumps(first))
    monkeypatch.setattr(processes, "COMMAND", "tests.unit.train_together")
    specs["asked_for"] = spec_of("infonce", accumulation_steps=2, ema_decay=0.5)
    arguments = ["--spec", json.dumps(specs["asked_for"]), "--dataset", str(images), "--processes", "2"]
    assert main(["method", *arguments, "--output", str(tmp_path / "two/asked_for")]) == 0
    assert json.loads((tmp_path / "two/asked_for/manifest.json").read_text())["facts"]["processes"] == 2
    for name in specs.keys() - {"resumed"}:
        jobs.run("method", specs[name], tmp_path / "one" / name, dataset=images)
        assert_equal_up_to_rounding(tmp_path / "one" / name, tmp_path / "two" / name)
    for file in ("weights.safetensors", "curve.jsonl", "manifest.json"):
        assert (tmp_path / "two/whole" / file).read_bytes() == (tmp_path / "two/resumed" / file).read_bytes()


def test_more_processes_than_gpus_are_refused_instead_of_waiting_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch is told of two GPUs."""
    started: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(processes, "run_in_processes", lambda _, count: started.append(count))

    def code(device: str, count: int) -> int:
        spec = json.dumps(spec_of("infonce", device=device))
        paths = ["--dataset", str(tmp_path), "--output", str(tmp_path / "out")]
        return main(["method", "--spec", spec, *paths, "--processes", str(count)])

    assert [code("auto", 4), code("cuda", 3)] == [1, 1]
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(" needs a GPU of its own")[0] for line in said] == [
        f"method: error: --processes {count}: each" for count in (4, 3)
    ]
    assert [code("auto", 2), code("cpu", 4)] == [0, 0]
    assert started == [2, 4]


def test_parts_make_up_each_batch(images: Path) -> None:
    dataset = ImageDataset(images, "train")
    view = EvaluationView({"input_size": (3, 32, 32), "interpolation": "bicubic", "crop_pct": 1, "crop_mode": "center"})
    whole = list(ImageBatches(dataset, view, 20).shuffled(1, 0))
    parts = [list(ImageBatches(dataset, view, 20, part=part, parts=3).shuffled(1, 0)) for part in range(3)]
    assert [len(batch.label) for batch in whole] == [20, 20, 20, 2]
    assert [len(batch.label) for batch in parts[0]] == [6, 6, 6, 0]
    for batch, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(batch.position, torch.cat([piece.position for piece in pieces]))
        assert torch.equal(batch.pixels, torch.cat([piece.pixels for piece in pieces if len(piece.label)]))


def test_images_that_all_parts_together_skip_are_counted(images: Path) -> None:
    batches = ImageBatches(ImageDataset(images, "train"), None, 20)
    with pytest.raises(UnreadableImageError, match=r"one is broken; repair or remove it"):
        batches.skip({3: "one is broken"})


def test_a_batch_too_small_for_its_processes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each process would leave out every batch."""
    trainer(batch_size=3)
    monkeypatch.setattr(method, "process_count", lambda: 2)
    trainer(batch_size=4)
    with pytest.raises(PipelineError, match=r"batch_size is 3, but 2 processes .* 2 images each; make it at least 4"):
        trainer(batch_size=3)


def test_an_epoch_without_images_is_an_error() -> None:
    with pytest.raises(PipelineError, match=r"saw no image in epoch 1: no batch has 2 readable images"):
        trainer(warmup_epochs=0).train_epoch(0, batches(1, 1), lambda count: None)
