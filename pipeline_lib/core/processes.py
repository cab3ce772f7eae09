"""Whether another process of this machine still runs."""

from __future__ import annotations

import os


def is_alive(process: int) -> bool:
    """Return whether there is a process with this number, whoever owns it."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
