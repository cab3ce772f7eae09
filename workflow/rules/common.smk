# What every rule file needs: the checked config, the environment of the jobs, specs and code digests.

import json
import os
import sys
from pathlib import Path

# The folder of this repository, also when another workflow uses this one as a module.
ROOT = str(Path(str(workflow.current_basedir)).parents[1])
sys.path[:0] = [ROOT, f"{ROOT}/workflow/rules"]

from pipeline_lib.artefacts import canonical_json
from pipeline_lib.config import kinds, specs
from pipeline_lib.config.load import parse_config
from pipeline_lib.errors import PipelineError
from pipeline_lib.provenance import code_digest
from killed_runs import heal_killed_run

try:
    CONFIG = parse_config(config)
except PipelineError as error:
    sys.exit(f"config error: {error}")

# A run that was killed left a lock and incomplete outputs behind: the same command must just go on.
if workflow.is_main_process:
    heal_killed_run(Path.cwd())

# Jobs run this interpreter and this library, wherever Snakemake was started and whatever is activated.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))


pathvars:
    results=CONFIG.results_dir,
    logs=f"{CONFIG.results_dir}/logs",
    benchmarks=f"{CONFIG.results_dir}/benchmarks",


RESULTS = CONFIG.results_dir
EVALUATION_SETS = specs.evaluation_sets(CONFIG)
UPSTREAM = EVALUATION_SETS[0]


wildcard_constraints:
    dataset=r"[^/]+",
    split=r"[^/]+",
    backbone=r"[^/]+",
    variant=r"[^/]+",
    view=r"[^/]+",
    seed=r"\d+",


def spec(function, *arguments, **more):
    """Return a job's spec as one sorted-JSON string: its only config parameter, compared as text."""
    return canonical_json(function(CONFIG, *arguments) | more)


def gpu(device):
    """Return how many GPUs a job on this device asks for; limit them with `--resources gpu=N`."""
    return 0 if device == "cpu" else 1
