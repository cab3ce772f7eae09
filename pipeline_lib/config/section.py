"""The base of every config section: unknown keys are errors, values cannot change, types are strict."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints


class Section(BaseModel):
    """A part of the config. Every field carries a description; the JSON Schema is generated from them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


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


def _distinct_seeds(value: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(value)) != len(value) or min(value) < 0:
        raise ValueError(f"must be distinct and not negative, not {list(value)}")
    return value


# What several sections have: a batch whose adjacent images form pairs, layer widths, ranges to draw from, and seeds.
PairedBatch = Annotated[int, Field(ge=2), AfterValidator(_even)]
Widths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
PositiveRange = Annotated[tuple[float, float], AfterValidator(_positive_range)]
RangeOfShares = Annotated[tuple[float, float], AfterValidator(_range_of_shares)]
Seeds = Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(_distinct_seeds)]
