"""Loading by worker processes, any of which may die."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from pipeline_lib.core.errors import PipelineError

_ADVICE = "lower features.workers or features.batch_size; then run snakemake again"

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def loaded(
    load: Callable[[Item], Loaded], items: Sequence[Item], workers: int, ahead: int = 2, advice: str = _ADVICE
) -> Iterator[Loaded]:
    """Yield `load(item)` of each item, in order.

    Worker w loads every `workers`-th item from the w-th on and sends them through a pipe of its own, which ends when it
    dies, wherever it was. The workers of a torch `DataLoader` share locks and a pipe, and their death is a signal that
    interrupts whatever the parent does; killed at a random moment, one in a hundred left it waiting for ever.

    Parameters
    ----------
    load
        Called in the workers with what it knows at the first `next`. Without workers, here.
    items
        What to load.
    workers
        Processes.
    ahead
        Items that each worker holds until they are wanted.
    advice
        What to do if a worker ran out of memory.

    Raises
    ------
    PipelineError
        A worker process died.
    Exception
        What `load` raised.
    """
    if workers == 0:
        yield from map(load, items)
        return
    started: list[_Worker] = []
    try:
        for number in range(min(workers, len(items))):
            started.append(_start(_Work(load, items[number::workers], ahead), [worker.pipe for worker in started]))
        for worker in islice(cycle(started), len(items)):
            raised, result = pickle.loads(_received(worker, advice))
            if raised:
                raise result
            yield result
    finally:
        for process, pipe in started:
            process.kill()
            process.join()
            pipe.close()


class _Work(NamedTuple, Generic[Item]):
    load: Callable[[Item], Any]
    items: Sequence[Item]
    ahead: int


class _Worker(NamedTuple):
    process: BaseProcess
    pipe: Connection


def _start(work: _Work[Any], pipes: Sequence[Connection]) -> _Worker:
    """Start a worker; `pipes` from other workers, which it may inherit, are none of its business."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    with sender:  # closed here, the pipe ends with the worker
        process = multiprocessing.Process(target=_work, args=(work, sender, [*pipes, receiver]), daemon=True)
        process.start()
    return _Worker(process, receiver)


def _received(worker: _Worker, advice: str) -> bytes:
    try:
        return worker.pipe.recv_bytes()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode or 0
        reason = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    raise PipelineError(f"a process that decodes images died ({reason}); if it ran out of memory, {advice}")


def _work(work: _Work[Any], sender: Connection, others: Sequence[Connection]) -> None:
    """Load items, in the worker, and end when all are sent or nobody is left to read them."""
    for pipe in others:
        pipe.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.nice(10)  # runs when the threads of the forward pass don't, which would wait for the one that it holds up
    torch.set_num_threads(1)
    waiting: queue.Queue[bytes | None] = queue.Queue(work.ahead)
    thread = threading.Thread(target=_send, args=(waiting, sender), daemon=True)
    thread.start()
    for item in work.items:
        waiting.put(_packed(work.load, item))
    waiting.put(None)
    thread.join()


def _send(waiting: queue.Queue[bytes | None], sender: Connection) -> None:
    with contextlib.suppress(BrokenPipeError):
        while (message := waiting.get()) is not None:
            sender.send_bytes(message)
        return
    os._exit(0)  # the parent is gone, or wants no more


def _packed(load: Callable[[Any], Any], item: Any) -> bytes:
    """Return the bytes of (whether an exception was raised, the exception or what was loaded)."""
    try:
        return _pickled((False, load(item)))
    except Exception as error:
        error.add_note(f"In a worker process:\n{traceback.format_exc()}")
        try:
            pickle.loads(message := _pickled((True, error)))
            return message
        except Exception:  # of a class that another process doesn't find, or that takes other arguments than it keeps
            return _pickled((True, RuntimeError(f"{type(error).__name__}: {error}")))


def _pickled(value: Any) -> bytes:
    stream = io.BytesIO()
    _Pickler(stream, pickle.HIGHEST_PROTOCOL).dump(value)
    return stream.getvalue()


class _Pickler(pickle.Pickler):
    """Pickles tensors as arrays, which is as fast as copying them."""

    def reducer_override(self, value: Any) -> Any:
        return (torch.from_numpy, (value.numpy(),)) if isinstance(value, Tensor) else NotImplemented
