"""How tests are shared out among processes: `make test` runs as many as there are cores."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# They share one finished run of the tiny world.
SHARING_A_RUN = tuple(
    f"tests/workflow/test_{name}.py"
    for name in ("executors", "faults", "logs", "lost_records", "report", "reruns", "slurm")
)


class OneProcessPerFile(LoadScopeScheduling):
    """Keeps the tests of a file in one process, and those that share the tiny world too."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return "the tiny world" if file in SHARING_A_RUN else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Return how tests are shared out."""
    return OneProcessPerFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that share the tiny world first: they take longest.

    Begun last, they would keep one process busy while the others have nothing left to do.
    """
    items.sort(key=lambda item: not item.nodeid.startswith(SHARING_A_RUN))
