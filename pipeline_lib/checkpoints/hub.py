"""Checkpoints on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline_lib.checkpoints.checkpoint import FILES, read_config
from pipeline_lib.core.artefacts import MANIFEST
from pipeline_lib.core.errors import PipelineError

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def local_folder(checkpoint: str | Path, revision: str | None = None) -> Path:
    """Return the folder of a checkpoint; one on the Hub (`owner/name`) is downloaded into the Hub's cache first.

    Raises
    ------
    PipelineError
        When it is neither a folder nor a repository that can be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # that of its HTTP library, whichever

    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    name = str(checkpoint)
    if not _REPOSITORY.fullmatch(name):
        raise PipelineError(f"{name}: no such folder, and not the id of a repository on the Hub (owner/name)")
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*FILES, MANIFEST]))
    except (HTTPError, OSError, ValueError) as error:
        raise PipelineError(
            f"{name}: no such folder, and the Hub can't give a repository of that name ({_reason(error)})"
        ) from None


def push(checkpoint: Path, repository: str, private: bool = True, message: str | None = None) -> str:
    """Upload a checkpoint to the Hub and return the address of the commit.

    The token is that of `hf auth login`, or of the variable HF_TOKEN.

    Parameters
    ----------
    checkpoint
        Its folder.
    repository
        `owner/name`; created where it doesn't exist.
    private
        Whether a new repository is seen by its owner alone.
    message
        Of the commit.

    Raises
    ------
    PipelineError
        When the folder is no checkpoint, the repository's name is not valid, or the Hub refuses or can't be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError, that of its HTTP library
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
    )

    read_config(Path(checkpoint))
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=Path(checkpoint),
            allow_patterns=[*FILES, MANIFEST],
            commit_message=message or "Upload a checkpoint of pretrained visual uncertainties",
        )
    except HFValidationError as error:
        raise PipelineError(f"{repository}: is not a name of a repository, owner/name ({_reason(error)})") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise PipelineError(
            f"{repository}: the Hub refused the upload ({_reason(error)}); try `hf auth login`"
        ) from None
    except HTTPError as error:  # of the connection
        raise PipelineError(
            f"{repository}: the Hub at {api.endpoint} can't be reached ({_reason(error)}); try again with a network"
        ) from None
    return str(commit.commit_url)


def _reason(error: Exception) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
