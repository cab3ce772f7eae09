"""`python -m pipeline_lib <stage>`: every stage of the pipeline, one command each.

The workflow runs these commands and nothing else; each can be run by hand.
"""

from __future__ import annotations

import argparse
import errno
import functools
import importlib
import os
import sys
import warnings

from pipeline_lib.core.encoding import require_utf8
from pipeline_lib.core.errors import PipelineError, one_line
from pipeline_lib.core.large_pages import restart_with_large_pages
from pipeline_lib.core.runner import end_with_runner
from pipeline_lib.stages import command

# In the order of the data. A stage's module is imported only when it runs: torch alone takes seconds.
STAGES = {
    "download": "fetch, check and unpack the files of a dataset",
    "prepare_tfds": "prepare a set of TensorFlow Datasets for reading at random",
    "dataset": "list the images of a dataset",
    "dataset_card": "describe datasets: counts, sizes, repeated images, overlap with the upstream set",
    "dataset_check": "describe a dataset of the config, by its name",
    "backbone": "load or train a frozen backbone",
    "method": "train a method of the URL benchmark from images",
    "features": "extract blocks of representations",
    "cache": "check and record the blocks of a view",
    "task_loss": "compute a task loss that needs no classifier",
    "feature_statistics": "describe the representations of a view",
    "neighbours": "find each image's exact nearest neighbour",
    "head": "train uncertainty heads on cached features",
    "score_features": "score every row of a cache with a head",
    "joint_training": "train classifier and uncertainty head together",
    "baselines": "evaluate the baselines on one dataset",
    "evaluate_heads": "evaluate the heads of a variant on one dataset",
    "safe_retrieval": "leave out uncertain queries and database images",
    "calibrate": "map uncertainties to error probabilities, find thresholds",
    "deteriorations": "evaluate heads on deteriorated images",
    "projection": "map representations to the plane by t-SNE and UMAP",
    "metrics": "gather all metrics into one table",
    "provenance": "list what the metrics were made from",
    "table": "build a table (csv, md, tex)",
    "figure": "draw a figure (png, pdf)",
    "projection_page": "make a page of a map with thumbnails (html)",
    "report": "write the page of a run: every number, table and figure (html)",
    "export": "write a checkpoint to take home, with its model card",
    "convert_reference": "convert a checkpoint of the papers' own code",
    "convert": "convert a checkpoint to ONNX or torch.export",
    "overhead": "measure what heads add to their backbone",
    "push": "upload a checkpoint to the Hugging Face Hub",
    "fit": "learn heads for a network of yours from your own images: a checkpoint in one call",
    "score": "score your own images with a checkpoint: table, representations, atlas",
    "evaluate": "evaluate your own representations and uncertainties: arrays in, report out",
    "plan": "say what a config will take: jobs, images, bytes, hours",
    "verify": "check artefacts against their manifests",
    "summary": "print what the jobs of a run took",
    "schema": "print the JSON Schema of the config",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a stage; returns 0, or 1 after one line on stderr that says what is wrong and what to do."""
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = arguments[0] if arguments else None
    parser = argparse.ArgumentParser(prog="python -m pipeline_lib", description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True, metavar="stage")
    for name, description in STAGES.items():
        stage = stages.add_parser(name, help=description, description=description)
        if name == chosen:
            module = importlib.import_module(f"pipeline_lib.stages.{name}")
            stage.description = module.__doc__
            stage.formatter_class = argparse.RawDescriptionHelpFormatter
            if hasattr(module, "INPUTS"):
                command.add_arguments(stage, module)
            else:
                module.add_arguments(stage)
    parsed = parser.parse_args(arguments)
    end_with_runner(parsed.stage)
    try:
        require_utf8()
        with warnings.catch_warnings():
            warnings.showwarning = functools.partial(_warn, parsed.stage, set())
            if hasattr(module, "INPUTS"):
                command.run(parsed.stage, module, parsed)
            else:
                module.run(parsed)
    except PipelineError as error:
        return _fail(parsed.stage, str(error))
    except KeyboardInterrupt:
        return _fail(parsed.stage, "interrupted")
    except Exception as error:
        # A library may have a class of its own for a full disk, as safetensors has.
        if isinstance(error, OSError) or _is_full_disk(error):
            return _fail(parsed.stage, _describe(error))
        raise
    return 0


def _is_full_disk(error: Exception) -> bool:
    """Return whether a write failed for lack of space; some libraries put the reason into the message only."""
    reasons = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in reasons or any(os.strerror(reason) in str(error) for reason in reasons)


def _describe(error: Exception) -> str:
    """Return one line for a failed read or write."""
    file, reason = getattr(error, "filename", None), getattr(error, "strerror", None)
    text = f"{file}: {reason}" if file and reason else one_line(error)
    if _is_full_disk(error):
        return f"the disk is full: {text}; free some space and give the command again"
    return text


def _warn(stage: str, said: set[str], message: Warning | str, *where: object, **options: object) -> None:
    """Print a warning as one line, once, without the line of code that Python shows."""
    text = one_line(message)
    if text not in said:
        said.add(text)
        print(f"{stage}: warning: {text}", file=sys.stderr)


def _fail(stage: str, message: str) -> int:
    print(f"{stage}: error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    if sys.argv[1:2] in (["fit"], ["score"]):  # others run networks as jobs of Snakemake, which sees to it
        restart_with_large_pages()
    sys.exit(main())
