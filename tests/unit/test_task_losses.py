"""Task losses without a classifier: their equations by loops, the artefact, and heads that learn from them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.config import kinds
from pipeline_lib.config.load import parse_config
from pipeline_lib.config.task_losses import TaskLosses
from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.task_losses import contrastive, knn, probe
from pipeline_lib.task_losses.store import WithTaskLoss
from tests.jobs import run
from tests.unit import worlds
from tests.unit.heads_world import CachedRows, head_spec, small_training

CPU = torch.device("cpu")
KINDS = kinds.kinds("task_losses")


def cached(seed: int, rows: int, epochs: int, label: np.ndarray | None = None) -> CachedRows:
    """Representations with repeats and a zero vector, float16 [epochs, rows, 5]."""
    rng = np.random.default_rng(seed)
    embedding = rng.normal(size=(epochs, rows, 5)).astype(np.float16)
    embedding[:, rng.integers(0, rows, rows // 4)] = embedding[:, :1]
    embedding[0, -1] = 0
    return CachedRows(embedding, label=label)


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    left, right = left.astype(np.float64), right.astype(np.float64)
    norms = np.linalg.norm(left) * np.linalg.norm(right)
    return float(left @ right / norms) if norms else 0.0


def knn_losses(rows: Any, epoch: int, **options: float) -> np.ndarray:
    return of_epoch(rows, epoch, knn.losses(rows, knn.Options(**options), CPU))


def contrastive_losses(rows: Any, epoch: int, **options: float) -> np.ndarray:
    return of_epoch(rows, epoch, contrastive.losses(rows, contrastive.Options(**options), CPU))


def probe_losses(rows: Any, epoch: int, **options: float) -> np.ndarray:
    return of_epoch(rows, epoch, probe.losses(rows, probe.Options(**options), CPU))


def of_epoch(rows: Any, epoch: int, pieces: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(pieces)).reshape(rows.epochs, rows.rows)[epoch]


# Options of each for the small world.
COMPARED = {"temperature": 0.2, "images": 90}
OWN: dict[str, dict[str, Any]] = {"knn": COMPARED, "contrastive": COMPARED, "probe": {"steps": 20}}
LOSSES = {"knn": knn_losses, "contrastive": contrastive_losses, "probe": probe_losses}


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(3, 30), st.integers(1, 3), st.integers(1, 6), st.sampled_from([0.05, 0.3, 2.0])
)
def test_the_knn_loss_is_the_share_of_the_neighbours_similarity_that_has_the_label(
    seed: int, rows: int, epochs: int, classes: int, temperature: float
) -> None:
    label = np.random.default_rng(seed).integers(0, classes, rows)
    label[0] = classes  # an image that is alone in its class
    cache = cached(seed, rows, epochs, label)
    for epoch in range(epochs):
        z = cache.read("embedding", epoch, 0, rows)
        found = knn_losses(cache, epoch, temperature=temperature, images=max(2, rows))
        for i in range(rows):
            mass = {j: math.exp(cosine(z[i], z[j]) / temperature) for j in range(rows) if j != i}
            same = sum(mass[j] for j in mass if label[j] == label[i]) or math.exp(-1 / temperature)
            assert found[i] == pytest.approx(-math.log(same / sum(mass.values())), abs=2e-5 / temperature)
        assert (found >= 0).all()
        assert found.dtype == np.float32


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(2, 3), st.sampled_from([0.05, 0.3, 2.0]))
def test_the_contrastive_loss_is_infonce_between_an_epoch_and_the_next(
    seed: int, rows: int, epochs: int, temperature: float
) -> None:
    cache = cached(seed, rows, epochs)
    for epoch in range(epochs):
        z, other = (cache.read("embedding", number % epochs, 0, rows) for number in (epoch, epoch + 1))
        found = contrastive_losses(cache, epoch, temperature=temperature, images=rows)
        for i in range(rows):
            mass = [math.exp(cosine(z[i], other[j]) / temperature) for j in range(rows)]
            assert found[i] == pytest.approx(-math.log(mass[i] / sum(mass)), abs=2e-5 / temperature)


def test_a_sample_of_the_images_takes_of_each_class_alike_and_never_the_image_itself() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(20), [*range(1, 20), 400])
    label = label[rng.permutation(len(label))]
    # Each image has an axis of its own: a loss tells with how many of its class, of how many images, it was compared.
    cache = CachedRows(np.eye(len(label), dtype=np.float32)[None], label=label)
    found = knn_losses(cache, 0, temperature=1.0, images=100, seed=3)
    # In five turns each class gives an image as long as it has one: 90 images; the sixth turn begins 10 of 15 classes.
    for size in range(1, 21):
        own = np.exp(found[label == size - 1].astype(np.float64))
        inside = {size} if size <= 5 else {5, 6}
        # With k of a class in the sample: 99 others and k - 1 of the class, or 100 and k for an image that isn't in it.
        possible = [99 / (k - 1) for k in inside if k > 1] + [100 / k for k in inside if size > k]
        possible += [99 * math.e] if size == 1 else []
        assert all(min(abs(value / other - 1) for other in possible) < 1e-5 for value in own)
    np.testing.assert_array_equal(found, knn_losses(cache, 0, temperature=1.0, images=100, seed=3))


@pytest.mark.parametrize("images", [2, 99, 150, 300, 301, 450])
def test_as_many_classes_as_a_sample_has_room_for_have_two_images_in_it(images: int) -> None:
    """Of 200 classes, 150 have two images or more. All images of a class meet another one only if two are drawn."""
    label = np.repeat(np.arange(200), [1 + number % 4 for number in range(200)])
    label = np.random.default_rng(2).permutation(label)
    cache = CachedRows(np.eye(len(label), dtype=np.float32)[None], label=label)

    def classes_with_two(seed: int) -> set[int]:
        options = {"temperature": 1.0, "images": images, "seed": seed}
        found = np.exp(knn_losses(cache, 0, **options).astype(np.float64))
        # The number of images over that of the class; without one, e times the former.
        is_alone = found > images * 1.001
        assert is_alone.sum() == knn.images_without_partner(label, knn.Options(**options))
        return set(label.tolist()) - set(label[is_alone].tolist())

    assert len(classes_with_two(0)) == min(150, images // 2)
    assert (classes_with_two(0) != classes_with_two(1)) == (images < 300)


def test_images_among_another_class_have_the_larger_loss() -> None:
    rng = np.random.default_rng(1)
    label = rng.integers(0, 2, 200)
    z = np.stack([np.where(label == 1, 1.0, -1.0), np.zeros(200)], axis=1) + 0.3 * rng.normal(size=(200, 2))
    moved = np.arange(10)
    z[moved] *= -1
    cache = CachedRows(z[None].astype(np.float32), label=label)
    found = knn_losses(cache, 0, temperature=0.1, images=200)
    assert found[moved].min() > np.quantile(found[10:], 0.95)


def test_what_can_not_be_compared_is_refused() -> None:
    with pytest.raises(PipelineError, match="the view has 1 epoch"):
        contrastive_losses(cached(0, 5, 1), 0)
    embedding = np.ones((2, 6, 3), np.float32)
    embedding[1, 4, 2] = np.inf
    broken = CachedRows(embedding, label=np.zeros(6, int))
    with pytest.raises(PipelineError, match="epoch 1, row 4 is NaN or infinite"):
        knn_losses(broken, 1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone without a classifier and its view of augmented images."""
    directory = tmp_path_factory.mktemp("world")
    worlds.glyphs(directory)
    worlds.backbone(directory, num_classes=0, classifier=False)
    worlds.extract_view(directory, directory / "view", with_task_loss=False)
    for kind in KINDS:
        task_loss(directory, directory / kind, kind=kind)
    return directory


