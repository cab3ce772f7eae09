"""The dataset artefact: what decides it, what its readers find, and who fetches its files."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Ref
from pipeline_lib.datasets import folder, tfds
from pipeline_lib.datasets.files import Tree
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.stages import dataset
from tests.jobs import run
from tests.unit.dataset_worlds import make_folder, png

FOLDER = {"kind": "folder", "path": "pets"}
PETS = {"pets/cat/1.png": png(1), "pets/cat/2.png": png(2), "pets/dog/3.png": png(3)}


def listed(tmp_path: Path, name: str = "pets", data: str = "data", **options: Any) -> artefacts.Manifest:
    """List the pictures anew; returns the manifest."""
    spec = {"name": name, "options": {**FOLDER, **options}, "data_dir": str(tmp_path / data)}
    return artefacts.read(run("dataset", spec, tmp_path / "artefact"))


def test_content_is_what_readers_find_and_not_by_which_name_or_where(tmp_path: Path) -> None:
    make_folder(tmp_path / "data", PETS)
    first = listed(tmp_path)
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere")
    moved = listed(tmp_path, name="animals", data="elsewhere")
    assert moved.content == first.content
    assert moved.derivation != first.derivation
    found = {first.content}
    for options in ({"split": "train"}, {"skip_unreadable": 1}, {"split_by": {"train": 0.5, "test": 0.5}}):
        found.add(listed(tmp_path, **options).content)
    (tmp_path / "data/pets/dog/3.png").write_bytes(png(4))
    found.add(listed(tmp_path).content)
    (tmp_path / "data/pets/dog/3.png").rename(tmp_path / "data/pets/dog/4.png")
    found.add(listed(tmp_path).content)
    (tmp_path / "data/pets/dog").rename(tmp_path / "data/pets/wolf")
    found.add(listed(tmp_path).content)
    assert len(found) == 7


def test_votes_are_part_of_the_content(tmp_path: Path) -> None:
    make_folder(tmp_path / "data", {"pics/1.png": png(1), "pics/2.png": png(2)})
    contents = set()
    for row in ("2,1", "3,1", "2,1,0"):
        columns = "path,cat,dog,owl" if row.count(",") == 2 else "path,cat,dog"
        (tmp_path / "data/t.csv").write_text(f"{columns}\n1.png,{row}\n2.png,{row}\n")
        spec = {"name": "votes", "options": {"kind": "table", "path": "t.csv", "images": "pics"}}
        directory = run("dataset", spec | {"data_dir": str(tmp_path / "data")}, tmp_path / "artefact")
        contents.add(artefacts.read(directory).content)
    assert len(contents) == 3


def test_an_index_waits_for_the_stage_that_brings_its_files() -> None:
    fetched = folder.Options(**FOLDER, download=[{"url": "https://example.org/pets.zip", "unpack_to": "pets"}])
    prepared = tfds.Options(kind="tfds", name="cifar10")
    config: Any = SimpleNamespace(datasets={"mine": folder.Options(**FOLDER), "pets": fetched, "cifar": prepared})
    assert dataset.inputs(config, "mine") == {"download": None}
    assert dataset.inputs(config, "pets") == {"download": Ref.to("download", dataset="pets")}
    assert dataset.inputs(config, "cifar") == {"download": Ref.to("prepare_tfds", dataset="cifar")}


def test_sources_of_a_dataset_are_those_of_its_kind(tmp_path: Path) -> None:
    make_folder(tmp_path, PETS)
    spec = dataset.Spec(name="pets", options=folder.Options(**FOLDER), data_dir=str(tmp_path))
    assert dataset.sources(spec) == [Tree(tmp_path / "pets")]
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    listed = spec.model_copy(update={"options": folder.Options(**FOLDER, outputs="names.txt")})
    assert dataset.sources(listed) == [Tree(tmp_path / "pets"), tmp_path / "names.txt"]


def test_a_wrong_spec_is_named_in_one_line(tmp_path: Path) -> None:
    for wrong, message in (
        ({"kind": "foldr"}, "kind 'foldr' of datasets is unknown.*did you mean 'folder'"),
        ({"pth": "x"}, "options.pth: unknown key; allowed here: .*did you mean 'path'"),
        ({"skip_unreadable": -1}, "options.skip_unreadable: -1 is not allowed"),
    ):
        with pytest.raises(PipelineError, match=f"^spec of dataset: .*{message}") as caught:
            listed(tmp_path, **wrong)
        assert "\n" not in str(caught.value)


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path / "data", PETS)
    listed(tmp_path)
    with pytest.raises(PipelineError, match="dataset 'pets' has no split 'tset'; it has test; did you mean 'test'"):
        ImageDataset(tmp_path / "artefact", "tset")
