from __future__ import annotations

import multiprocessing
import pickle
import string

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from pydantic import ValidationError

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets import glyphs
from pipeline_lib.datasets.glyph_renderer import FACES, font_folder
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.scripts import CHARACTERS
from pipeline_lib.datasets.spec import DatasetSpec
from pipeline_lib.stages import dataset
from tests.unit.dataset_worlds import content_digest, open_split, write_artefact


def opener(**options):
    return glyphs.open_images(glyphs.Options(kind="glyphs", **options), None)


def pixels_of(location: str, image_size: int = 64) -> bytes:
    return opener(image_size=image_size)(location).tobytes()


@pytest.mark.parametrize("face", FACES)
def test_every_face_has_every_character_of_every_script(face):
    drawn = set(TTFont(font_folder() / f"{face}.ttf").getBestCmap())
    for script, characters in CHARACTERS.items():
        assert drawn.issuperset(map(ord, characters)), script


def test_scripts_pair_upper_with_lower_letters():
    assert set(CHARACTERS["latin"]) == set(string.ascii_letters + string.digits)
    for script in ("greek", "cyrillic", "armenian"):
        characters = CHARACTERS[script]
        upper, lower = characters[: len(characters) // 2], characters[len(characters) // 2 :]
        assert upper.lower() == lower
        assert len(set(characters)) == len(characters)


def test_split_has_the_configured_number_of_each_class_at_the_right_size(tmp_path):
    options = {"kind": "glyphs", "script": "greek", "image_size": 32, "per_class": {"train": 3, "test": 2}}
    train = ImageDataset(write_artefact(tmp_path, options), "train")
    assert np.bincount(train.label).tolist() == [3] * 48
    assert train.classes == list(CHARACTERS["greek"])
    for position in (0, 47, 48, 143):
        image = train.image(position)
        assert (image.mode, image.size) == ("RGB", (32, 32))
        assert train.location(position).rsplit("/", 1)[1] == train.classes[train.label[position]]


@pytest.mark.slow
def test_images_do_not_depend_on_process_or_order():
    locations = [f"train/{number}/{character}" for number in range(3) for character in "Ag7"]
    here = [pixels_of(location) for location in locations]
    backwards = [pixels_of(location) for location in reversed(locations)]
    assert backwards[::-1] == here
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2 if method == "fork" else 1) as pool:
            assert pool.map(pixels_of, locations) == here


def test_more_images_and_another_split_change_no_image(tmp_path):
    small = open_split(tmp_path, {"kind": "glyphs", "image_size": 16, "per_class": {"test": 1}})
    large = open_split(tmp_path, {"kind": "glyphs", "image_size": 16, "per_class": {"train": 1, "test": 2, "other": 1}})
    assert len(large) == 2 * len(small)
    assert [large.location(i) for i in range(62)] == [small.location(i) for i in range(62)]
    assert [large.image(i).tobytes() for i in range(62)] == [small.image(i).tobytes() for i in range(62)]


def test_every_image_of_every_split_and_seed_differs():
    images = [
        opener(seed=seed, image_size=16)(f"{split}/{number}/A").tobytes()
        for seed in (0, 1)
        for split in ("train", "test")
        for number in range(20)
    ]
    assert len(set(images)) == len(images)


def accuracy_of_a_simple_classifier(difficulty: float) -> float:
    """Return how often the nearest class mean of coarse edge maps is right among five characters."""

    def features(location: str) -> np.ndarray:
        grey = np.asarray(opener(image_size=32, difficulty=(difficulty, difficulty))(location).convert("L"), float)
        edges = np.abs(np.diff(grey, axis=0))[:, 1:] + np.abs(np.diff(grey, axis=1))[1:]
        coarse = edges[:30, :30].reshape(10, 3, 10, 3).mean((1, 3)).ravel()
        return (coarse - coarse.mean()) / coarse.std()

    characters = "AOLTX"
    means = np.array([np.mean([features(f"train/{n}/{c}") for n in range(40)], axis=0) for c in characters])
    hits = [
        np.argmax(means @ features(f"test/{n}/{c}")) == position
        for position, c in enumerate(characters)
        for n in range(40)
    ]
    return float(np.mean(hits))


def test_easy_images_are_legible_and_hard_ones_hardly():
    easy, medium, hard = (accuracy_of_a_simple_classifier(difficulty) for difficulty in (0.0, 0.5, 1.0))
    assert easy > 0.85
    assert hard < 0.4
    assert easy > medium > hard


def test_opener_survives_pickling():
    original = opener(seed=3, image_size=24)
    copy = pickle.loads(pickle.dumps(original))
    assert copy("test/5/Q").tobytes() == original("test/5/Q").tobytes()


def test_fingerprint_changes_with_what_the_images_depend_on(tmp_path):
    same = {"kind": "glyphs", "image_size": 16, "per_class": {"test": 1}}
    digests = [
        content_digest(tmp_path, same | change)
        for change in ({}, {"seed": 1}, {"image_size": 17}, {"script": "greek"}, {"difficulty": (0, 0.5)})
    ]
    assert len(set(digests)) == len(digests)
    assert content_digest(tmp_path, same) == digests[0]


def test_wrong_split_is_named_with_a_suggestion(tmp_path):
    with pytest.raises(PipelineError, match=r"no split 'tset'.*did you mean 'test'"):
        open_split(tmp_path, {"kind": "glyphs", "image_size": 8, "per_class": {"test": 1}}, "tset")


@pytest.mark.parametrize(
    "wrong",
    [
        {"difficulty": (0.5, 0.2)},
        {"difficulty": (0, 2)},
        {"per_class": {}},
        {"per_class": {"test": 0}},
        {"per_class": {"a/b": 1}},
        {"script": "runes"},
    ],
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ValidationError):
        glyphs.Options(kind="glyphs", **wrong)


def test_nothing_on_disk_is_watched(tmp_path):
    assert dataset.sources(DatasetSpec(name="x", options=glyphs.Options(kind="glyphs"), data_dir=str(tmp_path))) == []
