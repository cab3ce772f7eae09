"""Copies of pictures are found by their looks, in one split, between splits and upstream; other pictures are not."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pipeline_lib.datasets import looks
from tests.jobs import run
from tests.unit.dataset_worlds import encoded, make_folder, png


def photo(seed: int, size: int = 160) -> Image.Image:
    """Something with edges and areas, as photographs have."""
    rng = np.random.default_rng(seed)
    blobs = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    return blobs.filter(ImageFilter.GaussianBlur(1))


def copy(image: Image.Image, side: int = 80, quality: int = 75) -> Image.Image:
    """Resize and recompress."""
    stream = io.BytesIO()
    image.resize((side, side), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue())).convert("RGB")


def index(data_dir: Path, name: str, options: dict[str, Any]) -> Path:
    return run("dataset", {"name": name, "options": options, "data_dir": str(data_dir)}, data_dir / "artefact")


def test_a_copy_looks_alike_and_another_picture_does_not() -> None:
    images = [photo(seed) for seed in range(40)]
    look, of_copy = (
        np.frombuffer(b"".join(map(looks.look_of, some)), np.uint8).reshape(-1, looks.LOOK_BYTES)
        for some in (images, [copy(image) for image in images])
    )
    digest, digest_of_copy = (np.array([f"{kind}{n:02d}" for n in range(40)], "S16") for kind in "ab")
    np.testing.assert_array_equal(looks.twins(look, digest, of_copy, digest_of_copy), np.arange(40))
    np.testing.assert_array_equal(looks.twins(look, digest, look, digest), -1)
    # An image with the same pixels is no copy, whatever it looks like.
    np.testing.assert_array_equal(looks.twins(look, digest, of_copy, digest), -1)


def test_of_three_alike_each_has_a_twin_with_other_pixels_and_flat_pictures_look_like_nothing() -> None:
    look = np.repeat(np.frombuffer(looks.look_of(photo(1)), np.uint8)[None], 3, axis=0)
    digest = np.array([b"one", b"one", b"two"], "S16")
    np.testing.assert_array_equal(looks.twins(look, digest, look, digest), [2, 2, 0])
    assert looks.look_of(Image.new("RGB", (9, 9), (7, 7, 7))) == bytes(looks.LOOK_BYTES)
    flat = np.zeros((2, looks.LOOK_BYTES), np.uint8)
    np.testing.assert_array_equal(looks.twins(flat, digest[:2], flat, digest[1:]), -1)


def test_too_many_to_compare_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "_MOST_PAIRS", 3)
    look, digest = np.ones((2, looks.LOOK_BYTES), np.uint8), np.array([b"a", b"b"], "S16")
    assert looks.twins(look, digest, look, digest) is None


def test_the_card_lists_copies_here_in_other_splits_and_upstream(tmp_path: Path) -> None:
    files: dict[str, Any] = {
        "train/cat/1.png": photo(1),
        "train/cat/2.png": photo(2),
        "train/dog/1-small.jpg": copy(photo(1)),
        "test/cat/2-small.jpg": copy(photo(2), 100),
        "test/dog/3.png": photo(3),
        "test/dog/4.png": photo(4),
    }
    make_folder(tmp_path / "pets/pets", {name: encoded(image, "PNG") for name, image in files.items()})
    make_folder(tmp_path / "web/web/x", {"3.png": encoded(copy(photo(3), 120), "PNG"), "white.png": png(255)})
    options = {"kind": "folder", "path": "pets", "splits": {"train": "train", "test": "test"}}
    pets = index(tmp_path / "pets", "pets", options)
    web = index(tmp_path / "web", "web", {"kind": "folder", "path": "web", "split": "train"})
    run("dataset_card", {}, tmp_path / "card", dataset=pets, upstream=web)
    (card,) = json.loads((tmp_path / "card/card.json").read_text())["datasets"]
    found = {
        split: {(one["dataset"], one["split"]): (one["images"], one["other_class"]) for one in facts["alike"]}
        for split, facts in card["splits"].items()
    }
    assert found == {
        "train": {("pets", "train"): (2, 2), ("pets", "test"): (1, 0), ("web", "train"): (0, 0)},
        "test": {("pets", "test"): (0, 0), ("pets", "train"): (1, 0), ("web", "train"): (1, 1)},
    }
    page = (tmp_path / "card/card.md").read_text()
    assert "## Images that look alike" in page
    assert "train/cat/1.png (cat) ~ train/dog/1-small.jpg (dog)" in page
