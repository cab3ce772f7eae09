"""The options of methods: read without torch, and the same as those in the method's module."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline_lib.config import kinds

ROOT = Path(__file__).parents[2]


def test_a_config_with_every_method_is_read_without_torch() -> None:
    sections = {kind: {"method": {"kind": kind}} for kind in kinds.kinds("methods")}
    benchmark = {"architectures": {"vit": {"architecture": "test_vit", "methods": sections}}}
    code = (
        "import json, sys; from pipeline_lib.config.benchmark import Benchmark; "
        "print(len(Benchmark.model_validate(json.loads(sys.argv[1])).backbones()), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(benchmark)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == [str(3 * len(sections)), "False"]


@pytest.mark.parametrize("kind", kinds.kinds("methods"))
def test_options_read_alone_are_those_of_the_module(kind: str) -> None:
    alone, whole = kinds.options_class("methods", kind), kinds.load("methods", kind).Options
    assert alone().model_dump() == whole().model_dump()
    assert alone.model_json_schema() == whole.model_json_schema()
    assert alone().kind == kind
    assert all(field.description for name, field in alone.model_fields.items() if name != "kind")
    with pytest.raises(ValidationError):
        alone(kind="other")
