# What all stages share: the checked config, the environment of their jobs, and what their inputs and parameters are.

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

from pipeline_lib.core import artefacts, runner
from pipeline_lib.core.artefacts import canonical_json
from pipeline_lib.config import kinds, specs
from pipeline_lib.config.load import load_config, parse_config
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.features.blocks import block_name, block_ranges
from pipeline_lib.core.code import code_digest
from killed_runs import begin_run, check_writable, heal_killed_run

try:
    # Another workflow that uses this one as a module may give it no config.
    CONFIG = parse_config(config) if config else load_config(Path(ROOT, "config.yaml"))
except PipelineError as error:
    sys.exit(f"config error: {error}")

# A run that was killed left a lock and incomplete outputs behind: the same command must just go on.
if workflow.is_main_process and ROOT != workflow.basedir:
    heal_killed_run(Path.cwd())  # a module in another workflow, which keeps records of its own
elif workflow.is_main_process:
    try:
        begin_run(Path.cwd(), Path(CONFIG.results_dir), dry_run=workflow.output_settings.dryrun)
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
    results=CONFIG.results_dir,
    logs=f"{CONFIG.results_dir}/logs",
    benchmarks=f"{CONFIG.results_dir}/benchmarks",


def own_file(path):
    """Return the path of a file of this repository as an input.

    Snakemake compares the paths of inputs as text: relative ones stay the same when everything is moved. In a module
    they would be taken for paths of the other workflow.
    """
    return os.path.relpath(f"{ROOT}/{path}") if ROOT == workflow.basedir else f"{ROOT}/{path}"


RESULTS = CONFIG.results_dir
PUBLISHED = own_file("workflow/published/pretrained_uncertainties.csv")
EVALUATION_SETS = specs.evaluation_sets(CONFIG)
UPSTREAM = EVALUATION_SETS[0]
METHOD_BACKBONES = specs.method_backbones(CONFIG)
FIRST_BACKBONE, FIRST_VARIANT = next(iter(CONFIG.backbones)), next(iter(CONFIG.variants))


wildcard_constraints:
    dataset=r"[^/]+",
    split=r"[^/]+",
    backbone=r"[^/]+",
    # Ablations are trained and evaluated together, by rules of their own.
    variant="|".join(map(re.escape, CONFIG.variants)),
    view=r"[^/]+",
    seed=r"\d+",


def spec(function, *arguments, **more):
    """Return a job's spec as one sorted-JSON string: its only config parameter, compared as text."""
    return canonical_json(function(CONFIG, *arguments) | more)


def gpu(device):
    """Return how many GPUs a job on this device asks for; limit them with `--resources gpu=N`."""
    return 0 if device == "cpu" else 1


def larger_each_attempt(amount):
    """Return a resource that grows with each attempt of a job: a scheduler ends those that exceed what they asked for.

    Amounts suit the paper's world, rounded up; a profile's `set-resources` changes them. No job becomes stale by them.
    """
    execution = workflow.execution_settings
    if execution is None or (execution.attempt, execution.retries) == (1, 0):
        return amount  # A number: calling functions is what planning thousands of jobs waits for.
    return lambda wildcards, attempt: amount * attempt


def kind(family, name):
    """Return the module of a dataset's or backbone's kind, whose code a job runs besides its stage's."""
    return specs.kind_module(CONFIG, family, name)


def watched_files(family, name):
    """Return the user's files behind a dataset or backbone, so that a change makes it stale."""
    options = CONFIG.backbone(name) if family == "backbones" else CONFIG.datasets[name]
    kind_code = kinds.load(family, options.kind)
    arguments = (options, Path(CONFIG.data_dir)) if family == "datasets" else (options,)
    return [str(path) for path in kind_code.watched_files(*arguments)]


def raw_files(wildcards):
    """Return what a dataset's index is made from: the record of its download, or the user's files.

    Files that are yet to be fetched can't be watched. Nor can those that the user has yet to place: a plan must not
    need them, and the job that lists them says better than Snakemake which file goes where.
    """
    if wildcards.dataset in specs.downloaded_datasets(CONFIG) + specs.tfds_datasets(CONFIG):
        return f"{RESULTS}/downloads/{wildcards.dataset}/manifest.json"
    return [path for path in watched_files("datasets", wildcards.dataset) if Path(path).exists()]


def tfds_python():
    """Return the Python that prepares sets of TensorFlow Datasets: that of `make tfds`, or the environment's."""
    python = Path(ROOT, ".venv-tfds/bin/python")
    return str(python) if python.exists() else "python"


