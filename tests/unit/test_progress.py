from __future__ import annotations

import io

import pytest

from pipeline_lib.core import progress
from pipeline_lib.core.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_thirty_seconds_with_speed_and_end(clock):
    log = io.StringIO()
    with Progress(10_000, "images", "digits", stream=log) as bar:
        for _ in range(8):
            clock[0] += 10
            bar.advance(1000)
        assert log.getvalue().splitlines() == [
            "digits: 3,000 of 10,000 images, 100 images/s, ETA 01:10",
            "digits: 6,000 of 10,000 images, 100 images/s, ETA 00:40",
        ]
        clock[0] += 20
        bar.advance(2000)
    assert log.getvalue().splitlines()[-1] == "digits: 10,000 of 10,000 images, 100 images/s"


def test_what_was_done_before_does_not_count_for_the_speed(clock):
    log = io.StringIO()
    with Progress(1000, "rows", done=500, stream=log) as bar:
        clock[0] += 40
        bar.advance(100)
    assert log.getvalue().splitlines()[0] == "600 of 1,000 rows (500 before), 2 rows/s, ETA 02:40"


def test_a_terminal_gets_a_bar():
    terminal = Terminal()
    with Progress(10, "images", "digits", stream=terminal) as bar:
        bar.advance(10)
    assert "digits: 100%" in terminal.getvalue()
