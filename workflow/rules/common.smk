# What all rules share: the checked config, the graph that knows what is stale, and the environment of jobs.

import os
import re
import sys
from pathlib import Path

# The folder of this repository, also when another workflow uses this one as a module.
ROOT = str(Path(str(workflow.current_basedir)).parents[1])
if not Path(ROOT, "pipeline_lib").is_dir():
    sys.exit(
        f"{workflow.current_basedir}: the library 'pipeline_lib' is not beside these rules; clone the repository, and "
        "name the Snakefile of the clone in `module`, instead of fetching the rules alone"
    )
sys.path[:0] = [ROOT, f"{ROOT}/workflow/rules"]

from pipeline_lib.config.load import load_config, parse_config
from pipeline_lib.core import runner
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Ref
from pipeline_lib.stages.graph import Graph
from pipeline_lib.stages.targets import targets
import engine
from bundles import planned_bundles
from runs import begin_run, check_writable

try:
    # Another workflow that uses this one as a module may give it no config.
    CONFIG = parse_config(config) if config else load_config(Path(ROOT, "config.yaml"))
except PipelineError as error:
    sys.exit(f"config error: {error}")

RESULTS = CONFIG.results_dir
if engine.plans(workflow):
    try:
        begin_run(Path.cwd(), Path(RESULTS), dry_run=engine.is_dry_run(workflow))
    except (PipelineError, OSError) as error:  # of a full disk, say
        sys.exit(f"error: {error}")

# Jobs run this interpreter and this library, wherever Snakemake was started and whatever is activated.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    PYTHONPATH=os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")])),
)
# And end when this process does.
os.environ[runner.VARIABLE] = runner.this_process()


pathvars:
    results=RESULTS,
    logs=f"{RESULTS}/logs",
    benchmarks=f"{RESULTS}/benchmarks",


GRAPH = Graph(CONFIG, Path(RESULTS), Path(ROOT, "workflow/published"))
EVALUATION_SETS = CONFIG.evaluation_sets
UPSTREAM = EVALUATION_SETS[0]


wildcard_constraints:
    dataset=r"[^/]+",
    split=r"[^/]+",
    backbone=r"[^/]+",
    variant=r"[^/]+",
    view=r"[^/]+",
    seed=r"\d+",
    start=r"\d+",
    stop=r"\d+",
    first=r"\d+",
    last=r"\d+",


def inputs_of(ref):
    """Return the file that describes the job of an artefact, and what that job reads, by name."""
    if ROOT == workflow.basedir:
        engine.let_times_decide(workflow)
    try:
        return GRAPH.inputs(ref)
    except PipelineError as error:
        raise WorkflowError(str(error)) from None


def job(stage, **fixed):
    """Return the input function of a rule: the file that describes a job of a stage, and what that job reads.

    Times of files decide what Snakemake runs, and the graph sets them: see pipeline_lib/stages/graph.py.
    """
    return lambda wildcards: inputs_of(Ref.to(stage, **{**dict(wildcards), **fixed}))


def several_jobs(refs):
    """Return the inputs of several jobs that one process does, one list per name."""
    merged = {}
    for ref in refs:
        for name, files in inputs_of(ref).items():
            merged.setdefault(name, []).extend(file for file in files if file not in merged[name])
    return merged


def together(name, refs):
    """Return the artefacts that one process each makes together, by rule; none in a module of another workflow."""
    return planned_bundles(GRAPH, name, refs, engine.plans(workflow)) if ROOT == workflow.basedir else {}


def command(stage, more="", described="{input.job:q}"):
    """Return the shell command of a stage's rule."""
    return f"python -m pipeline_lib {stage} --job {described} {more} 2>&1 | tee {{log:q}}"


def gpu(device):
    """Return how many GPUs a job on this device asks for; limit them with `--resources gpu=N`."""
    return 0 if device == "cpu" else 1


def larger_each_attempt(amount):
    """Return a resource that grows with each attempt of a job: a scheduler ends those that exceed what they asked for.

    Amounts suit the paper's world, rounded up; a profile's `set-resources` changes them. No job becomes stale by them.
    """
    return lambda wildcards, attempt: amount * attempt


def one_of(names):
    """Return a regular expression that matches these names; of no names, one that matches nothing."""
    return "|".join(map(re.escape, names)) or r"(?!)"


def none_of(folder, bundles):
    """Return a regular expression for the first wildcard below a folder that leaves out what is made in bundles."""
    bundled = [GRAPH.outputs(ref)[0] for refs in bundles.values() for ref in refs]
    return f"(?!({one_of(path.relative_to(Path(RESULTS, folder)).as_posix() for path in bundled)})$)[^/]+"


def one_block(view):
    """Return the name of a block with all epochs of a view, as a pattern."""
    return f"samples-{{start}}-{{stop}}_epochs-0000-{CONFIG.view_epochs(view):04d}"


def blocks_of(wildcards, views):
    """Return the blocks of several views of the same images, each with all its epochs."""
    return [
        Ref.to("features", **wildcards, view=view, first="0000", last=f"{CONFIG.view_epochs(view):04d}")
        for view in views
    ]


def blocks_and_more(wildcards):
    """Return the inputs of a cache, once the number of its images is known."""
    GRAPH.state(Ref.to("cache", **wildcards))  # sets times, which Snakemake remembers from its first look
    checkpoints.dataset.get(dataset=wildcards.dataset)
    if GRAPH.samples(wildcards.dataset, wildcards.split) is None:
        manifest = GRAPH.outputs(Ref.to("dataset", dataset=wildcards.dataset))[0]
        raise WorkflowError(
            f"{manifest}: dataset '{wildcards.dataset}' has no split '{wildcards.split}'; see 'splits' in that file"
        )
    return job("cache")(wildcards)
