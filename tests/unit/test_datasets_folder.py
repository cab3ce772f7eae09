from __future__ import annotations

import io
import os
import pickle

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from pydantic import ValidationError

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets import folder
from pipeline_lib.datasets.base import UnreadableImageError, decode, to_rgb
from pipeline_lib.datasets.files import Tree
from tests.unit.dataset_worlds import content_digest, encoded, grey_value, make_folder, open_split, png, truncated_jpeg

WHOLE = {"kind": "folder", "path": "pets"}
SPLITS = WHOLE | {"splits": {"train": "train", "test": "val"}}


def test_classes_are_the_sorted_folders_and_images_come_in_order(tmp_path):
    make_folder(tmp_path / "pets", {"dog/b.png": png(3), "cat/2.png": png(2), "dog/a.png": png(4), "cat/1.JPG": png(1)})
    dataset = open_split(tmp_path, WHOLE)
    assert dataset.classes == ["cat", "dog"]
    assert dataset.label.tolist() == [0, 0, 1, 1]
    assert dataset.sample_id.tolist() == [0, 1, 2, 3]
    assert [grey_value(dataset.image(i)) for i in range(4)] == [1, 2, 4, 3]
    assert dataset.vote_entropy() is None


def test_labels_agree_between_splits_with_different_classes(tmp_path):
    make_folder(
        tmp_path / "pets",
        {"train/bird/1.png": png(1), "train/cat/1.png": png(2), "val/cat/1.png": png(3), "val/dog/1.png": png(4)}
        | {"elsewhere/fox/1.png": png(5)},
    )
    train, test = (open_split(tmp_path, SPLITS, split) for split in ("train", "test"))
    assert train.classes == test.classes == ["bird", "cat", "dog"]
    assert train.label.tolist() == [0, 1]
    assert test.label.tolist() == [1, 2]
    assert [grey_value(test.image(i)) for i in range(2)] == [3, 4]


def test_folders_below_a_class_belong_to_it_and_other_files_to_none(tmp_path):
    make_folder(
        tmp_path / "pets",
        {"cat/a/deep/1.png": png(1), "cat/2.png": png(2), "cat/notes.txt": b"", "cat/.3.png": png(3)}
        | {"cat/none/": b"", ".git/4.png": png(4), "labels.txt": b""},
    )
    dataset = open_split(tmp_path, WHOLE)
    assert dataset.classes == ["cat"]
    assert sorted(dataset.location(i) for i in range(len(dataset))) == ["cat/2.png", "cat/a/deep/1.png"]


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({"cat/1.png": b"", "dog/": b""}, WHOLE, "class folder 'dog' holds no images"),
        ({"cat/1.png": b"", "dog/notes.txt": b""}, WHOLE, "class folder 'dog' holds no images"),
        ({"cat/1.png": b"", "dog/deeper/": b""}, WHOLE, "class folder 'dog' holds no images"),
        ({"train/cat/1.png": b"", "val/cat/": b""}, SPLITS, "class folder 'val/cat' holds no images"),
        ({"train/cat/1.png": b"", "val/": b""}, SPLITS, "split 'test' has no images in folder 'val'"),
        ({"train/cat/1.png": b"", "vall/cat/1.png": b""}, SPLITS, "pets/val: no such folder.*did you mean 'vall'"),
        ({"readme.txt": b""}, WHOLE, "holds no images in class folders"),
        ({"cat/1.png": b"", "logo.png": b""}, WHOLE, "image 'logo.png' lies outside every class folder"),
    ],
)
def test_what_is_missing_is_named(tmp_path, files, options, message):
    make_folder(tmp_path / "pets", files)
    with pytest.raises(PipelineError, match=message) as caught:
        open_split(tmp_path, options)
    assert "\n" not in str(caught.value)


def test_missing_folder_is_named_with_a_suggestion(tmp_path):
    make_folder(tmp_path / "pet", {"cat/1.png": png(1)})
    with pytest.raises(PipelineError, match=r"pets: no such folder.*did you mean 'pet'"):
        open_split(tmp_path, WHOLE)


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    make_folder(tmp_path, {"pets/cat/1.png": png(1), "stray/2.png": png(2), "other/a/3.png": png(3)})
    (tmp_path / "pets/dog").symlink_to(tmp_path / "stray")
    (tmp_path / "pets/cat/up").symlink_to(tmp_path / "pets")
    (tmp_path / "pets/cat/self").symlink_to(tmp_path / "pets/cat")
    (tmp_path / "pets/owl").symlink_to(tmp_path / "other")
    (tmp_path / "other/back").symlink_to(tmp_path / "other")
    dataset = open_split(tmp_path, WHOLE)
    assert [dataset.location(i) for i in range(len(dataset))] == ["cat/1.png", "dog/2.png", "owl/a/3.png"]
    assert grey_value(dataset.image(1)) == 2


