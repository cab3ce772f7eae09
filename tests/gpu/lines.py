"""The lines of the GPU check, each run in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from tests.gpu import commands, ratios, results
from tests.gpu.world import Check, Result, make_world

LINES: dict[str, Callable[[Check], Result]] = results.LINES | commands.LINES | ratios.LINES
WORLD = "world"
_LOG_LINES = 12
# Processes are forked from one that has imported everything and computed nothing: neither CUDA nor OpenMP live on in
# the child of a process that has used them.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


def run(name: str, check: Check, seconds: float) -> Result:
    """Run a line, or make the world of all, for at most so long; whatever happens to it is a result."""
    log = check.folder / "log"
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_run, args=(name, check, sender, log))
    process.start()
    sender.close()
    bound = f"ends in {seconds:.0f} s"
    try:
        if not receiver.poll(seconds):
            return Result("still running", bound, False)
        return receiver.recv()
    except EOFError:  # it died
        process.join()
        return Result(f"ended with {process.exitcode}", bound, False)
    finally:
        process.kill()
        process.join()


def end_of_log(check: Check) -> str:
    """Return the last lines that the last process wrote."""
    return "\n".join((check.folder / "log").read_text(errors="replace").splitlines()[-_LOG_LINES:])


def _run(name: str, check: Check, sender: Connection, log: Path) -> None:
    # Jobs decode in processes that are started as anywhere else: a child of this kind would start its own in its way.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    try:
        if name == WORLD:
            make_world(check)
            sender.send(Result("made", "made", True))
        else:
            sender.send(LINES[name](check))
    except Exception as error:
        traceback.print_exc()
        sender.send(Result(f"{type(error).__name__}", "ends without an error", False))
