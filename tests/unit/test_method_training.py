"""Training methods of the URL benchmark from images, and their models as backbones."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import load_file

from pipeline_lib.backbones.artefact import open_backbone
from pipeline_lib.backbones.method import Options, create
from pipeline_lib.config.benchmark import Benchmark
from pipeline_lib.config.method_training import MethodTraining
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Settings
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.plain_views import EvaluationView
from pipeline_lib.evaluation import while_training
from pipeline_lib.methods.base import Method
from pipeline_lib.training.images import Batch, Normalise
from pipeline_lib.training.method import MethodTask, method_trainer, peak_rate
from pipeline_lib.training.schedule import Schedule
from pipeline_lib.training.trainer import Trainer
from tests import jobs
from tests.unit import worlds

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = {"epochs": 2, "batch_size": 32, "optimizer": "adamw", "learning_rate": 0.003, "warmup_epochs": 0.5}
# Small uncertainty modules, where a method has one: what is tested here doesn't depend on their size.
SMALL = {"mcinfonce": {"hidden": [16]}, "elk": {"hidden": [16]}, "nivmf": {"hidden": [16]}, "hib": {"hidden": [16]}}
SMALL |= {"loss_prediction": {"hidden": [16]}}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """62 classes of characters: 124 to train on, 124 to validate on."""
    return worlds.glyphs(tmp_path_factory.mktemp("world"), per_class={"train": 2, "test": 2})


def make_spec(kind: str = "cross_entropy", architecture: str = "test_resnet", **training: Any) -> dict[str, Any]:
    section = {"kind": "method", "architecture": architecture, "image_size": 32, "seed": 3}
    section["method"] = {"kind": kind, **SMALL.get(kind, {})}
    options = Options.model_validate(section | {"training": RECIPE | training})
    return {"name": kind, "options": options.model_dump(mode="json"), "train_split": "train", "eval_split": "test"}


def train(images: Path, output: Path, spec: dict[str, Any], workers: int = 0) -> dict[str, bytes]:
    """Train, and return the bytes of every file of the artefact."""
    jobs.run("method", spec, output, Settings(workers=workers), dataset=images)
    return {path.name: path.read_bytes() for path in output.iterdir()}


def curve(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in files["curve.jsonl"].splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cross_entropy", "hib", "mc_dropout"])
def test_the_uncertainty_of_a_method_is_cached(images: Path, tmp_path: Path, kind: str) -> None:
    files = train(images, tmp_path / "model", make_spec(kind, epochs=1, warmup_epochs=0))
    before, after = curve(files)
    assert before["loss"] is None
    assert np.isfinite(after["loss"])
    assert 0 <= after["r1"] <= 1

    spec = worlds.block_spec(split="test", view={"kind": "eval"}, dtype="float32", samples=[0, 10], epochs=[0, 1])
    jobs.run("features", spec, tmp_path / "block", dataset=images, backbone=tmp_path / "model")
    cached = zarr.open_group(tmp_path / "block" / "arrays.zarr", mode="r")
    model = open_backbone(tmp_path / "model")
    dataset = ImageDataset(images, "test")
    view = EvaluationView(model.data_config)
    pixels = torch.stack([view(dataset.image(i), i, 0)[0] for i in range(10)])
    with torch.inference_mode():
        logits, uncertainty, embedding = model.encoder.network(model._normalise(pixels))
    assert logits.shape == (10, 62)
    np.testing.assert_allclose(np.asarray(cached["uncertainty"])[0], uncertainty, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.asarray(cached["embedding"])[0], embedding, rtol=1e-4, atol=1e-5)


def kill_at(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Interrupt the training when it has trained `epoch` epochs, before it can evaluate and save the last of them."""
    calls, evaluate = iter(range(100)), while_training.evaluate

    def interrupted(*arguments: Any, **named: Any) -> dict[str, float | None]:
        if next(calls) == epoch:
            raise KeyboardInterrupt
        return evaluate(*arguments, **named)

    monkeypatch.setattr(while_training, "evaluate", interrupted)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "architecture"), [("mcinfonce", "test_resnet"), ("sngp", "test_vit")])
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, architecture: str
) -> None:
    changes = {"ema_decay": 0.9, "accumulation_steps": 2, "optimizer": "lamb", "selection": "last"}
    spec = make_spec(kind, architecture, epochs=2, **changes)
    whole = train(images, tmp_path / "whole", spec)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at(patch, 2)
        train(images, tmp_path / "killed", spec)
    assert (tmp_path / "killed.resume").exists()
    assert train(images, tmp_path / "killed", spec) == whole
    assert not (tmp_path / "killed.resume").exists()


