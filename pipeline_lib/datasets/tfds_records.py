"""Records of array_record files, read in a process that does nothing else.

The array_record library keeps threads that a forked process does not inherit: once a process has opened a file, the
workers that it forks crash or hang when they open one. Here each process that reads starts this file as a program, one
process with threads of its own, which ends with it. The program needs array_record alone.

A request is one line of JSON, [file, number]; the answer the record's size as int64 and its bytes, or minus the size
of a message and the message.
"""

from __future__ import annotations

import functools
import json
import os
import struct
import subprocess
import sys
import threading
from typing import IO, Any, cast

_SIZE = struct.Struct("<q")
# More files than most sets have, and fewer than a process may open.
_OPEN_FILES = 256


def read_record(file: str, number: int) -> bytes:
    """Return the record at a position of a file. Safe in threads and in forked or spawned processes.

    Raises
    ------
    OSError
        There is no such file or record, or it is damaged.
    """
    return _reader_of_process(os.getpid()).read(file, number)


class _Reader:
    def __init__(self) -> None:
        # -P: the folder of this file must not be searched for modules.
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._requests, self._answers = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        self._lock = threading.Lock()

    def read(self, file: str, number: int) -> bytes:
        with self._lock:
            try:
                self._requests.write(json.dumps([file, number]).encode() + b"\n")
                self._requests.flush()
                (size,) = _SIZE.unpack(self._answers.read(_SIZE.size))
                content = self._answers.read(abs(size))
            except (BrokenPipeError, struct.error):
                _reader_of_process.cache_clear()
                raise OSError(f"the process that reads it ended (exit status {self._process.wait()})") from None
        if size < 0:
            raise OSError(content.decode())
        return content


# Without a limit: a forked process must not drop (and so flush and close) the pipes of the process that forked it.
@functools.cache
def _reader_of_process(process: int) -> _Reader:
    return _Reader()


@functools.lru_cache(maxsize=_OPEN_FILES)
def _open(file: str) -> Any:
    from array_record.python import array_record_module

    # Without read-ahead: the records are asked for in any order.
    return array_record_module.ArrayRecordReader(file, options="readahead_buffer_size:0", file_reader_buffer_size=32768)


def _serve() -> None:
    for line in sys.stdin.buffer:
        try:
            file, number = json.loads(line)
            content = _open(file).read([number])[0]
            answer = _SIZE.pack(len(content)) + content
        except Exception as error:  # goes to the process that asked
            message = " ".join(str(error).split()) or type(error).__name__
            answer = _SIZE.pack(-len(message.encode())) + message.encode()
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()
