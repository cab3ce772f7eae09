"""Prepare a set of TensorFlow Datasets as array_record files: fetches it, writes its folder and manifest.json.

A set that is prepared already is left as it is; that takes neither TensorFlow nor TensorFlow Datasets.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_lib.core.jobs import Input, Job, Refs
from pipeline_lib.datasets.spec import DatasetSpec as Spec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config
    from pipeline_lib.datasets.tfds import Options

INPUTS: tuple[Input, ...] = ()
OUTPUT = "downloads/{dataset}"


def inputs(config: Config, dataset: str) -> Refs:
    """Return nothing: the files come from elsewhere."""
    return {}


def run(job: Job[Spec]) -> None:
    """Prepare the set where it is not prepared, then write the record.

    Its facts are the set's folder (relative to `tfds_dir`), its version and the number of records per TFDS split.
    """
    from pipeline_lib.core.errors import PipelineError
    from pipeline_lib.datasets import tfds
    from pipeline_lib.datasets.base import resolve

    options, data_dir = job.spec.options, Path(job.spec.data_dir)
    if not isinstance(options, tfds.Options):
        raise PipelineError(f"dataset '{job.spec.name}' is of kind '{options.kind}'; only kind 'tfds' is prepared")
    root = resolve(data_dir, options.tfds_dir)
    if tfds.prepared_folder(options, data_dir) is None:
        _prepare(options, root)
    directory = tfds.prepared_folder(options, data_dir)
    if directory is None:
        raise PipelineError(f"{root}: TFDS prepared '{tfds.set_name(options)}', but not there; check 'version'")
    info = tfds.read_info(directory)
    with job.writing() as draft:
        draft.facts.update(
            folder=directory.relative_to(root).as_posix(),
            version=directory.name,
            splits={split["name"]: sum(map(int, split["shardLengths"])) for split in info["splits"]},
        )


def _prepare(options: Options, root: Path) -> None:
    """Let TFDS fetch and prepare a set below `root`.

    Raises
    ------
    PipelineError
        TensorFlow or files to be placed by hand are missing, TFDS has no such set, or fetching or preparing it fails;
        what TFDS has fetched stays in `root/downloads`, so that the next attempt goes on from there.
    """
    from pipeline_lib.core.errors import PipelineError, one_line, one_of
    from pipeline_lib.datasets.tfds import by_hand, set_name

    name = set_name(options)
    if first := by_hand(options, root):
        raise PipelineError(f"TFDS set '{name}' is fetched by hand: {first}, then run snakemake again")
    library = _import_libraries(name)
    try:
        builder = library.builder(name, data_dir=root)
    except Exception as error:  # unknown names, configurations and versions: TFDS has a class for each
        raise PipelineError(
            f"TFDS has no set '{name}' ({one_line(error)}); check 'name', 'config' and 'version'"
        ) from None
    if builder.builder_config and not options.tfds_config():
        raise PipelineError(
            f"TFDS set '{name}' has configurations; give one as 'config': {one_of(builder.builder_configs)}"
        )
    instructions, manual = builder.MANUAL_DOWNLOAD_INSTRUCTIONS, root / "downloads/manual"
    if instructions and not (manual.is_dir() and any(manual.iterdir())):
        raise PipelineError(
            f"TFDS set '{name}' is fetched by hand into {manual} ({one_line(instructions)}), then run snakemake again"
        )
    # Its authors' prepared copies, on Google's servers, are in a format that can't be read at random.
    download = library.download.DownloadConfig(try_download_gcs=False)
    try:
        builder.download_and_prepare(file_format="array_record", download_config=download)
    except Exception as error:  # whatever a builder raises: the network, a checksum, a file placed by hand
        cause = f"{type(error).__name__}: {one_line(error)}"
        raise PipelineError(
            f"TFDS set '{name}' can't be prepared in {root} ({cause}); what was fetched is kept: run snakemake again"
        ) from error


def _import_libraries(name: str) -> Any:
    from pipeline_lib.core.errors import PipelineError

    try:
        importlib.import_module("tensorflow")  # TFDS would ask for it after hours of fetching
        import tensorflow_datasets
    except ImportError as error:
        raise PipelineError(
            f"TFDS set '{name}' is not prepared, and preparing it takes TensorFlow ({error}): run `make tfds`, which "
            "makes .venv-tfds with envs/tfds.txt, or use snakemake --software-deployment-method conda"
        ) from None
    return tensorflow_datasets
