"""Downloads against a server that does what servers do: it breaks off, is busy, changes files, knows no ranges."""

from __future__ import annotations

import errno
import hashlib
import http.server
import io
import json
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline_lib.config.download import Download
from pipeline_lib.core.artefacts import read
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets import downloads, downloads_fetch, folder
from pipeline_lib.datasets.downloads import BY_HAND, FOUND, STAGE, check_records
from pipeline_lib.datasets.unpacking import move_into, unpack
from pipeline_lib.stages import download
from tests.jobs import run
from tests.unit.dataset_worlds import make_folder, make_tar, make_zip

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = b"something else" * 100


class Server:
    """Serves files below `url`; what it does wrong is set by the test. `requests` lists (path, Range header)."""

    def __init__(self):
        self.files = {"/data.bin": CONTENT}
        self.requests = []
        self.etag = '"1"'
        self.ranges = True
        self.heeds_if_range = True
        self.cut_after = []  # bytes after which the next connections are cut
        self.statuses = []  # what the next requests are answered with
        self.pause = 0.0  # between pieces
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *arguments):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request):
        wanted = request.headers.get("Range")
        self.requests.append((request.path, wanted))
        if self.statuses or request.path not in self.files:
            request.send_error(self.statuses.pop(0) if self.statuses else 404)
            return
        content, start = self.files[request.path], 0
        is_same_version = request.headers.get("If-Range") == self.etag or not self.heeds_if_range
        if wanted and self.ranges and is_same_version:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            request.send_response(200)
        request.send_header("Content-Length", str(len(content) - start))
        if self.etag:
            request.send_header("ETag", self.etag)
        request.end_headers()
        body = content[start:]
        body = body[: self.cut_after.pop(0)] if self.cut_after else body
        for start in range(0, len(body), 10_000):
            request.wfile.write(body[start : start + 10_000])
            time.sleep(self.pause)


@pytest.fixture
def server():
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Don't wait between tries; return how long each pause would have been."""
    waited = []
    monkeypatch.setattr(downloads_fetch, "time", SimpleNamespace(sleep=waited.append))
    return waited


def get(tmp_path, *entries):
    """Run the stage; return the facts of each file."""
    spec = {"name": "tiny", "download": list(entries), "data_dir": str(tmp_path / "data")}
    run("download", spec, tmp_path / "artefact")
    return read(tmp_path / "artefact", STAGE).facts["files"]


