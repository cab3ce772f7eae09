# What all rules share: the checked config, the graph that knows what is stale, and the environment of jobs.

import contextlib
import os
import re
import sys
import tempfile
from pathlib import Path

# The folder of this repository, also when another workflow uses this one as a module.
ROOT = str(Path(str(workflow.current_basedir)).parents[1])
if not Path(ROOT, "pipeline_lib").is_dir():
    sys.exit(
        f"{workflow.current_basedir}: the library 'pipeline_lib' is not beside these rules; clone the repository, and "
        "name the Snakefile of the clone in `module`, instead of fetching the rules alone"
    )
sys.path[:0] = [ROOT, f"{ROOT}/workflow/rules"]

from pipeline_lib.config.load import load_config, parse_config, read_yaml
from pipeline_lib.core import large_pages, runner
from pipeline_lib.core.artefacts import MANIFEST
from pipeline_lib.core.encoding import require_utf8
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Ref
from pipeline_lib.core.ownership import require_results
from pipeline_lib.stages.described import FOLDER
from pipeline_lib.stages.graph import Graph
from pipeline_lib.stages.targets import targets
import engine
from bundles import planned_bundles
from runs import begin_run, check_writable, deleting_whole_artefacts, is_held

for file in map(Path, workflow.configfiles):
    if file.name == MANIFEST:
        sys.exit(
            f"config error: {file}: a target, read as a further config file since it follows --configfile; name targets "
            "before the options, or after `--`"
        )
try:
    require_utf8()
    for file in workflow.configfiles:
        read_yaml(file)  # Snakemake, which has read it, takes the last of two equal keys in silence
    # Another workflow that uses this one as a module may give it no config.
    CONFIG = parse_config(config) if config else load_config(Path(ROOT, "config.yaml"))
except PipelineError as error:
    sys.exit(f"config error: {error}")

RESULTS = CONFIG.results_dir
IS_MODULE = engine.is_module(workflow)
if engine.is_prefixed(workflow, RESULTS):
    sys.exit(
        f"config error: results_dir is '{RESULTS}', which `prefix` or `replace_prefix` of the module would change behind "
        "the back of its jobs; set results_dir in the module's config instead"
    )


@contextlib.contextmanager
def one_line():
    """End with one line where something can't be read or written, or may not begin."""
    try:
        yield
    except PipelineError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")


def begin():
    """Begin a run."""
    with one_line():
        begin_run(Path.cwd(), Path(RESULTS), dry_run=engine.is_dry_run(workflow))
    if DESCRIBED != Path(RESULTS, FOLDER) and not engine.is_dry_run(workflow):
        sys.exit(
            f"error: {RESULTS}: another snakemake has just ended its work on these results; give the command again"
        )


@contextlib.contextmanager
def deleting():
    """Delete whole artefacts, while no run is at work on them."""
    begin()
    with deleting_whole_artefacts(Path(RESULTS)):
        yield


engine.collect_garbage_rarely()
engine.remember_parameters()
engine.remember_commands()
engine.leave_benchmarks_out()
DESCRIBED = Path(RESULTS, FOLDER)
if engine.plans(workflow):
    with one_line():
        require_results(Path(RESULTS))
    engine.before_running(workflow, begin)
    engine.around_deleting(workflow, deleting)
    if is_held(Path(RESULTS)):
        # A look at a run that is at work changes nothing that its jobs read.
        ASIDE = tempfile.TemporaryDirectory()
        DESCRIBED = Path(ASIDE.name)

# Jobs run this interpreter and this library, wherever Snakemake was started and whatever is activated.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    PYTHONPATH=os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")])),
    **{large_pages.VARIABLE: large_pages.tunables(os.environ.get(large_pages.VARIABLE))},
)
# And end when this process does.
os.environ[runner.VARIABLE] = runner.this_process()


pathvars:
    results=RESULTS,
    logs=f"{RESULTS}/logs",
    benchmarks=f"{RESULTS}/benchmarks",


GRAPH = Graph(CONFIG, Path(RESULTS), Path(ROOT, "workflow/published"), DESCRIBED, plans=engine.plans(workflow))
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


# Of jobs that can start, those on the longest way to the end come first: backbone, training features, heads. In the
# default they are half of the time of two cores; started last, the other core would wait for them.
FIRST = 1


def inputs_of(ref):
    """Return the file that describes the job of an artefact, and what that job reads, by name."""
    if not IS_MODULE:
        engine.let_times_decide(workflow)
    with one_line():
        return GRAPH.inputs(ref)


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
    with one_line():
        return {} if IS_MODULE else planned_bundles(GRAPH, name, refs, engine.plans(workflow))


def all_of(*stages):
    """Return the input function of a target: whatever of some stages the config asks for."""
    return lambda wildcards: [
        str(GRAPH.outputs(ref)[0]) for ref in GRAPH.behind(targets(CONFIG)) if ref.stage in stages
    ]


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
    with one_line():
        GRAPH.state(Ref.to("cache", **wildcards))  # sets times, which Snakemake remembers from its first look
    checkpoints.dataset.get(dataset=wildcards.dataset)
    with one_line():
        if GRAPH.samples(wildcards.dataset, wildcards.split) is None:
            manifest = GRAPH.outputs(Ref.to("dataset", dataset=wildcards.dataset))[0]
            raise PipelineError(
                f"{manifest}: dataset '{wildcards.dataset}' has no split '{wildcards.split}'; see 'splits' in that file"
            )
    return job("cache")(wildcards)


def glossary_of_metrics(wildcards, output):
    """Return what every metric means. A function of `output` is not recorded: another text makes nothing stale."""
    from pipeline_lib.metrics.glossary import glossary

    return glossary()
