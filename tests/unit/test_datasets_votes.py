from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets import votes
from pipeline_lib.datasets.files import Tree
from pipeline_lib.datasets.images import ImageDataset
from tests.unit.dataset_worlds import content_digest, grey_value, make_folder, open_split, png, write_artefact

OPTIONS = {"kind": "votes", "path": "CIFAR10H"}
IMAGES = {f"fold{fold}/{name}.png": png(10 * fold + n) for fold in range(1, 6) for n, name in enumerate("ab")}
# Per annotator a label for each image, in the order of IMAGES.
LABELS = [
    ["dog", "cat", "cat", "owl", "dog", "dog", "dog", "dog", "cat", "owl"],
    ["cat", "cat", "cat", None, "dog", "dog", "dog", "dog", "cat", "owl"],
    [None, "dog", "dog", None, "owl", "dog", "dog", "dog", None, "cat"],
]


def annotators(labels, prefix, images=IMAGES):
    """Return the content of annotations.json, with the fields that the genuine files have besides."""
    return [
        {
            "dataset_name": "CIFAR10H",
            "user_mail": f"{number}@example.org",
            "name": f"{number:02d}",
            "annotations": [
                {"image_path": prefix + image, "class_label": label, "created_at": None}
                for image, label in zip(images, row, strict=True)
            ],
        }
        for number, row in enumerate(labels)
    ]


def make_votes(data_dir, content=None, images=IMAGES):
    content = annotators(LABELS, "CIFAR10H/") if content is None else content
    make_folder(data_dir / "CIFAR10H", {**images, "annotations.json": json.dumps(content).encode()})
    return data_dir / "CIFAR10H"


@pytest.mark.parametrize("prefix", ["CIFAR10H/", "", "renamed-since/", "./"])
def test_folds_become_splits_and_votes_are_counted(tmp_path, prefix):
    make_votes(tmp_path, annotators(LABELS, prefix))
    artefact = write_artefact(tmp_path, OPTIONS)
    validation, test, train = (ImageDataset(artefact, split) for split in ("validation", "test", "train"))
    assert train.classes == ["cat", "dog", "owl"]
    assert [validation.location(n) for n in range(2)] == ["fold1/a.png", "fold1/b.png"]
    assert validation.label.tolist() == [0, 0]  # one cat, one dog: the first; two cats, one dog
    assert test.label.tolist() == [0, 2]
    assert train.label.tolist() == [1, 1, 1, 1, 0, 2]
    assert [grey_value(train.image(n)) for n in range(6)] == [30, 31, 40, 41, 50, 51]
    third = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    np.testing.assert_allclose(validation.vote_entropy(), [math.log(2), third])
    np.testing.assert_allclose(test.vote_entropy(), [third, 0.0])
    index = votes.build_index(votes.Options.model_validate(OPTIONS), tmp_path)
    assert index.label_counts[:4] == [{0: 1.0, 1: 1.0}, {0: 2.0, 1: 1.0}, {0: 2.0, 1: 1.0}, {2: 1.0}]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(["b", "a", "ab", "é", None]), min_size=10, max_size=10), min_size=1, max_size=7
    ).filter(lambda rows: any(label for row in rows for label in row)),
    st.randoms(),
)
def test_counts_and_hard_labels_match_a_plain_count(rows, random):
    unvoted = sum(not any(column) for column in zip(*rows, strict=True))
    content = annotators(rows, "CIFAR10H/")
    for annotator in content:
        random.shuffle(annotator["annotations"])
    random.shuffle(content)
    with tempfile.TemporaryDirectory() as folder:
        make_votes(Path(folder), content, dict.fromkeys(IMAGES, b""))
        index = votes.build_index(votes.Options(**OPTIONS, skip_unvoted=unvoted), Path(folder))
    assert index.classes == sorted({label for row in rows for label in row if label})
    expected = {
        image: Counter(label for label in column if label)
        for image, column in zip(IMAGES, zip(*rows, strict=True), strict=True)
        if any(column)
    }
    assert index.location == list(expected)
    for counts, label, (image, wanted) in zip(index.label_counts, index.label, expected.items(), strict=True):
        assert {index.classes[label]: count for label, count in counts.items()} == wanted
        dense = [wanted[name] for name in index.classes]
        assert label == np.argmax(dense), image
    split = {"1": "validation", "2": "test"}
    assert index.split == [split.get(image[4], "train") for image in expected]