def names(folder):
    """Return every file and folder below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


def fails(tmp_path, *entries):
    """Run the stage, which must fail; return its line."""
    with pytest.raises(PipelineError) as caught:
        get(tmp_path, *entries)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "artefact").exists()
    return str(caught.value)


def test_file_is_fetched_checked_and_recorded(tmp_path, server):
    url = f"{server.url}/data.bin"
    assert get(tmp_path, {"url": url, "sha256": SHA256.upper(), "path": "raw/it.bin"}) == [
        {"file": "raw/it.bin", "unpacked_to": None, "address": url, "bytes": len(CONTENT), "sha256": SHA256}
    ]
    assert (tmp_path / "data/raw/it.bin").read_bytes() == CONTENT
    assert names(tmp_path / "data") == ["raw", "raw/it.bin"]


def test_what_is_there_is_checked_and_not_fetched(tmp_path, server):
    make_folder(tmp_path / "data", {"data.bin": CONTENT})
    (facts,) = get(tmp_path, {"url": f"{server.url}/data.bin", "sha256": SHA256})
    assert (facts["address"], facts["sha256"], server.requests) == (FOUND, SHA256, [])
    (tmp_path / "artefact/manifest.json").unlink()
    (tmp_path / "artefact").rmdir()
    line = fails(tmp_path, {"url": f"{server.url}/data.bin", "sha256": "0" * 64})
    assert "data/data.bin: SHA-256 is " + SHA256 in line
    assert "0" * 64 + " is wanted" in line
    assert (tmp_path / "data/data.bin").read_bytes() == CONTENT


def test_unknown_checksum_is_recorded_with_advice(tmp_path, server, capsys):
    assert get(tmp_path, {"url": f"{server.url}/data.bin"})[0]["sha256"] == SHA256
    assert f"sha256: {SHA256}" in capsys.readouterr().err


@pytest.mark.parametrize("cuts", [[100_000], [100_000, 1, 50_000], [0, 0, 70_000, 0, 0, 0]])
def test_cut_connection_is_continued(tmp_path, server, cuts):
    server.cut_after = list(cuts)
    (facts,) = get(tmp_path, {"url": f"{server.url}/data.bin", "sha256": SHA256})
    starts = [sum(cuts[: number + 1]) for number in range(len(cuts))]
    expected = [f"bytes={start}-" if start else None for start in [0, *starts]]
    assert [wanted for _, wanted in server.requests] == expected
    assert facts["sha256"] == SHA256
    assert names(tmp_path / "data") == ["data.bin"]


def test_the_next_run_continues_what_a_run_left(tmp_path, server):
    server.cut_after = [100_000, 0, 0, 0, 0]
    line = fails(tmp_path, {"url": f"{server.url}/data.bin", "sha256": SHA256})
    assert "100,000 of 256,000 bytes, 5 times in a row" in line
    assert names(tmp_path / "data") == ["data.bin.partial", "data.bin.partial.json"]
    server.requests.clear()
    get(tmp_path, {"url": f"{server.url}/data.bin", "sha256": SHA256})
    assert server.requests == [("/data.bin", "bytes=100000-")]
    assert names(tmp_path / "data") == ["data.bin"]


def test_run_that_was_killed_after_the_last_byte_fetches_nothing(tmp_path, server):
    server.cut_after = [100_000, 0, 0, 0, 0]
    fails(tmp_path, {"url": f"{server.url}/data.bin", "sha256": SHA256})
    (tmp_path / "data/data.bin.partial").write_bytes(CONTENT)
    server.requests.clear()
    assert get(tmp_path, {"url": f"{server.url}/data.bin"})[0]["sha256"] == SHA256
    assert server.requests == []


@pytest.mark.parametrize("etag", ['"2"', None, 'W/"1"'])
def test_halves_of_two_files_are_never_glued_together(tmp_path, server, etag):
    server.cut_after = [100_000, 0, 0, 0, 0]
    fails(tmp_path, {"url": f"{server.url}/data.bin"})
    server.files["/data.bin"], server.etag = CONTENT[::-1], etag
    assert get(tmp_path, {"url": f"{server.url}/data.bin"})[0]["bytes"] == len(CONTENT)
    assert (tmp_path / "data/data.bin").read_bytes() == CONTENT[::-1]


def test_rest_of_another_version_is_not_taken_from_a_server_that_does_not_compare(tmp_path, server):
    server.cut_after = [100_000, 0, 0, 0, 0]
    fails(tmp_path, {"url": f"{server.url}/data.bin"})
    server.files["/data.bin"], server.etag, server.heeds_if_range = CONTENT[::-1], '"2"', False
    get(tmp_path, {"url": f"{server.url}/data.bin"})
    assert (tmp_path / "data/data.bin").read_bytes() == CONTENT[::-1]
    assert [wanted for _, wanted in server.requests[-2:]] == ["bytes=100000-", None]


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_file_without_a_strong_version_mark_is_fetched_anew(tmp_path, server, etag):
    server.etag, server.cut_after = etag, [100_000]
    get(tmp_path, {"url": f"{server.url}/data.bin", "sha256": SHA256})
    assert [wanted for _, wanted in server.requests] == [None, None]


def test_server_without_ranges_sends_all_again(tmp_path, server):
    server.ranges, server.cut_after = False, [200_000, 100_000]
    get(tmp_path, {"url": f"{server.url}/data.bin", "sha256": SHA256})
    assert (tmp_path / "data/data.bin").read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_partial_file_longer_than_the_file_is_given_up(tmp_path, server):
    server.cut_after = [100_000, 0, 0, 0, 0]
    fails(tmp_path, {"url": f"{server.url}/data.bin"})
    (tmp_path / "data/data.bin.partial").write_bytes(CONTENT * 2)
    server.statuses = [416]
    get(tmp_path, {"url": f"{server.url}/data.bin", "sha256": SHA256})
    assert names(tmp_path / "data") == ["data.bin"]


def test_busy_server_is_asked_again_after_growing_pauses(tmp_path, server, pauses):
    server.statuses = [503, 503, 429]
    get(tmp_path, {"url": f"{server.url}/data.bin", "sha256": SHA256})
    assert len(server.requests) == 4
    assert all(0.5 * 2**n <= pause <= 1.5 * 2**n for n, pause in enumerate(pauses))
    assert len(pauses) == 3


@pytest.mark.parametrize("status", [404, 403])
def test_what_is_not_there_is_not_asked_for_again(tmp_path, server, status):
    server.statuses = [status]
    line = fails(tmp_path, {"url": f"{server.url}/data.bin"})
    assert f"{server.url}/data.bin: HTTP {status}" in line
    assert len(server.requests) == 1
    assert names(tmp_path / "data") == []


def test_server_that_is_down_is_named(tmp_path, server, pauses):
    line = fails(tmp_path, {"url": "http://127.0.0.1:9/data.bin"})
    assert "http://127.0.0.1:9/data.bin" in line
    assert "refused" in line
    assert len(pauses) == 4
    assert names(tmp_path / "data") == []


def test_server_that_hangs_is_left(tmp_path, server, monkeypatch):
    monkeypatch.setattr(downloads_fetch, "_TIMEOUT_SECONDS", 0.05)
    asked_again, answer = threading.Event(), server.answer

    def hang_once(request):
        if not server.requests:
            server.requests.append("hangs")
            asked_again.wait(5)
        else:
            asked_again.set()
            answer(request)

    server.answer = hang_once
    assert get(tmp_path, {"url": f"{server.url}/data.bin"})[0]["sha256"] == SHA256


def test_mirrors_are_tried_in_order_and_a_wrong_file_is_deleted(tmp_path, server, capsys):
    server.files["/wrong.bin"] = OTHER
    mirrors = [f"{server.url}/wrong.bin", f"{server.url}/data.bin", f"{server.url}/never.bin"]
    (facts,) = get(tmp_path, {"url": f"{server.url}/gone.bin", "mirrors": mirrors, "sha256": SHA256, "path": "x.bin"})
    assert facts["address"] == mirrors[1]
    assert [path for path, _ in server.requests] == ["/gone.bin", "/wrong.bin", "/data.bin"]
    lines = [line for line in capsys.readouterr().err.splitlines() if "next address" in line]
    assert len(lines) == 2
    assert "HTTP 404" in lines[0]
    for part in ("x.bin", mirrors[0], hashlib.sha256(OTHER).hexdigest(), SHA256):
        assert part in lines[1]
    assert names(tmp_path / "data") == ["x.bin"]


def test_another_address_is_not_continued_with(tmp_path, server):
    server.files["/other.bin"] = CONTENT[::-1]  # with the same version mark, which means something to its server only
    server.cut_after = [100_000, 0, 0, 0, 0]
    get(tmp_path, {"url": f"{server.url}/data.bin", "mirrors": [f"{server.url}/other.bin"]})
    assert server.requests[-1] == ("/other.bin", None)
    assert (tmp_path / "data/data.bin").read_bytes() == CONTENT[::-1]


def test_wrong_checksum_leaves_nothing(tmp_path, server):
    line = fails(tmp_path, {"url": f"{server.url}/data.bin", "sha256": "0" * 64})
    for part in (f"{server.url}/data.bin: SHA-256 is {SHA256}", "0" * 64 + " was wanted", "data.bin: can't be fetched"):
        assert part in line
    assert names(tmp_path / "data") == []


def test_files_of_this_machine_are_copied(tmp_path, pauses):
    make_folder(tmp_path / "source", {"a b.bin": CONTENT})
    url = (tmp_path / "source/a b.bin").as_uri()
    assert get(tmp_path, {"url": url, "sha256": SHA256})[0]["address"] == url
    assert names(tmp_path / "data") == ["a b.bin"]
    line = fails(tmp_path / "other", {"url": url.replace("a%20b", "gone")})
    assert "gone.bin" in line
    assert pauses == []


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=300), cuts=st.lists(st.integers(0, 200), max_size=4), ranges=st.booleans())
def test_any_cuts_give_the_same_file(tmp_path_factory, content, cuts, ranges):
    server = Server()
    try:
        server.files["/x"], server.cut_after, server.ranges = content, list(cuts), ranges
        target = tmp_path_factory.mktemp("any") / "x"
        found = downloads_fetch.fetch([f"{server.url}/x"], target, hashlib.sha256(content).hexdigest())
        assert (target.read_bytes(), found.bytes) == (content, len(content))
        assert names(target.parent) == ["x"]
    finally:
        server.http.shutdown()
        server.http.server_close()


def test_two_datasets_share_a_file_and_fetch_it_once(tmp_path, server):
    server.pause = 0.005
    entry = Download(url=f"{server.url}/data.bin", sha256=SHA256)
    threads = [threading.Thread(target=downloads.obtain, args=(entry, tmp_path, [entry])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    assert names(tmp_path) == ["data.bin"]


def test_killed_in_the_middle_the_next_run_goes_on(tmp_path, server):
    server.files["/data.bin"], server.pause = CONTENT * 4, 0.01
    spec = {"name": "x", "download": [{"url": f"{server.url}/data.bin"}], "data_dir": str(tmp_path / "data")}
    output = str(tmp_path / "artefact")
    command = [sys.executable, "-m", "pipeline_lib", "download", "--spec", json.dumps(spec), "--output", output]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL)
    partial = tmp_path / "data/data.bin.partial"
    deadline = time.monotonic() + 20
    while not (partial.exists() and partial.stat().st_size > 0) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    size = partial.stat().st_size
    assert 0 < size < len(CONTENT) * 4
    assert not (tmp_path / "data/data.bin").exists()
    server.pause = 0.0
    get(tmp_path, *spec["download"])
    assert server.requests[-1] == ("/data.bin", f"bytes={size}-")
    assert (tmp_path / "data/data.bin").read_bytes() == CONTENT * 4
    assert names(tmp_path / "data") == ["data.bin"]


def config_of(*entries):
    """Return as much of a config as says which files a dataset needs."""
    return SimpleNamespace(datasets={"tiny": folder.Options(kind="folder", path="x", download=entries)})


def test_record_of_another_checksum_is_refused(tmp_path, server):
    entry = {"url": f"{server.url}/data.bin"}
    check_records(config_of(entry | {"sha256": "0" * 64}), tmp_path)  # nothing fetched yet
    get(tmp_path, entry)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "artefact").rename(tmp_path / "downloads/tiny")
    for known in (None, SHA256):
        check_records(config_of(entry | {"sha256": known}), tmp_path)
    with pytest.raises(PipelineError, match=rf"datasets.tiny.download: sha256 of 'data.bin' is 000.*{SHA256} was"):
        check_records(config_of(entry | {"sha256": "0" * 64}), tmp_path)


def test_what_was_fetched_says_the_same_wherever_it_came_from(tmp_path, server):
    entry = {"url": f"{server.url}/data.bin"}
    server.files["/other.bin"] = CONTENT
    get(tmp_path, entry)
    first = read(tmp_path / "artefact")
    mirrored = {"url": f"{server.url}/other.bin", "path": "data.bin", "sha256": SHA256}
    assert get(tmp_path, mirrored)[0]["address"] == FOUND
    again = read(tmp_path / "artefact")
    assert (again.spec, again.content, again.derivation) == (first.spec, first.content, first.derivation)
    get(tmp_path, entry | {"path": "elsewhere.bin"})
    moved = read(tmp_path / "artefact")
    assert moved.content != first.content
    assert moved.derivation != first.derivation


def test_the_process_of_a_job_is_told_the_addresses():
    entry = {"url": "https://example.org/a.zip", "mirrors": ["https://example.net/a.zip"], "unpack_to": "a"}
    spec = download.Spec(name="tiny", data_dir="data", download=[entry])
    assert spec.plain() == {"name": "tiny", "data_dir": "data", "files": [["a.zip", "a"]]}
    assert download.Spec.model_validate(json.loads(json.dumps(spec.complete()))) == spec


def test_full_disk_is_no_fault_of_the_server(tmp_path, server, monkeypatch):
    class FullDisk:
        def sha256(self):
            return self

        def update(self, piece):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads_fetch, "hashlib", FullDisk())
    with pytest.raises(OSError, match="No space left"):
        get(tmp_path, {"url": f"{server.url}/data.bin"})
    assert len(server.requests) == 1
    assert names(tmp_path / "data") == ["data.bin.partial", "data.bin.partial.json"]


# Unpacking

FILES = {"set/a/1.png": b"one", "set/b/2.png": b"two" * 1000, "set/empty/": b""}


def make_archive(path, files=FILES, extra=()):
    """Write an archive of the kind that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        make_zip(path, files)
        return path
    make_tar(path, files, extra)
    mode = {".gz": "gz", ".tgz": "gz", ".bz2": "bz2", ".xz": "xz"}.get(path.suffix)
    if mode:
        import bz2
        import gzip
        import lzma

        path.write_bytes({"gz": gzip, "bz2": bz2, "xz": lzma}[mode].compress(path.read_bytes()))
    return path


