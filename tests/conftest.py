"""How tests are shared out among processes: `make test` runs as many as there are cores."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# They take longest; but for some of the last, all need the finished run of a tiny world.
FIRST = tuple(
    f"tests/workflow/test_{name}.py"
    for name in ("faults", "reruns", "slurm", "lost_records", "executors", "report", "logs", "methods", "downloads")
)


class OneProcessPerFile(LoadScopeScheduling):
    """Keeps the tests of a file in one process."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.split("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Return how tests are shared out."""
    return OneProcessPerFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first.

    Begun last, they would keep one process busy while the others have nothing left to do.
    """
    place = {file: number for number, file in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.nodeid.split("::")[0], len(FIRST)))
