"""Results whose `.snakemake` is gone, or that were copied, replaced, moved or dated anew: what was made decides."""

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
from tests.workflow.conftest import ROOT, TINY_WORLD, Workflow
from tests.workflow.test_reruns import edited, stale

HEAD = Path("results/heads/resnet/default/seed1")
NEW_YEAR_2000, LONG_FROM_NOW = 946_684_800.0, 4_000_000_000.0


@pytest.fixture
def world(tiny: Workflow, tmp_path: Path) -> Workflow:
    """A copy of the finished tiny world."""
    return tiny.copy(tmp_path / "copy")


def result_files(workflow: Workflow) -> list[Path]:
    return [path for path in (workflow.directory / "results").rglob("*") if path.is_file()]


def shuffle_times(files: list[Path]) -> None:
    """Give files times in any order, as a copy to another machine does."""
    now = time.time()
    for path, age in zip(files, random.Random(0).sample(range(len(files)), len(files)), strict=True):
        os.utime(path, (now - age, now - age))


def test_without_snakemakes_folder_nothing_is_made_again_and_nothing_stale_is_trusted(world: Workflow) -> None:
    shutil.rmtree(world.directory / ".snakemake", ignore_errors=True)
    shutil.rmtree(world.directory / "results/.jobs", ignore_errors=True)
    assert world.planned() == {}
    shutil.rmtree(world.directory / ".snakemake")
    world.write_config(edited("training.learning_rate", 0.002))
    assert "heads" in world.planned() and stale(world, edited("training.learning_rate", 0.002))["head"] == 5


def test_results_that_were_copied_with_other_times_in_any_order_are_recognised(world: Workflow) -> None:
    shutil.rmtree(world.directory / ".snakemake", ignore_errors=True)
    shuffle_times(result_files(world))
    assert world.planned() == {}


def test_features_may_go_once_heads_are_trained_and_come_back_where_they_are_needed(world: Workflow) -> None:
    shutil.rmtree(world.directory / "results/features/vit/latin/train")
    shutil.rmtree(world.directory / "results/backbones/vit")
    shuffle_times(result_files(world))
    assert world.planned() == {}
    config = edited("seeds", [1, 2])
    world.write_config(config)
    planned = world.planned()
    assert {"backbone": 1, "training_features": 2}.items() <= planned.items()


def test_results_and_their_folder_may_be_renamed(world: Workflow) -> None:
    (world.directory / "results").rename(world.directory / "renamed")
    world.write_config(TINY_WORLD | {"results_dir": "renamed"})
    assert world.planned() == {}
    world.write_config(TINY_WORLD | {"results_dir": str(world.directory / "renamed")})
    assert world.planned() == {}


def test_an_artefact_of_another_run_is_noticed_and_made_again(world: Workflow) -> None:
    """A head of another learning rate, whole in itself, takes this one's place; then one of another backbone."""
    folder = world.directory / HEAD
    ours = artefacts.read(folder, "head")
    spec = {**ours.spec, "training": {**ours.spec["training"], "learning_rate": 0.5}}
    shutil.copytree(folder, world.directory / "kept")
    with artefacts.writing(folder, "head", spec, ours.inputs, ours.code, ours.derivation) as draft:
        for name in ours.files:
            shutil.copy(world.directory / "kept" / name, draft.path)
        draft.facts.update(ours.facts)
    assert world.planned(str(HEAD / MANIFEST)) == {"head": 1}
    shutil.rmtree(folder)
    shutil.copytree(world.directory / "results/heads/vit/default/seed1", folder)
    assert world.planned(str(HEAD / MANIFEST)) == {"head": 1}


MODULE = f"""
module uncertainties:
    snakefile:
        "{ROOT}/Snakefile"
    config:
        config
    {{more}}

use rule * from uncertainties as uncertainties_*

rule mine:
    default_target: True
    input:
        rules.uncertainties_all.input,
"""


