"""The tables of a report. Which metrics they show, and how, is said by the metrics themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

from pipeline_lib.arrays.evaluation import DIFFERENCE, OPTIONS, REJECTED, Report, is_distribution
from pipeline_lib.metrics.found import headed
from pipeline_lib.metrics.metric import Metric
from pipeline_lib.tables.render import NOTHING, Table, interval_heading, number, signed

_INTERVAL = interval_heading(OPTIONS.bootstrap.confidence)
_QUANTILES = {
    "Minimum": "min_unc",
    "10 %": "unc_q10",
    "25 %": "unc_q25",
    "Median": "unc_q50",
    "75 %": "unc_q75",
    "90 %": "unc_q90",
    "Maximum": "max_unc",
}


def build_tables(report: Report) -> dict[str, Table]:
    """Return the tables of a report, by file name.

    The main one is first: `summary`, or `votes` where it isn't known whose neighbour is right. `differences` is there
    for two or more uncertainties, `classes` where labels were given, `worst` where a neighbour is wrong.
    """
    tables: dict[str, Table] = {}
    if report.is_known:
        tables |= {"summary": _summary(report), "rejection": _rejection(report)}
    if len(report.rejection) > 1:
        tables["differences"] = _differences(report)
    if report.classes:
        tables["classes"] = _classes(report)
    if any(report.worst.values()):
        tables["worst"] = _worst(report)
    if report.voted_images:
        tables["votes"] = _votes(report)
    return tables | {"distribution": _distribution(report)}


def compared_metrics(report: Report, of_votes: bool) -> dict[str, tuple[Metric, str]]:
    """Return the metrics that say which uncertainty is better, with their headings, by name: R-AUROC first.

    of_votes: those that compare with votes, or all others.
    """
    found = {name: entry for name in _names(report) if (entry := headed(name))}
    return {
        name: (metric, heading)
        for name, (metric, heading) in found.items()
        if metric.better and ("vote_entropy" in metric.needs) == of_votes
    }


def _summary(report: Report) -> Table:
    metrics = compared_metrics(report, of_votes=False)
    shown = _shown(report, metrics)
    ends = [[report.value(name, f"auroc_correct_ci_{end}") for end in ("low", "high")] for name in report.uncertainties]
    shown.insert(2, _INTERVAL, [NOTHING if math.isnan(low) else f"{low:.3f}–{high:.3f}" for low, high in ends])
    bold = pd.DataFrame(index=shown.index)
    if len(shown) > 1:
        for name, (metric, heading) in metrics.items():
            known = [value for value in _values(report, name) if not math.isnan(value)]
            best = (max if metric.better == "higher" else min)(known, default=math.nan)
            # As shown: what looks equal is equally good.
            bold[heading] = shown[heading].eq(metric.shown(best)) & (shown[heading].nunique() > 1)
    caption = (
        f"How well an uncertainty predicts that an image's nearest neighbour is wrong ({report.images:,} images, "
        f"Recall@1 {report.representation['r1'].value:.3f}). R-AUROC: 0.5 is chance, 1 is perfect; AURC and E-AURC: "
        "smaller is better; AUGRC likewise; coverage: the share of queries that can be kept at this accuracy. "
        f"The interval is a percentile bootstrap over {report.resampled}."
        + (" Bold: the best." if len(shown) > 1 else "")
    )
    measured = [name for name in _names(report) if not is_distribution(name)]
    return Table(_measured(report, measured), shown, bold, caption)


def _votes(report: Report) -> Table:
    metrics = compared_metrics(report, of_votes=True)
    shown = _shown(report, metrics)
    caption = f"Agreement with the votes on {report.voted_images:,} images; no relation is ρ = 0 and AUROC = 0.5."
    return Table(_measured(report, metrics), shown, pd.DataFrame(index=shown.index), caption)


def _differences(report: Report) -> Table:
    values = pd.DataFrame(report.differences())
    ends = zip(values["ci_low"], values["ci_high"], strict=True)
    shown = pd.DataFrame(
        {
            "Uncertainty": values["first"],
            "Against": values["second"],
            "Difference in R-AUROC": [*map(signed, values["difference"])],
            _INTERVAL: [f"{signed(low)} to {signed(high)}" for low, high in ends],
        }
    )
    bold = pd.DataFrame({"Difference in R-AUROC": (values["ci_low"] > 0) | (values["ci_high"] < 0)})
    caption = (
        f"Differences between uncertainties on the same bootstrap resamples of {report.resampled}. "
        "Bold: the interval leaves out zero."
    )
    return Table(values, shown, bold, caption)


def _rejection(report: Report) -> Table:
    rows = [
        {"uncertainty": name} | {f"{share:g}": error for share, error in zip(REJECTED, errors, strict=True)}
        for name, errors in report.rejection.items()
    ]
    values = pd.DataFrame(rows)
    shown = pd.DataFrame({"Uncertainty": values["uncertainty"]})
    for share in REJECTED[::2]:
        shown[f"{100 * share:.0f} %"] = [f"{100 * error:.1f} %" for error in values[f"{share:g}"]]
    caption = "1-NN error after rejecting this share of the queries, the most uncertain first."
    return Table(values, shown, pd.DataFrame(index=shown.index), caption)


def _classes(report: Report) -> Table:
    values = pd.concat(report.classes, names=["uncertainty"]).reset_index("uncertainty").reset_index(drop=True)
    first = next(iter(report.classes))
    table = report.classes[first]
    shown = pd.DataFrame(
        {
            "Class": table["class"].astype(str),
            "Images": [f"{count:,}" for count in table["images"]],
            "1-NN error": [f"{100 * error:.1f} %" for error in table["error"]],
            "R-AUROC": [*map(number, table["r_auroc"])],
            "Median rank of u": [f"{rank:.2f}" for rank in table["median_rank"]],
            "Rejected": [f"{100 * share:.0f} %" for share in table["rejected"]],
            "Own threshold": [_text(f"{value:.4g}") for value in table["threshold"]],
        }
    )
    caption = (
        f"The classes by {first}, the most uncertain first. R-AUROC: within the class. Median rank of u: among all "
        "images, from 0 to 1. Rejected: how much of the class is among the most uncertain tenth of all images; where "
        "that is most of one class and nothing of others, a threshold for each class is fairer. Own threshold: the "
        "value above which the most uncertain tenth of the class lies."
    )
    return Table(values, shown, pd.DataFrame(index=shown.index), caption)


def _worst(report: Report) -> Table:
    first = next(iter(report.uncertainties))
    values = pd.DataFrame(
        [
            {"kind": kind} | {key: value for key, value in vars(query).items() if key != "pictures"}
            for kind, queries in report.worst.items()
            for query in queries
        ]
    )
    neighbour = [NOTHING if row is None or math.isnan(row) else f"{int(row)}" for row in values["neighbour"]]
    shown = pd.DataFrame(
        {
            "Wrong and": values["kind"],
            "Row": values["row"].astype(str),
            "Class": values["label"].replace("", NOTHING),
            "Neighbour's row": neighbour,
            "Neighbour's class": values["neighbour_label"].replace("", NOTHING),
            "Uncertainty": [_text(f"{value:.4g}") for value in values["uncertainty"]],
            "Rank": [f"{rank:.3f}" for rank in values["rank"]],
        }
    )
    caption = (
        f"Queries whose nearest neighbour is wrong: those that {first} is most certain of (what it misses, wrong "
        "labels among them), and those that it is most uncertain of (what it finds). Rank: of the uncertainty among "
        "all images, from 0 to 1."
    )
    return Table(values, shown, pd.DataFrame(index=shown.index), caption)


def _distribution(report: Report) -> Table:
    values = _measured(report, filter(is_distribution, _names(report)))
    shown = pd.DataFrame({"Uncertainty": values["uncertainty"]})
    for heading, name in _QUANTILES.items():
        shown[heading] = [_text(f"{value:.4g}") for value in values[name]]
    return Table(values, shown, pd.DataFrame(index=shown.index), "Quantiles of each uncertainty over the images.")


def _names(report: Report) -> list[str]:
    """Return the names of what was measured of each uncertainty: R-AUROC, its interval, within classes, the others."""
    names = [name for name in next(iter(report.uncertainties.values())) if not name.startswith(DIFFERENCE)]
    first = ("auroc_correct", "auroc_within_classes")
    return sorted(
        names, key=lambda name: next((k for k, begin in enumerate(first) if name.startswith(begin)), len(first))
    )


def _shown(report: Report, metrics: dict[str, tuple[Metric, str]]) -> pd.DataFrame:
    shown = pd.DataFrame({"Uncertainty": list(report.uncertainties)})
    for name, (metric, heading) in metrics.items():
        shown[heading] = [_text(metric.shown(value)) for value in _values(report, name)]
    return shown


def _measured(report: Report, names: Iterable[str]) -> pd.DataFrame:
    columns = {name: _values(report, name) for name in names}
    return pd.DataFrame({"uncertainty": list(report.uncertainties), **columns})


def _values(report: Report, name: str) -> list[float]:
    return [report.value(uncertainty, name) for uncertainty in report.uncertainties]


def _text(text: str) -> str:
    return NOTHING if "nan" in text else text.replace("-", "−")
