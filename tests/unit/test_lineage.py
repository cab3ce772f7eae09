"""Provenance: what an artefact was made from, in its own world."""

from __future__ import annotations

from pathlib import Path

from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import MANIFEST
from pipeline_lib.tables.lineage import artefacts_behind


def world(results: Path) -> None:
    """Write a dataset and a head that was made from it; both are the same in every world."""
    with artefacts.writing(results / "datasets/latin", "dataset", {}):
        pass
    dataset = artefacts.read(results / "datasets/latin", "dataset")
    with artefacts.writing(results / "heads/vit", "head", {}) as draft:
        draft.add_input("dataset", dataset)
    (results / ".running.lock").touch()


def test_what_a_result_was_made_from_is_named_in_its_own_world_alone(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for folder in (results / "a_world", results, results / "own_images"):
        world(folder)
    (results / "own_images/heads/vit" / MANIFEST).write_text("damaged")
    (results / "a_world/heads/vit" / MANIFEST).write_text("damaged")
    found = artefacts_behind(results, [results / "heads/vit"])
    assert found["artefact"].tolist() == ["datasets/latin", "heads/vit"]
    assert found["made_from"].tolist() == ["", "datasets/latin"]


def test_a_backbone_may_have_the_name_of_a_folder_of_the_results(tmp_path: Path) -> None:
    for name in ("records", "logs", "datasets"):
        with artefacts.writing(tmp_path / "backbones" / name, "backbone", {"name": name}):
            pass
    (tmp_path / ".running.lock").touch()
    found = artefacts_behind(tmp_path, [tmp_path / "backbones/records"])
    assert found["artefact"].tolist() == ["backbones/records"]