@pytest.mark.parametrize("how", ["workflow/Snakefile", "module", "--persistence-backend db"])
def test_however_it_is_started_copied_results_are_recognised_and_an_edit_is_noticed(world: Workflow, how: str) -> None:
    shuffle_times(result_files(world))
    if how == "workflow/Snakefile":
        world.snakefile = ROOT / how
    elif how == "module":
        world.snakefile = world.directory / "Snakefile"
        world.snakefile.write_text(MODULE.format(more=""))
    options = how.split() if how[0] == "-" else []
    said = world.snakemake("-n", *options)
    assert "Nothing to be done" in said.stdout + said.stderr
    if how != "module":
        assert "missing provenance" not in said.stdout + said.stderr
    world.write_config(edited("training.learning_rate", 0.002))
    said = world.snakemake("-n", "--quiet", "rules", *options)
    assert re.search(r"head +[25]\n", said.stdout + said.stderr)


def test_a_prefix_of_a_module_is_refused_since_jobs_would_read_another_world(world: Workflow) -> None:
    world.snakefile = world.directory / "Snakefile"
    world.snakefile.write_text(MODULE.format(more="prefix: 'elsewhere'"))
    refused = world.snakemake("-n", check=False)
    assert refused.returncode != 0
    assert "config error: results_dir is 'results', which `prefix`" in refused.stderr and not refused.stdout


def test_a_job_that_is_killed_after_an_edit_is_named_and_not_forgotten(world: Workflow) -> None:
    """As by the machine when memory runs out; with the default target, whose other files look finished."""
    site = world.directory / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, sys\nif sys.orig_argv[2:4] == ['pipeline_lib', 'head']:\n    os.kill(os.getpid(), 9)\n"
    )
    world.write_config(edited("training.learning_rate", 0.002))
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        world.command(), cwd=world.directory, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert run.returncode != 0
    failed = [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("failed: ")]
    assert failed and all("ended without a message" in line and "(log: results/logs/heads/" in line for line in failed)
    assert {"head": 2, "heads": 1, "evaluate_heads": 4, "export": 2}.items() <= world.planned().items()


def test_a_failed_job_is_not_forgotten(world: Workflow) -> None:
    """An edit is followed by a job that fails: what is stale is not taken for what was asked for, nor is it lost."""
    wanted = edited("training.learning_rate", 0.002)
    failing = copy.deepcopy(wanted)
    failing["training"]["warmup_episodes"] = 1000
    world.write_config(failing)
    target = str(HEAD / MANIFEST)
    failed = world.snakemake(target, check=False)
    assert failed.returncode != 0
    last = [line for line in (failed.stdout + failed.stderr).splitlines() if line.startswith("failed: ")]
    assert len(last) == 1 and "head: error: " in last[0] and "warmup_episodes is 1000" in last[0]
    assert last[0].endswith("(log: results/logs/heads/head_resnet_latin_train.log)")
    world.write_config(wanted)
    assert world.planned(target) == {"heads": 1}  # with the others that read the same cache
    assert stale(world, wanted)["evaluate_heads"] == 7
    assert stale(world) == {}


def test_a_clock_that_was_far_ahead_or_behind_stops_no_run_and_repeats_no_work(world: Workflow) -> None:
    before = file_digest(world.directory / HEAD / MANIFEST)
    for path in result_files(world):
        behind = "features" in path.parts
        os.utime(path, (NEW_YEAR_2000,) * 2 if behind else (LONG_FROM_NOW,) * 2)
    os.utime(world.directory / "results/features/resnet/latin/train/train/cache" / MANIFEST, (LONG_FROM_NOW,) * 2)
    assert world.planned() == {}
    shutil.rmtree(world.directory / HEAD)
    result = world.snakemake(str(HEAD / MANIFEST))
    assert "1 of 1 steps (100%) done" in result.stdout + result.stderr
    assert file_digest(world.directory / HEAD / MANIFEST) == before
    assert world.planned(str(HEAD / MANIFEST)) == {}


def test_two_folders_share_results_and_what_is_known_of_them(tmp_path: Path) -> None:
    results = tmp_path / "shared"
    config = TINY_WORLD | {"results_dir": str(results)}
    first, second = (_made(tmp_path / name, config) for name in ("first", "second"))
    index = str(results / "datasets/greek" / MANIFEST)
    first.snakemake(index)
    assert second.planned(index) == {}
    second.write_config(edited("datasets.greek.per_class", {"test": 4}) | {"results_dir": str(results)})
    assert second.planned(index) == {"dataset": 1}

    backbone = str(results / "backbones/resnet" / MANIFEST)
    running = subprocess.Popen(
        first.command("--", backbone), cwd=first.directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
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
