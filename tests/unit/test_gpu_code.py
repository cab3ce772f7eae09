"""Code for GPUs, run on a machine without one (see `fake_gpu`): a wrong device or type is an error, values are none."""

# ruff: noqa: F811 (fixtures that are imported)
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import timm
import torch

from pipeline_lib.backbones.base import Backbone, MethodEncoder, TimmEncoder
from pipeline_lib.backbones.method import Options as MethodOptions
from pipeline_lib.checkpoints.loading import load
from pipeline_lib.config import kinds
from pipeline_lib.config.evaluation import Neighbours
from pipeline_lib.config.joint_training import JointOptions
from pipeline_lib.config.method_training import MethodTraining
from pipeline_lib.config.training import Training
from pipeline_lib.core import device
from pipeline_lib.core.artefacts import Manifest
from pipeline_lib.evaluation.while_training import evaluate
from pipeline_lib.heads import run, train
from pipeline_lib.heads.loss import loss_of
from pipeline_lib.heads.model import UncertaintyHead
from pipeline_lib.heads.spec import HeadSpec
from pipeline_lib.retrieval.search import nearest_neighbours
from pipeline_lib.scoring import run as run_scoring
from pipeline_lib.scoring.images import ImageList
from pipeline_lib.scoring.run import digest_of, score_images
from pipeline_lib.scoring.unfinished import Unfinished
from pipeline_lib.training.images import Batch, Normalise
from pipeline_lib.training.joint import JointTask
from pipeline_lib.training.method import MethodTask
from tests import jobs
from tests.unit import pretrained_world, worlds
from tests.unit.fake_gpu import GPU, gpu, gradients  # noqa: F401
from tests.unit.heads_world import CachedRows
from tests.unit.pretrained_world import World
from tests.unit.test_methods_losses import make

PRECISIONS = ("float32", "bfloat16")
QUICK_IN_BFLOAT16 = (pytest.param("float32", marks=pytest.mark.slow), "bfloat16")
ROWS = CachedRows(
    np.random.default_rng(0).normal(size=(2, 64, 12)).astype(np.float16),
    np.random.default_rng(1).random((2, 64), np.float32),
    label=np.arange(64) % 4,
)

pytestmark = pytest.mark.filterwarnings("ignore:CUDA is not available")


