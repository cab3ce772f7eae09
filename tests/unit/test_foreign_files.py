"""Files that are not what their name says, and archives that are more than they seem."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import shutil
import signal
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from pipeline_lib.__main__ import main
from pipeline_lib.backbones.weights import read_state_dict
from pipeline_lib.config.load import load_config, read_yaml
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.recognise import misnamed
from pipeline_lib.datasets import downloads_fetch, unpacking
from pipeline_lib.datasets.archive_members import list_members
from pipeline_lib.datasets.base import UnreadableImageError, decode
from pipeline_lib.datasets.files import FileOpener
from pipeline_lib.scoring.images import ImageList

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
FOREIGN = {
    "Git LFS": POINTER,
    "web page": b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
    "gzip": gzip.compress(b"x" * 100),
    "7z archive": b"7z\xbc\xaf\x27\x1c" + bytes(100),
}


@pytest.mark.parametrize(("what", "content"), FOREIGN.items(), ids=FOREIGN)
def test_every_reader_says_what_a_file_is_instead(tmp_path: Path, what: str, content: bytes) -> None:
    readers: dict[str, Callable[[Path], object]] = {
        "weights.pth": read_state_dict,
        "weights.safetensors": read_state_dict,
        "images.zip": list_members,
        "photo.jpg": lambda path: decode(str(path), str(path)),
        "more.zip": lambda path: unpacking.unpack(path, tmp_path),
    }
    for name, read in readers.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(PipelineError, match=what) as error:
            read(path)
        assert name in str(error.value) and "\n" not in str(error.value)


def test_a_compressed_file_that_says_so_is_no_surprise(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b""))
    assert misnamed(tmp_path / "a.tar.gz") is None
    assert misnamed(tmp_path / "nothing") is None


def test_postscript_named_as_a_photograph_starts_no_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photo.jpg").write_bytes(POSTSCRIPT)
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("Ghostscript was started"))
    with pytest.raises(UnreadableImageError, match=r"photo\.jpg: can't be decoded"):
        FileOpener(str(tmp_path))("photo.jpg")


def test_a_pipe_among_images_is_named_and_not_waited_for(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    images = ImageList([tmp_path])
    assert images.image(0).size == (4, 4)
    with pytest.raises(UnreadableImageError, match=r"b\.png: no plain file"):
        images.image(1)
    with pytest.raises(PipelineError, match=r"b\.png: no such folder, archive or image"):
        ImageList([tmp_path / "b.png"])


@pytest.fixture
def in_time() -> Iterator[None]:
    """Fail a test that waits for ever."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def dataset_of(tmp_path: Path, options: dict[str, Any]) -> list[str]:
    spec = {"name": "tiny", "options": options, "data_dir": str(tmp_path)}
    return ["dataset", "--spec", json.dumps(spec), "--output", str(tmp_path / "out")]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("t.csv", {"kind": "table", "path": "t.csv", "images": "birds"}),
        ("t.parquet", {"kind": "table", "path": "t.parquet", "images": "birds"}),
        ("birds.tar", {"kind": "archive", "path": "birds.tar"}),
        ("names.txt", {"kind": "folder", "path": "birds", "outputs": "names.txt"}),
        ("votes/annotations.json", {"kind": "votes", "path": "votes"}),
        ("a.tar", {"kind": "webdataset", "path": ".", "splits": {"test": "a.tar"}}),
        ("tars/n01440764.tar", {"kind": "imagenet21k", "path": "tars"}),
        ("real.json", {"kind": "imagenet_real", "path": "birds", "real_labels": "real.json"}),
        ("Ebay_train.txt", {"kind": "sop", "path": "."}),
        ("mnist/1.0.0/dataset_info.json", {"kind": "tfds", "name": "mnist", "tfds_dir": ".", "splits": {"test": "a"}}),
    ],
)
@pytest.mark.usefixtures("in_time")
def test_a_pipe_as_the_users_file_is_named_and_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, options: dict[str, Any]
) -> None:
    for kind in ("cat", "dog"):
        (tmp_path / "birds" / kind).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "birds" / kind / "1.png")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(tmp_path / name)
    assert main(dataset_of(tmp_path, options)) == 1
    assert f"{tmp_path / name}: is a pipe or a device, no plain file; write what" in capsys.readouterr().err


