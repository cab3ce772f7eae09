"""Results whose `.snakemake` is gone, or that were copied, replaced, moved or dated anew: what was made decides."""

from __future__ import annotations

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

from pipeline_lib.__main__ import main
from pipeline_lib.config.load import parse_config
from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import file_digest
from pipeline_lib.core.errors import ArtefactError
from pipeline_lib.core.jobs import Ref
from pipeline_lib.core.ownership import MANIFEST
from pipeline_lib.stages.graph import Graph, load_stage
from pipeline_lib.stages.targets import targets
from tests.jobs import make
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
    for dated in ("in any order", "1970"):  # benchmarks too, which Snakemake takes for outputs
        shutil.rmtree(world.directory / ".snakemake")
        shuffle_times(files := result_files(world))
        for path in files if dated == "1970" else []:
            os.utime(path, (0, 0))
        assert world.planned() == {}, dated
    shutil.rmtree(world.directory / ".snakemake")
    world.write_config(edited("training.learning_rate", 0.002))
    assert "heads" in world.planned() and stale(world, edited("training.learning_rate", 0.002))["head"] == 5


def test_a_finished_folder_is_as_finished_when_it_is_named_from_elsewhere(tiny: Workflow, tmp_path: Path) -> None:
    elsewhere = Workflow(tmp_path)
    elsewhere.write_config(TINY_WORLD)
    assert elsewhere.planned("--directory", str(tiny.directory)) == {}
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml"}


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


FAILING = {
    "head: error: told to fail": "print('head: error: told to fail', file=sys.stderr); os._exit(1)",
    "ended without a message, as when the machine kills it": "os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("message", FAILING)
def test_a_job_that_fails_after_an_edit_is_named_and_not_forgotten(world: Workflow, message: str) -> None:
    """With the default target, whose other files look finished; what is stale is neither trusted nor lost."""
    site = world.directory / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        f"import os, sys\nif sys.orig_argv[2:4] == ['pipeline_lib', 'head']:\n    {FAILING[message]}\n"
    )
    world.write_config(edited("training.learning_rate", 0.002))
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        world.command(),
        cwd=world.directory,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    failed = [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("failed: ")]
    assert failed and all(f": {message}" in line and "(log: results/logs/heads/" in line for line in failed)
    assert {"head": 2, "heads": 1, "evaluate_heads": 4, "export": 2}.items() <= world.planned().items()
    assert stale(world) == {}


@pytest.mark.parametrize("name", ["metrics.csv", "tables/zero_shot.csv", "tables/zero_shot.md", "plots/zero_shot.png"])
def test_a_result_that_was_edited_is_named_by_its_readers_and_made_again(
    world: Workflow, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A digit in a spreadsheet, of the same length; and a file that was cut."""
    results = world.directory / "results"
    graph = Graph(parse_config(TINY_WORLD | {"results_dir": str(results)}), results, ROOT / "workflow/published")
    path, table = results / name, Ref.to("table", name="zero_shot")
    before = path.read_bytes()
    for damaged in (before[:-9] + bytes([before[-9] ^ 1]) + before[-8:], before[: len(before) // 2]):
        path.write_bytes(damaged)
        assert main(["verify", "--results", str(results)]) == 1
        assert f"{path}: " in capsys.readouterr().out
        if name == "metrics.csv":
            with pytest.raises(
                ArtefactError, match=r"metrics\.csv: .*; delete .*records/metrics and run snakemake again"
            ):
                load_stage("table").run(graph.job(table))
        make(graph, *targets(graph.config))
        assert path.read_bytes() == before


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
        *_, line = (refused.stdout + refused.stderr).splitlines()
        assert refused.returncode != 0
        assert f"{results}: another snakemake is at work on these results (process {running.pid} on " in line
    finally:
        assert running.wait() == 0
    verified = [sys.executable, "-m", "pipeline_lib", "verify", "--results", str(results)]
    subprocess.run(verified, cwd=first.directory, capture_output=True, check=True)


def _made(directory: Path, config: dict[str, Any]) -> Workflow:
    directory.mkdir()
    return Workflow(directory, config)
