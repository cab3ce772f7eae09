"""Large pages for large tensors, which networks on a CPU ask for and give back layer by layer.

glibc fetches each of them from the system, 4 KB at a time, unless it is told to ask for large pages. Measured with one
thread: EfficientNet-Lite0 at 128 px infers 47 % more images a second with them, ViT-Ti and ResNet-18 10 to 15 %.
"""

from __future__ import annotations

import os
import sys

VARIABLE = "GLIBC_TUNABLES"
_NAME = "glibc.malloc.hugetlb"


def tunables(before: str | None) -> str:
    """Return the value of `VARIABLE` that asks for large pages; what the user says comes last, and counts."""
    return ":".join(filter(None, [f"{_NAME}=1", before]))


def restart_with_large_pages() -> None:
    """Start this process again if it was not told of large pages: glibc looks at the environment at the start alone."""
    before = os.environ.get(VARIABLE)
    if sys.platform == "linux" and _NAME not in (before or ""):
        os.environ[VARIABLE] = tunables(before)
        os.execv(sys.executable, sys.orig_argv)