def test_image_that_is_a_broken_link_is_named(tmp_path):
    make_folder(tmp_path / "pets", {"cat/1.png": png(1)})
    (tmp_path / "pets/cat/2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(PipelineError, match=r"cat/2\.png: a broken link"):
        open_split(tmp_path, WHOLE)


def test_name_that_is_not_utf8_is_refused(tmp_path):
    make_folder(tmp_path / "pets", {"cat/1.png": png(1)})
    (tmp_path / "pets/cat" / os.fsdecode(b"\xff.png")).write_bytes(png(2))
    with pytest.raises(PipelineError, match="is not UTF-8; rename it"):
        open_split(tmp_path, WHOLE)


def test_every_pixel_format_opens_as_rgb(tmp_path):
    grey = Image.fromarray(np.full((4, 4), 200, np.uint8))
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    pictures = {
        "1grey.png": (encoded(grey, "PNG"), (200, 200, 200)),
        "2bilevel.png": (encoded(grey.convert("1", dither=Image.Dither.NONE), "PNG"), (255, 255, 255)),
        "3alpha.png": (encoded(Image.new("RGBA", (4, 4), (1, 2, 3, 4)), "PNG"), (251, 251, 251)),  # on white
        "4palette.gif": (encoded(palette, "GIF"), (10, 20, 30)),
        "5cmyk.tiff": (encoded(Image.new("CMYK", (4, 4), (0, 0, 0, 0)), "TIFF"), (255, 255, 255)),
        "6black16.png": (encoded(Image.fromarray(np.zeros((4, 4), np.uint16)), "PNG"), (0, 0, 0)),
        "7white16.png": (encoded(Image.fromarray(np.full((4, 4), 65535, np.uint16)), "PNG"), (255, 255, 255)),
    }
    make_folder(tmp_path / "pets/cat", {name: content for name, (content, _) in pictures.items()})
    dataset = open_split(tmp_path, WHOLE)
    for position, (_, colour) in enumerate(pictures.values()):
        image = dataset.image(position)
        assert (image.mode, image.size, image.getpixel((2, 2))) == ("RGB", (4, 4), colour)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is an empty file"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", r"is a HEIF image \(.heic\), which is not read; convert it"),
        (b"nonsense", r"can't be decoded as an image \(it begins as none of JPEG, .* does\)"),
        (encoded(Image.fromarray(np.full((4, 4), 100_000, np.int32)), "TIFF"), "holds 32-bit numbers, whose range"),
        (encoded(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF"), "holds real numbers, whose range"),
    ],
)
def test_what_is_no_picture_is_called_what_it_is_in_a_file_and_in_memory(tmp_path, content, reason):
    (tmp_path / "x.jpg").write_bytes(content)
    for source in (str(tmp_path / "x.jpg"), io.BytesIO(content)):
        with pytest.raises(UnreadableImageError, match=f"^there: {reason}"):
            decode(source, "there")


