"""The report as one HTML page that needs nothing else: figures are embedded as SVG, styles are its own."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from pipeline_lib.arrays.figures import TEXTS
from pipeline_lib.tables.render import Table

_TEMPLATE = Path(__file__).with_name("page.html")
# A user's own matplotlibrc must not change a page; the salt makes the names inside an SVG the same every time.
_RC = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith(("backend", "webagg"))} | {
    "svg.hashsalt": "pipeline_lib",
    "text.parse_math": False,
}

_DEFINITIONS = {
    "Recall@1": "Share of images whose nearest other image, by cosine similarity, has the same label.",
    "Right, wrong": "A query is right when its nearest neighbour has its label. 1-NN error is the share of wrong ones.",
    "R-AUROC": "Probability that a random wrong query has a larger uncertainty than a random right one; ties count "
    "half. It depends on the order of the uncertainties alone.",
    "Risk, coverage": "When only the least uncertain share of queries is kept (the coverage), the risk is their error.",
    "AURC": "Mean risk over all coverages; smaller is better. It depends on the error of the model too.",
    "E-AURC": "AURC minus that of an oracle that keeps all right queries first; zero is best.",
    "Coverage at 90 %": "Largest share of queries, the least uncertain first, that keeps at least this accuracy.",
    "Interval": "Central 95 % of the values on bootstrap resamples of the images. Differences are taken on the same "
    "resamples, so they can be sure where single intervals overlap. Neighbours are not searched anew.",
}
_VOTE_DEFINITIONS = {
    "Vote entropy ρ": "Spearman's rank correlation of the uncertainty with the entropy of the human votes.",
    "Ambiguity AUROC": "Probability that an image on which the votes disagree has a larger uncertainty than one on "
    "which all agree.",
}


def build_page(
    report: Mapping[str, Any],
    tables: Mapping[str, Table],
    figures: Mapping[str, Figure],
    command: str,
    files: Mapping[str, Sequence[Mapping[str, str]]],
    versions: Mapping[str, str],
) -> str:
    """Return the page. Equal arguments give equal text.

    report: the result of `evaluate`. tables: of `build_tables`. figures: of `draw_figures`.
    files: `file` and `xxh3_128` of each file that was read. versions: by package.
    """
    definitions = _DEFINITIONS | (_VOTE_DEFINITIONS if "votes" in tables else {})
    bootstrap = report["bootstrap"]
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{report['name']}: uncertainty report"),
        lead="How reliable are the nearest neighbours of this embedding, and does its uncertainty know which are not?",
        facts="".join(f"<div><b>{value}</b><span>{escape(label)}</span></div>" for label, value in _facts(report)),
        notes="".join(f'<p class="note">{escape(note)}</p>' for note in report["notes"]),
        summary=_table(tables["summary"]),
        rejection=_table(tables["rejection"]),
        differences=_section("Which uncertainty is better?", tables.get("differences")),
        votes=_section("Does it follow human disagreement?", tables.get("votes")),
        distribution=_table(tables["distribution"]),
        figures="".join(_figure(name, figure) for name, figure in figures.items()),
        definitions="".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in definitions.items()),
        command=escape(command),
        bootstrap=f"Bootstrap: {bootstrap['resamples']:,} resamples of the images, seed {bootstrap['seed']}.",
        files=_files(files),
        versions=escape("Made with " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."),
    )


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    representation = report["representation"]
    interval = f"{representation['r1_ci_low']:.3f}–{representation['r1_ci_high']:.3f}"
    facts = [("images", f"{report['images']:,}"), (f"Recall@1 ({interval})", f"{representation['r1']:.3f}")]
    facts += [(key, f"{representation[key]:,}") for key in ("classes", "dimension") if key in representation]
    known = {
        name: metrics["auroc_correct"]
        for name, metrics in report["uncertainties"].items()
        if metrics["auroc_correct"] is not None
    }
    if known:
        best = max(known, key=known.__getitem__)
        facts.append((f"{'best ' if len(known) > 1 else ''}R-AUROC ({best})", f"{known[best]:.3f}"))
    return facts


def _section(heading: str, table: Table | None) -> str:
    return "" if table is None else f"<h2>{escape(heading)}</h2>{_table(table)}"


def _table(table: Table) -> str:
    columns = [_alignment(table.shown[column].iloc[0]) for column in table.shown.columns]
    heading = "".join(
        f'<th scope="col"{alignment}>{escape(column)}</th>'
        for column, alignment in zip(table.shown.columns, columns, strict=True)
    )
    rows = []
    for texts, marks in zip(table.shown.to_numpy(), table.bold.to_numpy(), strict=True):
        cells = [
            f"<td{alignment}>{f'<b>{escape(text)}</b>' if mark else escape(text)}</td>"
            for text, mark, alignment in zip(texts[1:], marks[1:], columns[1:], strict=True)
        ]
        rows.append(f'<tr><th scope="row">{escape(texts[0])}</th>{"".join(cells)}</tr>')
    body = f"<thead><tr>{heading}</tr></thead><tbody>{''.join(rows)}</tbody>"
    # The caption stands outside: it must wrap where a wide table scrolls.
    return f'<div class="wide" tabindex="0"><table>{body}</table></div><p class="caption">{escape(table.caption)}</p>'


def _alignment(text: str) -> str:
    """Return the class of a column that holds such a text: names stand on the left, numbers on the right."""
    return "" if text[:1] in "+−–" or text[:1].isdigit() else ' class="text"'


def _figure(name: str, figure: Figure) -> str:
    data = io.BytesIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    encoded = base64.b64encode(data.getvalue()).decode("ascii")
    return f'<figure><img alt="{escape(TEXTS[name])}" src="data:image/svg+xml;base64,{encoded}"></figure>'


def _files(files: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(what)}</th><td class="text">{escape(each["file"])}</td>'
        f'<td class="text"><code>{escape(each["xxh3_128"])}</code></td></tr>'
        for what, read in files.items()
        for each in read
    )
    heading = (
        '<th scope="col">Read</th><th scope="col" class="text">File</th><th scope="col" class="text">XXH3-128</th>'
    )
    return f"<table><thead><tr>{heading}</tr></thead><tbody>{rows}</tbody></table>"
