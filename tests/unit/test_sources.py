"""The user's own files behind an artefact: an edit is noticed, a copy with other times of small files is not one."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

from pipeline_lib.__main__ import main
from pipeline_lib.config.load import parse_config
from pipeline_lib.core.jobs import Ref
from pipeline_lib.datasets.files import Tree
from pipeline_lib.stages import sources
from pipeline_lib.stages.graph import Graph
from tests.jobs import make

ROOT = Path(__file__).parents[2]
PETS = Ref.to("dataset", dataset="pets")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text("path,label\n")
    return path


def test_an_edit_is_noticed_whatever_time_the_file_says(tmp_path: Path, table: Path) -> None:
    noted, now = tmp_path / "noted.json", time.time()
    sources.record(noted, sources.look([table]))
    assert sources.are_unchanged(noted, [table], now)
    table.write_text("path,group\n")
    os.utime(table, (1e9, 1e9))  # as archives and file servers date what they restore
    assert not sources.are_unchanged(noted, [table], now)


def test_a_small_file_that_was_only_touched_is_the_same(tmp_path: Path, table: Path) -> None:
    noted = tmp_path / "noted.json"
    sources.record(noted, sources.look([table]))
    os.utime(table, (2e9, 2e9))
    assert sources.are_unchanged(noted, [table], 0.0)


def test_a_folder_changes_when_something_in_it_comes_or_goes(tmp_path: Path) -> None:
    folder, noted = tmp_path / "images", tmp_path / "noted.json"
    folder.mkdir()
    sources.record(noted, sources.look([folder]))
    assert sources.are_unchanged(noted, [folder], 0.0)
    (folder / "new.png").touch()
    os.utime(folder, (3e9, 3e9))
    assert not sources.are_unchanged(noted, [folder], 4e9)


def test_another_list_of_sources_is_a_change(tmp_path: Path, table: Path) -> None:
    noted = tmp_path / "noted.json"
    sources.record(noted, sources.look([table]))
    assert not sources.are_unchanged(noted, [table, tmp_path], time.time())


def test_without_a_note_times_decide(tmp_path: Path, table: Path) -> None:
    made = table.stat().st_mtime
    assert sources.are_unchanged(tmp_path / "none.json", [table], made + 1)
    assert not sources.are_unchanged(tmp_path / "none.json", [table], made - 1)


@pytest.mark.parametrize("note", ["", "[]", "null", "[1]", '{"other": 3}'])
def test_a_damaged_note_is_none(tmp_path: Path, table: Path, note: str) -> None:
    (tmp_path / "noted.json").write_text(note)
    assert not sources.are_unchanged(tmp_path / "noted.json", [table], table.stat().st_mtime - 1)


def test_data_that_was_removed_to_save_space_changes_nothing(tmp_path: Path) -> None:
    folder, noted = tmp_path / "images", tmp_path / "noted.json"
    folder.mkdir()
    sources.record(noted, sources.look([folder]))
    shutil.rmtree(folder)
    assert sources.are_unchanged(noted, [folder], 0.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "cat/young/1.png").write_bytes(b"other"),  # in place, of the same size
        lambda root: (root / "cat/young/2.png").write_bytes(b"new"),
        lambda root: (root / "dog/1.png").unlink(),
        lambda root: (root / "dog/1.png").rename(root / "cat/1.png"),
    ],
)
def test_every_image_below_a_tree_is_watched(tmp_path: Path, change: Callable[[Path], object]) -> None:
    root, noted = tmp_path / "pets", tmp_path / "noted.json"
    for name in ("cat/young/1.png", "dog/1.png"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(b"pixel")
        os.utime(root / name, (1e9, 1e9))
    tree = [Tree(root)]
    sources.record(noted, sources.look(tree))
    # What systems write when a folder is looked at is no change.
    (root / ".DS_Store").write_bytes(b"view")
    (root / "Thumbs.db").write_bytes(b"view")
    assert sources.are_unchanged(noted, tree, 0.0)
    assert sources.are_unchanged(tmp_path / "none.json", tree, 1e9) and not sources.none_is_newer(tree, 1e9 - 1)
    change(root)
    assert not sources.are_unchanged(noted, tree, 0.0)


@pytest.fixture
def pets(tmp_path: Path) -> Callable[..., Graph]:
    """A world with a folder of images, indexed."""
    for name in ("cat/1.png", "dog/1.png"):
        (tmp_path / "pets" / name).parent.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "pets" / name)
    content = yaml.safe_load((ROOT / "workflow/configs/tiny.yaml").read_text())
    content |= {"downstream": ["greek", "pets"], "results_dir": str(tmp_path / "results")}

    def graph(plans: bool = True, **options: int) -> Graph:
        content["datasets"]["pets"] = {"kind": "folder", "path": str(tmp_path / "pets"), **options}
        return Graph(parse_config(content), tmp_path / "results", ROOT / "workflow/published", plans=plans)

    make(graph(), PETS)
    assert graph().state(PETS) == "fresh"
    return graph


def test_an_edit_is_not_forgotten_when_the_job_fails_that_would_have_read_it(
    tmp_path: Path, pets: Callable[..., Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (5, 5)).save(tmp_path / "pets/cat/1.png")
    (described,) = pets().inputs(PETS)["job"]
    with monkeypatch.context() as patch:
        patch.setattr("pipeline_lib.datasets.images.write_dataset", lambda job: (tmp_path / "gone").stat())
        assert main(["dataset", "--job", described]) == 1
        with pytest.raises(FileNotFoundError):
            make(pets(), PETS)
    assert pets().state(PETS) == "stale"
    assert main(["dataset", "--job", described]) == 0
    assert pets().state(PETS) == "fresh"


def test_a_process_that_does_one_job_of_a_run_looks_at_no_image_and_keeps_to_the_plan(
    pets: Callable[..., Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the config was edited since the run was planned: each job on a cluster reads it anew."""
    (described,) = map(Path, pets().inputs(PETS)["job"])
    planned = described.read_bytes()
    monkeypatch.setattr(Tree, "seen", lambda tree: pytest.fail("it looked"))
    job = pets(plans=False, skip_unreadable=1)
    assert pets(plans=False).state(PETS) == "fresh" and job.state(PETS) == "stale"
    assert job.inputs(PETS)["job"] == [str(described)]
    assert described.read_bytes() == planned