@pytest.mark.slow
def test_workers_change_nothing(images: Path, tmp_path: Path) -> None:
    spec = make_spec("infonce", epochs=1, warmup_epochs=0)
    assert train(images, tmp_path / "none", spec) == train(images, tmp_path / "two", spec, workers=2)


def test_a_rate_of_zero_only_evaluates(images: Path, tmp_path: Path) -> None:
    spec = make_spec(learning_rate=0)
    files = train(images, tmp_path / "model", spec)
    assert [line["epoch"] for line in curve(files)] == [0]
    torch.manual_seed(0)
    fresh = create(Options.model_validate(spec["options"]), 62, pretrained=True).state_dict()
    kept = load_file(tmp_path / "model/weights.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in fresh.items())


@pytest.mark.parametrize(
    ("architecture", "kind", "frozen", "whole"),
    [
        ("test_resnet", "sngp", ["conv1", "bn1", "layer1"], ("network.conv1", "network.bn1", "network.layer1")),
        ("test_vit", "sngp", ["patch_embed.proj.weight"], ("network.patch_embed.proj.parametrizations.weight.",)),
        ("test_vit", "cross_entropy", ["patch_embed", "cls_token", "blocks.0"], ("network.blocks.0.", "network.cls")),
    ],
)
def test_frozen_parts_never_move_and_all_others_do(
    architecture: str, kind: str, frozen: list[str], whole: tuple[str, ...]
) -> None:
    """In training mode SNGP moves the power iteration's vectors as well; EMA and weight decay move all weights."""
    subject = trainer(kind, architecture, frozen=frozen, ema_decay=0.5, weight_decay=0.1, warmup_epochs=0)
    for state in (subject.task.model.state_dict(), subject.task.evaluated.state_dict()):
        before = {name: value.clone() for name, value in state.items()}
        subject.train_epoch(0, batches(8, 8), lambda count: None)
        moved = {name for name, value in state.items() if not torch.equal(before[name], value)}
        assert any(name.startswith(whole) for name in before)
        assert not [name for name in moved if name.startswith(whole)]
        rest = {
            name for name, _ in subject.task.model.named_parameters() if not name.startswith((*whole, "network.patch"))
        }
        assert rest - moved == set()


def test_a_part_to_freeze_that_is_not_there_is_named() -> None:
    with pytest.raises(PipelineError, match=r"no part 'layer_1'; .*parts are conv1, bn1, .*fc.*mean 'layer1'"):
        trainer("cross_entropy", "test_resnet", frozen=["layer_1"])
    for kind in ("ensemble", "sngp"):  # their classifiers are the methods' own
        with pytest.raises(PipelineError, match=r"'fc' holds nothing to train; .*conv1, bn1, [^c]*layer4, and"):
            trainer(kind, "test_resnet", frozen=["fc"])
    everything = ["cls_token", "pos_embed", "patch_embed", "blocks", "norm", "head"]
    with pytest.raises(PipelineError, match="is all that this method could train; learning_rate: 0 only"):
        trainer(frozen=everything)


def first_weight(state: dict[str, torch.Tensor]) -> torch.Tensor:
    return next(state[name] for name in sorted(state) if name.endswith("weight")).clone()


@pytest.mark.slow
def test_the_best_epoch_is_kept(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted, seen = iter([0.1, 0.9, 0.9, 0.2]), []

    def evaluate(predict: Any, **_: Any) -> dict[str, float | None]:
        seen.append(first_weight(predict.__self__.evaluated.state_dict()))
        return {"r1": next(scripted), "auroc_correct": None, "top1": 0.0}

    monkeypatch.setattr(while_training, "evaluate", evaluate)
    train(images, tmp_path / "model", make_spec(epochs=3, selection="r1"))
    kept = first_weight(load_file(tmp_path / "model/weights.safetensors"))
    assert [torch.equal(kept, weight) for weight in seen] == [False, True, False, False]


def trainer(
    kind: str = "cross_entropy", architecture: str = "test_vit", steps_per_epoch: int = 1, **training: Any
) -> Trainer:
    options = Options.model_validate(make_spec(kind, architecture, **training)["options"])
    model = create(options, 5, pretrained=False)
    return trainer_of(model, options.training, steps_per_epoch)


def trainer_of(model: Method, recipe: MethodTraining, steps_per_epoch: int = 1) -> Trainer:
    config = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    task = MethodTask(model, recipe, Normalise(config, torch.device("cpu")))
    images = steps_per_epoch * recipe.batch_size * recipe.accumulation_steps
    return method_trainer(task, recipe, 0, images, f"training {type(model).__module__.rpartition('.')[2]}")


def batches(*sizes: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (sum(sizes), 3, 32, 32), generator=generator, dtype=torch.uint8)
    label = torch.randint(0, 5, (sum(sizes),), generator=generator)
    borders = np.cumsum([0, *sizes])
    return [Batch(pixels[a:b], label[a:b], torch.arange(a, b)) for a, b in itertools.pairwise(borders)]


@pytest.mark.parametrize("sizes", [(8, 8), (8, 4), (6, 4, 2)])
def test_accumulated_steps_equal_one_large_step(sizes: tuple[int, ...]) -> None:
    """A ViT has no BatchNorm: cutting a batch changes nothing but rounding, also where the last cut is smaller."""
    one, many = (
        trainer(optimizer="sgd", warmup_epochs=0),
        trainer(optimizer="sgd", warmup_epochs=0, accumulation_steps=3),
    )
    many._peaks = one._peaks
    before = {name: value.clone() for name, value in one.task.model.state_dict().items()}
    losses = [each.train_epoch(0, given, lambda count: None)
              for each, given in ((one, batches(sum(sizes))), (many, batches(*sizes)))]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, value in one.task.model.state_dict().items():
        torch.testing.assert_close(many.task.model.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(before[name], value) for name, value in one.task.model.state_dict().items())


def test_the_average_of_the_weights_is_what_is_evaluated() -> None:
    subject = trainer(ema_decay=0.5, warmup_epochs=0)
    name = "network.patch_embed.proj.weight"
    start = subject.task.model.state_dict()[name].clone()
    subject.train_epoch(0, batches(8), lambda count: None)
    trained = subject.task.model.state_dict()[name]
    torch.testing.assert_close(subject.task.evaluated.state_dict()[name], (start + trained) / 2)


def test_a_loss_that_is_not_finite_is_named() -> None:
    subject = trainer(warmup_epochs=0)
    with torch.no_grad():
        subject.task.model.network.get_classifier().weight.fill_(float("inf"))
    with pytest.raises(PipelineError, match=r"cross_entropy: the loss is not finite in epoch 1, step 1; lower"):
        subject.train_epoch(0, batches(8), lambda count: None)


def test_the_rate_warms_up_to_its_peak_and_falls_to_zero() -> None:
    recipe = MethodTraining(epochs=10, warmup_epochs=2, learning_rate=0.01, warmup_learning_rate=0.001)
    peak = peak_rate(recipe)
    assert peak == pytest.approx(0.01 * (128 / 256) ** 0.5)
    schedule = Schedule(recipe.epochs, recipe.warmup_epochs, recipe.warmup_learning_rate / peak, 1000_000)
    assert schedule.rate(0, 0) == pytest.approx(0.001 / peak)
    assert schedule.rate(1, 999_999) == pytest.approx(1, abs=1e-5)
    assert schedule.rate(5, 0) == pytest.approx(0.5)
    assert schedule.rate(10, 0) == pytest.approx(0)
    sgd = MethodTraining(optimizer="sgd", batch_size=512, accumulation_steps=2)
    assert peak_rate(sgd) == pytest.approx(1e-3 * 4)


def test_a_benchmark_is_a_backbone_per_architecture_method_and_seed() -> None:
    section = {"seeds": [4, 5], "training": {"epochs": 9}, "architectures": {}}
    section["architectures"]["small"] = {"architecture": "test_resnet", "image_size": 32, "methods": {
        "ce": {"method": {"kind": "cross_entropy"}},
        "mc": {"method": {"kind": "mcinfonce", "inv_temp": 7}, "training": {"epochs": 8}},
    }}  # fmt: skip
    found = Benchmark.model_validate(section).backbones()
    assert list(found) == ["small_ce_seed4", "small_ce_seed5", "small_mc_seed4", "small_mc_seed5"]
    options = Options.model_validate(found["small_mc_seed5"])
    assert (options.seed, options.method.inv_temp, options.training.epochs) == (5, 7, 8)
    assert Options.model_validate(found["small_ce_seed4"]).training.epochs == 9


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"inv_temp": 3}, r"needs a 'kind'; allowed: cross_entropy"),
        ({"kind": "mcinfonse"}, r"kind 'mcinfonse' of methods is unknown; .*did you mean 'mcinfonce'"),
        ({"kind": "mcinfonce", "temperature": 3}, "temperature"),
    ],
)
def test_wrong_methods_are_named(method: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options.model_validate({"kind": "method", "architecture": "test_resnet", "method": method})
