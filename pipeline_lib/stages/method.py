"""Train a method of the URL benchmark from images: writes a backbone artefact with an uncertainty of its own.

After a kill it goes on with the last epoch, whose state lies in <output>.resume while it trains. Where there are
several GPUs, torchrun starts a process for each, and each trains on its part of every batch.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from pipeline_lib.stages.arguments import add_path, add_spec

SINKS = ("jsonl", "tensorboard", "wandb")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "name, options (a backbone of kind `method`), train_split, eval_split")
    add_path(parser, "--dataset", "upstream dataset artefact")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode and augment (default: none)")
    add_path(parser, "--output", "folder of the backbone artefact")
    parser.add_argument(
        "--processes",
        type=int,
        default=None,
        metavar="N",
        help="processes that train together, each on a GPU of its own where the device is one (default: as many as "
        "there are GPUs; 0 and 1: one)",
    )
    parser.add_argument(
        "--curves",
        nargs="+",
        choices=SINKS,
        default=[],
        help="where the curve goes while training runs: below <output>.curves; jsonl, in the artefact, always",
    )


def run(arguments: argparse.Namespace) -> None:
    """Train and write."""
    from pipeline_lib.method_training.processes import run_in_processes, started_by_torchrun

    processes = _gpus(arguments.spec) if arguments.processes is None else arguments.processes
    if processes > 1 and not started_by_torchrun():
        _check_gpus(arguments.spec, processes)
        command = ["method", "--spec", json.dumps(arguments.spec), "--dataset", str(arguments.dataset)]
        command += ["--workers", str(arguments.workers), "--output", str(arguments.output)]
        command += ["--curves", *arguments.curves] if arguments.curves else []
        run_in_processes(command, processes)
        return

    from pipeline_lib.method_training.artefact import write_method

    sinks = [name for name in arguments.curves if name != "jsonl"]
    write_method(arguments.spec, arguments.dataset, arguments.output, arguments.workers, sinks)


def _gpus(spec: Mapping[str, Any]) -> int:
    """Return how many GPUs there are to train on."""
    import torch

    return 0 if spec["options"]["training"]["device"] == "cpu" else torch.cuda.device_count()


def _check_gpus(spec: Mapping[str, Any], processes: int) -> None:
    """Raise `PipelineError` where processes would wait for each other's GPUs for ever."""
    import torch

    from pipeline_lib.core.device import find_device
    from pipeline_lib.core.errors import PipelineError

    if find_device(spec["options"]["training"]["device"]).type == "cuda" and processes > torch.cuda.device_count():
        raise PipelineError(
            f"--processes {processes}: each needs a GPU of its own, but only {torch.cuda.device_count()} can be seen "
            "here; ask for no more than that (in a run: --set-resources method:gpu=N), or set training.device to cpu"
        )