def task_loss(world: Path, output: Path, **options: Any) -> Path:
    """Compute a task loss of the view; options: of `TaskLosses`, and its kind."""
    names = {"backbone": "mine", "dataset": "latin", "split": "train", "view": "train"}
    options = {**OWN[str(options["kind"])], "seed": 5, "device": "cpu", **options}
    return run("task_loss", {**names, "options": options}, output, features=world / "view" / "cache")


def test_a_backbone_without_a_classifier_leaves_representations_alone(world: Path) -> None:
    cache = FeatureCache(world / "view")
    assert set(cache.arrays) == {"embedding", "label", "sample_id", "epoch"}
    assert artefacts.read(world / "mine", "backbone").facts["num_classes"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_stage_writes_the_losses_of_every_epoch_and_heads_read_them(world: Path, kind: str) -> None:
    cache = FeatureCache(world / "view")
    rows = WithTaskLoss(cache, world / kind)
    for epoch in range(3):
        expected = LOSSES[kind](cache, epoch, **OWN[kind], seed=5)
        np.testing.assert_array_equal(rows.read("task_loss", epoch, 0, 124), expected)
        np.testing.assert_array_equal(rows.read("task_loss", epoch, 30, 60), expected[30:60])
    np.testing.assert_array_equal(rows.read("embedding", 2, 5, 9), cache.read("embedding", 2, 5, 9))


def head(world: Path, kind: str | None, output: Path, **inputs: Path) -> Path:
    spec = head_spec(training=small_training(task_loss=kind, batch_size=16, episode_samples=64))
    return run("head", spec.plain(), output, features=world / "view" / "cache", **inputs)


def test_heads_learn_from_them_and_say_so(world: Path, tmp_path: Path) -> None:
    heads = [head(world, kind, tmp_path / kind, task_loss=world / kind) for kind in KINDS]
    assert len({(path / "head.safetensors").read_bytes() for path in heads}) == len(KINDS)
    for path, kind in zip(heads, KINDS, strict=True):
        (recorded,) = artefacts.read(path, "head").inputs["task_loss"]
        assert recorded["content"] == artefacts.read(world / kind, "task_loss").content


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("knn", None, "training.task_loss is knn; give its folder as --task-loss"),
        (None, "knn", "training.task_loss is cross_entropy; leave --task-loss out"),
        ("contrastive", "knn", "knn: is the task loss knn, but contrastive was asked for"),
        (None, None, "has no array 'task_loss'"),
    ],
)
def test_a_task_loss_that_does_not_fit_the_recipe_is_refused(
    world: Path, tmp_path: Path, kind: str | None, given: str | None, message: str
) -> None:
    inputs = {"task_loss": world / given} if given else {}
    with pytest.raises(PipelineError, match=message):
        head(world, kind, tmp_path / "head", **inputs)


