"""Provenance: what an artefact was made from, in its own world."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

import pandas as pd
import pytest

from pipeline_lib.core import artefacts
from pipeline_lib.core import software as software_module
from pipeline_lib.core.artefacts import MANIFEST
from pipeline_lib.core.jobs import Job
from pipeline_lib.core.software import software_behind
from pipeline_lib.core.spec import Spec
from pipeline_lib.tables.lineage import artefacts_behind
from tests.jobs import run


class Named(Spec):
    """A spec that makes an artefact another one."""

    name: str


def make(folder: Path, *read: Path, name: str = "") -> None:
    """Write an artefact without any file, made from others."""
    with Job(folder.parent.name, Named(name=name), {"read": read}, folder).writing() as draft:
        draft.facts["stage"] = folder.parent.name


def world(results: Path) -> None:
    """Write a dataset and a head that was made from it; both are the same in every world."""
    make(results / "datasets/latin")
    make(results / "heads/vit", results / "datasets/latin")
    (results / ".running.lock").touch()


def test_what_a_result_was_made_from_is_named_in_its_own_world_alone(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for folder in (results / "a_world", results, results / "own_images"):
        world(folder)
    (results / "own_images/heads/vit" / MANIFEST).write_text("damaged")
    (results / "a_world/heads/vit" / MANIFEST).write_text("damaged")
    found, _ = artefacts_behind(results, [results / "heads/vit"])
    assert found["artefact"].tolist() == ["datasets/latin", "heads/vit"]
    assert found["made_from"].tolist() == ["", "datasets/latin"]


def test_a_backbone_may_have_the_name_of_a_folder_of_the_results(tmp_path: Path) -> None:
    for name in ("records", "logs", "datasets"):
        with artefacts.writing(tmp_path / "backbones" / name, "backbone", {"name": name}):
            pass
    (tmp_path / ".running.lock").touch()
    found, _ = artefacts_behind(tmp_path, [tmp_path / "backbones/records"])
    assert found["artefact"].tolist() == ["backbones/records"]


def test_of_equal_artefacts_the_one_that_was_read_is_named_and_one_that_is_gone_by_its_content(tmp_path: Path) -> None:
    for name in "abc":
        make(tmp_path / "datasets" / name, name=name)
    for name in "abc":
        make(tmp_path / "heads" / name, tmp_path / "datasets" / name)
    found, _ = artefacts_behind(tmp_path, [tmp_path / "heads" / name for name in "abc"])
    made_from = {"heads/a": "datasets/a", "heads/b": "datasets/b", "heads/c": "datasets/c"}
    assert dict(zip(found["artefact"], found["made_from"], strict=True)) == made_from | dict.fromkeys(
        made_from.values(), ""
    )
    content = artefacts.read(tmp_path / "datasets/a").content
    (tmp_path / "datasets/a" / MANIFEST).unlink()
    assert artefacts_behind(tmp_path, [tmp_path / "heads/a"])[0]["made_from"].tolist() == [f"read={content}"]


def test_one_that_was_made_again_and_came_out_the_same_is_named(tmp_path: Path) -> None:
    make(tmp_path / "datasets/a", name="before")
    make(tmp_path / "heads/a", tmp_path / "datasets/a")
    make(tmp_path / "datasets/a", name="after")
    found, _ = artefacts_behind(tmp_path, [tmp_path / "heads/a"])
    assert found["made_from"].tolist() == ["", "datasets/a"]


def test_the_stage_writes_both_lists(tmp_path: Path) -> None:
    world(tmp_path)
    run("provenance", {}, tmp_path / "records/provenance", evaluations=[tmp_path / "heads/vit"])
    made = tmp_path / "records/provenance"
    assert pd.read_csv(made / "artefacts.csv")["artefact"].tolist() == ["datasets/latin", "heads/vit"]
    assert pd.read_csv(made / "software.csv", dtype=str).to_numpy().tolist() == [
        ["python", platform.python_version(), "2"]
    ]


def test_what_was_made_with_several_versions_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, version in (("vit", "2.1"), ("resnet", "2.2"), ("again", "2.2")):
        with artefacts.writing(tmp_path / "heads" / name, "head", {"name": name}, software={"torch": version}):
            pass
    roots = sorted((tmp_path / "heads").iterdir())
    run("provenance", {}, tmp_path / "records/provenance", evaluations=roots)
    table = pd.read_csv(tmp_path / "records/provenance/software.csv", dtype=str)
    assert table.to_numpy().tolist() == [["torch", "2.1", "1"], ["torch", "2.2", "2"]]
    assert "made with several versions of torch: 2.1 (1 artefacts), 2.2 (2 artefacts)" in capsys.readouterr().out


def test_a_package_that_is_installed_under_another_name_is_named_by_that(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"faiss-gpu-cu12": "1.14", "numpy": "2.0"}

    def version(package: str) -> str:
        if package not in installed:
            raise importlib.metadata.PackageNotFoundError(package)
        return installed[package]

    software_module._version.cache_clear()
    monkeypatch.setattr(importlib.metadata, "version", version)
    found = software_behind(("retrieval.safe_index",))
    software_module._version.cache_clear()
    assert found == installed | {"python": platform.python_version()}


def test_an_artefact_says_with_which_packages_its_code_made_it(tmp_path: Path) -> None:
    """Those of the stage and of what it found by name; a package for tests, or that only checks configs, is none."""
    found = {}
    for stage, more in (("head", "heads.losses.order"), ("table", "tables.zero_shot"), ("figure", "figures.zero_shot")):
        code = {f"stages.{stage}": "1", more: "1"}
        with Job(stage, Named(name=""), {}, tmp_path / stage, code=code).writing():
            pass
        found[stage] = artefacts.read(tmp_path / stage).software
    assert found["head"]["torch"] == importlib.metadata.version("torch")
    assert found["head"]["python"] == platform.python_version()
    assert {"pandas", "pyarrow"} <= found["table"].keys() and "torch" not in found["table"]
    assert "matplotlib" in found["figure"] and "matplotlib" not in found["table"]
    assert not {"pytest", "snakemake", "pydantic", "xxhash"} & {name for names in found.values() for name in names}
