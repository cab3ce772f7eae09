"""Check every artefact below a folder against its manifest, file by file and many at once.

Prints one line per damaged or incomplete artefact. With --remove, deletes those artefacts: the next snakemake
run that needs them makes them, and nothing else, again. With --values, every cached number is read too: it must be
finite, and the images of each block must be those that were asked for.

Links are followed. In a folder of results, artefacts are missed whose manifest is gone. What can't be read or listed is
named, left as it is, and the exit code is 1; so it is where there is no artefact at all. Deleted is only what is known
to be ours: a folder with a manifest of ours and no file that it doesn't list, or one that a run planned.

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
    from pipeline_lib.core import ownership
    from pipeline_lib.core.drafts import abandoned_drafts, remove_draft
    from pipeline_lib.core.errors import ArtefactError, PipelineError
    from pipeline_lib.features.audit import Finding, audit
    from pipeline_lib.stages.described import planned_folders

    results = arguments.results
    if not results.is_dir():
        raise PipelineError(f"{results}: no such folder")
    found = audit(results, arguments.values, arguments.scheduler)
    planned = planned_folders(results)
    for folder in sorted(planned.keys() - found.keys()):
        if any(path.exists() for path in planned[folder]) or (folder.is_dir() and any(folder.iterdir())):
            found[folder] = Finding(f"{folder}: has no manifest.json, so its job was stopped or the manifest deleted")
    removed = unread = 0
    damaged = {folder: finding for folder, finding in found.items() if finding.fault is not None}
    for folder, finding in damaged.items():
        print(finding.fault)
        unread += finding.unread
        if not arguments.remove or finding.unread:
            continue
        try:
            if folder in planned and not ownership.is_artefact(folder):
                shutil.rmtree(folder, ignore_errors=not folder.exists())
            else:
                ownership.remove(folder)
            removed += 1
        except (ArtefactError, OSError) as error:
            print(f"{folder}: not deleted ({error})")
    count = len(damaged) - unread
    print(
        f"{len(found) - unread} artefacts checked, {count} damaged"
        + (f", {removed} of them removed" if arguments.remove and count else "")
        + (f"; {unread} could not be read" if unread else "")
    )
    drafts = list(abandoned_drafts(results))
    for draft in drafts:
        print(f"{draft}: left by a killed job")
        if arguments.remove:
            remove_draft(draft)
    if drafts:
        print(
            f"{len(drafts)} drafts left by killed jobs{'; removed' if arguments.remove else ' (--remove deletes them)'}"
        )
    if not found:
        raise PipelineError(f"{results}: holds no artefact; name a folder of results, or an artefact")
    if unread:
        raise PipelineError(f"{unread} folders or artefacts can't be read; make them readable and verify again")
    if count > removed:
        advice = "delete those by hand" if arguments.remove else "run again with --remove"
        raise PipelineError(f"{count - removed} artefacts are damaged; {advice}, then run snakemake")
