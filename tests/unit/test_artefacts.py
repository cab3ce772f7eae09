"""Artefacts are complete and verifiable, or not there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.__main__ import main
from pipeline_lib.core import artefacts, drafts, ownership
from pipeline_lib.core.checked_files import CheckedFiles
from pipeline_lib.core.errors import ArtefactError


def write(directory: Path, text: str = "hello", spec: dict | None = None) -> None:
    with artefacts.writing(directory, "stage", spec or {"size": 1}) as draft:
        (draft.path / "data").mkdir()
        (draft.path / "data" / "file.txt").write_text(text)
        draft.facts["rows"] = 3


def test_what_is_written_can_be_read_back(tmp_path: Path) -> None:
    write(tmp_path / "a")
    manifest = artefacts.read(tmp_path / "a", "stage", {"size": 1})
    assert manifest.facts == {"rows": 3}
    assert list(manifest.files) == ["data/file.txt"]
    assert manifest.files["data/file.txt"]["bytes"] == 5


def test_equal_work_gives_equal_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "elsewhere" / "b")
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "elsewhere/b/manifest.json").read_bytes()


def test_the_umask_says_who_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with artefacts.writing(tmp_path / "a", "stage", {}) as draft:
            descriptor = os.open(draft.path / "private.safetensors", os.O_WRONLY | os.O_CREAT, 0o600)
            os.close(descriptor)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a").iterdir()} == {0o640}


def test_an_error_while_writing_leaves_the_old_artefact_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "a", "old")
    with pytest.raises(RuntimeError), artefacts.writing(tmp_path / "a", "stage", {}) as draft:
        (draft.path / "half").write_text("x")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a/data/file.txt").read_text() == "old"


def test_a_new_artefact_replaces_every_file_of_the_old_one(tmp_path: Path) -> None:
    with artefacts.writing(tmp_path / "a", "stage", {}) as draft:
        (draft.path / "old").write_text("x")
    write(tmp_path / "a", "new")
    assert not (tmp_path / "a" / "old").exists()
    assert (tmp_path / "a/data/file.txt").read_text() == "new"


def test_a_folder_of_the_user_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/holiday.jpg").write_text("dear to me")
    with pytest.raises(ArtefactError, match=r"photos: holds files but no manifest\.json of ours"):
        write(tmp_path / "photos")
    assert (tmp_path / "photos/holiday.jpg").read_text() == "dear to me"
    (tmp_path / "empty").mkdir()  # as Snakemake makes it for a job's output
    write(tmp_path / "empty")
    with artefacts.writing(tmp_path / "photos", "stage", {}, replace=True):  # as a run does in its results
        pass
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["manifest.json"]
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_files_with_a_place_of_their_own_are_checked_like_others(tmp_path: Path) -> None:
    targets = [tmp_path / "plots/bars.png", tmp_path / "plots/bars.pdf"]
    for text in ("old", "new"):
        with artefacts.writing(tmp_path / "records/bars", "figure", {}, targets=targets) as draft:
            for target in targets:
                (draft.path / target.name).write_text(text)
    assert [target.read_text() for target in targets] == ["new", "new"]
    assert [path.name for path in (tmp_path / "records/bars").iterdir()] == ["manifest.json"]
    manifest = artefacts.read(tmp_path / "records/bars", "figure")
    targets[1].write_text("edited by hand")
    (problem,) = artefacts.problems(manifest)
    assert "plots/bars.pdf: 14 bytes, but the manifest says 3" in problem


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"hellO"), "damaged"),
        (lambda path: path.write_bytes(b"hell"), "4 bytes, but the manifest says 5"),
        (lambda path: path.unlink(), "missing"),
    ],
    ids=["flipped", "truncated", "deleted"],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage, message: str) -> None:
    write(tmp_path / "a")
    damage(tmp_path / "a/data/file.txt")
    with pytest.raises(ArtefactError, match=message) as caught:
        artefacts.read(tmp_path / "a", "stage")
    assert "a/data/file.txt" in str(caught.value)
    assert "run snakemake again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_stage_or_spec_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a")
    with pytest.raises(ArtefactError, match="made by stage 'stage', but 'other' was asked for"):
        artefacts.read(tmp_path / "a", "other")
    with pytest.raises(ArtefactError, match="'size' is 1, but 2 was asked for"):
        artefacts.read(tmp_path / "a", "stage", {"size": 2})


@pytest.mark.parametrize("text", ["", "{", '{"format": 99}', "[]", "\xff"], ids=["empty", "cut", "future", "list", "?"])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    write(tmp_path / "a")
    (tmp_path / "a/manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtefactError, match=r"a/manifest\.json"):
        artefacts.read(tmp_path / "a", "stage")


@pytest.mark.slow
def test_a_manifest_with_any_bit_flipped_is_named(tmp_path: Path) -> None:
    with artefacts.writing(tmp_path / "a", "stage", {"mean": [0.485, 1e-05], "weights": {10: None, 9: 0}}) as draft:
        (draft.path / "file").write_text("hello")
    path = tmp_path / "a/manifest.json"
    whole = path.read_bytes()
    assert artefacts.read(tmp_path / "a", "stage").spec["mean"] == [0.485, 1e-05]
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(ArtefactError, match=r"a/manifest\.json: .*run snakemake again"):
                artefacts.read(tmp_path / "a", verify=False)


def test_a_manifest_of_an_earlier_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    write(tmp_path / "a")
    content = json.loads((tmp_path / "a/manifest.json").read_text())
    del content["manifest_xxh3_128"]
    (tmp_path / "a/manifest.json").write_text(json.dumps(content | {"format": 1}, indent=1, sort_keys=True) + "\n")
    with pytest.raises(ArtefactError, match=r"not a manifest of format 3; delete .*/a and run snakemake again"):
        artefacts.read(tmp_path / "a", "stage")


def test_a_killed_writer_leaves_no_artefact_and_its_draft_is_removed_by_the_next(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from pipeline_lib.core import artefacts\n"
        "with artefacts.writing(Path(sys.argv[1]), 'stage', {}) as draft:\n"
        "    (draft.path / 'half').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")], check=False)
    assert not (tmp_path / "a").exists()
    assert len(list(tmp_path.iterdir())) == 1  # the draft
    write(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_draft_whose_writer_is_alive_is_left_alone(tmp_path: Path) -> None:
    with artefacts.writing(tmp_path / "a", "stage", {}) as draft:
        (draft.path / "mine").write_text("x")
        draft_of_parent = draft.path.with_name(draft.path.name.replace(str(os.getpid()), str(os.getppid())))
        draft_of_parent.mkdir()
    assert draft_of_parent.exists()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with artefacts.writing_file(path) as file:
        file.write("old")
    with pytest.raises(RuntimeError), artefacts.writing_file(path) as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]


def test_canonical_json_does_not_depend_on_the_order_of_keys_and_refuses_nan() -> None:
    assert artefacts.canonical_json({"b": [1, 2], "a": {"d": None, "c": 1.5}}) == '{"a":{"c":1.5,"d":null},"b":[1,2]}'
    with pytest.raises(ValueError, match="JSON compliant"):
        artefacts.canonical_json({"a": float("nan")})


def test_the_manifest_is_readable_json(tmp_path: Path) -> None:
    write(tmp_path / "a")
    content = json.loads((tmp_path / "a/manifest.json").read_text())
    assert content["format"] == 3
    assert set(content) == {
        *("format", "stage", "spec", "facts", "code", "inputs", "files", "derivation", "content", "software"),
        "manifest_xxh3_128",
    }


def test_a_file_whose_writer_was_killed_leaves_nothing_behind_once_it_is_written_again(tmp_path: Path) -> None:
    target = tmp_path / "plot.pdf"
    gone = subprocess.Popen(["true"])
    gone.wait()
    abandoned = tmp_path / f".plot.pdf.partial-{socket.gethostname()}-{gone.pid}"
    abandoned.write_text("half")
    of_another = tmp_path / f".other.pdf.partial-{socket.gethostname()}-{gone.pid}"
    of_another.write_text("not ours")
    with artefacts.writing_file(target) as file:
        file.write("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([target.name, of_another.name])


def test_drafts_of_killed_jobs_of_any_machine_are_listed_and_removed_by_verify(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not those of writers that may live: here by their process, elsewhere by the time of their last file."""
    write(tmp_path / "a")
    gone = subprocess.Popen(["true"])
    gone.wait()
    names = {
        "long ago, other node": f".a.partial-node-7-{gone.pid}",
        "file, other node": ".plot.pdf.partial-node7-1",
        "killed here": f".a.partial-{socket.gethostname()}-{gone.pid}",
        "at work, other node": ".a.partial-node8-2",
        "at work here": f".a.partial-{socket.gethostname()}-{os.getppid()}",
    }
    drafts = {what: tmp_path / name for what, name in names.items()}
    for what, path in drafts.items():
        if what.startswith("file"):
            path.write_text("half")
        else:
            path.mkdir()
            (path / ownership.DRAFT_MARK).touch()
            (path / "manifest.json").write_text("half")  # is no artefact yet
        for found in (*path.rglob("*"), path):
            day_ago = time.time() - 25 * 3600
            os.utime(found, (day_ago, day_ago))
    (drafts["at work, other node"] / "array").write_text("just now")
    foreign = tmp_path / f".b.partial-{socket.gethostname()}-{gone.pid}"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("not ours, whatever its name")

    abandoned = [str(path) for what, path in drafts.items() if "at work" not in what]
    for arguments in ([], ["--remove"]):
        assert main(["verify", "--results", str(tmp_path), *arguments]) == 0
        said = capsys.readouterr().out
        assert "1 artefacts checked, 0 damaged" in said
        assert sorted(line.partition(": left")[0] for line in said.splitlines() if ": left" in line) == sorted(
            abandoned
        )
    assert sorted(tmp_path.iterdir()) == sorted(
        [tmp_path / "a", drafts["at work, other node"], drafts["at work here"], foreign]
    )


