"""Faults at random, and the same command again: nothing is lost, nothing is wrong in silence, a refusal is one line.

    python -m tests.faults --faults 300 --seed 1

Each fault is injected into the finished tiny world. Then the command is given again, as Snakemake would carry it out
but in this process; where it refuses, what its message says is done. At the end every file is what an undisturbed run
wrote, or `verify` names it, and a last run after `verify --remove` makes it so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.faults.trial import run, table


def main() -> int:
    from tests.workflow.conftest import TINY_WORLD, finished

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=300, help="how many (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (default: 0)")
    parser.add_argument("--number", type=int, help="only the fault of this number")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    numbers = range(arguments.faults) if arguments.number is None else [arguments.number]
    with tempfile.TemporaryDirectory() as folder:
        pristine = finished(Path(folder, "pristine")).directory
        outcomes = run(pristine, TINY_WORLD, numbers, arguments.seed, Path(folder, "world"))
    print(table(outcomes))
    return any(outcome.bad for outcome in outcomes.values())


if __name__ == "__main__":
    sys.exit(main())
