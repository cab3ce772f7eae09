"""The encoding of names: UTF-8, or the same files would have other names, and results other bytes, elsewhere."""

from __future__ import annotations

import sys

from pipeline_lib.core.errors import PipelineError


def require_utf8() -> None:
    """Raise `PipelineError` where Python takes names of files for another encoding, as in old locales and in C."""
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        raise PipelineError(f"names of files are read as {encoding} here; set PYTHONUTF8=1, or LC_ALL=C.UTF-8")
