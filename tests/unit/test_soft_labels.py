"""Labels drawn from votes: in the long run as the votes say, the same however the work is cut, and only in training."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline_lib.backbones.artefact import open_backbone
from pipeline_lib.backbones.base import Backbone
from pipeline_lib.core import artefacts
from pipeline_lib.core.jobs import Settings
from pipeline_lib.datasets.images import INDEX, STAGE, ImageDataset
from pipeline_lib.datasets.plain_views import draw_generator
from pipeline_lib.datasets.views import make_view
from pipeline_lib.features.blocks import block_ranges
from pipeline_lib.features.store import BlockArrays
from pipeline_lib.training.images import ImageBatches
from tests.jobs import run
from tests.unit import worlds

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGES, EPOCHS = 30, 3
SPEC = worlds.block_spec(samples=[0, IMAGES])
PLAIN = SPEC["view"]
MIXED = [{**PLAIN, "policy": {"kind": kind, "probability": 0.5, "alpha": 1.0}} for kind in ("cutmix", "mixup")]
Votes = Sequence[Sequence[tuple[int, float]]]


def with_votes(source: Path, directory: Path, votes: Votes) -> Path:
    """Write a dataset artefact anew, with these votes: one list of (class, number of votes) per image."""
    manifest = artefacts.read(source, STAGE)
    table = pq.read_table(source / INDEX)
    counts = pa.array([list(image) for image in votes], pa.map_(pa.int32(), pa.float64()))
    with artefacts.writing(directory, STAGE, manifest.spec) as draft:
        pq.write_table(table.append_column("label_counts", counts), draft.path / INDEX)
        draft.facts.update(manifest.facts)
    return directory


def drawn_votes(labels: Sequence[int]) -> Votes:
    """Return votes for each label and its two neighbours; every fifth image has none, every seventh all for one."""
    votes = []
    for i, label in enumerate(labels):
        others = [((label + 1) % 62, 3.0), ((label + 2) % 62, 0.0 if i % 2 else 1.5)]
        votes.append([] if i % 5 == 4 else [(label, 4.0)] if i % 7 == 6 else sorted([(label, 4.0), *others]))
    return votes


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset without votes, `latin`, and the same one with votes, `soft`."""
    directory = tmp_path_factory.mktemp("world")
    latin = worlds.glyphs(directory)
    worlds.backbone(directory)
    labels = pq.read_table(latin / INDEX)["label"].to_pylist()
    with_votes(latin, directory / "soft", drawn_votes(labels))
    with_votes(latin, directory / "unanimous", [[(label, 7.0)] for label in labels])
    return directory


def extract(world: Path, folder: Path, dataset: str, size: int = IMAGES, workers: int = 0, **changes: Any) -> dict:
    """Extract the first images in blocks of `size`; returns every array, joined along the images."""
    parts = []
    for number, samples in enumerate(block_ranges(IMAGES, size)):
        directory = folder / str(number)
        spec = {**SPEC, "dataset": dataset, **changes, "samples": list(samples)}
        run("features", spec, directory, Settings(workers), dataset=world / dataset, backbone=world / "mine")
        block, dim = BlockArrays(directory), artefacts.read(directory, "features").facts["dim"]
        arrays = {}
        for name in artefacts.read(directory, "features").facts["arrays"]:
            per_image = name in ("sample_id", "label")
            if name != "epoch":
                rows = samples[1] - samples[0]
                values = []
                for epoch in range(1 if per_image else spec["epochs"][1] - spec["epochs"][0]):
                    shape = (rows, dim) if name == "embedding" else (rows,)
                    out = np.empty(shape, block.dtype(name))
                    block.read_into(name, (slice(0, rows),) if per_image else (epoch, slice(0, rows)), out)
                    values.append(out)
                arrays[name] = np.stack(values)
        parts.append(arrays)
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}


@functools.cache
def backbone_of(world: Path) -> Backbone:
    """Open the backbone, once."""
    return open_backbone(world / "mine")


