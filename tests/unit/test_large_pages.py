from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipeline_lib.core.large_pages import VARIABLE, tunables


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, "glibc.malloc.hugetlb=1"), ("glibc.malloc.arena_max=2", "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=2")],
)
@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_a_process_starts_again_once_with_the_same_arguments(before: str | None, after: str) -> None:
    script = (
        "import os, sys\n"
        "from pipeline_lib.core.large_pages import restart_with_large_pages\n"
        "print('started', flush=True)\n"
        "restart_with_large_pages()\n"
        f"print(os.environ[{VARIABLE!r}], *sys.argv[1:])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment |= {} if before is None else {VARIABLE: before}
    done = subprocess.run([sys.executable, "-c", script, "a b"], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["started", "started", f"{after} a b"]


def test_the_users_word_counts() -> None:
    """Glibc takes the last of two."""
    assert tunables("glibc.malloc.hugetlb=0").endswith("hugetlb=0")