def checked(tmp_path: Path, size: int) -> tuple[CheckedFiles, Path, bytes]:
    data = np.random.default_rng(0).bytes(size)
    with artefacts.writing(tmp_path / "a", "stage", {}) as draft:
        (draft.path / "values").write_bytes(data)
    return CheckedFiles(artefacts.read(tmp_path / "a", verify=False), "run again"), tmp_path / "a/values", data


@pytest.mark.parametrize("size", [0, 1, 256 << 10, 600_001])
def test_a_file_is_checked_while_any_part_of_it_is_read(tmp_path: Path, size: int) -> None:
    for start, stop in [(0, size), (size // 3, size // 2), (size, size), (0, min(1, size))]:
        files, _, data = checked(tmp_path, size)
        for _ in range(2):  # with its check, and without
            buffer = bytearray(stop - start)
            files.read_into("values", start, memoryview(buffer))
            assert buffer == data[start:stop]


@pytest.mark.parametrize("position", [0, 300_000, 599_999])
def test_a_bit_flipped_outside_of_what_is_read_is_noticed_though_date_and_size_are_right(
    tmp_path: Path, position: int
) -> None:
    files, path, data = checked(tmp_path, 600_000)
    before = path.stat()
    path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(ArtefactError, match=f"{path}: damaged .*; run again"):
            files.read_into("values", 1000, memoryview(bytearray(1000)))


def test_a_file_that_is_cut_or_deleted_is_named_before_and_after_it_was_checked(tmp_path: Path) -> None:
    for was_checked in (False, True):
        files, path, _ = checked(tmp_path, 600_000)
        if was_checked:
            files.read_into("values", 0, memoryview(bytearray(1)))
        os.truncate(path, 5000)
        with pytest.raises(ArtefactError, match=f"{path}: 5000 bytes, but the manifest says 600000; run again"):
            files.read_into("values", 4000, memoryview(bytearray(2000)))
        path.unlink()
        with pytest.raises(ArtefactError, match=f"{path}: missing; run again"):
            files.read_into("values", 4000, memoryview(bytearray(2000)))


def test_a_disk_that_reads_differently_each_time_is_no_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, path, _ = checked(tmp_path, 1000)
    monkeypatch.setattr("pipeline_lib.core.checked_files._read_all", lambda *arguments: "another")
    with pytest.raises(OSError, match=f"{path}: reads differently"):
        files.read_into("values", 0, memoryview(bytearray(10)))


def test_a_draft_is_known_as_one_until_it_is_published_and_while_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any moment it is removed by the next writer, also by one that has the same process number."""

    def fail(*arguments: object, **options: object) -> None:
        raise OSError("stop")

    target = tmp_path / "made"
    for function in ("shutil.rmtree", "os.rename"):
        with monkeypatch.context() as patched:
            patched.setattr(function, fail)
            patched.setattr("pipeline_lib.core.artefacts.remove_draft", lambda path: None)  # as after a kill
            with pytest.raises(OSError, match="stop"), artefacts.writing(target, "toy", {}, replace=True) as draft:
                (draft.path / "folder").mkdir()
                (draft.path / "folder/values").write_text("1")
                if function == "shutil.rmtree":
                    fail()
            drafts.remove_draft(drafts.draft_path(target))
        with artefacts.writing(target, "toy", {}, replace=True) as draft:
            (draft.path / "values").write_text("2")
        assert [path.name for path in tmp_path.iterdir()] == ["made"]
        assert sorted(path.name for path in target.iterdir()) == ["manifest.json", "values"]
