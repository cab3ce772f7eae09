"""What a metric is: how it is called and read, and how it is computed.

A module lists its metrics as `METRICS`, by which it is known. In `pipeline_lib/metrics/` they are of an uncertainty, in
its folder `representation` of a representation. What `compute` may need is listed in
`pipeline_lib/evaluation/measures.py`. It refuses NaN (`checks.require_no_nan`) and, where the metric is undefined,
returns NaN with a warning that names the dataset.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple


class Value(NamedTuple):
    """A metric's value and the number of images that it was computed from."""

    value: float
    n: int


@dataclass(frozen=True)
class Metric:
    """A metric, or a family of metrics that are computed together.

    Attributes
    ----------
    name
        What its rows in metrics.csv are called. In a family `{...}` stands for what differs, as in `unc_q{percent}`.
    label
        How tables and pages head it; in a family formatted with what differs.
    better
        Which direction is better; "" for what is neither good nor bad.
    description
        What it means, in a sentence or two.
    compute
        Returns its value, a `Value` where it is about fewer or more than all images, or, of a family, values by name.
        None: the stage that measures it does so with others.
    needs
        The arguments of `compute`, by name; it is computed where all of them are known (see `evaluation.measures`).
    form
        How a value is shown, as in f-strings; `z` takes the minus from what rounds to zero.
    is_shown
        Whether the table of all metrics shows it; metrics.csv has every metric.
    """

    name: str
    label: str
    better: Literal["higher", "lower", ""]
    description: str
    compute: Callable[..., float | Value | Mapping[str, float]] | None = None
    needs: tuple[str, ...] = ()
    form: str = "z.3f"
    is_shown: bool = True

    def values(self, known: Mapping[str, Any], n: int) -> dict[str, Value]:
        """Return its values by name, or none where something that it needs is not known.

        Parameters
        ----------
        known
            What may be needed, by name.
        n
            Number of images.
        """
        if self.compute is None or not known.keys() >= set(self.needs):
            return {}
        found = self.compute(*(known[name] for name in self.needs))
        if isinstance(found, Mapping):
            return {name: Value(value, n) for name, value in found.items()}
        return {self.name: found if isinstance(found, Value) else Value(found, n)}

    def label_of(self, name: str) -> str | None:
        """Return how a metric is headed, such as "Coverage at R@1 90 %"; None where it is not of this family."""
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", re.escape(self.name))
        found = re.fullmatch(pattern, name)
        if found is None:
            return None
        differs = {key: _number(text) for key, text in found.groupdict().items()}
        # As many decimals of a share as it has: 90 %, 99.5 %.
        text = re.sub(r"\d+\.\d+(?=%)", lambda share: f"{float(share[0]):g}", self.label.format(**differs))
        return text.replace("%", " %")

    def shown(self, value: float) -> str:
        """Return a value as text, with a real minus, and none before a value that rounds to zero."""
        return f"{value:{self.form}}".replace("%", " %").replace("-", "−")


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
