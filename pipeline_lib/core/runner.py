"""A job ends with the Snakemake that started it.

After a `kill -9` of Snakemake its jobs would go on, and the same command would start them a second time beside
themselves. Each job therefore watches the process named in its environment, on the same machine.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time

from pipeline_lib.core.processes import is_alive

VARIABLE = "PIPELINE_RUNNER"
_INTERVAL_SECONDS = 1.0


def this_process() -> str:
    """Return this process as jobs find it in `VARIABLE`: `<host>:<process id>`."""
    return f"{socket.gethostname()}:{os.getpid()}"


def end_with_runner(stage: str) -> None:
    """End this process, after one line on stderr, as soon as the runner named in the environment is gone.

    Does nothing when none is named, or one of another machine.
    """
    host, _, process = os.environ.get(VARIABLE, "").rpartition(":")
    if host == socket.gethostname() and process.isdigit():
        threading.Thread(target=_watch, args=(int(process), stage), name="runner", daemon=True).start()


def _watch(process: int, stage: str) -> None:
    _wait(process)
    message = f"{stage}: error: the snakemake that started this job was killed; the same command goes on\n"
    os.write(sys.stderr.fileno(), message.encode())
    os._exit(1)  # whatever the main thread is doing; what it wrote so far is an unpublished draft


def _wait(process: int) -> None:
    """Return when a process is gone: told by the kernel where it can, else by asking every second."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):
        while is_alive(process):
            time.sleep(_INTERVAL_SECONDS)
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()
    os.close(descriptor)
