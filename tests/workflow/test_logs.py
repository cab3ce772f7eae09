"""Every job leaves a log and a benchmark, and a run ends with what it took."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.workflow.conftest import Workflow

ROOT = Path(__file__).parents[2]
# Together they use every rule: downloads and TensorFlow Datasets, methods, and all the rest.
WORLDS = ["config.yaml", "workflow/configs/paper.yaml", "workflow/configs/url_mini.yaml"]
LIST_RULES = """
import json, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings

snakefile, *worlds = map(Path, sys.argv[1:])
rules = {}
for world in worlds:
    with SnakemakeApi(OutputSettings(dryrun=True)) as api:
        workflow = api.workflow(ResourceSettings(), ConfigSettings(configfiles=[world]), snakefile=snakefile)._workflow
        rules |= {rule.name: [len(rule.log), rule.benchmark is not None] for rule in workflow.rules}
print(json.dumps(rules))
"""


# What they name is made by other rules.
TARGETS = (
    *("all", "feature_statistics"),
    *("datasets", "features", "heads", "tables", "plots", "checkpoints"),
)


def test_every_rule_has_a_log_and_a_benchmark(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIST_RULES, str(ROOT / "Snakefile"), *(str(ROOT / world) for world in WORLDS)]
    listed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert listed.returncode == 0, listed.stderr
    rules = json.loads(listed.stdout.splitlines()[-1])
    assert {"dataset", "training_features", "head", "method", "download", "metrics", "figure_zero_shot"} <= rules.keys()
    assert len(rules) > 40
    without = [
        name for name, (logs, benchmark) in rules.items() if name not in TARGETS and not (logs == 1 and benchmark)
    ]
    assert without == []


def test_a_run_ends_with_a_summary_of_its_own_jobs_and_a_dry_run_does_not(tiny: Workflow, tmp_path: Path) -> None:
    workflow = tiny.copy(tmp_path / "copy")
    written = workflow.directory / "results/logs/summary.txt"
    written.unlink(missing_ok=True)
    again = ("--forcerun", "figure_zero_shot", "--", "results/plots/zero_shot.png")
    plan = workflow.snakemake("-n", *again)
    assert " of work in " not in plan.stdout + plan.stderr
    assert not written.exists()
    run = workflow.snakemake(*again)
    summary = written.read_text()
    assert summary.startswith("1 job, ")
    assert [line.split()[:2] for line in summary.splitlines()[2:3]] == [["plots", "1"]]
    assert summary in run.stdout + run.stderr
