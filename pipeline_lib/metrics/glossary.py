"""What every metric means, for the documentation and the report, in text that is Markdown and reStructuredText."""

from __future__ import annotations

import re

from pipeline_lib.metrics.found import Family, found_metrics
from pipeline_lib.metrics.metric import Metric

_SECTIONS: dict[Family, str] = {"metrics": "Of an uncertainty u", "metrics.representation": "Of a representation"}


def glossary() -> str:
    """Return one entry per metric: its heading, its name in metrics.csv, which direction is better, what it means."""
    return "\n".join(
        f"**{heading}**\n\n" + "".join(sorted(map(_entry, found_metrics(family)), key=str.casefold))
        for family, heading in _SECTIONS.items()
    )


def _entry(metric: Metric) -> str:
    heading, better = re.sub(r"{[^}]*}", "…", metric.label), f"; {metric.better} is better" if metric.better else ""
    return f"- **{heading}** (``{metric.name}``{better}): {metric.description}\n"
