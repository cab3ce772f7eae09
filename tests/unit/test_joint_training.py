"""Joint training: with stop-gradient the head leaves the backbone alone, and a kill changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file
from sklearn.metrics import log_loss, roc_auc_score
from torch import nn
from torch.nn import functional

from pipeline_lib.backbones.artefact import open_backbone
from pipeline_lib.backbones.base import Backbone, HookedEncoder
from pipeline_lib.config.features import Augmentation
from pipeline_lib.config.joint_training import JointOptions
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Settings
from pipeline_lib.datasets.base import UnreadableImageError
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.views import AugmentedView, EvaluationView
from pipeline_lib.evaluation import while_training
from pipeline_lib.evaluation.while_training import evaluate
from pipeline_lib.heads.loss import loss_of
from pipeline_lib.heads.model import UncertaintyHead
from pipeline_lib.training.images import Batch, ImageBatches
from pipeline_lib.training.joint import JointTask, joint_trainer
from pipeline_lib.training.schedule import Schedule, start_of_warmup
from pipeline_lib.training.trainer import Trainer
from tests import jobs

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 16,
    "learning_rate": 0.002,
    "head_learning_rate": 0.002,
    "hidden": [8],
    "warmup_epochs": 0.5,
    "scale": [0.5, 1.0],
    "device": "cpu",
}


CLASSES = 4
FACTORY = """
from torch import nn


def build(classes):
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, classes),
    )
"""


def write_backbone_with_random_weights(directory: Path, classes: int = CLASSES, seed: int = 0) -> None:
    """Write the backbone `mine`, a small network from the user's own code, into `directory`."""
    (directory / "tiny_network.py").write_text(FACTORY)
    scope: dict[str, Any] = {}
    exec(FACTORY, scope)
    torch.manual_seed(seed)
    save_file(scope["build"](classes).state_dict(), directory / "w.safetensors")
    options = {"kind": "custom", "factory": "tiny_network:build", "code_dir": str(directory), "classifier": "5"}
    options |= {"arguments": {"classes": classes}, "checkpoint": str(directory / "w.safetensors"), "image_size": 16}
    jobs.run("backbone", {"name": "mine", "options": options}, directory / "mine")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """61 training and 40 evaluation images of four classes, noise around overlapping colours; and a backbone."""
    directory = tmp_path_factory.mktemp("joint")
    random = np.random.default_rng(0)
    colours = random.uniform(90, 160, (CLASSES, 3))
    for split, count in (("train", 61), ("test", 40)):
        for number in range(count):
            path = directory / "raw" / split / f"class{number % CLASSES}" / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            colour = colours[number % CLASSES] + random.normal(0, 25, 3)
            Image.fromarray((colour + random.normal(0, 40, (16, 16, 3))).clip(0, 255).astype(np.uint8)).save(path)
    options = {"kind": "folder", "path": "raw", "splits": {"train": "train", "test": "test"}}
    jobs.run("dataset", {"name": "latin", "options": options, "data_dir": str(directory)}, directory / "latin")
    write_backbone_with_random_weights(directory)
    return directory


def make_spec(stop_gradient: bool = False, seed: int = 1, **options: Any) -> dict[str, Any]:
    return {
        "backbone": "mine",
        "dataset": "latin",
        "train_split": "train",
        "eval_split": "test",
        "stop_gradient": stop_gradient,
        "seed": seed,
        "options": JointOptions.model_validate(RECIPE | options).model_dump(mode="json"),
    }


def train(world: Path, output: Path, spec: dict[str, Any], workers: int = 0) -> dict[str, bytes]:
    """Train, and return the bytes of every file of the artefact."""
    inputs = {"dataset": world / "latin", "backbone": world / "mine"}
    jobs.run("joint_training", spec, output, Settings(workers=workers), **inputs)
    return {path.name: path.read_bytes() for path in output.iterdir()}


def weights(files: dict[str, bytes]) -> str:
    return json.loads(files["manifest.json"])["facts"]["network_xxh3_128"]


def curve(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in files["curve.jsonl"].splitlines()]


