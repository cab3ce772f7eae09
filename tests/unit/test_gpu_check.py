"""The check for machines with a GPU (`tests.gpu`) can be run: here on a CPU, in small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_lib.core.gpu_slots import FOLDER_VARIABLE
from tests.gpu import __main__ as gpu_check
from tests.gpu import lines
from tests.gpu.world import TRY, Check, Result

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["float32 is float32", "heads, a step, bfloat16", "nearest neighbours"])
def test_a_line_holds_where_the_cpu_is_compared_with_itself(tmp_path: Path, name: str) -> None:
    assert lines.LINES[name](Check("cpu", TRY, tmp_path)).ok


def test_a_line_that_fails_is_named_and_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = "nearest neighbours"
    monkeypatch.setenv(FOLDER_VARIABLE, "restored")
    monkeypatch.setattr(lines, "run", lambda name, *_: Result("3", "at most 0", name != failing))
    monkeypatch.setattr(lines, "end_of_log", lambda check: "a traceback")
    assert gpu_check.main(["--device", "cpu"]) == 1
    printed, said = capsys.readouterr()
    assert printed.count(" ok ") == len(lines.LINES)  # and the world
    assert printed.count("FAILED") == 1
    assert printed.endswith(f"failed: {failing}\n")
    assert said == "a traceback\n"


@pytest.mark.slow
def test_a_line_that_hangs_or_dies_is_a_failed_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check = Check("cpu", TRY, tmp_path)
    assert lines.run("nearest neighbours", check, 0.01) == Result("still running", "ends in 0 s", False)
    assert lines.run("no such line", check, 300) == Result("KeyError", "ends without an error", False)
    assert "KeyError: 'no such line'" in lines.end_of_log(check)


@pytest.mark.slow
def test_every_line_of_the_check_runs() -> None:
    command = [sys.executable, "-m", "tests.gpu", "--device", "cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("every line holds\n")