def entry_of(source, **more):
    return {"url": source.as_uri(), "unpack_to": "raw/tiny", **more}


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz"])
def test_archives_are_unpacked_once(tmp_path, name):
    archive = make_archive(tmp_path / "source" / name)
    (facts,) = get(tmp_path, entry_of(archive))
    assert facts["unpacked_to"] == "raw/tiny"
    folder = tmp_path / "data/raw/tiny"
    assert {path: (folder / path).read_bytes() for path in FILES if path[-1] != "/"} == {
        path: content for path, content in FILES.items() if path[-1] != "/"
    }
    assert (folder / "set/empty").is_dir()
    assert sorted(path.name for path in folder.iterdir()) == [f".{name}.unpacked.json", "set"]
    # With the record the archive is needed no more, here or there.
    (tmp_path / "data" / name).unlink()
    archive.unlink()
    assert get(tmp_path, entry_of(archive, sha256=facts["sha256"])) == [facts]
    with pytest.raises(PipelineError, match=rf"raw/tiny: was unpacked from .*{facts['sha256']}, but 0000"):
        get(tmp_path, entry_of(archive, sha256="0" * 64))


def test_folder_placed_by_hand_is_taken_as_it_is(tmp_path, server):
    make_folder(tmp_path / "data/raw/tiny", {"a/1.png": b"1"})
    entry = {"url": f"{server.url}/x.zip", "sha256": SHA256, "unpack_to": "raw/tiny"}
    (facts,) = get(tmp_path, entry)
    assert (facts["address"], facts["sha256"], facts["bytes"]) == (BY_HAND, None, None)
    assert server.requests == []
    assert names(tmp_path / "data/raw/tiny") == ["a", "a/1.png"]


