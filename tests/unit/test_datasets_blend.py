from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline_lib.datasets import blend
from pipeline_lib.datasets.glyph_renderer import render
from tests.unit.dataset_worlds import open_split

SMALL = {"kind": "blend", "image_size": 16, "per_class": {"test": 6}}


def ratio_and_pair(location: str) -> tuple[float, str, str]:
    _, _, first, second, ratio = location.split("/")
    return float(ratio), first, second


def test_vote_entropy_is_that_of_the_ratio(tmp_path):
    dataset = open_split(tmp_path, SMALL)
    ratios = [ratio_and_pair(dataset.location(position))[0] for position in range(len(dataset))]
    expected = [0.0 if r == 1 else -r * math.log(r) - (1 - r) * math.log(1 - r) for r in ratios]
    np.testing.assert_allclose(dataset.vote_entropy(), expected, atol=1e-12)
    assert set(ratios) == {1.0, 0.9, 0.8, 0.7, 0.6, 0.5}


def test_label_is_the_larger_share_and_the_first_class_of_equal_ones(tmp_path):
    dataset = open_split(tmp_path, SMALL)
    for position, label in enumerate(dataset.label):
        ratio, first, second = ratio_and_pair(dataset.location(position))
        assert first != second
        pair = dataset.classes.index(first), dataset.classes.index(second)
        assert label == (min(pair) if ratio == 0.5 else pair[0])


def test_votes_add_up_to_one_hundred_for_the_two_characters(tmp_path):
    options = blend.Options(**SMALL)
    index = blend.build_index(options, tmp_path)
    for location, votes in zip(index.location, index.label_counts, strict=True):
        ratio, first, second = ratio_and_pair(location)
        assert sum(votes.values()) == pytest.approx(100)
        assert votes[index.classes.index(first)] == pytest.approx(100 * ratio)
        assert (index.classes.index(second) in votes) == (ratio < 1)


@pytest.mark.parametrize("ratio", [1.0, 0.8, 0.5])
def test_image_is_the_weighted_mean_of_the_pure_images(ratio):
    def stream():
        return np.random.default_rng(5)

    mixed, first, second = (
        np.asarray(render(shares, 0.0, 64, stream()), float)
        for shares in ({"A": ratio, "B": 1 - ratio}, {"A": 1.0}, {"B": 1.0})
    )
    assert np.abs(first - second).max() > 100
    # The noise is up to three levels, cut off at black and white, and the pixels are whole numbers.
    np.testing.assert_allclose(mixed, ratio * first + (1 - ratio) * second, atol=4)


def test_more_images_and_another_split_change_no_image(tmp_path):
    small = open_split(tmp_path, SMALL | {"per_class": {"test": 1}})
    large = open_split(tmp_path, SMALL | {"per_class": {"test": 2, "train": 1}})
    for position in range(len(small)):
        assert large.location(position) == small.location(position)
        assert large.label[position] == small.label[position]
        assert large.image(position).tobytes() == small.image(position).tobytes()


def test_splits_hold_different_pairs_and_images(tmp_path):
    options = SMALL | {"per_class": {"test": 2, "train": 2}}
    train, test = (open_split(tmp_path, options, split) for split in ("train", "test"))
    pairs = [[dataset.location(i).split("/", 1)[1] for i in range(len(dataset))] for dataset in (train, test)]
    assert pairs[0] != pairs[1]
    assert not {train.image(i).tobytes() for i in range(20)} & {test.image(i).tobytes() for i in range(20)}


def test_opener_survives_pickling():
    opener = blend.open_images(blend.Options(**SMALL), None)
    assert pickle.loads(pickle.dumps(opener))("test/0/A/B/0.7").tobytes() == opener("test/0/A/B/0.7").tobytes()


@pytest.mark.parametrize("ratios", [(), (0.4,), (1.1,)])
def test_impossible_ratios_are_refused(ratios):
    with pytest.raises(ValidationError):
        blend.Options(kind="blend", ratios=ratios)
