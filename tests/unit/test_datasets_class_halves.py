from __future__ import annotations

import pickle

import pytest
from pydantic import ValidationError

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets import class_halves
from pipeline_lib.datasets.files import Tree
from pipeline_lib.datasets.images import ImageDataset
from tests.unit.dataset_worlds import content_digest, grey_value, make_folder, open_split, png, write_artefact

CUB = {"kind": "class_halves", "path": "CUB_200_2011"}
CARS = {"kind": "class_halves", "path": "CARS196"}
# Sorted by number; sorted by name, the tenth and eleventh would come before the second.
BIRDS = ["1.Crow", "2.Auk", "10.Wren", "11.Tern"]
SIZES = dict(zip(BIRDS, [4, 5, 3, 4], strict=True))


def make_birds(root):
    files = {
        f"images/{bird}/{n:04d}_{9 - n}.jpg": png(16 * number + n)
        for number, bird in enumerate(BIRDS)
        for n in range(SIZES[bird])
    }
    # What else the official archive holds.
    others = {"attributes/attributes.txt": b"", "classes.txt": b"", "parts/": b"", "images.txt": b""}
    make_folder(root / "CUB_200_2011", files | others)


def greys(dataset):
    return [grey_value(dataset.image(position)) for position in range(len(dataset))]


def test_official_bird_folders_are_halved_by_number(tmp_path):
    make_birds(tmp_path)
    artefact = write_artefact(tmp_path, CUB)
    train, validation, test = (ImageDataset(artefact, split) for split in ("train", "validation", "test"))
    assert train.classes == BIRDS
    assert train.manifest.facts["splits"] == {"train": 4, "validation": 5, "test": 7}
    assert sorted(greys(train)) == [0, 3, 16, 20]  # first and last of four and of five
    assert sorted(greys(validation)) == [1, 2, 17, 18, 19]
    assert sorted(greys(test)) == [32, 33, 34, 48, 49, 50, 51]
    for dataset in (train, validation, test):
        assert dataset.label.tolist() == [grey // 16 for grey in greys(dataset)]
        assert dataset.vote_entropy() is None
    assert sorted([*train.sample_id, *validation.sample_id, *test.sample_id]) == list(range(16))


def test_folder_itself_may_be_named(tmp_path):
    make_birds(tmp_path)
    outer, inner = write_artefact(tmp_path, CUB), tmp_path / "CUB_200_2011"
    for split in ("train", "validation", "test"):
        one = ImageDataset(outer, split)
        other = open_split(inner, CUB | {"path": "images"}, split)
        assert greys(one) == greys(other)
        assert one.label.tolist() == other.label.tolist()


def test_car_folders_are_halved_by_name_and_the_middle_class_is_a_test_class(tmp_path):
    names = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "BMW M5 Sedan 2010"]
    make_folder(tmp_path / "CARS196", {f"images/{name}/{n:05d}.jpg": png(n) for name in names for n in range(3)})
    assert open_split(tmp_path, CARS, "train").classes == names
    assert open_split(tmp_path, CARS, "train").label.tolist() == [0]
    assert open_split(tmp_path, CARS, "validation").label.tolist() == [0, 0]
    assert open_split(tmp_path, CARS, "test").label.tolist() == [1, 1, 1, 2, 2, 2]


def test_one_name_without_a_number_makes_all_sort_by_name(tmp_path):
    make_folder(tmp_path / "CARS196", {f"{name}/1.png": png(1) for name in ["2.b", "10.a", "c"]})
    assert open_split(tmp_path, CARS, "test").classes == ["10.a", "2.b", "c"]


def test_test_halves_are_even_and_odd_images(tmp_path):
    make_birds(tmp_path)
    artefact = write_artefact(tmp_path, CUB | {"test_halves": True})
    even, odd = ImageDataset(artefact, "trainontest"), ImageDataset(artefact, "testontest")
    assert even.manifest.facts["splits"] == {"train": 4, "validation": 5, "trainontest": 4, "testontest": 3}
    assert (sorted(greys(even)), sorted(greys(odd))) == ([32, 34, 48, 50], [33, 49, 51])
    with pytest.raises(PipelineError, match="has no split 'test'"):
        ImageDataset(artefact, "test")


def test_few_shot_thins_only_the_splits_to_train_on(tmp_path):
    make_folder(tmp_path / "CARS196", {f"{name}/{n:02d}.png": png(n) for name in "ab" for n in range(12)})
    full = greys(open_split(tmp_path, CARS, "train"))
    assert full == [0, 2, 4, 7, 9, 11]
    artefact = write_artefact(tmp_path, CARS | {"few_shot": 2})
    train, validation, test = (ImageDataset(artefact, split) for split in ("train", "validation", "test"))
    assert greys(train) == [0, 7]  # positions 0 and 3 of six
    assert (len(validation), len(test)) == (6, 12)
    assert sorted([*train.sample_id, *validation.sample_id, *test.sample_id]) == list(range(20))
    artefact = write_artefact(tmp_path, CARS | {"few_shot": 4, "test_halves": True})
    assert greys(ImageDataset(artefact, "train")) == [0, 2, 4, 7]
    assert greys(ImageDataset(artefact, "trainontest")) == [0, 2, 4, 6]
    assert greys(ImageDataset(artefact, "testontest")) == [1, 3, 5, 7, 9, 11]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"images/a/1.png": b""}, "CARS196/images: has only class 'a', but halves need at least two"),
        ({"a/1.png": b"", "b/": b""}, "class folder 'b' holds no images"),
        ({"a/1.png": b"", "2.png": b""}, "image '2.png' lies outside every class folder"),
        ({"readme.txt": b""}, "holds no images in class folders"),
    ],
)
def test_what_is_missing_is_named(tmp_path, files, message):
    make_folder(tmp_path / "CARS196", files)
    with pytest.raises(PipelineError, match=message) as caught:
        open_split(tmp_path, CARS)
    assert "\n" not in str(caught.value)


def test_missing_folder_is_named(tmp_path):
    make_folder(tmp_path / "CARS-196", {"a/1.png": b""})
    with pytest.raises(PipelineError, match=r"CARS196: no such folder.*did you mean 'CARS-196'"):
        open_split(tmp_path, CARS)


@pytest.mark.parametrize("options", [{"few_shot": 0}, {"few_shot": -1}, {"path": ""}, {"split": "test"}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError):
        class_halves.Options.model_validate(CUB | options)


def test_digest_and_watched_folders_follow_the_images(tmp_path):
    make_birds(tmp_path)
    before = content_digest(tmp_path, CUB)
    assert content_digest(tmp_path, CUB) == before
    images = tmp_path / "CUB_200_2011/images"
    options = class_halves.Options.model_validate(CUB)
    assert class_halves.watched_files(options, tmp_path) == [Tree(images)]
    assert class_halves.watched_files(options, tmp_path / "gone") == [Tree(tmp_path / "gone/CUB_200_2011")]
    (images / "1.Crow/0001_8.jpg").write_bytes(png(200))
    assert content_digest(tmp_path, CUB) != before


def test_opener_survives_pickling(tmp_path):
    make_birds(tmp_path)
    opener = class_halves.open_images(class_halves.Options.model_validate(CUB), tmp_path)
    assert grey_value(pickle.loads(pickle.dumps(opener))("10.Wren/0001_8.jpg")) == 33
