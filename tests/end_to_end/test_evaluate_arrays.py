"""`python -m pipeline_lib evaluate`: arrays in, a complete report out, or one line that says what is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pipeline_lib.__main__ import main
from pipeline_lib.arrays.evaluation import evaluate
from pipeline_lib.arrays.inputs import read_inputs
from pipeline_lib.core import artefacts
from pipeline_lib.evaluation.metric_rows import read_metric_rows

ROOT = Path(__file__).parents[2]
VOID = {"meta", "img", "br", "link", "input", "hr"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred images of five classes, of which noisier ones have larger uncertainties."""
    folder = tmp_path_factory.mktemp("arrays")
    random = np.random.default_rng(0)
    label = random.integers(0, 5, 200)
    noise = random.gamma(2.0, 0.6, 200)
    features = random.normal(size=(5, 8))[label] + noise[:, None] * random.normal(size=(200, 8))
    np.save(folder / "features.npy", features.astype(np.float32))
    pd.DataFrame({"species": np.array(["tit", "jay", "NA", "owl", "wren"])[label]}).to_csv(folder / "y.csv")
    scores = pd.DataFrame({"head": noise + random.normal(size=200) / 3, "random": random.random(200)})
    scores.to_parquet(folder / "u.parquet")
    np.save(folder / "votes.npy", random.multinomial(9, [0.9, 0.1, 0, 0, 0], 200))
    return folder


def sources(world: Path) -> list[str]:
    return [
        *("--features", str(world / "features.npy"), "--labels", f"{world}/y.csv:species"),
        *("--uncertainty", f"{world}/u.parquet:head,random", "--votes", str(world / "votes.npy")),
        *("--name", "Birds"),
    ]