@pytest.mark.parametrize(("images", "warned"), [(90, "34 of 124"), (124, "")])
def test_a_sample_that_is_too_small_for_the_classes_is_said_to_be(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], images: int, warned: str
) -> None:
    task_loss(world, tmp_path / "out", kind="knn", images=images)
    line = "images have no other image of their class among the"
    error = capsys.readouterr().err
    assert (f"{warned} {line} {images} " in error) if warned else line not in error


def test_a_task_loss_of_another_cache_is_refused(world: Path, tmp_path: Path) -> None:
    cache = worlds.extract_view(world, tmp_path / "view", with_task_loss=False, samples=[0, 124], epochs=[0, 2])
    with pytest.raises(ArtefactError, match="was made from another cache"):
        WithTaskLoss(cache, world / "knn")


CONFIG: dict[str, Any] = {
    "upstream": {"dataset": "latin"},
    "downstream": ["latin2"],
    "datasets": {
        name: {"kind": "glyphs", "script": "latin", "per_class": {"train": 2, "test": 2}}
        for name in ("latin", "latin2")
    },
    "backbones": {
        "dino": {"kind": "timm", "model": "vit_small_patch14_dinov2.lvd142m", "classifier": False},
        "vit": {"kind": "timm", "model": "vit_tiny_patch16_224.augreg_in21k"},
    },
    "variants": {"default": {}, "contrastive": {"training": {"task_loss": "contrastive"}}},
    "seeds": [1],
    "features": {"views": {"train": {"epochs": 2}, "mixup": {"epochs": 2, "policy": {"kind": "mixup"}}}},
}


