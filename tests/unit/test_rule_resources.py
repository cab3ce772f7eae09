"""What rules ask a cluster for, read from their text: a plan shows only those jobs that a config has."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEFINITION = re.compile(
    r"^ *(?:(?:rule|checkpoint) (?P<name>\w+):|use rule (?P<origin>\w+) as (?P<heir>\w+) with:|rule:)$", re.MULTILINE
)


def rules() -> dict[str, str]:
    """Return the text of every rule by its name; one that is made from another has that one's text before its own.

    A name that depends on the config reads like `heads_<...>`.
    """
    found: dict[str, str] = {}
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        text = path.read_text()
        starts = list(DEFINITION.finditer(text))
        ends = [start.start() for start in starts[1:]] + [len(text)]
        for start, end in zip(starts, ends[: len(starts)], strict=True):
            body = text[start.end() : end]
            if start["heir"]:
                found[start["heir"]] = found[start["origin"]] + body
            elif start["name"]:
                found[start["name"]] = body
            else:
                name = re.search(r'name:\n *(?:f"(.*)"|(\w+))\n', body)
                assert name, f"{path.name}: a rule without a name"
                bundles = re.search(r"for BUNDLE, \w+ in (\w+)_BUNDLES", text)
                several = re.search(r"TOGETHER = {(.*)}", text)
                if name[2] and bundles:
                    names = [f"{bundles[1].lower()}_<...>"]
                else:
                    kinds = re.findall(r'"(\w+)":', several[1]) if several else []
                    names = [name[1].format(name=kind) for kind in kinds] or [name[1]]
                found |= dict.fromkeys(names, body)
    return found


SUBMITTED = {name: body for name, body in rules().items() if "shell:" in body and "localrule: True" not in body}
ASK_FOR_A_GPU = {name for name, body in SUBMITTED.items() if re.search(r"^ +gpu=", body, re.MULTILINE)}


def test_every_job_that_is_submitted_asks_for_memory_and_time_and_for_more_when_tried_again() -> None:
    assert {"dataset", "task_loss", "evaluate_heads", "evaluation_<...>", "export"} <= set(SUBMITTED)
    for name, body in SUBMITTED.items():
        for resource in ("mem_mb", "runtime"):
            assert f"{resource}=larger_each_attempt(" in body, f"{name} asks for no {resource}"


def test_every_job_that_may_use_a_gpu_reserves_its_threads() -> None:
    assert {name for name in ASK_FOR_A_GPU if "    threads:" not in SUBMITTED[name]} == set()


def test_the_page_on_clusters_names_the_rules_that_ask_for_a_gpu() -> None:
    page = (ROOT / "docs/cluster.md").read_text()
    named = re.search(r"for the rules that ask for one \((.*?)\)", page, re.DOTALL)
    assert named
    assert set(re.findall(r"`(.*?)`", named[1])) == ASK_FOR_A_GPU
