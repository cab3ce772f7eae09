"""A dataset whose archive is fetched: planned before it is there, fetched once, and stale by no mirror."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.dataset_worlds import make_zip, png
from tests.workflow.conftest import TINY_WORLD, Workflow

TARGET = "results/datasets/letters/manifest.json"
RECORD = "results/downloads/letters/manifest.json"


def world_with(**download: Any) -> dict[str, Any]:
    """Return the tiny world with one more dataset, whose only file is this download."""
    config = copy.deepcopy(TINY_WORLD)
    config["datasets"]["letters"] = {
        "kind": "folder",
        "path": "letters",
        "download": [{"unpack_to": "letters", **download}],
    }
    config["downstream"].append("letters")
    return config


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "source" / "letters.zip"
    path.parent.mkdir()
    make_zip(path, {"a/1.png": png(1), "a/2.png": png(2), "b/3.png": png(3)})
    return path


def test_downloaded_dataset_from_the_plan_to_a_new_mirror(tmp_path: Path, archive: Path) -> None:
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    (tmp_path / "world").mkdir()
    world = Workflow(tmp_path / "world", world_with(url=archive.as_uri(), sha256="0" * 64))

    # The raw files are not there yet, but all that is made from them can be planned.
    plan = world.planned()
    assert (plan["download"], plan["dataset"]) == (1, 3)

    result = world.snakemake(TARGET, check=False)
    lines = [line for line in (result.stdout + result.stderr).splitlines() if line.startswith("download: error:")]
    assert result.returncode != 0
    assert len(lines) == 1
    assert f"letters.zip: can't be fetched ({archive.as_uri()}: SHA-256 is {sha256}, but 0000" in lines[0]
    assert "Traceback" not in result.stdout + result.stderr
    assert not (world.directory / "data/letters.zip").exists()

    world.write_config(world_with(url=archive.as_uri()))
    result = world.snakemake(TARGET)
    assert f"sha256: {sha256}" in result.stdout + result.stderr
    index = json.loads((world.directory / TARGET).read_text())
    assert index["facts"]["splits"] == {"test": 3}
    assert "download" not in index["spec"]["options"]
    assert json.loads((world.directory / RECORD).read_text())["facts"]["files"][0]["address"] == archive.as_uri()

    # A checksum that is now known and a new mirror change no file.
    mirrors = ["https://example.org/letters.zip"]
    world.write_config(world_with(url=archive.as_uri(), sha256=sha256, mirrors=mirrors))
    result = world.snakemake(TARGET, RECORD)
    assert "Nothing to be done" in result.stdout + result.stderr

    # Another checksum means another file: that is not for a run to guess.
    world.write_config(world_with(url=archive.as_uri(), sha256="1" * 64))
    result = world.snakemake(TARGET, check=False)
    lines = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
    assert result.returncode != 0
    assert len(lines) == 1, lines
    assert "config error: datasets.letters.download: sha256 of 'letters.zip' is 1111" in lines[0]
    assert sha256 in lines[0]
