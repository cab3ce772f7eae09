"""Shell scripts that mount small or read-only file systems, which nobody else sees and which end with the script."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import pytest

_COMMAND = ("unshare", "--map-root-user", "--mount", "bash", "-c")


def in_namespace(script: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a bash script with mounts of its own; it exits with 77 where one fails. Skips where this is refused."""
    if refusal := _refusal():
        pytest.skip(f"a file system can't be mounted in a namespace of one's own here: {refusal}")
    command = [*_COMMAND, script, "bash", *map(str, arguments)]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode != 77, result.stderr
    return result


@functools.cache
def _refusal() -> str | None:
    """Return why this machine (a container, another system than Linux) refuses, or None."""
    try:
        probe = subprocess.run(
            [*_COMMAND, "mount -t tmpfs -o size=8k tmpfs /tmp && mount --bind -o ro /tmp /tmp"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        return str(error)
    return (probe.stderr.strip() or f"exit status {probe.returncode}") if probe.returncode else None
