"""The tables of a report."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from pipeline_lib.arrays.evaluation import ACCURACIES, REJECTED
from pipeline_lib.tables.render import NOTHING, Table, number

_QUANTILES = {
    "Minimum": "min_unc",
    "10 %": "unc_q10",
    "25 %": "unc_q25",
    "Median": "unc_q50",
    "75 %": "unc_q75",
    "90 %": "unc_q90",
    "Maximum": "max_unc",
}


def build_tables(report: dict[str, Any]) -> dict[str, Table]:
    """Return the tables of a report (the result of `evaluate`), by file name.

    `differences` is there for two or more uncertainties, `votes` where votes were given.
    """
    tables = {"summary": _summary(report), "rejection": _rejection(report), "distribution": _distribution(report)}
    if report["differences"]:
        tables["differences"] = _differences(report)
    if all("rcorr_entropy" in metrics for metrics in report["uncertainties"].values()):
        tables["votes"] = _votes(report)
    return tables


def _summary(report: dict[str, Any]) -> Table:
    headings = {"auroc_correct": "R-AUROC", "interval": "95 % interval", "aurc": "AURC", "e_aurc": "E-AURC"}
    headings |= {f"coverage_at_r1_{accuracy:g}": f"Coverage at {100 * accuracy:.0f} %" for accuracy in ACCURACIES}
    # The side that is better; an interval has none.
    better = {"auroc_correct": max, "aurc": min, "e_aurc": min}
    better |= {f"coverage_at_r1_{accuracy:g}": max for accuracy in ACCURACIES}
    values, lines = [], []
    for name, metrics in report["uncertainties"].items():
        single = {key: _known(value) for key, value in metrics.items() if not isinstance(value, dict)}
        values.append({"uncertainty": name, **single})
        line = {"Uncertainty": name}
        for key, heading in headings.items():
            if key == "interval":
                line[heading] = _interval(metrics["auroc_correct_ci_low"], metrics["auroc_correct_ci_high"])
            elif key.startswith("coverage"):
                line[heading] = f"{100 * metrics[key]:.1f} %"
            else:
                line[heading] = _signed(number(_known(metrics[key]), 4 if "aurc" in key else 3))
        lines.append(line)
    shown, measured = pd.DataFrame(lines), pd.DataFrame(values)
    bold = _nothing_bold(shown)
    if len(shown) > 1:
        for key, best in better.items():
            rounded = measured[key].round(4 if "aurc" in key else 3)  # as shown: what looks equal is equally good
            bold[headings[key]] = rounded.eq(best(rounded.dropna(), default=math.nan)) & (rounded.nunique() > 1)
    caption = (
        f"How well an uncertainty predicts that an image's nearest neighbour is wrong ({report['images']:,} images, "
        f"Recall@1 {report['representation']['r1']:.3f}). R-AUROC: 0.5 is chance, 1 is perfect; AURC and E-AURC: "
        "smaller is better; coverage: the share of queries that can be kept at this accuracy."
        + (" Bold: the best." if len(shown) > 1 else "")
    )
    return Table(measured, shown, bold, caption)


def _differences(report: dict[str, Any]) -> Table:
    entries = report["differences"]
    values = pd.DataFrame([{key: _number_or_text(each[key]) for key in each} for each in entries])
    shown = pd.DataFrame(
        {
            "Uncertainty": [each["first"] for each in entries],
            "Against": [each["second"] for each in entries],
            "Difference in R-AUROC": [_signed(f"{_known(each['difference']):+.3f}") for each in entries],
            "95 % interval": [_interval(each["ci_low"], each["ci_high"], plus=True) for each in entries],
        }
    )
    bold = _nothing_bold(shown)
    bold["Difference in R-AUROC"] = [_known(each["ci_low"]) > 0 or _known(each["ci_high"]) < 0 for each in entries]
    caption = (
        "Differences between uncertainties on the same bootstrap resamples of the images. "
        "Bold: the interval leaves out zero."
    )
    return Table(values, shown, bold, caption)


def _votes(report: dict[str, Any]) -> Table:
    headings = {"rcorr_entropy": "Vote entropy ρ", "auroc_not_dirac": "Ambiguity AUROC"}
    entries = report["uncertainties"]
    values = pd.DataFrame(
        [{"uncertainty": name} | {key: _known(metrics[key]) for key in headings} for name, metrics in entries.items()]
    )
    shown = pd.DataFrame({"Uncertainty": list(entries)})
    for key, heading in headings.items():
        shown[heading] = [_signed(number(value)) for value in values[key]]
    voted = max(metrics["voted_images"] for metrics in entries.values())
    caption = f"Agreement with the votes on {voted:,} images; no relation is ρ = 0 and AUROC = 0.5."
    return Table(values, shown, _nothing_bold(shown), caption)


def _rejection(report: dict[str, Any]) -> Table:
    rows = [{"uncertainty": name, **metrics["rejection"]} for name, metrics in report["uncertainties"].items()]
    lines = [
        {"Uncertainty": row["uncertainty"]}
        | {f"{100 * share:.0f} %": f"{100 * row[f'{share:g}']:.1f} %" for share in REJECTED[::2]}
        for row in rows
    ]
    shown = pd.DataFrame(lines)
    caption = "1-NN error after rejecting this share of the queries, the most uncertain first."
    return Table(pd.DataFrame(rows), shown, _nothing_bold(shown), caption)


def _distribution(report: dict[str, Any]) -> Table:
    rows = [{"uncertainty": name, **metrics["distribution"]} for name, metrics in report["uncertainties"].items()]
    lines = [
        {"Uncertainty": row["uncertainty"]}
        | {heading: _signed(f"{row[key]:.4g}") for heading, key in _QUANTILES.items()}
        for row in rows
    ]
    shown = pd.DataFrame(lines)
    return Table(pd.DataFrame(rows), shown, _nothing_bold(shown), "Quantiles of each uncertainty over the images.")


def _nothing_bold(shown: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(False, index=shown.index, columns=shown.columns)


def _interval(low: float | None, high: float | None, plus: bool = False) -> str:
    if low is None or high is None:
        return NOTHING
    return _signed(f"{low:+.3f} to {high:+.3f}" if plus else f"{low:.3f}–{high:.3f}")


def _signed(text: str) -> str:
    return NOTHING if "nan" in text else text.replace("-", "−")


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _number_or_text(value: float | str | None) -> float | str:
    return value if isinstance(value, str) else _known(value)
