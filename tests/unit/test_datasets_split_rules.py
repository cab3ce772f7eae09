from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.datasets import split_rules

LABELS = st.lists(st.integers(0, 5), max_size=60).map(lambda values: np.array(values, np.int64))


def members(label):
    """Return the positions of each class, in order."""
    found = defaultdict(list)
    for position, value in enumerate(label.tolist()):
        found[value].append(position)
    return found


@settings(deadline=None)
@given(st.integers(0, 500))
def test_first_half_of_the_classes_is_for_development(n):
    mask = split_rules.class_halves(n).tolist()
    assert mask == [True] * (n // 2) + [False] * (n - n // 2)


def test_halves_of_the_published_sets():
    assert np.flatnonzero(~split_rules.class_halves(200))[[0, -1]].tolist() == [100, 199]
    assert np.flatnonzero(~split_rules.class_halves(196))[[0, -1]].tolist() == [98, 195]


@settings(deadline=None)
@given(st.integers(0, 2000))
def test_train_positions_are_evenly_spaced_and_half_as_many(n):
    chosen = split_rules.within_class_train(n).tolist()
    m = n // 2
    assert len(chosen) == len(set(chosen)) == m
    assert chosen == sorted(chosen)
    for rank, position in enumerate(chosen):
        exact = Fraction(rank * (n - 1), m - 1) if m > 1 else Fraction(0)
        assert abs(position - exact) <= Fraction(1, 2)  # the nearest whole number, either of two


@pytest.mark.parametrize(
    ("n", "positions"),
    [(0, []), (1, []), (2, [0]), (3, [0]), (4, [0, 3]), (5, [0, 4]), (6, [0, 2, 5]), (7, [0, 3, 6]), (9, [0, 3, 5, 8])],
)
def test_train_positions_of_small_classes(n, positions):
    assert split_rules.within_class_train(n).tolist() == positions


@settings(deadline=None)
@given(LABELS)
def test_train_positions_of_all_classes_are_those_of_each(label):
    mask = split_rules.within_class_train_of(label)
    assert (mask.dtype, mask.shape) == (bool, label.shape)
    for positions in members(label).values():
        assert np.flatnonzero(mask[positions]).tolist() == split_rules.within_class_train(len(positions)).tolist()


@pytest.mark.parametrize(
    ("images", "classes", "validation"),
    [(11_788 - 5_924, 100, 2_942), (16_185 - 8_131, 98, 4_052)],  # CUB: 11,788 images, CARS: 16,185
)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_published_validation_sizes_follow_from_the_number_of_odd_classes(images, classes, validation, seed):
    # A class of n images has n - n // 2 for validation: the published size is right for any classes with as many
    # images together of which this many have an odd number.
    odd = 2 * validation - images
    assert 0 <= odd <= classes
    rng = np.random.default_rng(seed)
    counts = np.full(classes, 2)
    counts[rng.permutation(classes)[:odd]] += 1
    np.add.at(counts, rng.integers(0, classes, (images - counts.sum()) // 2), 2)
    assert counts.sum() == images
    label = rng.permutation(np.repeat(np.arange(classes), counts))
    assert (~split_rules.within_class_train_of(label)).sum() == validation


@settings(deadline=None)
@given(LABELS)
def test_even_images_of_each_class_are_train_on_test(label):
    mask = split_rules.train_on_test(label)
    expected = {position for positions in members(label).values() for position in positions[::2]}
    assert set(np.flatnonzero(mask).tolist()) == expected


@settings(deadline=None)
@given(LABELS, st.integers(1, 12))
def test_few_shot_keeps_a_constant_stride_of_each_class(label, k):
    mask = split_rules.few_shot(label, k)
    expected = set()
    for positions in members(label).values():
        kept = positions[:: max(1, len(positions) // k)][:k]
        assert len(kept) == min(len(positions), k)
        expected |= set(kept)
    assert set(np.flatnonzero(mask).tolist()) == expected


@settings(deadline=None)
@given(LABELS, st.integers(1, 5), st.randoms(use_true_random=False))
def test_rules_do_not_depend_on_how_classes_are_interleaved(label, k, random):
    # Another interleaving that keeps the order within each class.
    by_class = members(label)
    values = label.tolist()
    random.shuffle(values)
    left = {value: iter(positions) for value, positions in by_class.items()}
    order = np.array([next(left[value]) for value in values], np.int64)
    for rule in (split_rules.within_class_train_of, split_rules.train_on_test, lambda y: split_rules.few_shot(y, k)):
        assert rule(label[order]).tolist() == rule(label)[order].tolist()
        assert rule(label).tolist() == rule(label).tolist()


def test_rank_and_size_in_class():
    rank, size = split_rules.rank_in_class(np.array([7, 2, 7, 7, 2]))
    assert (rank.tolist(), size.tolist()) == ([0, 0, 1, 2, 1], [3, 2, 3, 3, 2])
    assert [part.shape for part in split_rules.rank_in_class(np.array([], np.int64))] == [(0,), (0,)]
