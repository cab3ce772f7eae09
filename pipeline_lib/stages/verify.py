"""Check every artefact below a folder against its manifest, file by file.

Prints one line per damaged or incomplete artefact. With --remove, deletes those artefacts: the next snakemake
run that needs them makes them, and nothing else, again.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from pipeline_lib.stages.arguments import add_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_path(parser, "--results", "folder to search, such as results")
    parser.add_argument("--remove", action="store_true", help="delete what is damaged")


def run(arguments: argparse.Namespace) -> None:
    """Check, report, and remove when asked to."""
    from pipeline_lib import artefacts
    from pipeline_lib.errors import ArtefactError, PipelineError

    if not arguments.results.is_dir():
        raise PipelineError(f"{arguments.results}: no such folder")
    checked = damaged = 0
    for path in sorted(arguments.results.rglob(artefacts.MANIFEST)):
        checked += 1
        try:
            _verify(path.parent)
        except ArtefactError as error:
            damaged += 1
            print(error)
            if arguments.remove:
                shutil.rmtree(path.parent)
    print(f"{checked} artefacts checked, {damaged} damaged{' and removed' if arguments.remove and damaged else ''}")
    if damaged and not arguments.remove:
        raise PipelineError(f"{damaged} artefacts are damaged; run again with --remove, then run snakemake")


def _verify(directory: Path) -> None:
    """Raise `ArtefactError` for the first fault of an artefact; the record of a view answers for its blocks."""
    from pipeline_lib import artefacts
    from pipeline_lib.features.cache import CACHE_STAGE, read_block

    stage = artefacts.stage_of(directory)
    manifest = artefacts.read(directory, stage)
    if stage == CACHE_STAGE:
        for block in manifest.facts["blocks"]:
            read_block(directory.parent, block["name"], block["digest"])
