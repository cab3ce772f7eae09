"""`make benchmark`: every benchmark, each in a process of its own; fails when a ratio misses its bound."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = ("heads", "cache", "neighbours", "extraction", "evaluation", "datasets", "scoring", "planning", "coverage")

if __name__ == "__main__":
    failed = [
        name
        for name in BENCHMARKS
        if subprocess.run([sys.executable, "-m", f"tests.benchmarks.benchmark_{name}"], check=False).returncode
    ]
    if failed:
        sys.exit(f"missed its bound: {', '.join(failed)}")