def test_several_archives_go_into_one_folder(tmp_path):
    one = make_archive(tmp_path / "source/one.tar", {"images/1.png": b"1", "list.txt": b"a"})
    two = make_archive(tmp_path / "source/two.zip", {"images/2.png": b"2"})
    (tmp_path / "source/labels.txt").write_bytes(b"labels")
    labels = {"url": (tmp_path / "source/labels.txt").as_uri(), "path": "raw/tiny/labels.txt"}
    inside = {"path": "raw/tiny/archives/one.tar"}
    entries = [labels, entry_of(one, **inside), entry_of(two)]
    assert [facts["address"] for facts in get(tmp_path, *entries)] == [entry["url"] for entry in entries]
    visible = [name for name in names(tmp_path / "data/raw/tiny") if name[0] != "."]
    assert visible == (
        ["archives", "archives/one.tar", "images", "images/1.png", "images/2.png", "labels.txt", "list.txt"]
    )
    (tmp_path / "data/raw/tiny/labels.txt").write_bytes(b"changed")
    again = [facts["address"] for facts in get(tmp_path, *entries)]
    assert again == [FOUND, entries[1]["url"], entries[2]["url"]]


def member(name, kind, linkname=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


BAD_TARS = {
    "parent": ({"../out.png": b"x"}, [], r"'\.\./out\.png' is refused"),
    "deep parent": ({"a/../../out.png": b"x"}, [], "is refused"),
    "absolute": ({"/tmp/out.png": b"x"}, [], "'/tmp/out.png' is refused"),
    "link out": ({}, [member("a/l", tarfile.SYMTYPE, "../../out")], "member 'a/l' is refused: its link to '../../out'"),
    "absolute link": ({}, [member("l", tarfile.SYMTYPE, "/etc/passwd")], "member 'l' is refused: its link"),
    "winding link": ({}, [member("a/l", tarfile.SYMTYPE, "b/../../../out")], "member 'a/l' is refused: its link"),
    "link through a link": (
        {},
        [member("a/x", tarfile.SYMTYPE, ".."), member("a/y", tarfile.SYMTYPE, "x/../out")],
        "member 'a/y' is refused: its link to 'x/../out'",
    ),
    "hard link out": ({}, [member("l", tarfile.LNKTYPE, "../out")], r"hard link 'l': the name '\.\./out' is refused"),
    "absolute hard link": ({}, [member("l", tarfile.LNKTYPE, "/etc/passwd")], "hard link 'l'.*is refused"),
    "behind a link": (
        {},
        [member("d", tarfile.SYMTYPE, "e"), member("d/x", tarfile.REGTYPE)],
        "member 'd/x' is refused: it would be written through a link",
    ),
    "over a link": ({}, [member("d", tarfile.SYMTYPE, "e"), member("d", tarfile.REGTYPE)], "through a link"),
    "hard link through a link": (
        {},
        [member("d", tarfile.SYMTYPE, "e"), member("h", tarfile.LNKTYPE, "d/x")],
        "member 'h' is refused: a hard link through a link",
    ),
    "device": ({}, [member("null", tarfile.CHRTYPE)], "member 'null' is refused: a device or a pipe"),
    "pipe": ({}, [member("p", tarfile.FIFOTYPE)], "member 'p' is refused: a device or a pipe"),
}


@pytest.mark.parametrize(("files", "extra", "message"), BAD_TARS.values(), ids=BAD_TARS)
@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_tar_that_leaves_its_folder_is_refused(tmp_path, files, extra, message, suffix):
    archive = make_archive(tmp_path / f"source/bad.{suffix}", {"set/good.png": b"x"} | files, extra)
    with pytest.raises(PipelineError, match=message) as caught:
        get(tmp_path, entry_of(archive))
    assert f"bad.{suffix}" in str(caught.value)
    # Nothing but the archive, so that it can be looked at.
    assert names(tmp_path / "data") == [f"bad.{suffix}", "raw"]
    assert not (tmp_path / "artefact").exists()


def zip_of(*infos):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, mode in infos:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, b"../../out")
    return stream.getvalue()


