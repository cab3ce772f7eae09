"""Jobs know whether they are done: by spec, code and the content of what they read, not by how that was made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import ArtefactError
from pipeline_lib.core.jobs import Job
from pipeline_lib.core.spec import Spec


class Sum(Spec):
    factor: int
    added_later: str | None = None


def source(directory: Path, text: str, comment: str = "", version: str = "1") -> Path:
    """Write an artefact whose content is `text`; the comment changes its derivation alone."""
    with artefacts.writing(directory, "source", {"comment": comment}, code={"source": version}) as draft:
        (draft.path / "numbers.txt").write_text(text)
    return directory


def job(directory: Path, factor: int = 2, **changes: object) -> Job[Sum]:
    made = Job("sum", Sum(factor=factor), {"numbers": (directory / "source",)}, directory / "sum", code={"sum": "1"})
    return replace(made, **changes)


@pytest.fixture
def done(tmp_path: Path) -> Path:
    source(tmp_path / "source", "1 2 3")
    assert not job(tmp_path).is_done()
    with job(tmp_path).writing() as draft:
        (draft.path / "sum.txt").write_text("12")
    assert job(tmp_path).is_done()
    return tmp_path


def test_another_spec_code_or_content_is_another_job(done: Path) -> None:
    assert not job(done, factor=3).is_done()
    assert not job(done, code={"sum": "2"}).is_done()
    assert not job(done, inputs={}).is_done()
    source(done / "source", "1 2 4")
    assert not job(done).is_done()


def test_an_input_that_was_made_otherwise_but_is_the_same_leaves_the_job_done_and_is_recorded(done: Path) -> None:
    before = artefacts.read(done / "sum")
    source(done / "source", "1 2 3", comment="edited")
    assert job(done).is_done()
    after = artefacts.read(done / "sum")
    assert (after.content, after.files) == (before.content, before.files)
    now = artefacts.read(done / "source")
    assert after.inputs == {"numbers": [{"derivation": now.derivation, "content": now.content}]}


def test_an_option_that_was_added_with_none_for_as_before_changes_no_spec() -> None:
    assert Sum(factor=1).plain() == {"factor": 1}
    assert Sum(factor=1, added_later="x").plain() == {"factor": 1, "added_later": "x"}


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_an_artefact_without_all_its_files_is_not_done(done: Path, damage: str) -> None:
    path = done / "sum/sum.txt"
    if damage == "missing":
        path.unlink()
    else:
        path.write_text("1")
    assert not job(done).is_done()


def test_the_derivation_covers_all_that_came_before(tmp_path: Path) -> None:
    derivations = set()
    for comment, factor, version in [("", 2, "1"), ("edited", 2, "1"), ("", 3, "1"), ("", 2, "2")]:
        folder = tmp_path / f"{comment}{factor}{version}"
        source(folder / "source", "1 2 3")
        with Job("source", Sum(factor=1), {}, folder / "source", code={"source": comment}).writing() as draft:
            (draft.path / "numbers.txt").write_text("1 2 3")
        with job(folder, factor, code={"sum": version}).writing():
            pass
        derivations.add(artefacts.read(folder / "sum").derivation)
    assert len(derivations) == 4


def test_an_input_that_is_not_given_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="sum: needs an artefact for 'weights', but got none; give --weights PATH"):
        job(tmp_path).input("weights")
    assert job(tmp_path).optional_input("weights") is None
