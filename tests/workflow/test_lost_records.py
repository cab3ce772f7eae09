"""Results whose `.snakemake` is gone, or that were copied, replaced or dated anew: what is known of them decides."""

from __future__ import annotations

import copy
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import MANIFEST, file_digest
from tests.workflow.conftest import TINY_WORLD, Workflow
from tests.workflow.test_reruns import EVERY_HEAD, edited

HEAD = Path("results/heads/resnet/default/seed1")
NEW_YEAR_2000, LONG_FROM_NOW = 946_684_800.0, 4_000_000_000.0


@pytest.fixture
def world(tiny: Workflow, tmp_path: Path) -> Workflow:
    """A copy of the finished tiny world."""
    return tiny.copy(tmp_path / "copy")


def result_files(workflow: Workflow) -> list[Path]:
    files = (workflow.directory / "results").rglob("*")
    return [path for path in files if path.is_file() and "records" not in path.relative_to(workflow.directory).parts]


def test_without_snakemakes_folder_nothing_is_made_again_and_nothing_stale_is_trusted(world: Workflow) -> None:
    shutil.rmtree(world.directory / ".snakemake")
    assert world.planned() == {}
    shutil.rmtree(world.directory / ".snakemake")
    world.write_config(edited("training.learning_rate", 0.002))
    assert world.planned() == EVERY_HEAD


def test_results_that_were_copied_with_other_times_in_any_order_are_recognised(world: Workflow) -> None:
    """As by `cp -r` to another machine; inputs larger than 1 MB are compared by time, and get theirs back."""
    shutil.rmtree(world.directory / ".snakemake")
    files = result_files(world)
    now = time.time()
    for path, age in zip(files, random.Random(0).sample(range(len(files)), len(files)), strict=True):
        os.utime(path, (now - age, now - age))
    assert any(path.stat().st_size > 1_000_000 for path in files if path.suffix == ".safetensors")
    assert world.planned() == {}


def test_a_large_file_that_was_damaged_on_the_way_does_not_get_its_time_back(world: Workflow) -> None:
    shutil.rmtree(world.directory / ".snakemake")
    weights = world.directory / "results/backbones/vit/weights.safetensors"
    recorded = weights.stat().st_mtime
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    world.planned()
    assert weights.stat().st_mtime != recorded


def test_results_without_any_record_are_made_again_unless_the_user_vouches_for_them(world: Workflow) -> None:
    shutil.rmtree(world.directory / ".snakemake")
    shutil.rmtree(world.directory / "results/records")
    target = str(HEAD / MANIFEST)
    plan = world.snakemake("-n", target)
    text = plan.stdout + plan.stderr
    assert "results: no record says how" in text and "snakemake --touch" in text
    assert {"dataset", "cache", "head"} <= set(re.findall(r"^(?:local)?(?:rule|checkpoint) (\w+):", text, re.MULTILINE))
    before = file_digest(world.directory / target)
    world.snakemake("--touch", target)
    assert world.planned(target) == {}
    assert file_digest(world.directory / target) == before


def test_an_artefact_of_another_run_is_noticed_and_made_again(world: Workflow) -> None:
    """A head of another learning rate, whole in itself, is put in the place of this one."""
    manifest = world.directory / HEAD / MANIFEST
    ours = artefacts.read(manifest.parent, "head")
    before, spec = ours.digest, copy.deepcopy(dict(ours.spec))
    spec["training"]["learning_rate"] = 0.5
    with artefacts.writing(manifest.parent, "head", spec) as draft:
        for name in ours.files:
            shutil.copy(manifest.parent / name, draft.path)
        draft.facts.update(ours.facts)
        draft.inputs.update(ours.inputs)
    assert artefacts.read(manifest.parent, "head").digest != before
    result = world.snakemake("-n", str(HEAD / MANIFEST))
    assert f"{HEAD / MANIFEST}: is not what its record describes" in result.stdout + result.stderr
    assert "rule head:" in result.stdout + result.stderr
    # Other inputs are another artefact too.
    shutil.copytree(world.directory / "results/heads/vit/default/seed1", manifest.parent, dirs_exist_ok=True)
    assert world.planned(str(HEAD / MANIFEST)) == {"head": 1}


def test_a_record_that_was_cut_by_a_full_disk_vouches_for_nothing(world: Workflow) -> None:
    for record in (world.directory / "results/records").rglob("*"):
        if record.is_file() and '"rule": "head"' in record.read_text():
            record.write_text(record.read_text()[:100])
    assert world.planned(str(HEAD / MANIFEST)) == {"head": 1}


def test_a_clock_that_was_far_ahead_or_behind_stops_no_run_and_repeats_no_work(world: Workflow) -> None:
    before = file_digest(world.directory / HEAD / MANIFEST)
    for path in result_files(world):
        behind = "features" in path.parts
        os.utime(path, (NEW_YEAR_2000,) * 2 if behind else (LONG_FROM_NOW,) * 2)
    os.utime(world.directory / "results/features/resnet/latin/train/train/cache" / MANIFEST, (LONG_FROM_NOW,) * 2)
    assert world.planned() == {}
    shutil.rmtree(world.directory / HEAD)
    result = world.snakemake(str(HEAD / MANIFEST))  # its input is newer than now
    assert "1 of 1 steps (100%) done" in result.stdout + result.stderr
    assert file_digest(world.directory / HEAD / MANIFEST) == before
    assert world.planned(str(HEAD / MANIFEST)) == {}
    assert not [path for path in result_files(world) if path.suffix == ".csv" and path.stat().st_mtime > time.time()]


def test_two_folders_share_results_and_what_is_known_of_them(tmp_path: Path) -> None:
    results = tmp_path / "shared"
    config = TINY_WORLD | {"results_dir": str(results)}
    first, second = (_made(tmp_path / name, config) for name in ("first", "second"))
    index = str(results / "datasets/greek" / MANIFEST)
    first.snakemake(index)
    assert second.planned(index) == {}
    second.write_config(edited("datasets.greek.per_class", {"test": 3}) | {"results_dir": str(results)})
    assert second.planned(index) == {"dataset": 1}

    backbone = str(results / "backbones/resnet" / MANIFEST)
    running = subprocess.Popen(
        first.command(backbone), cwd=first.directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while f"process {running.pid} " not in (results / ".running.lock").read_text():
            assert running.poll() is None
            time.sleep(0.02)
        refused = second.snakemake(index, check=False)
        (line,) = [line for line in (refused.stdout + refused.stderr).splitlines() if line.strip()]
        assert refused.returncode != 0
        assert f"{results}: another snakemake is at work on these results (process {running.pid} on " in line
    finally:
        assert running.wait() == 0
    verified = [sys.executable, "-m", "pipeline_lib", "verify", "--results", str(results)]
    subprocess.run(verified, cwd=first.directory, capture_output=True, check=True)


def _made(directory: Path, config: dict[str, Any]) -> Workflow:
    directory.mkdir()
    return Workflow(directory, config)