CONFIG = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "input_size": (3, 32, 32)}
CONFIG |= {"interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "center"}
MADE = Manifest("backbone", *({} for _ in range(6)), "", "")


def backbone(outside: Callable[[Any], Any], precision: str = "float32") -> Backbone:
    network = outside(lambda: timm.create_model("test_resnet", num_classes=10))
    return Backbone(TimmEncoder(network), CONFIG, 96, 10, MADE, GPU, precision)


def test_tensors_on_two_devices_are_an_error_as_on_a_gpu(gpu):
    with pytest.raises(RuntimeError, match="device"):
        torch.zeros(3, device=GPU) + torch.zeros(3)
    with pytest.raises(TypeError, match="copy it to the CPU"):
        torch.zeros(3, device=GPU).numpy()


@pytest.mark.parametrize("loss", kinds.kinds("heads.losses"))
@pytest.mark.parametrize("precision", PRECISIONS)
def test_heads_train_in_a_stack(gpu, monkeypatch, precision, loss):
    monkeypatch.setattr(run, "UncertaintyHead", lambda *arguments: gpu(lambda: UncertaintyHead(*arguments)))
    recipe = {"loss": loss, "precision": precision, "batch_size": 16, "episode_samples": 32, "warmup_episodes": 1}
    training = Training.model_validate(recipe | {"hidden": (8, 8)})
    which = {"backbone": "b", "variant": "v", "dataset": "d", "split": "train", "view": "train"}
    heads = train.train_heads(ROWS, [HeadSpec(seed=seed, training=training, **which) for seed in (1, 2)])
    assert [len(head.curve) for head in heads] == [4, 4]
    assert heads[0].weights["layers.0.weight"].shape == (8, 12)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Characters, a backbone and a checkpoint, made on the CPU."""
    return pretrained_world.world(tmp_path_factory.mktemp("world"))


def test_a_gpu_computes_float32_in_float32_and_the_same_each_time(gpu, monkeypatch):
    for name in ("allow_tf32", "deterministic"):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    assert device.choose_device("auto") == device.choose_device("cuda") == GPU
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == (False, True)


@pytest.mark.parametrize(("precision", "view"), [("float32", "eval"), ("bfloat16", "mixup"), ("float32", "tensors")])
def test_features_are_extracted(gpu, world, tmp_path, precision, view):
    views = {"eval": {"kind": "eval"}, "mixup": worlds.block_spec()["view"] | {"policy": {"kind": "mixup"}}}
    views["tensors"] = worlds.block_spec()["view"] | {"pixels": "tensor"}
    block = {"view": views[view], "samples": [0, 10], "epochs": [0, 1], "batch_size": 8, "device": "cuda"}
    made_from = {name: world.root / artefact for name, artefact in (("dataset", "latin"), ("backbone", "mine"))}
    jobs.run("features", worlds.block_spec(precision=precision, **block), tmp_path / "block", **made_from)


def test_a_method_that_is_cached_says_its_uncertainty(gpu, tmp_path):
    model = Backbone(MethodEncoder(gpu(lambda: make("sngp"))), CONFIG, 64, 5, MADE, GPU, "bfloat16")
    encoded = model.encode(torch.zeros((4, 3, 32, 32), dtype=torch.uint8))
    assert {values.device.type for values in encoded} == {"cuda"}


@pytest.mark.parametrize("precision", QUICK_IN_BFLOAT16)
def test_a_checkpoint_is_loaded_and_scores(gpu, world, monkeypatch, precision):
    checkpoint = gpu(world.export)
    monkeypatch.setattr(run_scoring, "_CHUNK_BATCHES", 2)
    model = load(checkpoint, device="auto", precision=precision)
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
    digest_of(model)
    images = ImageList([gpu(lambda: pictures(world))])
    with Unfinished(world.root / "scores.parquet", {"precision": precision}, None) as unfinished:
        score_images(images, model, unfinished, 4, 0)
        assert unfinished.table().num_rows == 5


@pytest.mark.parametrize("kind", kinds.kinds("task_losses"))
def test_task_losses(gpu, kind):
    module = kinds.load("task_losses", kind)
    found = np.concatenate(list(module.losses(ROWS, module.Options(), GPU)))
    assert found.shape == (ROWS.rows * ROWS.epochs,)


@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_neighbours_are_searched(gpu, backend):
    search = Neighbours(device="cuda", backend=backend, block_rows=32)
    nearest = nearest_neighbours(lambda start, stop: ROWS.read("embedding", 0, start, stop), 64, search)
    assert len(nearest.index) == 64


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds.kinds("methods"))
def test_the_loss_of_every_method_and_what_it_predicts(gpu, kind):
    recipe = MethodTraining(epochs=6, precision="bfloat16", ema_decay=0.9)
    task = MethodTask(gpu(lambda: make(kind)), recipe, Normalise(CONFIG, GPU))
    task.begin_epoch()
    crops = (2,) if task.model.two_crops else ()
    loss = task(torch.zeros((8, *crops, 3, 32, 32), dtype=torch.uint8), torch.arange(8) % 5)
    assert (loss.device.type, loss.shape) == ("cuda", ())
    prediction = task.predict(torch.zeros((8, 3, 32, 32), dtype=torch.uint8))
    assert {values.device.type for values in prediction} == {"cuda"}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow) for kind in kinds.kinds("methods")])
def test_every_method_trains(gradients, world, tmp_path, kind):
    section = {"kind": "method", "architecture": "test_vit", "image_size": 32, "method": {"kind": kind}}
    recipe = {"epochs": 1, "batch_size": 64, "warmup_epochs": 0, "clip_norm": 1.0}
    options = MethodOptions.model_validate(section | {"training": recipe}).model_dump(mode="json")
    spec = {"name": kind, "options": options, "train_split": "train", "eval_split": "test"}
    jobs.run("method", spec, tmp_path / "trained", dataset=world.root / "latin")


def test_a_backbone_and_its_head_train_together(gradients, world, tmp_path):
    options = JointOptions(epochs=1, batch_size=62, hidden=(8,), warmup_epochs=0)
    spec = {"backbone": "mine", "dataset": "latin", "train_split": "train", "eval_split": "test", "seed": 1}
    spec |= {"stop_gradient": False, "options": options.model_dump(mode="json")}
    made_from = {name: world.root / artefact for name, artefact in (("dataset", "latin"), ("backbone", "mine"))}
    jobs.run("joint_training", spec, tmp_path / "joint", **made_from)


@pytest.mark.slow
def test_a_classifier_trains(gradients, world, tmp_path):
    options = {"kind": "trained", "architecture": "test_resnet", "image_size": 32, "epochs": 1, "warmup_epochs": 0}
    spec = {"name": "trained", "train_split": "train", "options": options}
    jobs.run("backbone", spec, tmp_path / "trained", upstream=world.root / "latin")


@pytest.mark.parametrize("precision", QUICK_IN_BFLOAT16)
def test_what_trains_is_evaluated_and_computes_in_its_type(gpu, precision):
    recipe = JointOptions(precision=precision)
    joint = JointTask(backbone(gpu), UncertaintyHead(96, (8,)), loss_of(recipe), recipe, False)
    joint.begin_epoch()
    loss = joint(torch.zeros((8, 3, 32, 32), dtype=torch.uint8), torch.zeros(8, dtype=torch.int64))
    assert (loss.device.type, joint.record(1.0, 8).keys()) == ("cuda", set(joint.recorded))
    batch = Batch(torch.zeros((8, 3, 32, 32), dtype=torch.uint8), *torch.zeros((2, 8), dtype=torch.int64))
    held_out = MagicMock(**{"in_order.return_value": [batch], "images.__len__.return_value": 8})
    record = evaluate(joint.predict, 96, held_out)
    assert record.keys() == {"top1", "task_loss", "r1", "auroc_classification", "auroc_correct"}


def pictures(world: World) -> Path:
    """Write five pictures."""
    folder = world.root / "pictures"
    folder.mkdir(exist_ok=True)
    for number in range(5):
        world.images.image(number).save(folder / f"{number}.png")
    return folder
