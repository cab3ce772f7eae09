from __future__ import annotations

import multiprocessing
import pickle
import stat
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets import archive
from pipeline_lib.datasets.base import UnreadableImageError
from tests.unit.dataset_worlds import (
    content_digest,
    grey_value,
    make_folder,
    make_tar,
    make_zip,
    open_split,
    png,
    truncated_jpeg,
)

FILES = {f"pets/{split}/{name}/{n}.png": png(value + n) for split, value in (("train", 10), ("val", 50)) for name in
         ("cat", "dog") for n in range(3)}  # fmt: skip
OPTIONS = {"kind": "archive", "root": "pets", "splits": {"train": "train", "test": "val"}}
FORMATS = pytest.mark.parametrize(("name", "make"), [("a.zip", make_zip), ("a.tar", make_tar)])


@FORMATS
def test_archive_holds_what_the_same_folder_holds(tmp_path, name, make):
    make(tmp_path / name, dict(reversed(FILES.items())))
    make_folder(tmp_path, FILES)
    for split in ("train", "test"):
        packed = open_split(tmp_path, OPTIONS | {"path": name}, split)
        loose = open_split(tmp_path, {"kind": "folder", "path": "pets", "splits": OPTIONS["splits"]}, split)
        assert packed.classes == loose.classes
        assert packed.label.tolist() == loose.label.tolist()
        assert packed.sample_id.tolist() == loose.sample_id.tolist()
        for position in range(len(loose)):
            assert packed.location(position).endswith(loose.location(position))
            assert packed.image(position).tobytes() == loose.image(position).tobytes()


@FORMATS
def test_leading_dots_hidden_and_macos_members_do_not_matter(tmp_path, name, make):
    members = {"./": b"", "./cat/": b"", "./cat/1.png": png(1), "__MACOSX/cat/._1.png": b"", "cat/.2.png": b""}
    make(tmp_path / name, members | {"__MACOSX/": b"", ".hidden/3.png": b"", "readme.txt": b""})
    dataset = open_split(tmp_path, {"kind": "archive", "path": name})
    assert (dataset.classes, len(dataset), grey_value(dataset.image(0))) == (["cat"], 1, 1)


def in_other_process(opener, locations):
    return [grey_value(opener(location)) for location in locations]


@pytest.mark.slow
@FORMATS
def test_one_opener_serves_threads_forks_and_spawned_processes(tmp_path, name, make):
    members = {f"cat/{n:03d}.png": png(n) for n in range(200)}
    make(tmp_path / name, members)
    options = archive.Options(kind="archive", path=name)
    locations = archive.build_index(options, tmp_path).location
    opener = pickle.loads(pickle.dumps(archive.open_images(options, tmp_path)))
    opener(locations[0])  # so that the forked processes inherit an open handle
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2 if method == "fork" else 1) as pool:
            answers = [pool.apply_async(in_other_process, (opener, locations)) for _ in range(4)]
            here = in_other_process(opener, locations)
            assert here == list(range(200))
            assert all(answer.get() == here for answer in answers)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda location: grey_value(opener(location)), locations)) == list(range(200))


@FORMATS
@pytest.mark.parametrize("bad", ["../cat/1.png", "/cat/1.png", "cat/../../1.png", "cat\\1.png", "../notes.txt"])
def test_names_that_lead_out_are_refused(tmp_path, name, make, bad):
    make(tmp_path / name, {"cat/1.png": png(1), bad: png(2)})
    with pytest.raises(PipelineError, match="is refused") as caught:
        open_split(tmp_path, {"kind": "archive", "path": name})
    assert f"'{bad}'" in str(caught.value)


@FORMATS
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 0.97])
def test_archive_cut_short_is_refused_in_one_line(tmp_path, name, make, keep):
    make(tmp_path / name, {f"cat/{n}.png": png(n) for n in range(30)})
    content = (tmp_path / name).read_bytes()
    if name == "a.tar":
        content = content[: 30 * 1024]  # without the padding at the end, a cut in which loses nothing
    (tmp_path / name).write_bytes(content[: int(keep * len(content))])
    with pytest.raises(PipelineError, match=rf"{name}: (broken or cut short|is an empty file)") as caught:
        open_split(tmp_path, {"kind": "archive", "path": name})
    assert "\n" not in str(caught.value)


def test_tar_cut_between_two_members_is_refused(tmp_path):
    make_tar(tmp_path / "a.tar", {f"cat/{n}.png": png(n) for n in range(5)})
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: 3 * 1024])
    with pytest.raises(PipelineError, match=r"cut short.*no end mark"):
        open_split(tmp_path, {"kind": "archive", "path": "a.tar"})


def test_tar_with_a_damaged_header_in_the_middle_is_refused(tmp_path):
    make_tar(tmp_path / "a.tar", {f"cat/{n}.png": png(n) for n in range(5)})
    content = bytearray((tmp_path / "a.tar").read_bytes())
    content[2 * 1024 + 5] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(PipelineError, match=r"broken or cut short.*last readable member"):
        open_split(tmp_path, {"kind": "archive", "path": "a.tar"})