@pytest.fixture(scope="module")
def whole(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a training that was not disturbed."""
    return train(world, tmp_path_factory.mktemp("whole") / "run", make_spec())


def trainer(backbone: Backbone, stop_gradient: bool = False, steps: int = 1, **options: Any) -> Trainer:
    """A trainer of a backbone and a fresh head, with so many steps in an epoch."""
    recipe = JointOptions.model_validate(RECIPE | options)
    head = UncertaintyHead(backbone.dim, recipe.hidden, 3)
    task = JointTask(backbone, head, loss_of(recipe), recipe, stop_gradient)
    return joint_trainer(task, recipe, 3, steps * recipe.batch_size, "joint training")


def random_batch(count: int, seed: int = 0, size: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    return Batch(pixels, torch.randint(0, CLASSES, (count,), generator=generator), torch.arange(count))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["squared_error", "order"])
def test_with_stop_gradient_the_network_learns_as_if_there_were_no_head(world: Path, tmp_path: Path, loss: str) -> None:
    runs = {
        (stop_gradient, weight): train(
            world, tmp_path / f"{stop_gradient}{weight}", make_spec(stop_gradient, loss=loss, loss_weight=weight)
        )
        for stop_gradient in (True, False)
        for weight in (0.0, 1.0)
    }
    alone = weights(runs[True, 0.0])
    assert weights(runs[True, 1.0]) == alone
    assert weights(runs[False, 0.0]) == alone
    assert weights(runs[False, 1.0]) != alone
    for metric in ("top1", "task_loss", "r1", "train_task_loss"):
        assert [line[metric] for line in curve(runs[True, 1.0])] == [line[metric] for line in curve(runs[True, 0.0])]
    assert curve(runs[True, 1.0])[-1]["auroc_correct"] != curve(runs[True, 0.0])[-1]["auroc_correct"], "a head learns"


def test_all_of_the_network_learns_and_batchnorm_counts(world: Path) -> None:
    backbone = open_backbone(world / "mine")
    before = {name: value.clone() for name, value in backbone.encoder.network.state_dict().items()}
    trainer(backbone, stop_gradient=True).train_epoch(0, [random_batch(8)], lambda count: None)
    unmoved = [
        name for name, value in backbone.encoder.network.state_dict().items() if torch.equal(value, before[name])
    ]
    assert unmoved == []


@pytest.mark.slow
def test_equal_specs_give_equal_bytes_whatever_the_workers_and_other_seeds_differ(
    world: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    torch.rand(7)
    np.random.rand(7)
    assert train(world, tmp_path / "b", make_spec(), workers=2) == whole
    assert weights(train(world, tmp_path / "c", make_spec(seed=2))) != weights(whole)
    assert [line["epoch"] for line in curve(whole)] == [0, 1, 2]
    assert {"top1", "task_loss", "r1", "auroc_classification", "auroc_correct"} <= set(curve(whole)[0])


def kill_at(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Interrupt the training when it has trained `epoch` epochs, before it can evaluate and save the last of them."""
    calls = iter(range(100))

    def interrupted(*arguments: Any, **named: Any) -> dict[str, float | None]:
        if next(calls) == epoch:
            raise KeyboardInterrupt
        return evaluate(*arguments, **named)

    monkeypatch.setattr(while_training, "evaluate", interrupted)


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", [0, 1, 2])
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(
    world: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    spec = make_spec()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at(patch, killed_at)
        train(world, tmp_path / "killed", spec)
    assert not (tmp_path / "killed").exists()
    trained: Counter[int] = Counter()
    train_epoch = Trainer.train_epoch
    monkeypatch.setattr(
        Trainer,
        "train_epoch",
        lambda self, epoch, *rest: trained.update([epoch]) or train_epoch(self, epoch, *rest),
    )
    assert train(world, tmp_path / "killed", spec) == whole
    assert sorted(trained) == list(range(max(killed_at - 1, 0), 2)), "finished epochs are not trained again"
    assert [path.name for path in tmp_path.iterdir()] == ["killed"]


@pytest.mark.parametrize("fault", ["damaged", "another spec", "another backbone"])
def test_a_state_that_does_not_fit_is_not_used(
    world: Path,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: str,
) -> None:
    spec = make_spec()
    old_spec = make_spec(learning_rate=0.5) if fault == "another spec" else spec
    old_world = world
    if fault == "another backbone":
        old_world = tmp_path / "old_world"
        shutil.copytree(world / "latin", old_world / "latin")
        write_backbone_with_random_weights(old_world, seed=1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at(patch, 2)
        train(old_world, tmp_path / "killed", old_spec)
    if fault == "damaged":
        state = tmp_path / "killed.resume" / "state.pt"
        state.write_bytes(state.read_bytes()[:-100] + bytes(100))
    capsys.readouterr()
    assert train(world, tmp_path / "killed", spec) == whole
    assert "starting anew" in capsys.readouterr().err


def test_the_first_line_is_the_pretrained_backbone(world: Path, tmp_path: Path) -> None:
    """Every metric against scikit-learn and a loop over all pairs."""
    spec = make_spec(batch_size=14)
    found = curve(train(world, tmp_path / "run", spec))[0]
    images, backbone = ImageDataset(world / "latin", "test"), open_backbone(world / "mine")
    view = EvaluationView(backbone.data_config)
    pixels = torch.stack([view(images.image(position), 0, 0)[0] for position in range(len(images))])
    head = UncertaintyHead(backbone.dim, (8,), spec["seed"])
    with torch.inference_mode():
        embedding, logits = backbone.from_pixels(pixels)
        uncertainty = head(embedding).numpy()
    is_wrong = logits.argmax(dim=1).numpy() != images.label
    unit = embedding.double().numpy() / np.linalg.norm(embedding.double().numpy(), axis=1, keepdims=True)
    neighbour_wrong = []
    for row, query in enumerate(unit):
        similarity = unit @ query
        similarity[row] = -np.inf
        neighbour_wrong.append(images.label[np.argmax(similarity)] != images.label[row])
    assert found["top1"] == pytest.approx(1 - is_wrong.mean())
    assert found["r1"] == pytest.approx(1 - np.mean(neighbour_wrong))
    probability = functional.softmax(logits.double(), dim=1).numpy()
    assert found["task_loss"] == pytest.approx(log_loss(images.label, probability, labels=range(CLASSES)), rel=1e-5)
    assert found["auroc_classification"] == pytest.approx(roc_auc_score(is_wrong, uncertainty), abs=1e-3)
    assert found["auroc_correct"] == pytest.approx(roc_auc_score(neighbour_wrong, uncertainty), abs=1e-3)


@pytest.mark.parametrize("loss", [{"loss": "squared_error"}, {"loss": "order", "margin": 0.3}])
@pytest.mark.parametrize("count", [8, 7])
def test_reported_losses_are_those_of_the_equations(world: Path, loss: dict[str, Any], count: int) -> None:
    reference = open_backbone(world / "mine")
    batch = random_batch(count)
    reference.encoder.network.train()
    with torch.no_grad():
        embedding, logits = reference.from_pixels(batch.pixels)
        task = functional.cross_entropy(logits, batch.label, reduction="none").double().numpy()
        subject = trainer(open_backbone(world / "mine"), **loss)
        u = subject.task.head(embedding).double().numpy()
    found = subject.train_epoch(0, [batch], lambda n: None)
    if loss["loss"] == "squared_error":
        expected = np.mean([(u[i] - task[i]) ** 2 for i in range(count)])
    else:
        pairs = [(i, i + 1) for i in range(0, count - 1, 2)]
        expected = np.mean([max(0.0, 0.3 - (1 if task[i] > task[j] else -1) * (u[i] - u[j])) for i, j in pairs])
    assert found["train_task_loss"] == pytest.approx(task.mean(), rel=1e-5)
    assert found["train_head_loss"] == pytest.approx(expected, rel=1e-4)


def test_gradients_are_those_of_the_sum_of_both_losses(world: Path) -> None:
    """AdamW's first step moves each weight by about the rate, against the sign of its gradient."""
    batch, weight, rate = random_batch(8), 3.0, 1e-3
    reference = open_backbone(world / "mine")
    network = reference.encoder.network.requires_grad_(True).train()
    subject = trainer(
        open_backbone(world / "mine"), loss_weight=weight, learning_rate=rate, warmup_epochs=0, weight_decay=0
    )
    embedding, logits = reference.from_pixels(batch.pixels)
    task = functional.cross_entropy(logits, batch.label, reduction="none")
    (task.mean() + weight * (subject.task.head(embedding) - task.detach()).square().mean()).backward()
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    gradients = {name: value.grad for name, value in network.named_parameters()}
    subject.train_epoch(0, [batch], lambda count: None)
    for name, value in subject.task.network.named_parameters():
        large = gradients[name].abs() > 1e-4
        moved = (before[name] - value.detach())[large]
        torch.testing.assert_close(moved, rate * gradients[name][large].sign(), rtol=0.02, atol=1e-5)


class Dropping(nn.Module):
    """A network whose training is random."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Dropout(0.5))
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(images))


def test_dropout_depends_on_seed_epoch_and_step_alone() -> None:
    def run(consumed: int, stop_gradient: bool, epoch: int = 0) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        config = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
        backbone = Backbone(HookedEncoder(Dropping(), "fc"), config, 8, CLASSES, None, torch.device("cpu"))
        subject = trainer(backbone, stop_gradient, steps=2, warmup_epochs=0)
        torch.rand(consumed)
        subject.train_epoch(epoch, [random_batch(6, 1, 4), random_batch(6, 2, 4)], lambda count: None)
        return backbone.encoder.network.state_dict()

    first = run(0, True)
    assert all(torch.equal(first[name], value) for name, value in run(5, True).items())
    assert not all(torch.equal(first[name], value) for name, value in run(0, True, epoch=1).items())


def test_bfloat16_trains_and_its_task_losses_are_close(world: Path) -> None:
    losses = [
        trainer(open_backbone(world / "mine"), precision=precision).train_epoch(0, [random_batch(16)], lambda n: None)
        for precision in ("float32", "bfloat16")
    ]
    assert losses[0]["train_task_loss"] == pytest.approx(losses[1]["train_task_loss"], rel=0.02)
    assert losses[0] != losses[1]


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    schedule = Schedule(4, 0.5, start_of_warmup(0.5), 100)
    rates = [schedule.rate(*divmod(step, 100)) for step in range(401)]
    assert rates[0] == pytest.approx(0.002, abs=1e-4)
    assert all(np.diff(rates[:50]) > 0) and all(np.diff(rates[50:]) < 0)
    assert max(rates) == pytest.approx(1, abs=0.03)
    assert rates[400] == pytest.approx(0, abs=1e-12)


def test_faults_are_named(world: Path, tmp_path: Path) -> None:
    with pytest.raises(
        PipelineError, match=r"mine, seed 1.* in epoch 1, step \d; lower learning_rate \(it is 1e\+18\)"
    ):
        train(world, tmp_path / "run", make_spec(learning_rate=1e18, warmup_epochs=0))
    write_backbone_with_random_weights(tmp_path, classes=5)
    with pytest.raises(PipelineError, match="of backbone 'mine', whose 5 outputs must be the 4 classes of upstream"):
        jobs.run("joint_training", make_spec(), tmp_path / "run", dataset=world / "latin", backbone=tmp_path / "mine")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"batch_size": 33}, "must be even"), ({"speed": 1}, "speed"), ({"loss": "hinge"}, "'order' or 'squared_error'")],
)
def test_a_recipe_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        JointOptions.model_validate(RECIPE | change)


class Unreliable:
    """Images of which every fifth can't be decoded."""

    name = "shaky"

    def __init__(self, images: ImageDataset, allowed: int) -> None:
        self._images, self.skip_unreadable = images, allowed
        self.sample_id, self.label = images.sample_id, images.label

    def __len__(self) -> int:
        return 20

    def drawn_label(self, seed: int, epoch: int, position: int) -> int:
        return self._images.drawn_label(seed, epoch, position)

    def image(self, position: int) -> Any:
        if position % 5 == 0:
            raise UnreadableImageError(f"image {position} is broken")
        return self._images.image(position)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 6])
def test_batches_hold_each_image_once_and_list_what_can_not_be_decoded(
    world: Path, workers: int, batch_size: int
) -> None:
    images = ImageDataset(world / "latin", "train")
    view = EvaluationView(open_backbone(world / "mine").data_config)
    batches = ImageBatches(Unreliable(images, 4), view, batch_size, workers)
    for epoch in (0, 1):
        seen = list(batches.shuffled(0, epoch))
        positions = torch.cat([batch.position for batch in seen]).tolist()
        assert sorted(positions) == [position for position in range(20) if position % 5]
        for batch in seen:
            assert batch.label.tolist() == images.label[batch.position.numpy()].tolist()
            assert torch.equal(batch.pixels[0], view(images.image(int(batch.position[0])), 0, 0)[0])
    expected = {int(images.sample_id[position]): f"image {position} is broken" for position in (0, 5, 10, 15)}
    assert batches.skipped == expected
    assert [int(batch.position[0]) for batch in batches.in_order()] == sorted(
        int(batch.position[0]) for batch in batches.in_order()
    )
    with pytest.raises(UnreadableImageError, match=r"image \d+ is broken; .*datasets\.shaky\.skip_unreadable: N"):
        list(ImageBatches(Unreliable(images, 3), view, batch_size, workers).in_order())


def test_epochs_and_seeds_have_their_own_order_and_augmentations(world: Path) -> None:
    images = ImageDataset(world / "latin", "train")
    view = AugmentedView(Augmentation(), 0, open_backbone(world / "mine").data_config)

    def first(seed: int, epoch: int) -> Batch:
        return next(ImageBatches(images, view, 61).shuffled(seed, epoch))

    assert torch.equal(first(0, 0).pixels, first(0, 0).pixels)
    assert not torch.equal(first(0, 0).position, first(0, 1).position)
    assert not torch.equal(first(0, 0).position, first(1, 0).position)
    a, b = first(0, 0), first(0, 1)
    assert not torch.equal(a.pixels[a.position.argsort()], b.pixels[b.position.argsort()])


def test_command_line_needs_no_torch_until_it_trains() -> None:
    code = (
        "import sys; import pipeline_lib.stages.joint_training;"
        "print(*{'torch', 'timm', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == ""
