"""The user's own files behind an artefact: an edit is noticed, a copy with other times of small files is not one."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from pipeline_lib.stages import sources


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text("path,label\n")
    return path


def test_an_edit_is_noticed_whatever_time_the_file_says(tmp_path: Path, table: Path) -> None:
    noted, now = tmp_path / "noted.json", time.time()
    sources.record(noted, [table])
    assert sources.are_unchanged(noted, [table], now)
    table.write_text("path,group\n")
    os.utime(table, (1e9, 1e9))  # as archives and file servers date what they restore
    assert not sources.are_unchanged(noted, [table], now)


def test_a_small_file_that_was_only_touched_is_the_same(tmp_path: Path, table: Path) -> None:
    noted = tmp_path / "noted.json"
    sources.record(noted, [table])
    os.utime(table, (2e9, 2e9))
    assert sources.are_unchanged(noted, [table], 0.0)


def test_a_folder_changes_when_something_in_it_comes_or_goes(tmp_path: Path) -> None:
    folder, noted = tmp_path / "images", tmp_path / "noted.json"
    folder.mkdir()
    sources.record(noted, [folder])
    assert sources.are_unchanged(noted, [folder], 0.0)
    (folder / "new.png").touch()
    os.utime(folder, (3e9, 3e9))
    assert not sources.are_unchanged(noted, [folder], 4e9)


def test_another_list_of_sources_is_a_change(tmp_path: Path, table: Path) -> None:
    noted = tmp_path / "noted.json"
    sources.record(noted, [table])
    assert not sources.are_unchanged(noted, [table, tmp_path], time.time())


def test_without_a_note_times_decide(tmp_path: Path, table: Path) -> None:
    made = table.stat().st_mtime
    assert sources.are_unchanged(tmp_path / "none.json", [table], made + 1)
    assert not sources.are_unchanged(tmp_path / "none.json", [table], made - 1)


def test_data_that_was_removed_to_save_space_changes_nothing(tmp_path: Path) -> None:
    folder, noted = tmp_path / "images", tmp_path / "noted.json"
    folder.mkdir()
    sources.record(noted, [folder])
    shutil.rmtree(folder)
    assert sources.are_unchanged(noted, [folder], 0.0)