def test_tar_with_long_names_is_read(tmp_path):
    long_name = "cat/" + "x" * 150 + "/" + "y" * 150 + ".png"
    for tar_format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=tar_format) as opened:
            (tmp_path / "picture.png").write_bytes(png(77))
            opened.add(tmp_path / "picture.png", long_name)
        dataset = open_split(tmp_path, {"kind": "archive", "path": "a.tar"})
        assert grey_value(dataset.image(0)) == 77
        assert dataset.location(0).endswith(long_name)


def test_flipped_byte_in_a_zip_is_noticed_on_opening(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_STORED) as opened:
        opened.writestr("cat/1.png", png(1))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[60] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(content)
    dataset = open_split(tmp_path, {"kind": "archive", "path": "a.zip"})
    with pytest.raises(UnreadableImageError, match=r"a\.zip, member 'cat/1\.png': can't be read .*CRC"):
        dataset.image(0)


def test_tar_that_shrank_after_indexing_is_noticed_on_opening(tmp_path):
    make_tar(tmp_path / "a.tar", {"cat/1.png": png(1), "cat/2.png": png(2)})
    dataset = open_split(tmp_path, {"kind": "archive", "path": "a.tar"})
    with open(tmp_path / "a.tar", "r+b") as file:
        file.truncate(1024)
    assert grey_value(dataset.image(0)) == 1
    with pytest.raises(UnreadableImageError, match=r"member 'cat/2\.png': the archive is cut short"):
        dataset.image(1)


@FORMATS
def test_truncated_jpeg_is_named(tmp_path, name, make):
    make(tmp_path / name, {"cat/1.jpg": truncated_jpeg()})
    dataset = open_split(tmp_path, {"kind": "archive", "path": name})
    with pytest.raises(UnreadableImageError, match=rf"{name}, member '.*cat/1\.jpg': can't be decoded"):
        dataset.image(0)


@FORMATS
@pytest.mark.parametrize(
    ("files", "change", "message"),
    [
        ({"cat/1.png": b"", "dog/": b""}, {}, "class folder 'dog' holds no images"),
        ({"a/cat/1.png": b"", "b/": b""}, {"splits": {"train": "a", "test": "b"}}, "split 'test' has no images"),
        ({"train/cat/1.png": b""}, {"splits": {"train": "trian"}}, "did you mean 'train'"),
        ({"pets/cat/1.png": b""}, {"root": "pet"}, "root 'pet' is no folder.*did you mean 'pets'"),
        ({"1.png": b""}, {}, "image '1.png' lies outside every class folder"),
        ({"cat/readme.txt": b""}, {}, "holds no images in class folders"),
        ({}, {}, "holds no images in class folders"),
    ],
)
def test_what_is_missing_is_named(tmp_path, name, make, files, change, message):
    make(tmp_path / name, files)
    with pytest.raises(PipelineError, match=message):
        open_split(tmp_path, {"kind": "archive", "path": name} | change)


def test_missing_archive_is_named(tmp_path):
    with pytest.raises(PipelineError, match=r"a\.zip: no such archive"):
        open_split(tmp_path, {"kind": "archive", "path": "a.zip"})


def test_image_that_is_a_link_is_refused(tmp_path):
    link = tarfile.TarInfo("cat/2.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    make_tar(tmp_path / "a.tar", {"cat/1.png": png(1)}, [link])
    info = zipfile.ZipInfo("cat/2.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr("cat/1.png", png(1))
        opened.writestr(info, "/etc/passwd")
    for name in ("a.tar", "a.zip"):
        with pytest.raises(PipelineError, match=r"image 'cat/2\.png' is a link"):
            open_split(tmp_path, {"kind": "archive", "path": name})


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_name_that_occurs_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        for number in (1, 2, 1):
            opened.writestr(f"cat/{number}.png", png(number))
    with pytest.raises(PipelineError, match=r"member 'cat/1\.png' occurs twice"):
        open_split(tmp_path, {"kind": "archive", "path": "a.zip"})


@FORMATS
def test_digest_changes_with_the_content(tmp_path, name, make):
    options = {"kind": "archive", "path": name}
    make(tmp_path / name, {"cat/1.png": png(1)})
    before = content_digest(tmp_path, options)
    make(tmp_path / name, {"cat/1.png": png(1), "readme.txt": b"new"})
    assert content_digest(tmp_path, options) == before
    make(tmp_path / name, {"cat/1.png": png(2)})
    assert content_digest(tmp_path, options) != before


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "A.TAR.XZ"])
def test_compressed_tar_is_refused_with_advice(name):
    with pytest.raises(ValidationError, match="can't be read at random; decompress it"):
        archive.Options(kind="archive", path=name)


def test_archive_is_watched(tmp_path):
    options = archive.Options(kind="archive", path="a.zip")
    assert archive.watched_files(options, tmp_path) == [tmp_path / "a.zip"]
