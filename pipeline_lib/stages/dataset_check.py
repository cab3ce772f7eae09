"""Check a dataset of the config by hand: `dataset NAME --check`."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.config import kinds, specs
from pipeline_lib.config.load import load_config
from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import ArtefactError, PipelineError, did_you_mean, one_of
from pipeline_lib.stages.dataset_card import write_card

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config


def check(name: str, config_file: Path) -> None:
    """Print the card of a dataset and write it to `<results_dir>/cards/<name>`.

    The indexes of the workflow are used where they are up to date; otherwise the images are listed anew, and the index
    is not kept. Raises `PipelineError` for a name that the config doesn't have.
    """
    config = load_config(config_file)
    if name not in config.datasets:
        raise PipelineError(
            f"{config_file}: has no dataset '{name}'; it has {one_of(config.datasets)}"
            f"{did_you_mean(name, config.datasets)}"
        )
    cards = Path(config.results_dir) / "cards"
    upstream = config.upstream.dataset
    with tempfile.TemporaryDirectory() as folder:
        directories = {each: index_of(config, each, Path(folder)) for each in {name, upstream}}
        # What is checked is decoded anew; the upstream set that it is compared with need not be.
        known = None if name == upstream else cards / upstream
        print(write_card([directories[name]], cards / name, directories[upstream], known), end="")
    print(f"Written to {cards / name}: card.md, card.html, card.json and contact_sheet.png.")


def index_of(config: Config, name: str, folder: Path) -> Path:
    """Return the workflow's index of a dataset or, where it has none or an old one, list the images below `folder`."""
    from pipeline_lib.datasets.images import STAGE, write_dataset

    directory = Path(config.results_dir) / "datasets" / name
    spec = specs.dataset_spec(config, name)
    options = config.datasets[name]
    with contextlib.suppress(ArtefactError):
        manifest = artefacts.read(directory, STAGE, spec)
        listed = (manifest.directory / artefacts.MANIFEST).stat().st_mtime
        watched = kinds.load("datasets", options.kind).watched_files(options, Path(config.data_dir))
        if all(path.exists() and path.stat().st_mtime <= listed for path in watched):
            return directory
    write_dataset(spec, folder / name)
    return folder / name
