"""Division of datasets by shares: sizes, independence of the listing, and how little a new image moves."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pipeline_lib.config import kinds
from pipeline_lib.config.faults import describe
from pipeline_lib.config.splitter import Splitter
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets import folder
from pipeline_lib.datasets.splitter import assign
from tests.unit.dataset_worlds import grey_value, make_folder, make_tar, make_zip, open_split, png

THREE = {"train": 0.6, "validation": 0.2, "test": 0.2}
PETS = {f"{name}/{n}.png": png(value + n) for name, value in (("cat", 0), ("dog", 100)) for n in range(10)}


@st.composite
def splitters(draw, by, splits=(2, 4)):
    """Shares in whole percent."""
    number = draw(st.integers(*splits))
    cuts = sorted(draw(st.sets(st.integers(1, 99), min_size=number - 1, max_size=number - 1)))
    percent = [end - start for start, end in zip([0, *cuts], [*cuts, 100], strict=True)]
    return Splitter(**{f"s{n}": share / 100 for n, share in enumerate(percent)}, by=by, seed=draw(st.integers(0, 3)))


def division(images, splitter):
    """Return the split by image name of a dict from image name to class; None if a split would be empty."""
    try:
        return dict(zip(images, assign(list(images.values()), list(images), splitter), strict=True))
    except PipelineError as error:
        assert "gets no images" in str(error)
        return None


IMAGES = st.dictionaries(st.text("abc", min_size=1, max_size=5), st.sampled_from("xyz"), min_size=1, max_size=60)


def expected_sizes(number, splitter):
    """Return the sizes that largest remainders allow: whole quotas, and one more for the largest remainders."""
    quota = {name: number * Fraction(repr(share)) for name, share in splitter.shares.items()}
    left = number - sum(math.floor(value) for value in quota.values())
    remainders = sorted((value - math.floor(value) for value in quota.values()), reverse=True)
    return quota, remainders[left - 1] if left else None, remainders[left] if left < len(remainders) else None


def assert_largest_remainders(sizes, splitter):
    number = sum(sizes.values())
    quota, last_up, first_down = expected_sizes(number, splitter)
    for name, value in quota.items():
        remainder = value - math.floor(value)
        if sizes[name] == math.floor(value):
            assert last_up is None or remainder <= last_up
        else:
            assert sizes[name] == math.floor(value) + 1
            assert remainder >= first_down


@given(images=IMAGES, splitter=splitters("image"))
def test_shares_hold_within_every_class_to_the_largest_remainder(images, splitter):
    divided = division(images, splitter)
    if divided is None:
        return
    assert divided.keys() == images.keys()
    assert set(divided.values()) == splitter.shares.keys()
    for name in set(images.values()):
        assert_largest_remainders(Counter(divided[image] for image in images if images[image] == name), splitter)


@given(images=IMAGES, splitter=splitters("class"))
def test_classes_stay_whole_and_their_number_has_the_shares(images, splitter):
    divided = division(images, splitter)
    if divided is None:
        return
    splits_of = defaultdict(set)
    for image, split in divided.items():
        splits_of[images[image]].add(split)
    assert all(len(splits) == 1 for splits in splits_of.values())
    assert_largest_remainders(Counter(split for splits in splits_of.values() for split in splits), splitter)


@given(images=IMAGES, splitter=splitters("image") | splitters("class"), data=st.data())
def test_the_division_depends_on_no_order(images, splitter, data):
    shuffled = dict(data.draw(st.permutations(list(images.items()))))
    shares = dict(reversed(splitter.shares.items()))
    assert division(shuffled, Splitter(**shares, by=splitter.by, seed=splitter.seed)) == division(images, splitter)


@given(images=IMAGES, splitter=splitters("image", (2, 3)), added=st.sampled_from("xyz"))
def test_a_new_image_moves_no_more_than_is_promised(images, splitter, added):
    before, after = division(images, splitter), division(images | {"new": added}, splitter)
    if before is None or after is None:
        return
    moved = [image for image in images if before[image] != after[image]]
    assert all(images[image] == added for image in moved)
    assert len(moved) <= {2: 1, 3: 4}[len(splitter.shares)]


@given(images=IMAGES, splitter=splitters("class", (2, 3)), added=st.sampled_from("xyzw"))
def test_a_new_class_moves_few_classes_and_a_new_image_none(images, splitter, added):
    before, after = division(images, splitter), division(images | {"new": added}, splitter)
    if before is None or after is None:
        return
    moved = {images[image] for image in images if before[image] != after[image]}
    is_new = added not in images.values()
    assert len(moved) <= ({2: 1, 3: 4}[len(splitter.shares)] if is_new else 0)


def test_equal_remainders_do_not_all_go_to_one_split():
    images = {f"{name}/{n}": str(name) for name in range(200) for n in range(4)}
    sizes = Counter(division(images, Splitter(train=0.75, a=0.125, b=0.125)).values())
    assert sizes["train"] == 600
    assert abs(sizes["a"] - 100) < 40  # 200 fair throws have a standard deviation of 7


def test_seeds_give_different_divisions_and_thirds_may_be_rounded():
    images = {f"{n}": "x" for n in range(30)}
    thirds = {"a": 0.3333333333, "b": 0.3333333333, "c": 0.3333333333}
    one, other = (division(images, Splitter(**thirds, seed=seed)) for seed in (0, 1))
    assert one != other
    assert set(Counter(one.values()).values()) == set(Counter(other.values()).values()) == {10}


def test_a_known_division_stays_what_it_is():
    # The rule is part of every result: a change of it must be noticed.
    divided = division({f"{n}.png": "x" for n in range(10)}, Splitter(**THREE, seed=0))
    assert " ".join(split[:2] for split in divided.values()) == "tr va tr te tr tr tr te tr va"


def fault_of(kind, change):
    """Return the line that a config with a faulty dataset gives."""
    files = {"path": "t.csv", "images": "pics"} if kind == "table" else {"path": "pets.zip"}
    options = kinds.options_class("datasets", kind)
    with pytest.raises(ValidationError) as caught:
        options.model_validate({"kind": kind} | files | change)
    return describe(caught.value, options, prefix="datasets.pets")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"train": 0.8, "test": 0.1}, r"split_by: the shares of train, test must sum to 1, not 0\.9"),
        ({"train": 0.5, "test": 0.5 + 2e-9}, r"must sum to 1, not 1\.000000002"),
        ({"train": 0.8, "by": "image"}, "at least two splits"),
        ({}, "at least two splits"),
        ({"train": 1.0, "test": 0.0}, r"split_by\.train: 1\.0 is not allowed.*less than 1"),
        ({"train": 1.5, "test": -0.5}, "is not allowed"),
        ({"train": "most", "test": 0.5}, r"split_by\.train: 'most' is not allowed"),
        ({"train": 0.5, "a/b": 0.5}, "split name 'a/b' must start with a letter or digit"),
        ({"train": 0.5, "test": 0.5, "by": "imag"}, r"split_by\.by: 'imag' .*did you mean 'image'"),
        ({"train": 0.5, "test": 0.5, "seed": -1}, r"split_by\.seed: -1 is not allowed"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "archive", "table"])
def test_mistakes_are_named(kind, value, message):
    line = fault_of(kind, {"split_by": value})
    assert line.startswith("datasets.pets.split_by")
    assert "\n" not in line
    assert re.search(message, line)


@pytest.mark.parametrize(
    ("kind", "change"),
    [("folder", {"splits": {"test": "a"}}), ("archive", {"splits": {"test": "a"}}), ("table", {"split_column": "s"})],
)
def test_two_ways_to_split_are_refused(kind, change):
    line = fault_of(kind, {"split_by": THREE} | change)
    assert line.startswith("datasets.pets.split_by: give either split_by or split")


def test_shares_survive_a_manifest_and_their_schema_takes_any_split():
    options = folder.Options(kind="folder", path="pets", split_by=THREE | {"by": "class", "seed": 3})
    again = folder.Options.model_validate(json.loads(options.model_dump_json()))
    assert again == options
    assert again.split_by.shares == THREE
    schema = TypeAdapter(Splitter).json_schema()
    assert schema["additionalProperties"]["exclusiveMinimum"] == 0
    assert schema["properties"].keys() == {"by", "seed"}


def contents(data_dir, options):
    """Return the grey values of each split, and check that labels and classes fit."""
    found = {}
    for split in THREE:
        dataset = open_split(data_dir, options | {"split_by": THREE}, split)
        assert dataset.classes == ["cat", "dog"]
        found[split] = sorted(grey_value(dataset.image(i)) for i in range(len(dataset)))
        assert sorted(dataset.label.tolist()) == [int(grey >= 100) for grey in found[split]]
    return found


def test_folder_zip_tar_and_table_are_divided_alike(tmp_path):
    make_folder(tmp_path / "pets", PETS)
    make_zip(tmp_path / "pets.zip", dict(reversed(PETS.items())))
    make_tar(tmp_path / "pets.tar", PETS)
    rows = "".join(f"./{name},{name[:3]}\n" for name in sorted(PETS, reverse=True))
    (tmp_path / "pets.csv").write_text(f"path,class\n{rows}")
    found = contents(tmp_path, {"kind": "folder", "path": "pets"})
    assert [len(found[split]) for split in THREE] == [12, 4, 4]
    assert sorted(grey for split in THREE for grey in found[split]) == sorted([*range(10), *range(100, 110)])
    for options in (
        {"kind": "archive", "path": "pets.zip"},
        {"kind": "archive", "path": "pets.tar"},
        {"kind": "table", "path": "pets.csv", "images": "pets", "label_column": "class"},
        {"kind": "table", "path": "pets.csv", "images": "pets.tar", "label_column": "class"},
    ):
        assert contents(tmp_path, options) == found


def test_whole_classes_and_votes_are_divided(tmp_path):
    make_folder(tmp_path / "pets", PETS)
    halves = {"a": 0.5, "b": 0.5, "by": "class"}
    parts = [open_split(tmp_path, {"kind": "folder", "path": "pets", "split_by": halves}, split) for split in "ab"]
    assert sorted(set(part.label.tolist()).pop() for part in parts) == [0, 1]
    assert [len(part) for part in parts] == [10, 10]
    (tmp_path / "t.csv").write_text("path,cat,dog\n" + "".join(f"{name},2,1\n" for name in PETS))
    votes = {"kind": "table", "path": "t.csv", "images": "pets", "split_by": {"a": 0.5, "b": 0.5}}
    assert [len(open_split(tmp_path, votes, split)) for split in "ab"] == [10, 10]


def test_splits_without_images_and_repeated_images_are_named(tmp_path):
    make_folder(tmp_path / "pets", PETS)
    options = {"kind": "folder", "path": "pets", "split_by": THREE | {"by": "class"}}
    with pytest.raises(PipelineError, match=r"pets: split '.*' of split_by gets no images \(share 0\.2 by class of 20"):
        open_split(tmp_path, options)
    (tmp_path / "t.csv").write_text("path,class\ncat/1.png,x\n./cat/1.png,y\ncat/2.png,x\n")
    with pytest.raises(PipelineError, match=r"t\.csv: image 'cat/1\.png' is listed twice"):
        open_split(
            tmp_path,
            {"kind": "table", "path": "t.csv", "images": "pets", "label_column": "class"}
            | {"split_by": {"a": 0.5, "b": 0.5}},
        )