def test_without_a_word_a_backbone_learns_from_its_classifier_or_from_its_neighbours() -> None:
    config = parse_config(CONFIG)
    assert config.task_loss_of("vit", "default") == "cross_entropy"
    assert config.task_loss_of("dino", "default") == "knn"
    assert config.task_loss_of("vit", "contrastive") == config.task_loss_of("dino", "contrastive") == "contrastive"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"variants": {"ce": {"training": {"task_loss": "cross_entropy"}}}},
            "variants.ce.training.task_loss: cross_entropy needs a classifier, but backbone 'dino' has none",
        ),
        ({"variants": {"mixed": {"view": "mixup"}}}, "knn says nothing of images that view 'mixup' mixes"),
        (
            {"features": {"views": {"train": {"epochs": 1}}}},
            "contrastive compares 2 epochs, but view 'train' has 1",
        ),
        ({"joint_training": {"backbone": "dino"}}, "joint_training.backbone: 'dino' has no classifier"),
        (
            {"backbones": {"clip": {"kind": "timm", "model": "test_vit", "classifier": False, "num_classes": 512}}},
            "num_classes is 512, but classifier is false",
        ),
    ],
)
def test_a_task_loss_that_a_backbone_or_view_can_not_give_is_an_error_of_the_config(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(PipelineError) as error:
        parse_config(CONFIG | change)
    assert message in str(error.value)


def test_the_options_of_a_task_loss_are_those_of_the_section_that_it_has() -> None:
    section = TaskLosses(temperature=0.3, threads=2)
    for kind in KINDS:
        options = section.options(kind).model_dump()
        common = {name: value for name, value in section.model_dump().items() if name in options}
        assert options == {**options, "kind": kind, **common} and options["threads"] == 2
    with pytest.raises(PipelineError, match=r"task_losses\.temperatur: unknown key; .*; did you mean 'temperature'\?"):
        parse_config(CONFIG | {"task_losses": {"temperatur": 0.3}})
    with pytest.raises(PipelineError, match=r"task_losses\.images: 1 is not allowed"):
        parse_config(CONFIG | {"task_losses": {"images": 1}})


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(12, 40), st.integers(1, 3), st.integers(3, 4), st.sampled_from([2, 3]))
def test_the_probe_loss_is_the_cross_entropy_of_a_regression_that_never_saw_the_image(
    seed: int, rows: int, epochs: int, classes: int, folds: int
) -> None:
    """scikit-learn fits the same objective: C sum(l) + |W|^2 / 2 with C = 1 / (penalty n)."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(seed)
    label = np.arange(rows) % classes
    embedding = (rng.normal(size=(epochs, rows, 4)) + 2 * np.eye(4)[label]).astype(np.float32)
    cache, options = CachedRows(embedding, label=label), probe.Options(folds=folds, penalty=0.1, steps=100, seed=seed)
    fold = probe._folds(label, options)
    z = embedding.astype(np.float64)
    z = (z - z.mean(axis=(0, 1))) / z.std(axis=(0, 1))
    for number in range(folds):
        inside = fold == number
        seen, known = z[:, ~inside].reshape(-1, 4), np.tile(label[~inside], epochs)
        model = LogisticRegression(C=1 / (0.1 * len(known)), tol=1e-8, max_iter=1000).fit(seen, known)
        for epoch in range(epochs):
            found = probe_losses(cache, epoch, **options.model_dump(include={"folds", "penalty", "steps", "seed"}))
            column = [model.classes_.tolist().index(one) for one in label[inside]]
            expected = -model.predict_log_proba(z[epoch, inside])[np.arange(inside.sum()), column]
            np.testing.assert_allclose(found[inside], expected, atol=2e-3)


def test_a_fold_has_images_of_each_class_and_all_epochs_of_an_image() -> None:
    label = np.repeat(np.arange(6), 10)
    fold = probe._folds(label, probe.Options())
    assert all(np.bincount(fold[label == number], minlength=5).tolist() == [2] * 5 for number in range(6))
    # An image with a label that nothing shows: were any of its epochs in what its probe learns from, it would know it.
    rng = np.random.default_rng(0)
    embedding = np.repeat(rng.normal(size=(1, 60, 80)), 3, axis=0).astype(np.float32)
    found = probe_losses(CachedRows(embedding, label=label), 0)
    assert found.mean() > math.log(6) * 0.9


def test_the_probe_does_not_depend_on_blocks_and_refuses_what_it_can_not_tell_apart() -> None:
    rng = np.random.default_rng(3)
    embedding, label = rng.normal(size=(2, 50, 6)).astype(np.float16), rng.integers(0, 3, 50)
    whole = probe_losses(CachedRows(embedding, label=label), 1)
    np.testing.assert_array_equal(whole, probe_losses(CachedRows(embedding, block_sizes=[7, 30], label=label), 1))
    with pytest.raises(PipelineError, match="needs two classes and 5 images"):
        probe_losses(CachedRows(embedding, label=np.zeros(50, int)), 0)
    assert probe.warning(CachedRows(embedding, label=np.arange(50) // 2), probe.Options()) is None
    warned = probe.warning(CachedRows(embedding, label=np.arange(50).clip(2)), probe.Options())
    assert warned and warned.startswith("47 of 50 images are the only one of their class")
