from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets import sop
from pipeline_lib.datasets.files import Tree
from pipeline_lib.datasets.images import ImageDataset
from tests.unit.dataset_worlds import content_digest, grey_value, make_folder, open_split, png, write_artefact

HEADER = "image_id class_id super_class_id path"
OPTIONS = {"kind": "sop", "path": "Stanford_Online_Products"}
# (class, super class, path); the numbers are not in order, and 9 comes before 10.
TRAIN = [
    (10, 1, "bicycle_final/110_0.JPG"),
    (10, 1, "bicycle_final/110_1.JPG"),
    (9, 1, "bicycle_final/109_0.JPG"),
    (3, 2, "chair_final/103_0.JPG"),
    (2, 2, "chair_final/102_0.JPG"),
    (4, 2, "chair_final/104_0.JPG"),
]
TEST = [(11, 1, "bicycle_final/111_0.JPG"), (12, 2, "chair_final/112_0.JPG"), (12, 2, "chair_final/112_1.JPG")]


def listed(rows):
    lines = [f"{number} {label} {above} {path}" for number, (label, above, path) in enumerate(rows, start=1)]
    return "\n".join([HEADER, *lines, ""]).encode()


def make_products(data_dir, lists="", images="", train=TRAIN, test=TEST):
    """Write the dataset; `lists` and `images` are the folders of the lists and images, ending in /."""
    paths = [path for _, _, path in TRAIN + TEST]
    make_folder(
        data_dir / "Stanford_Online_Products",
        {f"{lists}Ebay_train.txt": listed(train), f"{lists}Ebay_test.txt": listed(test), "Ebay_info.txt": b""}
        | {f"{images}{path}": png(number) for number, path in enumerate(paths)},
    )
    return data_dir / "Stanford_Online_Products"


@pytest.mark.parametrize("images", ["", "images/"])
@pytest.mark.parametrize("lists", ["", "Info_Files/"])
def test_train_and_validation_are_divided_by_super_class(tmp_path, lists, images):
    make_products(tmp_path, lists, images)
    artefact = write_artefact(tmp_path, OPTIONS)
    train, validation, test = (ImageDataset(artefact, split) for split in ("train", "validation", "test"))
    assert train.classes == ["2", "3", "4", "9", "10", "11", "12"]
    # Super class 1 has 9 | 10, super class 2 has 2 | 3 4.
    assert [train.classes[label] for label in train.label] == ["9", "2"]
    assert [validation.classes[label] for label in validation.label] == ["10", "10", "3", "4"]
    assert [test.classes[label] for label in test.label] == ["11", "12", "12"]
    seen = [
        [grey_value(dataset.image(position)) for position in range(len(dataset))]
        for dataset in (train, validation, test)
    ]
    assert seen == [[2, 4], [0, 1, 3, 5], [6, 7, 8]]
    assert train.sample_id.tolist() == [2, 4]
    assert test.location(0) == "bicycle_final/111_0.JPG"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 9)), min_size=1, max_size=30), st.randoms())
def test_division_is_disjoint_complete_and_independent_of_the_order_of_lines(pairs, random):
    above_of = {}
    rows = [(label, above_of.setdefault(label, above % 3), f"x/{n}.png") for n, (label, above) in enumerate(pairs)]
    inside = defaultdict(list)
    for label in sorted(above_of):
        inside[above_of[label]].append(label)
    expected = {label for labels in inside.values() for label in labels[: int(len(labels) * 0.5)]}
    random.shuffle(rows)
    with tempfile.TemporaryDirectory() as folder:
        test = [(100, 0, "x/test.png")]
        files = {"Ebay_train.txt": listed(rows), "Ebay_test.txt": listed(test)}
        make_folder(Path(folder) / "p", files | {path: b"" for _, _, path in rows + test})
        index = sop.build_index(sop.Options(kind="sop", path="p"), Path(folder))
    assert index.location == [path for _, _, path in rows + test]
    assert [index.classes[label] for label in index.label] == [str(label) for label, _, _ in rows + test]
    wanted = ["train" if label in expected else "validation" for label, _, _ in rows]
    assert index.split == [*wanted, "test"]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (TRAIN, [(9, 1, "bicycle_final/111_0.JPG")], r"Ebay_test.txt: line 2: class 9 is in Ebay_train.txt too"),
        ([*TRAIN, (9, 2, "chair_final/103_0.JPG")], TEST, "line 8: class 9 is in super class 2, but further up in 1"),
        (TRAIN, [(11, 1, "bicycle_final/gone.JPG")], r"Ebay_test.txt: line 2: no image 'bicycle_final/gone.JPG' in"),
        (TRAIN, [("x", 1, "bicycle_final/111_0.JPG")], "line 2 is '1 x 1 .*must be three whole numbers and a path"),
        (TRAIN, [(11, 1, "")], "must be three whole numbers and a path"),
        (TRAIN, [(11, 1, "../111_0.JPG")], r"line 2: the name '\.\./111_0\.JPG' is refused"),
        (TRAIN, [], "Ebay_test.txt: lists no images"),
    ],
)
def test_what_is_wrong_in_the_lists_is_named(tmp_path, train, test, message):
    make_products(tmp_path, train=train, test=test)
    with pytest.raises(PipelineError, match=message) as caught:
        open_split(tmp_path, OPTIONS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"image_id,class_id,super_class_id,path\n", b"1 1 1 bicycle_final/a.JPG\n"])
def test_list_without_the_header_is_refused(tmp_path, content):
    root = make_products(tmp_path)
    (root / "Ebay_test.txt").write_bytes(content)
    with pytest.raises(PipelineError, match=f"Ebay_test.txt: line 1 is .*but must be '{HEADER}'"):
        open_split(tmp_path, OPTIONS)


def test_missing_list_is_named(tmp_path):
    (make_products(tmp_path) / "Ebay_train.txt").unlink()
    with pytest.raises(PipelineError, match=r"Ebay_train\.txt: no such list"):
        open_split(tmp_path, OPTIONS)


def test_windows_line_ends_and_blank_lines_do_not_matter(tmp_path):
    root = make_products(tmp_path)
    before = open_split(tmp_path, OPTIONS).label.tolist()
    content = (root / "Ebay_test.txt").read_bytes()
    (root / "Ebay_test.txt").write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n") + b"\r\n")
    assert open_split(tmp_path, OPTIONS).label.tolist() == before


def test_digest_follows_lists_and_images(tmp_path):
    root = make_products(tmp_path)
    digests = [content_digest(tmp_path, OPTIONS)]
    (root / "chair_final/102_0.JPG").write_bytes(png(99))
    digests.append(content_digest(tmp_path, OPTIONS))
    (root / "Ebay_test.txt").write_bytes(listed(TEST[:-1]))
    digests.append(content_digest(tmp_path, OPTIONS))
    assert len(set(digests)) == 3
    assert content_digest(tmp_path, OPTIONS) == digests[-1]


def test_watched_files_are_the_lists_and_the_images(tmp_path):
    options = sop.Options.model_validate(OPTIONS)
    root = make_products(tmp_path, "Info_Files/", "images/")
    assert sop.watched_files(options, tmp_path) == [
        root / "Info_Files/Ebay_train.txt",
        root / "Info_Files/Ebay_test.txt",
        Tree(root / "images"),
    ]
    gone = tmp_path / "gone/Stanford_Online_Products"
    assert sop.watched_files(options, tmp_path / "gone") == [
        gone / "Ebay_train.txt",
        gone / "Ebay_test.txt",
        Tree(gone),
    ]
