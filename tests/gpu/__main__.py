"""`make gpu-check`: does the library compute on this machine's GPU what it computes on the CPU, and how fast?

A table, line by line: what was measured, its bound, whether it holds. A line that fails or hangs hides no other. Exit
code 1 if one failed. See docs/gpu.md, also for a machine without a network.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from pipeline_lib.core.gpu_slots import FOLDER_VARIABLE
from tests.gpu import lines
from tests.gpu.world import TRY, Check, Sizes

_FORMAT = "{:<36} {:<34} {:<22} {:<6} {:>5}"


def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns 1 if a line failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: try the check itself, in small")
    parser.add_argument("--only", default="", metavar="TEXT", help="the lines whose names contain it")
    chosen = parser.parse_args(arguments)
    on_gpu = chosen.device == "cuda"
    if on_gpu and not torch.cuda.device_count():
        parser.error("torch sees no GPU here; --device cpu tries the check itself")
    device = torch.cuda.get_device_name() if on_gpu else "CPU"
    cores = len(os.sched_getaffinity(0))
    print(f"{device}, {cores} cores, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}", flush=True)
    print(_FORMAT.format("line", "measured", "bound", "", "s"), flush=True)
    failed = []
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        check = Check(chosen.device, Sizes() if on_gpu else TRY, Path(folder))
        deadline = time.monotonic() + check.sizes.all_seconds
        # Not those of other jobs of this machine: a line that waits for one of them would fail.
        os.environ[FOLDER_VARIABLE] = str(check.folder / "locks")
        for name in (lines.WORLD, *(line for line in lines.LINES if chosen.only in line)):
            start = time.monotonic()
            result = lines.run(name, check, max(1.0, min(check.sizes.seconds, deadline - start)))
            seconds = f"{time.monotonic() - start:.1f}"
            verdict = "ok" if result.ok else "FAILED"
            print(_FORMAT.format(name, result.measured, result.bound, verdict, seconds), flush=True)
            if not result.ok:
                failed.append(name)
                print(lines.end_of_log(check), file=sys.stderr, flush=True)
    print(f"failed: {'; '.join(failed)}" if failed else "every line holds")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
