"""Loading by worker processes, any of which may die."""

from __future__ import annotations

import contextlib
import fcntl
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

_ADVICE = "lower features.workers or features.batch_size (of fit, --workers or --batch-size) and give the command again"

# The most that Linux gives anybody. With its usual 64 KB the processes take turns two dozen times for one photograph.
_PIPE_BYTES = 1 << 20

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
            yield _received(worker, advice)
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
    with contextlib.suppress(AttributeError, OSError):  # macOS, or too many of this user's pipes are large
        fcntl.fcntl(sender, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    with sender:  # closed here, the pipe ends with the worker
        process = multiprocessing.Process(target=_work, args=(work, sender, [*pipes, receiver]), daemon=True)
        process.start()
    return _Worker(process, receiver)


def _received(worker: _Worker, advice: str) -> Any:
    """Return the next item that a worker loaded, or raise what it met."""
    try:
        pickled, sizes = pickle.loads(worker.pipe.recv_bytes())
        with open(worker.pipe.fileno(), "rb", buffering=0, closefd=False) as file:
            memory = [_read(file, size) for size in sizes]
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode or 0
        reason = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        raise PipelineError(
            f"a process that decodes images died ({reason}); if it ran out of memory, {advice}"
        ) from None
    raised, result = pickle.loads(pickled, buffers=memory)
    if raised:
        raise result
    return result


def _work(work: _Work[Any], sender: Connection, others: Sequence[Connection]) -> None:
    """Load items, in the worker, and end when all are sent or nobody is left to read them."""
    for pipe in others:
        pipe.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.nice(10)  # runs when the threads of the forward pass don't, which would wait for the one that it holds up
    torch.set_num_threads(1)
    waiting: queue.Queue[_Message | None] = queue.Queue(work.ahead)
    thread = threading.Thread(target=_send, args=(waiting, sender), daemon=True)
    thread.start()
    for item in work.items:
        waiting.put(_message(work.load, item))
    waiting.put(None)
    thread.join()


class _Message(NamedTuple):
    """A pickle, and apart from it the memory of its arrays, which is copied nowhere but into the pipe and out of it."""

    pickled: bytes
    memory: list[memoryview]


def _send(waiting: queue.Queue[_Message | None], sender: Connection) -> None:
    with contextlib.suppress(OSError):
        while (message := waiting.get()) is not None:
            sender.send_bytes(pickle.dumps((message.pickled, [len(memory) for memory in message.memory])))
            for memory in message.memory:
                while memory:
                    memory = memory[os.write(sender.fileno(), memory) :]
        return
    os._exit(1)  # the parent is gone, or wants no more


def _read(file: io.FileIO, size: int) -> bytearray:
    memory = bytearray(size)
    rest = memoryview(memory)
    while rest:
        count = file.readinto(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return memory


def _message(load: Callable[[Any], Any], item: Any) -> _Message:
    """Return (whether an exception was raised, the exception or what was loaded)."""
    try:
        return _pickled((False, load(item)))
    except Exception as error:
        error.add_note(f"In a worker process:\n{traceback.format_exc()}")
        try:
            message = _pickled((True, error))
            pickle.loads(message.pickled, buffers=message.memory)
            return message
        except Exception:  # of a class that another process doesn't find, or that takes other arguments than it keeps
            return _pickled((True, RuntimeError(f"{type(error).__name__}: {error}")))


def _pickled(value: Any) -> _Message:
    stream, memory = io.BytesIO(), []
    _Pickler(stream, 5, buffer_callback=lambda buffer: memory.append(buffer.raw())).dump(value)
    return _Message(stream.getvalue(), memory)


class _Pickler(pickle.Pickler):
    """Pickles tensors as arrays, whose memory can be left out of the pickle."""

    def reducer_override(self, value: Any) -> Any:
        return (torch.from_numpy, (value.numpy(),)) if isinstance(value, Tensor) else NotImplemented
