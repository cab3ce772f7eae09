"""What is the user's is neither deleted nor overwritten, and verify says when it could not look."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.__main__ import main
from pipeline_lib.calibration.calibrator import Calibrator
from pipeline_lib.config.load import load_config
from pipeline_lib.core import artefacts, ownership
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.core.jobs import Ref
from pipeline_lib.retrieval.safe_index import SafeIndex
from pipeline_lib.scoring.atlas import require_replaceable_atlas
from pipeline_lib.scoring.table import require_replaceable_scores
from pipeline_lib.stages.described import read_description
from pipeline_lib.stages.graph import Graph, load_stage

ROOT = Path(__file__).parents[2]
WEB_APP = {"name": "My app", "icons": [], "start_url": "/", "files": {}, "format": 3}


def write(directory: Path, stage: str = "stage") -> Path:
    with artefacts.writing(directory, stage, {"size": 1}) as draft:
        (draft.path / "file.txt").write_text("hello")
    return directory


def verify(results: Path, *more: str) -> int:
    return main(["verify", "--results", str(results), *more])


def test_an_artefact_is_replaced_by_its_own_stage_alone_and_only_without_additions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(write(tmp_path / "a"))
    with pytest.raises(ArtefactError, match="a: holds an artefact of stage 'stage', not of 'other'"):
        write(tmp_path / "a", "other")
    (tmp_path / "a/.DS_Store").touch()
    write(tmp_path / "a")
    (tmp_path / "a/notes").mkdir()
    (tmp_path / "a/notes/mine.txt").write_text("dear")
    with pytest.raises(ArtefactError, match=r"'notes/mine\.txt' is no part of it and would be lost"):
        write(tmp_path / "a")
    (tmp_path / "web").mkdir()
    (tmp_path / "web/manifest.json").write_text(json.dumps(WEB_APP))
    with pytest.raises(ArtefactError, match=r"web: holds files but no manifest\.json of ours"):
        write(tmp_path / "web")
    with pytest.raises(ArtefactError, match="is a file"):
        write(tmp_path / "web/manifest.json")
    (tmp_path / "empty/below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "empty/below")
    for here in (".", "..", tmp_path / "empty"):
        with pytest.raises(ArtefactError, match="is the current folder, or holds it"):
            write(Path(here))


def test_an_artefact_behind_a_link_is_replaced_where_it_lies(tmp_path: Path) -> None:
    write(tmp_path / "scratch/a")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/a").symlink_to(tmp_path / "scratch/a")
    write(tmp_path / "results/a")
    assert (tmp_path / "results/a").is_symlink()
    assert sorted(path.name for path in (tmp_path / "scratch").iterdir()) == ["a"]
    assert verify(tmp_path / "results") == 0


def test_commands_and_the_interface_leave_folders_of_the_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers/thesis.tex").write_text("dear")
    spec = json.dumps({"name": "x", "options": {"kind": "digits"}, "data_dir": "."})
    monkeypatch.chdir(tmp_path / "papers")
    for output in (str(tmp_path / "papers"), ".", ".."):
        assert main(["dataset", "--spec", spec, "--output", output]) == 1
        assert "dataset: error: " in capsys.readouterr().err
    with pytest.raises(PipelineError, match="holds files but no manifest"):
        SafeIndex(4).save(write_foreign(tmp_path / "mine"))
    assert (tmp_path / "papers/thesis.tex").read_text() == "dear"


def write_foreign(directory: Path) -> Path:
    directory.mkdir()
    (directory / "photo.jpg").write_text("dear")
    return directory


def test_a_file_is_overwritten_only_by_what_wrote_it(tmp_path: Path) -> None:
    paths = {name: tmp_path / name for name in ("table.parquet", "array.npy", "page.html", "calibration.json")}
    for path in paths.values():
        path.write_text('{"dear": "to me"}')
    u = np.arange(40.0)
    calibrator = Calibrator.fit(u, u >= 20)
    array = paths["array.npy"]
    for call in (
        lambda: require_replaceable_scores(paths["table.parquet"]),
        lambda: require_replaceable_scores(tmp_path / "new.parquet", array),
        lambda: require_replaceable_atlas(paths["page.html"]),
        lambda: calibrator.save(paths["calibration.json"]),
    ):
        with pytest.raises(PipelineError, match="exists, and is not known to be"):
            call()
    calibrator.save(tmp_path / "new.json")
    calibrator.save(tmp_path / "new.json")


def test_verify_removes_nothing_but_artefacts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write(tmp_path / "damaged") / "file.txt").write_text("hellO")
    (write(tmp_path / "added") / "file.txt").write_text("hellO")
    (tmp_path / "added/mine.txt").write_text("dear")
    (tmp_path / "extension").mkdir()
    (tmp_path / "extension/manifest.json").write_text(json.dumps({"manifest_version": 3, "name": "x"}))
    (tmp_path / "web").mkdir()
    (tmp_path / "web/manifest.json").write_text(json.dumps(WEB_APP))
    assert verify(tmp_path, "--remove") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["added", "extension", "web"]
    assert (tmp_path / "added/mine.txt").read_text() == "dear"
    assert "'mine.txt' is no part of it" in capsys.readouterr().out


def test_verify_follows_links_and_stops_at_none_that_leads_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (write(tmp_path / "scratch/a") / "file.txt").write_text("hellO")
    write(tmp_path / "results/b")
    (tmp_path / "results/features").symlink_to(tmp_path / "scratch")
    (tmp_path / "results/b/again").symlink_to(tmp_path / "results")
    assert verify(tmp_path / "results") == 1
    assert "2 artefacts checked, 1 damaged" in capsys.readouterr().out


def test_verify_says_what_it_could_not_read_goes_on_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c", "locked/d"):
        write(tmp_path / name)
    (tmp_path / "c/file.txt").write_text("hellO")
    scandir, digest = os.scandir, artefacts.file_digest

    def no_folder(path):
        if not isinstance(path, int) and Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    def no_file(path):
        if path.parent.name == "a":
            raise PermissionError(13, "Permission denied", str(path))
        return digest(path)

    monkeypatch.setattr(os, "scandir", no_folder)
    monkeypatch.setattr(artefacts, "file_digest", no_file)
    assert verify(tmp_path, "--remove") == 1
    said = capsys.readouterr()
    assert "locked: can't be listed (Permission denied)" in said.out
    assert "a/file.txt: can't be read (Permission denied)" in said.out
    assert "2 artefacts checked, 1 damaged, 1 of them removed; 2 could not be read" in said.out
    assert "2 folders or artefacts can't be read" in said.err
    assert (tmp_path / "a/file.txt").exists() and not (tmp_path / "c").exists()


def test_verify_of_a_folder_without_artefacts_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(tmp_path) == 1
    assert "holds no artefact" in capsys.readouterr().err


def test_pipes_are_named_and_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write(tmp_path / "a") / "file.txt").unlink()
    os.mkfifo(tmp_path / "a/file.txt")
    (tmp_path / "b").mkdir()
    os.mkfifo(tmp_path / "b/manifest.json")
    assert verify(tmp_path) == 1
    said = capsys.readouterr().out
    assert "a/file.txt: no plain file" in said and "b/manifest.json: no plain file" in said


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    return Graph(load_config(ROOT / "workflow/configs/tiny.yaml"), tmp_path / "results", ROOT / "workflow/published")


def test_a_deleted_manifest_is_missed_in_results(
    tmp_path: Path, graph: Graph, capsys: pytest.CaptureFixture[str]
) -> None:
    ref = Ref.to("dataset", dataset="latin")
    graph.inputs(ref)
    load_stage("dataset").run(graph.job(ref))
    assert verify(tmp_path / "results") == 0
    (graph.folder(ref) / "manifest.json").unlink()
    assert verify(tmp_path / "results") == 1
    assert "datasets/latin: has no manifest.json" in capsys.readouterr().out
    assert verify(tmp_path / "results", "--remove") == 0
    assert not graph.folder(ref).exists()


def test_a_plan_waits_for_no_disk_and_writes_each_description_once(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of jobs are described at each start; a description that a power cut damages is written anew."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: pytest.fail("waits for the disk"))
    ref = Ref.to("dataset", dataset="latin")
    (path,) = graph.inputs(ref)["job"]
    text = Path(path).read_text()
    Path(path).write_text("")
    assert graph.inputs(ref)["job"] == [path]
    assert Path(path).read_text() == ""
    graph.judge_anew()
    graph.inputs(ref)
    assert Path(path).read_text() == text


def test_a_run_leaves_alone_what_lay_at_an_output_before_it_was_planned(tmp_path: Path, graph: Graph) -> None:
    """Also at the next plan; a folder that a killed job of ours left without a manifest is replaced."""
    ref = Ref.to("dataset", dataset="latin")
    folder = graph.folder(ref)
    folder.parent.mkdir(parents=True)
    write_foreign(folder)
    for _ in range(2):
        graph.judge_anew()
        (description,) = graph.inputs(ref)["job"]
        job, _ = read_description("dataset", load_stage("dataset"), Path(description))
        with pytest.raises(ArtefactError, match="latin: holds files but no manifest"):
            load_stage("dataset").run(job)
    (folder / "photo.jpg").unlink()
    for left in ("nothing", "half an index"):
        graph.judge_anew()
        (description,) = graph.inputs(ref)["job"]
        if left != "nothing":
            (folder / "manifest.json").unlink()
            graph.judge_anew()
            (description,) = graph.inputs(ref)["job"]
        job, _ = read_description("dataset", load_stage("dataset"), Path(description))
        load_stage("dataset").run(job)


def test_results_go_to_no_folder_with_files_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_foreign(tmp_path / "photos")
    (tmp_path / "photos/album").mkdir()
    for results in ("..", ".", "/", "/etc", "photos", "../" + tmp_path.name):
        with pytest.raises(PipelineError, match="is no folder of results"):
            ownership.require_results(Path(results))
    write(tmp_path / "around/results/report")
    with pytest.raises(PipelineError, match="is no folder of results"):
        ownership.require_results(Path("around"))
    (tmp_path / "file").touch()
    with pytest.raises(PipelineError, match="file: is a file, but results_dir is a folder"):
        ownership.require_results(Path("file"))
    (tmp_path / "results").mkdir()
    (tmp_path / "results/README.md").touch()
    write(tmp_path / "copied/datasets/latin")
    (tmp_path / "locked/logs").mkdir(parents=True)
    (tmp_path / "locked/.running.lock").touch()
    for results in ("new", "results", "copied", "locked"):
        ownership.require_results(Path(results))
