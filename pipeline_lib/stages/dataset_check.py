"""Check a dataset of the config by hand: prints its card and writes it to <results_dir>/cards/NAME.

The workflow's indexes are used where they are up to date; otherwise the images are listed anew, and that index is not
kept. What is checked is decoded anew, all of it.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import ArtefactError, PipelineError, did_you_mean, one_of
from pipeline_lib.core.jobs import Job
from pipeline_lib.core.ownership import require_replaceable
from pipeline_lib.datasets.spec import DatasetSpec
from pipeline_lib.stages import dataset, dataset_card, sources

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("name", metavar="NAME", help="dataset of the config")
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("config.yaml"),
        metavar="PATH",
        help="config that names the dataset and the upstream set (%(default)s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Check a dataset; raises `PipelineError` for a name that the config doesn't have."""
    from pipeline_lib.config.load import load_config

    name, config = arguments.name, load_config(arguments.config)
    if name not in config.datasets:
        raise PipelineError(
            f"{arguments.config}: has no dataset '{name}'; it has {one_of(config.datasets)}"
            f"{did_you_mean(name, config.datasets)}"
        )
    upstream, cards = config.upstream.dataset, Path(config.results_dir) / "cards"
    require_replaceable(cards / name, "dataset_card")
    with tempfile.TemporaryDirectory() as folder:
        index = {listed: index_of(config, listed, Path(folder)) for listed in {name, upstream}}
        inputs = {"dataset": (index[name],), "upstream": (index[upstream],)}
        if name != upstream and (cards / upstream / artefacts.MANIFEST).exists():
            inputs["upstream_card"] = (cards / upstream,)
        dataset_card.run(Job("dataset_card", dataset_card.Spec(), inputs, cards / name))
    print(f"Written to {cards / name}: card.md, card.html, card.json and contact_sheet.png.")


def index_of(config: Config, name: str, folder: Path) -> Path:
    """Return the workflow's index of a dataset or, where it has none or an old one, list the images below `folder`."""
    spec, directory = DatasetSpec.of(config, name), Path(config.results_dir) / "datasets" / name
    with contextlib.suppress(ArtefactError):
        artefacts.read(directory, "dataset", spec.plain())
        listed = (directory / artefacts.MANIFEST).stat().st_mtime
        if sources.none_is_newer(dataset.sources(spec), listed):
            return directory
    dataset.run(Job("dataset", spec, {}, folder / name))
    return folder / name