# Where the corners of a picture lie (top left, top right, bottom left, bottom right) when its file must be turned so.
_CORNERS = {1: "abcd", 2: "badc", 3: "dcba", 4: "cdab", 5: "acbd", 6: "cadb", 7: "dbca", 8: "bdac"}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_that_a_camera_took_sideways_are_upright(orientation, file_format):
    grey = {"a": 40, "b": 100, "c": 160, "d": 220}
    pixels = np.zeros((32, 48), np.uint8)
    for corner, (row, column) in zip("abcd", [(0, 0), (0, 24), (16, 0), (16, 24)], strict=True):
        pixels[row : row + 16, column : column + 24] = grey[corner]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(stream, file_format, exif=exif)
    with Image.open(stream) as stored:
        again = to_rgb(stored, "picture")
    image = decode(stream, "picture")
    assert image.size == ((32, 48) if orientation >= 5 else (48, 32))
    quarters = [(x, y) for y in (image.height // 4, 3 * image.height // 4) for x in (8, image.width - 8)]
    seen = "".join(min(grey, key=lambda corner: abs(grey[corner] - image.getpixel(at)[0])) for at in quarters)
    assert seen == _CORNERS[orientation]
    assert again.tobytes() == image.tobytes() == to_rgb(image, "picture").tobytes(), "and once is enough"


def test_damaged_metadata_does_not_make_a_picture_unreadable():
    exif = Image.Exif()
    exif[0x0112] = 6
    for torn in (b"Exif\0\0nonsense", b"Exif\0\0" + exif.tobytes()[6:16], b"Exif\0\0II*\0\xff\xff\xff\xff"):
        stream = io.BytesIO()
        Image.new("RGB", (8, 4)).save(stream, "JPEG", exif=torn)
        assert decode(stream, "picture").size == (8, 4)


@pytest.mark.parametrize("error", [OverflowError, TypeError, RuntimeError, IndexError])
def test_whatever_a_decoder_raises_is_an_unreadable_image(monkeypatch, error):
    """OverflowError and TypeError come from torn TIFFs, RuntimeError from torn AVIFs."""

    def torn(image):
        raise error("torn")

    monkeypatch.setattr(PngImageFile, "load", torn)
    with pytest.raises(UnreadableImageError, match=r"1\.png: can't be decoded as an image \(torn\)"):
        decode(io.BytesIO(png(1)), "1.png")
    monkeypatch.setattr(PngImageFile, "load", lambda image: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        decode(io.BytesIO(png(1)), "1.png")


def test_files_that_are_no_images_by_name_are_counted(tmp_path, capsys):
    files = {f"cat/{number}.HEIC": b"" for number in range(5)} | {"notes.txt": b"", "cat/raw": b"", "cat/.hidden": b""}
    make_folder(tmp_path / "pets", files | {"cat/1.png": png(1)})
    open_split(tmp_path, WHOLE)
    assert "pets: 7 files are no images by name (.heic: 5, " in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".jpe", ".jfif", ".jp2", ".avif"])
def test_less_usual_names_of_images_are_read(tmp_path, capsys, suffix):
    file_format = {".jp2": "JPEG2000", ".avif": "AVIF"}.get(suffix, "JPEG")
    image = encoded(Image.new("RGB", (32, 32), (90, 90, 90)), file_format)
    make_folder(tmp_path / "pets", {f"cat/1{suffix}": image, f"dog/1{suffix}": image})
    assert abs(grey_value(open_split(tmp_path, WHOLE).image(0)) - 90) < 4
    assert capsys.readouterr().err == ""


def test_truncated_and_vanished_images_are_named(tmp_path):
    make_folder(tmp_path / "pets/cat", {"1.jpg": truncated_jpeg(), "2.png": png(2), "3.png": b"no image"})
    dataset = open_split(tmp_path, WHOLE)
    (tmp_path / "pets/cat/2.png").unlink()
    for position, message in enumerate(["1.jpg: can't be decoded", "2.png: no such image", "3.png: can't be decoded"]):
        with pytest.raises(UnreadableImageError, match=message):
            dataset.image(position)


def test_digest_tells_changed_content_from_the_same(tmp_path):
    make_folder(tmp_path / "pets/cat", {"1.png": b"abcd", "2.png": b"efgh"})
    before = [content_digest(tmp_path, WHOLE | {"checksum": checksum}) for checksum in ("content", "size")]
    assert before == [content_digest(tmp_path, WHOLE | {"checksum": checksum}) for checksum in ("content", "size")]
    (tmp_path / "pets/cat/2.png").write_bytes(b"efgi")
    same_size = [content_digest(tmp_path, WHOLE | {"checksum": checksum}) for checksum in ("content", "size")]
    assert (same_size[0] == before[0], same_size[1] == before[1]) == (False, True)
    (tmp_path / "pets/cat/2.png").write_bytes(b"longer")
    assert content_digest(tmp_path, WHOLE | {"checksum": "size"}) != before[1]


def test_all_images_of_the_splits_are_watched(tmp_path):
    make_folder(tmp_path / "pets", {"train/cat/1.png": png(1), "val/dog/1.png": png(2)})
    root = tmp_path / "pets"
    assert set(folder.watched_files(folder.Options(**SPLITS), tmp_path)) == {Tree(root / "train"), Tree(root / "val")}
    missing = folder.watched_files(folder.Options(**WHOLE), tmp_path / "missing")
    assert missing == [Tree(tmp_path / "missing/pets")] and missing[0].seen() is None


def test_opener_survives_pickling(tmp_path):
    make_folder(tmp_path / "pets", {"cat/1.png": png(9)})
    opener = folder.open_images(folder.Options(**WHOLE), tmp_path)
    assert grey_value(pickle.loads(pickle.dumps(opener))("cat/1.png")) == 9


@pytest.mark.parametrize(
    "splits",
    [
        {"train": "a", "test": "a"},
        {"train": "a", "test": "a/b"},
        {"x": "a", "y": "a-b", "z": "a/c"},
        {"train": "../a"},
        {"train": "."},
        {"train": "/"},
        {},
    ],
)
def test_splits_that_share_images_or_leave_the_folder_are_refused(splits):
    with pytest.raises(ValidationError):
        folder.Options(kind="folder", path="pets", splits=splits)