def log_probabilities(world: Path, view: Any, images: ImageDataset, epoch: int, position: int) -> torch.Tensor:
    """Run one draw of an image through the backbone by itself."""
    pixels, _ = view(images.image(position), int(images.sample_id[position]), epoch)
    with torch.inference_mode():
        return backbone_of(world).from_pixels(pixels[None])[1][0].float().log_softmax(0)


counts = st.lists(st.integers(0, 9), min_size=3, max_size=3)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(counts, min_size=2, max_size=4), st.integers(0, 2**31), st.floats(0.01, 1000))
def test_over_many_epochs_labels_are_drawn_as_often_as_the_votes_say(world, tmp_path, votes, seed, unit):
    table = [[(label, unit * count) for label, count in enumerate(cast)] for cast in votes]
    none = [[]] * (186 - len(table))
    images = ImageDataset(with_votes(world / "latin", tmp_path / "drawn", [*none, *table]), "train")
    assert images.sample_id[-1] == 185
    for position, cast in enumerate(votes, start=len(images) - len(votes)):
        drawn = Counter(images.drawn_label(seed, epoch, position) for epoch in range(400))
        if not any(cast):
            assert drawn == {int(images.label[position]): 400}
            continue
        voted = [label for label, count in enumerate(cast) if count]
        assert set(drawn) <= set(voted)
        expected = [400 * cast[label] / sum(cast) for label in voted]
        assert len(voted) == 1 or stats.chisquare([drawn[label] for label in voted], expected).pvalue > 1e-7


def test_draws_differ_by_seed_epoch_and_image_and_not_with_the_augmentation(world: Path, tmp_path: Path) -> None:
    images = ImageDataset(with_votes(world / "latin", tmp_path / "coin", [[(0, 1), (1, 1)]] * 186), "train")
    coins = np.array([[images.drawn_label(3, epoch, position) for epoch in range(200)] for position in range(20)])
    other = np.array([[images.drawn_label(4, epoch, position) for epoch in range(200)] for position in range(20)])
    policy = np.array(
        [[draw_generator(3, epoch, int(images.sample_id[i])).random() for epoch in range(200)] for i in range(20)]
    )
    # Of 4,000 pairs of independent values the correlation has a standard deviation of 0.016.
    pairs = [(coins[:, 1:], coins[:, :-1]), (coins[1:], coins[:-1]), (coins, other), (coins, policy)]
    assert all(abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.09 for one, two in pairs)
    assert coins[7, 3] == images.drawn_label(3, 3, 7)
    by_sample_id = ImageDataset(tmp_path / "coin", "test")
    assert by_sample_id.sample_id[0] != images.sample_id[0]
    assert [by_sample_id.drawn_label(3, e, 0) for e in range(60)] != coins[0, :60].tolist()


def test_the_task_loss_is_that_of_the_drawn_label_and_the_label_stays(world: Path, tmp_path: Path) -> None:
    images = ImageDataset(world / "soft", "train")
    view = make_view(PLAIN, backbone_of(world).data_config)
    found = extract(world, tmp_path, "soft")
    assert found["label"][0].tolist() == images.label[:IMAGES].tolist()
    changed = 0
    for epoch in range(EPOCHS):
        for position in range(0, IMAGES, 4):
            label = images.drawn_label(PLAIN["seed"], epoch, position)
            log_probability = log_probabilities(world, view, images, epoch, position)
            assert found["task_loss"][epoch, position] == pytest.approx(-log_probability[label].item(), rel=1e-4)
            assert found["label_rank"][epoch, position] == int((log_probability > log_probability[label]).sum())
            changed += label != images.label[position]
    assert changed > 3


