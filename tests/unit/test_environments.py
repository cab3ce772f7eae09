"""The pinned environments say the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def pins(file: str) -> list[str]:
    """Return the requirements of a pip file, one per line."""
    lines = (ROOT / "envs" / file).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_conda_installs_the_same_pins_as_pip() -> None:
    dependencies = yaml.safe_load((ROOT / "envs/pipeline.yaml").read_text())["dependencies"]
    assert dependencies[-1]["pip"] == pins("requirements.txt")


def test_every_requirement_of_the_project_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = ["test", "tfds", "huggingface", "webdataset", "distributed", "onnx", "slurm", "cluster-generic"]
    wanted = [*project["dependencies"], *(requirement for extra in named for requirement in extras[extra])]
    names = {re.split(r"[\[<>=!~ ;]", requirement)[0] for requirement in wanted} - {project["name"]}
    pinned = {re.split(r"==", pin)[0].lower().replace("_", "-") for pin in pins("requirements.txt")}
    assert {name.lower().replace("_", "-") for name in names} <= pinned
    assert all(re.match(r"[A-Za-z0-9_.-]+==[^ ]+( ;.*)?$", pin) for pin in pins("requirements.txt"))