def test_images_without_votes_stop_the_job_until_they_are_allowed(tmp_path):
    labels = [[None, *row[1:]] for row in LABELS]
    make_votes(tmp_path, annotators(labels, ""), IMAGES | {"fold3/never-shown.png": png(1)})
    with pytest.raises(PipelineError, match=r"2 images have no vote \(the first is 'fold1/a.png'\), but only 0 may"):
        open_split(tmp_path, OPTIONS)
    with pytest.raises(PipelineError, match="but only 1 may; set skip_unvoted to 2"):
        open_split(tmp_path, OPTIONS | {"skip_unvoted": 1})
    dataset = open_split(tmp_path, OPTIONS | {"skip_unvoted": 2}, "validation")
    assert dataset.manifest.facts["splits"] == {"validation": 1, "test": 2, "train": 6}
    assert dataset.location(0) == "fold1/b.png"


def test_whole_numbers_and_folders_below_a_fold_are_accepted(tmp_path):
    images = {f"fold{fold}/fold1/x.png": png(fold) for fold in range(1, 6)}
    given = [{"image_path": image, "class_label": fold % 2} for fold, image in enumerate(images)]
    make_votes(tmp_path, [{"annotations": given}], images)
    dataset = open_split(tmp_path, OPTIONS, "train")
    assert dataset.classes == ["0", "1"]
    assert dataset.label.tolist() == [0, 1, 0]


def one(**annotation):
    return [{"annotations": [annotation]}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"annotations": []}, "annotations.json: must be a list of annotators"),
        ([{"annotation": []}], "annotator 1 has no list 'annotations'"),
        ([[]], "annotator 1 has no list 'annotations'"),
        ([{"annotations": ["x"]}], "annotation 1 of annotator 1 is no object"),
        (one(image_path="fold6/a.png", class_label="cat"), "image_path 'fold6/a.png' must name a file in one of fold1"),
        (one(image_path="x/y/fold1/a.png", class_label="cat"), "must name a file in one of fold1"),
        (one(image_path="fold1/", class_label="cat"), "must name a file in one of fold1"),
        (one(class_label="cat"), "image_path None must name a file"),
        (one(image_path="CIFAR10H/../fold1/a.png", class_label="cat"), "is refused"),
        (one(image_path="fold1/gone.png", class_label="cat"), "votes for 'fold1/gone.png', but there is no such image"),
        (one(image_path="fold1/a.png", class_label=""), "class_label '' must be a name"),
        (one(image_path="fold1/a.png", class_label=True), "class_label True must be a name"),
        (one(image_path="fold1/a.png", class_label=["cat"]), r"class_label \['cat'\] must be a name"),
        (one(image_path="fold1/a.png", class_label=None), "no image in fold1, .* has a vote"),
        ([], "no image in fold1, .* has a vote"),
    ],
)
def test_what_is_wrong_in_the_annotations_is_named(tmp_path, content, message):
    make_votes(tmp_path, content)
    with pytest.raises(PipelineError, match=message) as caught:
        open_split(tmp_path, OPTIONS)
    assert "\n" not in str(caught.value)


def test_missing_fold_missing_and_broken_annotations_are_named(tmp_path):
    root = make_votes(tmp_path, images=dict(list(IMAGES.items())[:-2]))
    with pytest.raises(PipelineError, match="fold5: no such folder"):
        open_split(tmp_path, OPTIONS)
    make_folder(root, IMAGES)
    (root / "annotations.json").write_text("[{")
    with pytest.raises(PipelineError, match=r"annotations\.json: can't be read as JSON"):
        open_split(tmp_path, OPTIONS)
    (root / "annotations.json").unlink()
    with pytest.raises(PipelineError, match=r"annotations\.json: no such file"):
        open_split(tmp_path, OPTIONS)


def test_digest_and_watched_files_follow_annotations_and_images(tmp_path):
    root = make_votes(tmp_path)
    options = votes.Options.model_validate(OPTIONS)
    folds = [root / f"fold{number}" for number in range(1, 6)]
    assert votes.watched_files(options, tmp_path) == [root / "annotations.json", *map(Tree, folds)]
    digests = [content_digest(tmp_path, OPTIONS)]
    (root / "fold1/a.png").write_bytes(png(99))
    digests.append(content_digest(tmp_path, OPTIONS))
    (root / "annotations.json").write_text(json.dumps(annotators(LABELS[:2], "")))
    digests.append(content_digest(tmp_path, OPTIONS))
    assert len(set(digests)) == 3
    assert content_digest(tmp_path, OPTIONS) == digests[-1]