@pytest.mark.parametrize("view", MIXED, ids=["cutmix", "mixup"])
def test_mixed_images_mix_the_labels_that_both_were_drawn_with(world: Path, tmp_path: Path, view: dict) -> None:
    images = ImageDataset(world / "soft", "train")
    config = backbone_of(world).data_config
    found = extract(world, tmp_path, "soft", view=view)
    mixed = make_view(view, config, images)
    numbered = make_view(view, config, images, lambda epoch, position: 1000 * epoch + position)
    changed = 0
    for epoch in range(EPOCHS):
        for position in range(0, IMAGES, 3):
            _, (partner, weight) = numbered(images.image(position), int(images.sample_id[position]), epoch)
            assert partner // 1000 == epoch
            own, other = (images.drawn_label(PLAIN["seed"], epoch, image) for image in (position, int(partner) % 1000))
            assert found["partner_label"][epoch, position] == other
            assert found["label_weight"][epoch, position] == np.float32(weight)
            log_probability = log_probabilities(world, mixed, images, epoch, position)
            loss = -(weight * log_probability[own] + (1 - weight) * log_probability[other]).item()
            assert found["task_loss"][epoch, position] == pytest.approx(loss, rel=1e-4)
            changed += weight < 1 and other != images.label[int(partner) % 1000]
    assert changed > 2


@pytest.mark.slow
@pytest.mark.parametrize("view", [PLAIN, MIXED[0]], ids=["plain", "cutmix"])
def test_no_trace_of_how_the_work_was_cut(world: Path, tmp_path: Path, view: dict) -> None:
    whole = extract(world, tmp_path / "whole", "soft", view=view)
    for number, cut in enumerate([{"size": 11}, {"size": 20, "workers": 2}]):
        found = extract(world, tmp_path / str(number), "soft", view=view, **cut)
        assert {name: values.tobytes() for name, values in found.items()} == {
            name: values.tobytes() for name, values in whole.items()
        }
    # An epoch is numbered from the first of all, not from the first of its block.
    last = extract(world, tmp_path / "last", "soft", view=view, epochs=[EPOCHS - 1, EPOCHS])
    assert last["task_loss"][0].tobytes() == whole["task_loss"][EPOCHS - 1].tobytes()


@pytest.mark.parametrize("view", [PLAIN, MIXED[1]], ids=["plain", "mixup"])
def test_votes_that_agree_give_the_bytes_of_hard_labels(world: Path, tmp_path: Path, view: dict) -> None:
    hard, unanimous = (extract(world, tmp_path / name, name, view=view) for name in ("latin", "unanimous"))
    assert {name: values.tobytes() for name, values in hard.items()} == {
        name: values.tobytes() for name, values in unanimous.items()
    }


def test_clean_images_keep_their_labels(world: Path, tmp_path: Path) -> None:
    changes = {"view": {"kind": "eval"}, "epochs": [0, 1]}
    hard, soft = (extract(world, tmp_path / name, name, **changes) for name in ("latin", "soft"))
    assert soft["task_loss"].tobytes() == hard["task_loss"].tobytes()
    assert soft["label_rank"].tobytes() == hard["label_rank"].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_to_train_on_have_drawn_labels_and_those_to_evaluate_their_own(world: Path, workers: int) -> None:
    images = ImageDataset(world / "soft", "train")
    hard = ImageDataset(world / "latin", "train")
    view = make_view(PLAIN, backbone_of(world).data_config)
    batches = ImageBatches(images, view, 50, workers)
    labels = []
    for epoch in (0, 1):
        for batch, same in zip(
            batches.shuffled(5, epoch), ImageBatches(hard, view, 50, workers).shuffled(5, epoch), strict=True
        ):
            expected = [images.drawn_label(5, epoch, position) for position in batch.position.tolist()]
            assert batch.label.tolist() == expected
            assert same.label.tolist() == hard.label[same.position].tolist()
            assert batch.pixels.equal(same.pixels)
            labels += expected
    assert labels[:124] != labels[124:]
    in_order = list(batches.in_order())
    assert torch.cat([batch.label for batch in in_order]).tolist() == images.label.tolist()
