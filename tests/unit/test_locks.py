"""Locks keep a second process out where the file system has them, and nobody where it has none."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from pipeline_lib.core.locks import held


def test_a_second_holder_is_kept_out_until_the_first_ends(tmp_path: Path) -> None:
    with open(tmp_path / "lock", "w") as second:
        with open(tmp_path / "lock", "w") as first:
            assert held(first, fcntl.flock)
            assert not held(second, fcntl.flock)
        assert held(second, fcntl.flock, wait=True)


@pytest.mark.parametrize("refusal", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_keeps_nobody_out(tmp_path: Path, refusal: int) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(refusal, os.strerror(refusal))

    with open(tmp_path / "lock", "w") as lock:
        assert held(lock, refuse)
