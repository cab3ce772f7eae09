"""The report as one HTML page that needs nothing else: figures are embedded as SVG, styles are its own."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from pipeline_lib.arrays.evaluation import OPTIONS, Report
from pipeline_lib.arrays.figures import TEXTS
from pipeline_lib.arrays.tables import compared_metrics
from pipeline_lib.pages.parts import as_data, template, typeset
from pipeline_lib.tables.render import Table

# A user's own matplotlibrc must not change a page; the salt makes the names inside an SVG the same every time.
_RC = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith(("backend", "webagg"))} | {
    "svg.hashsalt": "pipeline_lib",
    "text.parse_math": False,
}


def build_page(
    report: Report,
    tables: Mapping[str, Table],
    figures: Mapping[str, Figure],
    command: str,
    files: Mapping[str, Sequence[Mapping[str, str]]],
    versions: Mapping[str, str],
) -> str:
    """Return the page. Equal arguments give equal text.

    Parameters
    ----------
    report, tables, figures
        As `evaluate`, `build_tables` and `draw_figures` return them.
    command
        What the user typed.
    files
        `file` and `xxh3_128` of each file that was read, by what it holds.
    versions
        By package.
    """
    return template(Path(__file__).with_suffix(".html")).render(
        report=report,
        facts=_facts(report),
        tables={name: typeset(table) for name, table in tables.items()},
        figures=[(TEXTS[name], _as_svg(figure)) for name, figure in figures.items()],
        metrics=_metrics(report),
        command=command,
        bootstrap=OPTIONS.bootstrap,
        files=files,
        versions=versions,
    )


def _facts(report: Report) -> list[tuple[str, str]]:
    facts = [("images", f"{report.images:,}")]
    if report.voted_images:
        facts.append(("with votes", f"{report.voted_images:,}"))
    if report.is_known:
        r1, low, high = (report.representation[name].value for name in ("r1", "r1_ci_low", "r1_ci_high"))
        facts.append((f"Recall@1 ({low:.3f}–{high:.3f})", f"{r1:.3f}"))
    facts += [(key, f"{report.facts[key]:,}") for key in ("classes", "dimension") if key in report.facts]
    known = {name: report.value(name, "auroc_correct") for name in report.rejection}
    known = {name: value for name, value in known.items() if not math.isnan(value)}
    if known:
        best = max(known, key=known.__getitem__)
        facts.append((f"{'best ' if len(known) > 1 else ''}R-AUROC ({best})", f"{known[best]:.3f}"))
    return facts


def _metrics(report: Report) -> dict[str, str]:
    """Return what the metrics of the tables mean, by heading; of a family, only the first."""
    metrics = {**compared_metrics(report, of_votes=False), **compared_metrics(report, of_votes=True)}
    first = {metric.name: (heading, metric.description) for metric, heading in reversed(metrics.values())}
    return dict(reversed(first.values()))


def _as_svg(figure: Figure) -> str:
    """Return a figure as SVG, as an address."""
    data = io.BytesIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    return as_data(data.getvalue(), "image/svg+xml")
