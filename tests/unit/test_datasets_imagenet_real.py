from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets import imagenet, imagenet_real
from tests.unit.dataset_worlds import content_digest, grey_value, open_split
from tests.unit.test_datasets_imagenet import POSITION, TRUTH, make_archives, make_flat, make_folders

OPTIONS = {"kind": "imagenet_real", "path": "imagenet", "real_labels": "real.json", "missing_classes": 996}
WITH_RATERS = OPTIONS | {"raters": "raters.npz"}
# Image 1 has yes-votes and labels, 2 has questions but no yes, 3 has votes only, 4 has neither, 5 has labels only.
REAL = [[7], [20, 3], [], [], [500]]
# (image, class, raters' answers: 0 = no, 1 = maybe, 2 = yes, None = not asked)
QUESTIONS = [
    (3, 999, [2, 1, 0]),
    (1, 40, [2, 2, None]),
    (2, 8, [0, 1, 0]),
    (1, 30, [None, 2, 2]),
    (1, 50, [2, 0, 0]),
    (4, 5, [0, 0, 1]),
]


def file_name(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def make_labels(data_dir, real=REAL, questions=QUESTIONS, **changes):
    """Write both files with the arrays and types of the genuine ones."""
    (data_dir / "real.json").write_text(json.dumps(real))
    tensor = np.zeros((3, len(questions), 3))
    for question, (_, _, answers) in enumerate(questions):
        for rater, answer in enumerate(answers):
            if answer is not None:
                tensor[rater, question, answer] = 1
    info = np.array([(file_name(image), str(label)) for image, label, _ in questions], "<U28")
    arrays = {"tensor": tensor, "info": info, "ids": np.array([189, 111, 183])} | changes
    np.savez_compressed(data_dir / "raters.npz", **{k: v for k, v in arrays.items() if v is not None})


def build(data_dir, options):
    return imagenet_real.build_index(imagenet_real.Options.model_validate(options), data_dir)


@pytest.mark.parametrize("make", [make_archives, make_flat, make_folders])
def test_votes_are_yes_answers_then_labels_then_none(tmp_path, make):
    make(tmp_path / "imagenet")
    make_labels(tmp_path)
    index = build(tmp_path, WITH_RATERS)
    assert index.label_counts == [{40: 2.0, 30: 2.0, 50: 1.0}, {20: 1.0, 3: 1.0}, {999: 1.0}, {}, {500: 1.0}]
    official = POSITION[TRUTH[3]]
    assert index.label.tolist() == [30, 3, 999, official, 500]
    dataset = open_split(tmp_path, WITH_RATERS, "validation")
    assert len(dataset.classes) == 1000
    assert [grey_value(dataset.image(n)) for n in range(5)] == [201, 202, 203, 204, 205]
    wanted = [-(0.8 * math.log(0.4) + 0.2 * math.log(0.2)), math.log(2), 0.0, math.nan, 0.0]
    np.testing.assert_allclose(dataset.vote_entropy(), wanted, rtol=1e-12)


def test_labels_alone_have_one_vote_each(tmp_path):
    make_archives(tmp_path / "imagenet")
    make_labels(tmp_path)
    index = build(tmp_path, OPTIONS)
    assert index.label_counts == [{7: 1.0}, {20: 1.0, 3: 1.0}, {}, {}, {500: 1.0}]
    assert index.label.tolist() == [7, 3, POSITION[TRUTH[2]], POSITION[TRUTH[3]], 500]
    assert set(index.split) == {"validation"}


questions_of_images = st.lists(
    st.tuples(st.integers(1, 5), st.integers(0, 4), st.lists(st.sampled_from([None, 0, 1, 2]), min_size=3, max_size=3)),
    min_size=1,
    max_size=25,
)
labels_of_images = st.lists(st.lists(st.integers(0, 4), max_size=3, unique=True), min_size=5, max_size=5)


@settings(max_examples=60, deadline=None)
@given(questions_of_images, labels_of_images)
def test_merging_agrees_with_dense_arrays(tmp_path_factory, questions, real):
    folder = tmp_path_factory.mktemp("world")
    make_labels(folder, real, questions)
    votes = imagenet_real._read_votes(folder / "raters.npz", 5, 1000)
    official = [900, 901, 902, 903, 904]
    for image in range(5):
        dense = np.zeros(1000)
        for number, label, answers in questions:
            dense[label] += answers.count(2) * (number == image + 1)
        if dense.sum() == 0:
            dense[real[image]] = 1
        counts = votes.get(image + 1) or dict.fromkeys(real[image], 1.0)
        assert counts == {int(label): dense[label] for label in np.flatnonzero(dense)}
        assert imagenet_real._hard_label(counts, official[image]) == (
            dense.argmax() if dense.any() else official[image]
        )


def test_class_without_images_and_a_subset_keep_their_numbers(tmp_path):
    make_folders(tmp_path / "imagenet")
    shutil.rmtree(tmp_path / "imagenet/val/n15075141")
    make_labels(tmp_path)
    with pytest.raises(PipelineError, match="997 of 1,000 classes have no images in split 'validation'"):
        build(tmp_path, WITH_RATERS)
    index = build(tmp_path, WITH_RATERS | {"missing_classes": 997})
    assert index.label_counts == [{20: 1.0, 3: 1.0}, {999: 1.0}, {}, {500: 1.0}]


@pytest.mark.parametrize(
    ("real", "message"),
    [
        (REAL[:4], r"real\.json: has the labels of 4 images, none for 'ILSVRC2012_val_00000005\.JPEG'"),
        ([*REAL[:4], [1000]], r"real\.json: must be a list with a list of classes, 0 to 999, for each image"),
        ([*REAL[:4], 5], "must be a list with a list of classes"),
        ([*REAL[:4], [True]], "must be a list with a list of classes"),
        ({"1": [2]}, "must be a list with a list of classes"),
    ],
)
def test_faults_of_the_labels_are_named(tmp_path, real, message):
    make_archives(tmp_path / "imagenet")
    make_labels(tmp_path, real)
    with pytest.raises(PipelineError, match=message):
        build(tmp_path, OPTIONS)


@pytest.mark.parametrize(
    ("questions", "changes", "message"),
    [
        (QUESTIONS, {"tensor": None}, r"raters\.npz: can't be read as votes \(.*tensor"),
        (QUESTIONS, {"info": None}, r"raters\.npz: can't be read as votes \(.*info"),
        (QUESTIONS, {"tensor": np.zeros((3, 5, 3))}, "6 questions, but 5 answers"),
        (QUESTIONS, {"tensor": np.zeros((3, 6, 2))}, "can't be read as votes"),
        (QUESTIONS, {"info": np.array(["x"] * 6)}, "can't be read as votes"),
        (QUESTIONS, {"info": np.array([("ILSVRC2012_val_00000001.JPEG", "cat")] * 6)}, "can't be read as votes"),
        ([*QUESTIONS, (6, 1, [2, 2, 2])], {}, r"vote for class 1 of 'ILSVRC2012_val_00000006\.JPEG', but .* 5 images"),
        ([*QUESTIONS, (1, 1000, [0, 0, 0])], {}, "vote for class 1000 of .*, but there are 1000 classes"),
        (QUESTIONS, {"info": np.array([("cat.JPEG", "1")] * 6)}, r"raters\.npz: 'cat\.JPEG' is no name like"),
    ],
)
def test_faults_of_the_votes_are_named(tmp_path, questions, changes, message):
    make_archives(tmp_path / "imagenet")
    make_labels(tmp_path, questions=questions, **changes)
    with pytest.raises(PipelineError, match=message) as caught:
        build(tmp_path, WITH_RATERS)
    assert "\n" not in str(caught.value)


def test_votes_in_another_format_or_damaged_are_named(tmp_path):
    make_archives(tmp_path / "imagenet")
    make_labels(tmp_path)
    content = bytearray((tmp_path / "raters.npz").read_bytes())
    content[60] ^= 0xFF
    np.save(tmp_path / "array.npy", np.zeros(3))
    for other in (bytes(content), (tmp_path / "array.npy").read_bytes(), b"no array"):
        (tmp_path / "raters.npz").write_bytes(other)
        with pytest.raises(PipelineError, match=r"raters\.npz: can't be read as votes") as caught:
            build(tmp_path, WITH_RATERS)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["real.json", "raters.npz"])