def bomb(path: Path) -> Path:
    """Write an archive that holds a hundred times what it has."""
    zeros = bytes(1 << 20)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(4):
                archive.writestr(f"{number}.jpg", zeros)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for number in range(4):
                info = tarfile.TarInfo(f"{number}.jpg")
                info.size = len(zeros)
                archive.addfile(info, io.BytesIO(zeros))
    return path


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.tar.gz"])
def test_a_bomb_is_stopped_before_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    archive, folder = bomb(tmp_path / name), tmp_path / "folder"
    folder.mkdir()
    unpacking.unpack(archive, folder)  # small enough, whatever it grows by
    monkeypatch.setattr(unpacking, "_SMALL_BYTES", 1 << 20)
    with pytest.raises(PipelineError, match=rf"{name}: unpacks to more than .* GB, 200 times its own size"):
        unpacking.unpack(archive, folder)
    monkeypatch.setattr(unpacking, "_SMALL_BYTES", 1 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3 << 20))
    with pytest.raises(PipelineError, match=rf"{name}: unpacks to more than the 0\.0 GB that are free"):
        unpacking.unpack(archive, folder)


def test_a_download_without_an_end_leaves_no_full_disk_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "data.bin"

    class Full(io.BytesIO):
        def write(self, piece: bytes) -> int:  # type: ignore[override]
            raise OSError(errno.ENOSPC, "No space left on device")

    downloads_fetch.partial_of(target).write_bytes(b"so far")
    with pytest.raises(OSError, match="No space left"):
        downloads_fetch._write(Full(), b"x", target, None)
    assert list(tmp_path.iterdir()) == []
    downloads_fetch.partial_of(target).write_bytes(b"so far")
    with pytest.raises(OSError, match="No space left"):
        downloads_fetch._write(Full(), b"x", target, 100)  # this one can be continued
    assert list(tmp_path.iterdir()) == [downloads_fetch.partial_of(target)]
    with pytest.raises(PipelineError, match=r"data\.bin: needs 1000000000\.0 GB, but"):
        downloads_fetch._receive(None, target, 0, 10**18, "http://x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: [0]\ndata_dir: x\nseeds: [1]\n", "line 3: 'seeds' is there already, in line 1; keep one"),
        ("datasets:\n  a: {kind: digits}\n  b: {kind: digits}\n  a: {kind: glyphs}\n", "line 4: 'datasets.a' is there"),
        ("downstream:\n- {dataset: a, split: x, split: y}\n", "line 2: 'downstream.0.split' is there already"),
    ],
)
def test_a_key_that_stands_twice_is_named_with_its_lines(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(PipelineError, match=message):
        load_config(tmp_path / "c.yaml")


def test_aliases_and_merged_mappings_repeat_no_key(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}\nc: *x\nd: {<<: *x}\n")
    assert read_yaml(tmp_path / "c.yaml") == {
        "a": {"k": 1, "l": 2},
        "b": {"k": 3, "l": 2},
        "c": {"k": 1, "l": 2},
        "d": {"k": 1, "l": 2},
    }


def test_names_in_another_encoding_than_utf8_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with PYTHONUTF8=0 and LC_ALL=C: 'café' would be another class than elsewhere."""
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "iso8859-1")
    assert main(["verify", "--results", "."]) == 1
    assert capsys.readouterr().err == (
        "verify: error: names of files are read as iso8859-1 here; set PYTHONUTF8=1, or LC_ALL=C.UTF-8\n"
    )
