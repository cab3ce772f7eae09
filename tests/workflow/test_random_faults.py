"""A few of the faults of `python -m tests.faults`: nothing is lost or wrong in silence, and a refusal is one line."""

from __future__ import annotations

from pathlib import Path

from tests.faults.kinds import FAULTS
from tests.faults.trial import run, table
from tests.workflow.conftest import TINY_WORLD, Workflow

SEED = 1


def test_after_a_fault_the_same_command_ends_with_the_same_bytes_or_says_why_not(
    tiny: Workflow, tmp_path: Path
) -> None:
    pristine = tiny.copy(tmp_path / "pristine")
    outcomes = run(pristine.directory, TINY_WORLD, range(0, len(FAULTS), 3), SEED, tmp_path / "world")
    assert not any(outcome.bad for outcome in outcomes.values()), f"seed {SEED}\n{table(outcomes)}"