def split_size(dataset, split):
    """Return the number of images in a split, once the dataset is indexed."""
    manifest = checkpoints.dataset.get(dataset=dataset).output.manifest
    try:
        splits = artefacts.read(Path(manifest).parent, "dataset", verify=False).facts["splits"]
    except PipelineError as error:
        raise WorkflowError(str(error))
    if split not in splits:
        raise WorkflowError(f"dataset '{dataset}' has no split '{split}'; it has {', '.join(sorted(splits))}")
    return splits[split]


def block_manifests(backbone, dataset, split, view):
    """Return the manifests of all blocks of a view."""
    samples = block_ranges(split_size(dataset, split), CONFIG.features.block_samples)
    epochs = block_ranges(specs.view_epochs(CONFIG, view), specs.block_epochs(CONFIG, view))
    folder = f"{RESULTS}/features/{backbone}/{dataset}/{split}/{view}/blocks"
    return [f"{folder}/{block_name(s, e)}/manifest.json" for e in epochs for s in samples]


def block_spec(wildcards, view, first, last):
    """Return the spec of one block: a range of images and of a view's epochs."""
    return spec(
        specs.features_spec,
        wildcards.backbone,
        wildcards.dataset,
        wildcards.split,
        view,
        samples=[int(wildcards.start), int(wildcards.stop)],
        epochs=[int(first), int(last)],
    )


def block_specs(wildcards, views):
    """Return the specs of the blocks of several views, each with all its epochs."""
    return [block_spec(wildcards, view, 0, specs.view_epochs(CONFIG, view)) for view in views]


def block_outputs(views):
    """Return the manifests of the blocks of several views, each with all its epochs, as patterns."""
    folder = "<results>/features/{backbone}/{dataset}/{split}"
    return [
        f"{folder}/{view}/blocks/samples-{{start}}-{{stop}}_epochs-0000-{specs.view_epochs(CONFIG, view):04d}/manifest.json"
        for view in views
    ]


def task_loss_of(backbone, variant):
    """Return the task loss that the heads of a variant read besides the cache, if they do."""
    task_loss, view = CONFIG.task_loss_of(backbone, variant), CONFIG.variant(variant).view
    return (
        [] if task_loss == "cross_entropy" else [f"{RESULTS}/task_losses/{backbone}/{view}/{task_loss}/manifest.json"]
    )


def task_loss_argument(backbone, variant):
    """Return the stage's argument for the same."""
    return "".join(f"--task-loss {Path(path).parent}" for path in task_loss_of(backbone, variant))


def names_pattern(names):
    """Return a regular expression that matches these names."""
    return "|".join(map(re.escape, names))


def features_code(wildcards):
    """Return the digest of the code behind a block."""
    return code_digest(
        "pipeline_lib.stages.features",
        kind("datasets", wildcards.dataset),
        kind("backbones", wildcards.backbone),
        *method_modules(wildcards.backbone),
    )


def method_modules(backbone):
    """Return the module of the method that trains a backbone, if one does."""
    return [specs.method_module(CONFIG, backbone)] if backbone in METHOD_BACKBONES else []


def is_upstream_set(wildcards):
    """Return whether a job evaluates the upstream evaluation set itself."""
    return (wildcards.dataset, wildcards.split) == (UPSTREAM.dataset, UPSTREAM.split)


def upstream_evaluation(wildcards, method):
    """Return the upstream's scores by the same method, against which a downstream set is compared."""
    if is_upstream_set(wildcards):
        return []
    folder = f"{RESULTS}/evaluation/{wildcards.backbone}/{method}/{UPSTREAM.dataset}/{UPSTREAM.split}"
    return [f"{folder}/manifest.json"]


def upstream_argument(wildcards, method):
    """Return the stage's argument for the same."""
    return "".join(f"--upstream {Path(path).parent}" for path in upstream_evaluation(wildcards, method))


def upstream_features(wildcards):
    """Return the cache of the upstream evaluation set, which any other set is mixed with."""
    if is_upstream_set(wildcards):
        return []
    view = f"{RESULTS}/features/{wildcards.backbone}/{UPSTREAM.dataset}/{UPSTREAM.split}/eval"
    return [f"{view}/cache/manifest.json"]


def heads_argument(wildcards):
    """Return the stages' argument that names the head of each seed."""
    folder = f"{RESULTS}/heads/{wildcards.backbone}/{wildcards.variant}"
    return " ".join(f"{seed}={folder}/seed{seed}" for seed in CONFIG.seeds)


def plot_code(plot):
    """Return the digest of the code behind one figure."""
    return code_digest("pipeline_lib.stages.plot", f"pipeline_lib.stages.figures.{plot}")


def table_code(table):
    """Return the digest of the code behind one table."""
    return code_digest("pipeline_lib.stages.table", f"pipeline_lib.stages.tables.{table}")


def results_folder(wildcards, output):
    """Return the results folder from which a figure reads what it needs."""
    return Path(output.png).parents[1]