def test_missing_and_truncated_files_are_named(tmp_path, name):
    make_archives(tmp_path / "imagenet")
    make_labels(tmp_path)
    content = (tmp_path / name).read_bytes()
    for keep in (0, 5, len(content) // 2):
        (tmp_path / name).write_bytes(content[:keep])
        with pytest.raises(PipelineError, match=f"{name}: can't be read as") as caught:
            build(tmp_path, WITH_RATERS)
        assert "\n" not in str(caught.value)
    (tmp_path / name).unlink()
    with pytest.raises(PipelineError, match=f"{name}: no such file; check '(real_labels|raters)'"):
        build(tmp_path, WITH_RATERS)


def test_images_are_needed(tmp_path):
    make_labels(tmp_path)
    with pytest.raises(PipelineError, match=r"imagenet: holds neither val/ nor ILSVRC2012_img_val\.tar"):
        build(tmp_path, OPTIONS)


def test_image_with_another_name_is_named(tmp_path):
    make_folders(tmp_path / "imagenet")
    make_labels(tmp_path)
    first = tmp_path / "imagenet/val/n15075141/ILSVRC2012_val_00000001.JPEG"
    first.rename(first.with_name("cat.JPEG"))
    with pytest.raises(PipelineError, match=r"'cat\.JPEG' is no name like"):
        build(tmp_path, OPTIONS)


def test_digest_follows_labels_and_votes(tmp_path):
    make_archives(tmp_path / "imagenet")
    digests = []
    for real, questions in ((REAL, QUESTIONS), ([[8], *REAL[1:]], QUESTIONS), (REAL, QUESTIONS[:-1])):
        make_labels(tmp_path, real, questions)
        digests.append(content_digest(tmp_path, WITH_RATERS))
    assert len(set(digests)) == 3
    make_labels(tmp_path)
    assert content_digest(tmp_path, WITH_RATERS) == digests[0]
    assert content_digest(tmp_path, OPTIONS) not in digests


def test_watched_files_are_the_images_labels_and_votes(tmp_path):
    make_archives(tmp_path / "imagenet")
    root = tmp_path / "imagenet"
    archives = [root / imagenet.TRAIN_TAR, root / imagenet.VALIDATION_TAR, root / imagenet.DEVKIT]
    for options, files in ((OPTIONS, ["real.json"]), (WITH_RATERS, ["real.json", "raters.npz"])):
        checked = imagenet_real.Options.model_validate(options)
        assert imagenet_real.watched_files(checked, tmp_path) == [root, *archives, *(tmp_path / f for f in files)]
