"""Progress of a long job: a bar on a terminal, a plain line every 30 seconds in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

_LOG_INTERVAL_SECONDS = 30.0


class Progress:
    """Counts work done and says how fast it goes and when it ends.

    Use as a context manager, or call `close` at the end; call `advance` after each piece of work.

    Parameters
    ----------
    total
        How many units there are.
    unit
        Name of the unit, in the plural.
    description
        What is being done, such as a dataset's name.
    done
        Units that an earlier run had finished; they don't count for the speed, and each line says how many they are.
    stream
        Where to write: a bar when it is a terminal, lines otherwise.
    """

    def __init__(
        self, total: int, unit: str = "images", description: str = "", done: int = 0, stream: TextIO | None = None
    ) -> None:
        self.total, self.unit, self.description, self.done = total, unit, description, done
        self._stream = stream if stream is not None else sys.stderr
        self._done_before = done
        self._start = self._last_line = time.monotonic()
        self._bar: tqdm | None = None
        if self._stream.isatty():
            self._bar = tqdm(
                desc=description, total=total, initial=done, unit=f" {unit}", unit_scale=True, file=self._stream
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the bar, or write a last line."""
        if self._bar is not None:
            self._bar.close()
        else:
            self._write_line()

    def advance(self, count: int) -> None:
        """Note that `count` more units are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._last_line >= _LOG_INTERVAL_SECONDS:
            self._write_line()

    def _write_line(self) -> None:
        now = self._last_line = time.monotonic()
        speed = (self.done - self._done_before) / max(now - self._start, 1e-9)
        line = f"{self.description}: " if self.description else ""
        before = f" ({self._done_before:,} before)" if self._done_before else ""
        line += f"{self.done:,} of {self.total:,} {self.unit}{before}, {speed:,.0f} {self.unit}/s"
        if speed > 0 and self.done < self.total:
            line += f", ETA {tqdm.format_interval((self.total - self.done) / speed)}"
        print(line, file=self._stream, flush=True)