@pytest.fixture(scope="module")
def report(world: Path) -> Path:
    """The report of all files, made by a process that must not have imported torch."""
    code = (
        "import sys; from pipeline_lib.__main__ import main; code = main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "evaluate", *sources(world), "--out", str(world / "first")]
    result = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "1"}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "200 of 200 queries" in result.stderr
    assert "| head |" in result.stdout and "first/report.html" in result.stdout
    return world / "first"


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str], *expected: str) -> None:
    """The stage fails with one line that holds all of this."""
    assert main(["evaluate", *arguments]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    for part in expected:
        assert part in line


def test_everything_is_there_and_verifies(report: Path) -> None:
    manifest = artefacts.read(report, "evaluate")
    figures = {f"figures/{name}.{suffix}" for name in ("rejection", "risk_coverage", "roc", "densities")
               for suffix in ("png", "pdf")}  # fmt: skip
    names = ("summary", "differences", "rejection", "distribution", "votes", "classes", "worst")
    tables = {f"tables/{name}.{suffix}" for name in names
              for suffix in ("csv", "md", "tex")}  # fmt: skip
    others = {"metrics.json", "metrics.csv", "samples.parquet", "neighbours.npy", "report.html"}
    assert set(manifest.files) == figures | tables | others


def test_json_csv_and_samples_agree(world: Path, report: Path) -> None:
    nested = json.loads((report / "metrics.json").read_text())
    rows = read_metric_rows(report / "metrics.csv").set_index(["method", "metric"])["value"]
    samples = pd.read_parquet(report / "samples.parquet")
    species = pd.read_csv(world / "y.csv", keep_default_na=False)["species"].to_numpy()
    right = species[np.load(report / "neighbours.npy")] == species
    assert samples["correct"].tolist() == right.tolist()
    assert nested["representation"]["r1"] == pytest.approx(right.mean())
    for name in ("head", "random"):
        expected = roc_auc_score(~right, samples[f"uncertainty_{name}"])
        assert nested["uncertainties"][name]["auroc_correct"] == pytest.approx(expected, abs=1e-12)
        assert rows[name, "auroc_correct"] == pytest.approx(expected, abs=1e-12)
    assert nested["representation"]["classes"] == 5 and nested["representation"]["dimension"] == 8


def test_the_page_is_whole_and_needs_no_other_file(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    stack: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attributes) -> None:
            for key, value in attributes:
                assert key not in ("href", "srcset")
                assert key != "src" or value.startswith("data:image/svg+xml;base64,")
            assert tag != "img" or dict(attributes)["alt"]
            if tag not in VOID:
                stack.append(tag)

        def handle_endtag(self, tag) -> None:
            assert stack.pop() == tag

    Checker().feed(page)
    assert stack == []
    assert not re.search(r"https?:|url\(|@import|<script", page)
    assert "$" not in re.sub(r"base64,[^\"]*", "", page)  # nothing left to fill in
    assert page.count("<img") == 4
    for text in ("Birds", "R-AUROC", "E-AURC", "prefers-color-scheme: dark", "--uncertainty", "numpy"):
        assert text in page


def test_an_earlier_report_is_replaced_by_equal_bytes_for_equal_input(
    world: Path, report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again"
    shutil.copytree(report, again)
    (again / "metrics.json").write_text("damaged")
    (again / "figures" / "roc.png").unlink()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "900000000")  # a date in a file would differ
    assert main(["evaluate", *sources(world), "--out", str(again)]) == 0
    first, second = files_below(report), files_below(again)
    assert [name for name in first | second if first.get(name) != second.get(name)] == []
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_folders_with_other_files_are_refused(
    world: Path, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(report, tmp_path / "mine")
    (tmp_path / "mine" / "my_notes.txt").write_text("dear diary")
    before = files_below(tmp_path)
    fails([*sources(world), "--out", str(tmp_path / "mine")], capsys, "my_notes.txt", "would be lost")
    fails([*sources(world), "--out", str(tmp_path)], capsys, "holds files but no manifest.json of ours")
    fails([*sources(world), "--out", str(tmp_path / "mine" / "my_notes.txt")], capsys, "is a file")
    assert files_below(tmp_path) == before


def test_known_neighbours_and_known_correctness_give_the_same_numbers(
    world: Path, report: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "right.npy", pd.read_parquet(report / "samples.parquet")["correct"].to_numpy())
    known = {"neighbours": str(report / "neighbours.npy"), "labels": f"{world}/y.csv:species"}
    expected = json.loads((report / "metrics.json").read_text())
    for given in (known, {"correct": str(tmp_path / "right.npy")}):
        nothing = dict.fromkeys(("names", "features", "labels", "neighbours", "correct", "votes"))
        found = evaluate(read_inputs([f"{world}/u.parquet:head,random"], **(nothing | given)), "Birds").nested()
        assert found["representation"]["r1"] == expected["representation"]["r1"]
        assert [one for one in expected["differences"] if one in found["differences"]] == found["differences"]
        for name, metrics in found["uncertainties"].items():
            assert metrics.items() <= expected["uncertainties"][name].items()


def test_bad_input_ends_in_one_line_and_leaves_nothing(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    uncertainty = ["--uncertainty", f"{world}/u.parquet:head"]
    fails([*uncertainty, *out], capsys, "--features and --labels", "--neighbours and --labels", "or --correct")
    np.save(tmp_path / "short.npy", np.zeros(3))
    short = ["--correct", str(tmp_path / "short.npy")]
    fails(["--uncertainty", f"{world}/u.parquet:heat", *out, *short], capsys, "'heat'", "did you mean 'head'")
    fails([*uncertainty, *out, *short], capsys, "short.npy has 3 rows", "has 200")
    assert [path.name for path in tmp_path.iterdir()] == ["short.npy"]


def test_help_ends_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    text = capsys.readouterr().out
    assert text.rstrip().splitlines()[-1].strip().startswith("python -m pipeline_lib evaluate --correct")
    assert max(map(len, text.splitlines())) <= 120
