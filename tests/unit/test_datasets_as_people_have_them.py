"""Folders, archives and tables as people have them: what systems add, how they nest, number and write names."""

from __future__ import annotations

import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import datasets as huggingface
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.base import UnreadableImageError, to_rgb
from pipeline_lib.datasets.images import ImageDataset
from tests.unit.dataset_worlds import encoded, make_folder, make_tar, make_zip, open_split, png, write_artefact

FOLDER: dict[str, Any] = {"kind": "folder", "path": "birds"}
ARCHIVE: dict[str, Any] = {"kind": "archive", "path": "birds.zip"}
KINDS = [("birds", make_folder, FOLDER), ("birds.zip", make_zip, ARCHIVE), ("birds.tar", make_tar, ARCHIVE)]
EACH_KIND = pytest.mark.parametrize(("name", "make", "options"), KINDS)


def indexed(data_dir: Path, options: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Index a dataset; return its classes and, of each image of its split `test`, the name of its class."""
    facts = artefacts.read(write_artefact(data_dir, options), "dataset").facts
    images = ImageDataset(data_dir.parent / f"{data_dir.name}-artefact", "test")
    return facts["classes"], [images.classes[label] for label in images.label]


NUMBERED = [str(number) for number in (0, 1, 2, 3, 10, 11)]


def test_numbered_classes_are_in_the_order_of_their_numbers_whatever_the_kind(tmp_path: Path) -> None:
    files = {f"{name}/{number}.png": png(number) for number, name in enumerate(NUMBERED)}
    for name, make, options in KINDS:
        make(tmp_path / name, files)
        # Images are listed in the order of their paths.
        assert indexed(tmp_path, options | {"path": name}) == (NUMBERED, sorted(NUMBERED))
    pd.DataFrame({"path": list(files), "label": NUMBERED}).to_csv(tmp_path / "table.csv", index=False)
    table = {"kind": "table", "path": "table.csv", "images": "birds", "label_column": "label"}
    assert indexed(tmp_path, table) == (NUMBERED, NUMBERED)
    features = huggingface.Features({"image": huggingface.Image(), "label": huggingface.Value("string")})
    rows = {"image": [{"bytes": png(1), "path": None} for _ in NUMBERED], "label": NUMBERED}
    huggingface.DatasetDict(test=huggingface.Dataset.from_dict(rows, features)).save_to_disk(str(tmp_path / "saved"))
    assert indexed(tmp_path, {"kind": "huggingface", "name": "saved", "label_key": "label"}) == (NUMBERED, NUMBERED)
    # Names that are no numbers stay in the order of text, as in torchvision.
    make_folder(tmp_path / "mixed", {f"{name}/1.png": png(1) for name in ("b10", "b2", "10", "2")})
    assert indexed(tmp_path, FOLDER | {"path": "mixed"})[0] == ["10", "2", "b10", "b2"]


ADDED = (
    "cat/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg",
    "@eaDir/cat/SYNOPHOTO_THUMB_M.jpg",
    "__MACOSX/cat/._1.png",
    "#recycle/cat/9.png",
    ".thumbnails/1.png",
    "cat/.hidden/1.png",
    "dog/@Recycle/2.png",
    "$RECYCLE.BIN/3.png",
    "System Volume Information/3.png",
    "cat/Thumbs.db",
    "desktop.ini",
)


@EACH_KIND
def test_what_systems_put_beside_pictures_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, make: Any, options: dict[str, Any]
) -> None:
    files = {"cat/1.png": png(1), "dog/2.png": png(2)}
    make(tmp_path / name, files | dict.fromkeys(ADDED, png(3)))
    assert indexed(tmp_path, options | {"path": name}) == (["cat", "dog"], ["cat", "dog"])
    assert capsys.readouterr().err == ""


@EACH_KIND
def test_a_folder_around_the_class_folders_is_no_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, make: Any, options: dict[str, Any]
) -> None:
    files = {f"birds/data/{kind}/{number}.png": png(number) for number, kind in enumerate(["cat", "dog"])}
    make(tmp_path / name, files)
    assert indexed(tmp_path, options | {"path": name}) == (["cat", "dog"], ["cat", "dog"])
    assert "all images lie in 'birds/data/', whose folders are taken as the classes" in capsys.readouterr().err


@EACH_KIND
def test_folders_of_one_class_stay_folders_of_it(tmp_path: Path, name: str, make: Any, options: dict[str, Any]) -> None:
    make(
        tmp_path / name,
        {
            "train/cat/a/1.png": png(1),
            "train/dog/2.png": png(2),
            "test/cat/b/3.png": png(3),
            "test/cat/c/4.png": png(4),
        },
    )
    split = options | {"path": name, "splits": {"train": "train", "test": "test"}}
    assert indexed(tmp_path, split) == (["cat", "dog"], ["cat", "cat"])


def test_split_folders_in_the_one_folder_of_an_archive_are_found(tmp_path: Path) -> None:
    make_zip(tmp_path / "birds.zip", {f"birds/{split}/{kind}/1.png": png(1) for split in ("a", "b") for kind in "xy"})
    assert indexed(tmp_path, ARCHIVE | {"splits": {"train": "a", "test": "b"}}) == (["x", "y"], ["x", "y"])


@EACH_KIND
def test_images_of_one_class_alone_are_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, make: Any, options: dict[str, Any]
) -> None:
    make(tmp_path / name, {"cat/1.png": png(1), "cat/more/2.png": png(2)})
    assert indexed(tmp_path, options | {"path": name}) == (["cat"], ["cat", "cat"])
    assert "dataset 'tiny': all images are of one class, 'cat', so every neighbour is right" in capsys.readouterr().err


NFC, NFD = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


@EACH_KIND
def test_accents_are_the_same_however_they_are_written(
    tmp_path: Path, name: str, make: Any, options: dict[str, Any]
) -> None:
    make(tmp_path / name, {f"a/{NFC}/1.png": png(1), f"b/{NFD}/{NFD}.png": png(2), "a/x/1.png": png(3)})
    split = options | {"path": name, "splits": {"train": "a", "test": "b"}}
    assert indexed(tmp_path, split) == (["x", NFC], [NFC])
    (tmp_path / "table.csv").write_text(f"path,label\nb/{NFC}/{NFC}.png,{NFD}\na/x/1.png,x\n", encoding="utf-8")
    table = {"kind": "table", "path": "table.csv", "images": name, "label_column": "label"}
    assert indexed(tmp_path, table) == (["x", NFC], [NFC, "x"])
    assert open_split(tmp_path, table).image(0).getpixel((0, 0)) == (2, 2, 2)


def test_names_of_a_zip_in_utf8_without_the_flag_that_says_so(tmp_path: Path) -> None:
    make_zip(tmp_path / "birds.zip", {"cafe_/1.png": png(1), "tea/1.png": png(2)})
    content = (tmp_path / "birds.zip").read_bytes()
    (tmp_path / "birds.zip").write_bytes(content.replace(b"cafe_/1.png", "café/1.png".encode()))
    with zipfile.ZipFile(tmp_path / "birds.zip") as archive:
        assert archive.infolist()[0].filename == "caf├⌐/1.png"
    assert indexed(tmp_path, ARCHIVE) == (["café", "tea"], ["café", "tea"])
    assert open_split(tmp_path, ARCHIVE).image(0).getpixel((0, 0)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.new("RGBA", (4, 4), (0, 0, 0, 0)), 255),
        (Image.new("RGBA", (4, 4), (0, 0, 0, 255)), 0),
        (Image.new("LA", (4, 4), (0, 128)), 127),
        (Image.new("RGB", (4, 4), (9, 9, 9)), 9),
    ],
)
def test_transparent_pictures_lie_on_white_as_in_viewers(tmp_path: Path, picture: Image.Image, expected: int) -> None:
    make_folder(tmp_path / "birds", {"a/1.png": encoded(picture, "PNG"), "b/2.png": png(1)})
    image = open_split(tmp_path, FOLDER).image(0)
    assert (image.mode, image.getpixel((1, 1))) == ("RGB", (expected,) * 3)
    assert to_rgb(picture, "here").getpixel((1, 1)) == (expected,) * 3
    on_black = open_split(tmp_path, FOLDER | {"background": "black"}).image(0).getpixel((1, 1))
    assert on_black == ((0,) * 3 if expected != 9 else (9,) * 3)


def test_a_transparent_colour_of_a_palette_is_transparent_too(tmp_path: Path) -> None:
    sticker = Image.new("P", (4, 4), 0)
    sticker.putpalette([0, 0, 0, 200, 0, 0])
    sticker.putpixel((1, 1), 1)
    make_folder(tmp_path / "birds", {"b/2.png": png(1)})
    (tmp_path / "birds/a").mkdir()
    sticker.save(tmp_path / "birds/a/1.gif", transparency=0)
    image = open_split(tmp_path, FOLDER).image(0)
    assert image.getpixel((0, 0)) == (255, 255, 255) and image.getpixel((1, 1)) == (200, 0, 0)


def test_a_picture_that_is_a_line_is_unreadable_instead_of_gigabytes(tmp_path: Path) -> None:
    line = Image.fromarray(np.zeros((1, 120_000, 3), np.uint8))
    make_folder(tmp_path / "birds", {"a/1.png": encoded(line, "PNG"), "b/2.png": png(1)})
    with pytest.raises(UnreadableImageError, match=r"1.png: is 120000 x 1 pixels, more than 100 times as long as wide"):
        open_split(tmp_path, FOLDER).image(0)


def test_folders_and_classes_with_names_that_engines_read_otherwise(tmp_path: Path) -> None:
    make_folder(tmp_path / "<birds>", {"{x}/1.png": png(1), "<y>/2.png": png(2), "{/3.png": png(3)})
    assert indexed(tmp_path, FOLDER | {"path": "<birds>"})[0] == ["<y>", "{", "{x}"]


def test_keys_of_webdataset_with_dots_are_named(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", {"photo.v2.png": png(1), "photo.v2.cls": b"1"})
    with pytest.raises(PipelineError, match="a key ends at the first dot of a file's name"):
        open_split(tmp_path, {"kind": "webdataset", "path": ".", "splits": {"test": "a.tar"}})


@EACH_KIND
@pytest.mark.parametrize(
    ("folders", "line"),
    [
        (("train", "test"), "{train: train, test: test}"),
        (("Training", "val"), "{train: Training, test: val}"),
        (("data/train", "data/valid", "data/test"), "{train: data/train, validation: data/valid, test: data/test}"),
    ],
)
def test_folders_of_splits_are_no_classes(
    tmp_path: Path, name: str, make: Any, options: dict[str, Any], folders: tuple[str, ...], line: str
) -> None:
    make(tmp_path / name, {f"{folder}/{kind}/1.png": png(1) for folder in folders for kind in ("cat", "dog")})
    with pytest.raises(PipelineError, match=f"are called like splits, .*; write splits: {line}, or"):
        indexed(tmp_path, options | {"path": name})
    splits = dict(pair.split(": ") for pair in line.strip("{}").split(", "))
    assert indexed(tmp_path, options | {"path": name, "splits": splits}) == (["cat", "dog"], ["cat", "dog"])


def test_a_class_that_is_no_output_but_called_like_a_split_is_said_to_be(tmp_path: Path) -> None:
    make_folder(tmp_path / "birds", {f"{kind}/cat/1.png": png(1) for kind in ("train", "other")})
    with pytest.raises(PipelineError, match=r"class 'other' is not .*; 'train' is called like a split: see 'splits';"):
        indexed(tmp_path, FOLDER | {"outputs": "imagenet1k"})