@pytest.mark.parametrize("name", ["../out.png", "/tmp/out.png", "a/../../out.png", "..\\out.png", "C:/out.png"])
def test_zip_that_leaves_its_folder_is_refused(tmp_path, name):
    make_folder(tmp_path / "source", {"bad.zip": zip_of(("a.png", 0o100644), (name, 0o100644))})
    assert "is refused" in fails(tmp_path, entry_of(tmp_path / "source/bad.zip"))
    assert names(tmp_path / "data") == ["bad.zip", "raw"]


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o010666])
def test_zip_with_links_and_devices_is_refused(tmp_path, mode):
    make_folder(tmp_path / "source", {"bad.zip": zip_of(("a/l", mode))})
    assert "member 'a/l' is refused: a link or a special file" in fails(tmp_path, entry_of(tmp_path / "source/bad.zip"))


def test_encrypted_zip_is_named(tmp_path):
    content = bytearray(zip_of(("a.png", 0o100644)))
    content[content.find(b"PK\1\2") + 8] |= 1  # the flag in the central directory
    make_folder(tmp_path / "source", {"bad.zip": bytes(content)})
    assert "member 'a.png' is encrypted; unpack the archive by hand" in fails(
        tmp_path, entry_of(tmp_path / "source/bad.zip")
    )


