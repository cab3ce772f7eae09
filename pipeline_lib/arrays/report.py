"""A report: metrics, tables, figures and one page, in a folder that is complete or not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib import __version__
from pipeline_lib.arrays.evaluation import evaluate
from pipeline_lib.arrays.figures import draw_figures
from pipeline_lib.arrays.inputs import Inputs
from pipeline_lib.arrays.page import build_page
from pipeline_lib.arrays.tables import build_tables
from pipeline_lib.core import artefacts, software
from pipeline_lib.evaluation.metric_rows import write_metric_rows
from pipeline_lib.figures import style
from pipeline_lib.tables import render

STAGE = "evaluate"
DPI = 250


def write_report(inputs: Inputs, name: str, command: str, out: Path) -> str:
    """Evaluate and write the report; returns its main table as Markdown.

    name: the model's. command: what the user typed, shown on the page. out: replaced when it is an earlier report.
    Writes metrics.json (nested), metrics.csv (tidy), samples.parquet (per image), neighbours.npy (where neighbours are
    known), tables/ (csv, md, tex), figures/ (png, pdf) and report.html. Equal inputs give equal bytes.
    """
    report = evaluate(inputs, name)
    nested = report.nested()
    tables = build_tables(report)
    figures = draw_figures(inputs.uncertainties, inputs.correct, name)
    versions = {"pipeline_lib": __version__} | software.versions("numpy", "pandas", "matplotlib")
    files = {
        what: [{"file": path.name, "xxh3_128": artefacts.file_digest(path)} for path in paths]
        for what, paths in inputs.files.items()
    }
    spec = {"name": name, "uncertainties": list(inputs.uncertainties), "bootstrap": nested["bootstrap"], "files": files}
    page = build_page(report, tables, figures, command, files, versions)
    with artefacts.writing(out, STAGE, spec) as draft:
        text = json.dumps(nested | {"files": files, "versions": versions}, indent=1, ensure_ascii=False)
        (draft.path / "metrics.json").write_text(text + "\n", encoding="utf-8")
        write_metric_rows(report.rows(), draft.path / "metrics.csv")
        _samples(inputs).to_parquet(draft.path / "samples.parquet", index=False)
        if inputs.neighbour is not None:
            np.save(draft.path / "neighbours.npy", inputs.neighbour)
        for key, table in tables.items():
            target = draft.path / "tables" / key
            render.write(table, *(target.with_suffix(suffix) for suffix in (".csv", ".md", ".tex")))
        for key, figure in figures.items():
            target = draft.path / "figures" / key
            style.save(figure, target.with_suffix(".png"), target.with_suffix(".pdf"), DPI)
        (draft.path / "report.html").write_text(page, encoding="utf-8")
        draft.facts.update(images=report.images)
    return render.to_markdown(next(iter(tables.values())))


def _samples(inputs: Inputs) -> pd.DataFrame:
    """Return one row per image: whether it is right, its neighbour, its vote entropy; `uncertainty_<name>`."""
    columns = {"row": np.arange(len(next(iter(inputs.uncertainties.values()))))}
    if inputs.correct is not None:
        columns["correct"] = inputs.correct
    if inputs.neighbour is not None:
        columns["neighbour"] = inputs.neighbour
    if inputs.vote_entropy is not None:
        columns["vote_entropy"] = inputs.vote_entropy
    return pd.DataFrame(columns | {f"uncertainty_{name}": values for name, values in inputs.uncertainties.items()})
