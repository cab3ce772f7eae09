"""Checkpoints on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline_lib.errors import PipelineError
from pipeline_lib.pretrained.checkpoint import FILES, read_config

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def local_folder(checkpoint: str | Path, revision: str | None = None) -> Path:
    """Return the folder of a checkpoint; one of the Hub (`owner/name`) is downloaded into its cache first.

    Raises `PipelineError` when it is neither a folder nor a repository that can be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    name = str(checkpoint)
    if not _REPOSITORY.fullmatch(name):
        raise PipelineError(f"{name}: no such folder, and not the id of a repository on the Hub (owner/name)")
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise PipelineError(
            f"{name}: no such folder, and the Hub can't give a repository of that name ({reason})"
        ) from None


def push(checkpoint: Path, repository: str, private: bool = True, message: str | None = None) -> str:
    """Upload a checkpoint to the Hub and return the address of the commit; the repository is made where it isn't there.

    repository: `owner/name`. private: of a new repository.
    The token is the one of `hf auth login` or the variable HF_TOKEN. Raises `PipelineError` when the folder is no
    checkpoint, and when the Hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    read_config(Path(checkpoint))
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=Path(checkpoint),
            allow_patterns=list(FILES),
            commit_message=message or "Upload a checkpoint of pretrained visual uncertainties",
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise PipelineError(f"{repository}: the Hub refused the upload ({reason}); try `hf auth login`") from None
    return str(commit.commit_url)