def test_links_inside_stay_links(tmp_path):
    links = [member("set/link", tarfile.SYMTYPE, "../set/a/1.png"), member("set/hard", tarfile.LNKTYPE, "set/a/1.png")]
    archive = make_archive(tmp_path / "source/x.tar", extra=links)
    get(tmp_path, entry_of(archive))
    folder = tmp_path / "data/raw/tiny/set"
    assert (folder / "link").is_symlink()
    assert (folder / "link").read_bytes() == (folder / "hard").read_bytes() == b"one"


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tar.bz2", "x.tar.xz", "x.zip"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_cut_archive_is_named_and_the_next_run_repairs_it(tmp_path, name, share):
    noise = hashlib.shake_256(b"x").digest(30_000)
    whole = make_archive(tmp_path / "source" / name, {f"set/{n}.png": noise[n * 9_000 :] for n in range(3)})
    content = whole.read_bytes()
    whole.write_bytes(content[: int(len(content) * share)])
    line = fails(tmp_path, entry_of(whole))
    assert f"{name}: {'broken or cut short' if share else 'is an empty file'}" in line
    assert names(tmp_path / "data") == ["raw"]
    whole.write_bytes(content)
    get(tmp_path, entry_of(whole))
    assert (tmp_path / "data/raw/tiny/set/2.png").read_bytes() == noise[18_000:]


