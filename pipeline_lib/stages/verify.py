"""Check every artefact below a folder against its manifest, file by file and many at once.

Prints one line per damaged or incomplete artefact. With --remove, deletes those artefacts: the next snakemake
run that needs them makes them, and nothing else, again. With --values, every cached number is read too: it must be
finite, and the images of each block must be those that were asked for.

Drafts that killed jobs left are listed, and deleted with --remove: those of this machine, and those of other machines
in which nothing was written for a day.
"""

from __future__ import annotations

import argparse
import shutil

from pipeline_lib.stages.arguments import add_path
from pipeline_lib.stages.command import add_setting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_path(parser, "--results", "folder to search, such as results")
    parser.add_argument(
        "--remove", action="store_true", help="delete what is damaged, and drafts that killed jobs left"
    )
    parser.add_argument("--values", action="store_true", help="also check the values of cached features")
    add_setting(parser, "scheduler")


def run(arguments: argparse.Namespace) -> None:
    """Check, report, and remove when asked to."""
    from pipeline_lib.core.drafts import abandoned_drafts, remove_draft
    from pipeline_lib.core.errors import PipelineError
    from pipeline_lib.features.audit import audit

    if not arguments.results.is_dir():
        raise PipelineError(f"{arguments.results}: no such folder")
    faults = audit(arguments.results, arguments.values, arguments.scheduler)
    damaged = {folder: fault for folder, fault in faults.items() if fault is not None}
    for folder, fault in damaged.items():
        print(fault)
        if arguments.remove:
            shutil.rmtree(folder)
    count = len(damaged)
    print(f"{len(faults)} artefacts checked, {count} damaged{' and removed' if arguments.remove and damaged else ''}")
    drafts = list(abandoned_drafts(arguments.results))
    for draft in drafts:
        print(f"{draft}: left by a killed job")
        if arguments.remove:
            remove_draft(draft)
    if drafts:
        print(
            f"{len(drafts)} drafts left by killed jobs{'; removed' if arguments.remove else ' (--remove deletes them)'}"
        )
    if damaged and not arguments.remove:
        raise PipelineError(f"{count} artefacts are damaged; run again with --remove, then run snakemake")
