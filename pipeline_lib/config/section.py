"""The base of every config section: unknown keys are errors, values cannot change, true and false are no numbers."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, StringConstraints

from pipeline_lib.core.spec import Checked

Item = TypeVar("Item")


class Section(Checked):
    """A part of the config. Every field carries a description; the JSON Schema is generated from them.

    pydantic's strict types would refuse lists for tuples, and `1e-3`, which is text to YAML: only what Python takes
    for a number and a reader doesn't is refused.
    """

    @classmethod
    def allowed_keys(cls) -> list[str]:
        """Return the keys that the section may have."""
        return list(cls.model_fields)


class KindSection(Section):
    """A section of one of several kinds, each of which has fields of its own."""

    kind: str


# Names become folder names and Snakemake wildcards: nothing that a shell, a path or a wildcard could misread.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("must be even, since the order loss pairs adjacent images")
    return value


def _positive_range(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1]:
        raise ValueError(f"must satisfy 0 < low <= high, not {list(value)}")
    return value


def _range_of_shares(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1] <= 1:
        raise ValueError(f"must satisfy 0 < low <= high <= 1, not {list(value)}")
    return value


def distinct(values: tuple[Item, ...]) -> tuple[Item, ...]:
    """Return values as they are; raises `ValueError` where one occurs twice."""
    if len(set(values)) != len(values):
        raise ValueError("must be distinct")
    return values


def _distinct_and_sorted(values: tuple[int, ...]) -> tuple[int, ...]:
    """Return seeds in ascending order: the order in which a config lists them changes no result."""
    return tuple(sorted(distinct(values)))


# What several sections have: seeds that every library takes, a batch whose adjacent images form pairs, layer widths,
# and ranges to draw from.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_distinct_and_sorted)]
PairedBatch = Annotated[int, Field(ge=2), AfterValidator(_even)]
Widths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
PositiveRange = Annotated[tuple[float, float], AfterValidator(_positive_range)]
RangeOfShares = Annotated[tuple[float, float], AfterValidator(_range_of_shares)]