def test_broken_archive_of_the_user_is_kept(tmp_path):
    make_folder(tmp_path / "data", {"x.tar": b"no archive" * 200})
    line = fails(tmp_path, entry_of(tmp_path / "gone/x.tar"))
    assert "x.tar: broken or cut short" in line
    assert "delete it and run again" in line
    assert (tmp_path / "data/x.tar").exists()


def test_damage_behind_a_readable_member_and_at_the_end_is_noticed(tmp_path):
    tar = make_archive(tmp_path / "x.tar")
    content = bytearray(tar.read_bytes())
    second = content.find(b"set/b/2.png")
    content[second : second + 11] = b"set/b/9.png"  # its checksum is now wrong: tarfile would just stop
    tar.write_bytes(content)
    zipped = make_archive(tmp_path / "y.tar.gz")
    content = bytearray(zipped.read_bytes())
    content[-6] ^= 1  # gzip's own checksum, behind everything that tarfile reads
    zipped.write_bytes(content)
    for archive in (tar, zipped):
        folder = tmp_path / f"{archive.name}-folder"
        folder.mkdir()
        with pytest.raises(PipelineError, match="broken or cut short"):
            unpack(archive, folder)


def test_killed_while_moving_the_next_run_completes_the_folder(tmp_path, monkeypatch):
    archive = make_archive(tmp_path / "source/x.tar", FILES | {"other/3.png": b"three"})

    def killed(source, target):
        (source / "set").rename(target / "set")
        raise SystemExit

    monkeypatch.setattr(downloads, "move_into", killed)
    with pytest.raises(SystemExit):
        get(tmp_path, entry_of(archive))
    folder = tmp_path / "data/raw/tiny"
    assert json.loads((folder / ".x.tar.unpacked.json").read_text())["complete"] is False
    (folder / ".x.tar.unpacking/left").mkdir(parents=True)  # what a kill -9 leaves
    monkeypatch.setattr(downloads, "move_into", move_into)
    get(tmp_path, entry_of(archive))
    assert sorted(path.name for path in folder.iterdir()) == [".x.tar.unpacked.json", "other", "set"]
    assert (folder / "set/b/2.png").read_bytes() == FILES["set/b/2.png"]


# The config section


def test_file_is_named_by_the_address_or_the_path():
    assert Download(url="https://x.org/a/b%20c.zip?raw=1").file == "b c.zip"
    assert Download(url="https://x.org/", path="d/e").file == "d/e"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"url": "s3://bucket/x"}, "url"),
        ({"url": "https://x.org/"}, "does not end in a file's name"),
        ({"url": "https://x.org/a/.."}, "does not end in a file's name"),
        ({"url": "https://x.org/a", "path": "../a"}, "must be a path below data_dir"),
        ({"url": "https://x.org/a", "path": "/a"}, "must be a path below data_dir"),
        ({"url": "https://x.org/a", "path": "~/a"}, "must be a path below data_dir"),
        ({"url": "https://x.org/a.zip", "unpack_to": "."}, "must be a path below data_dir"),
        ({"url": "https://x.org/files/77", "unpack_to": "a"}, "'77' ends in none of .zip, .*name the file with 'path'"),
        ({"url": "https://x.org/a.zip", "sha256": "12"}, "sha256"),
        ({"url": "https://x.org/a", "mirrors": ["x.org/a"]}, "mirrors"),
    ],
)
def test_wrong_section_is_refused(section, message):
    with pytest.raises(ValidationError, match=message):
        Download.model_validate(section)
