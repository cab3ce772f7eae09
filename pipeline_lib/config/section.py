"""The base of every config section: unknown keys are errors, values cannot change, true and false are no numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator


class Section(BaseModel):
    """A part of the config. Every field carries a description; the JSON Schema is generated from them.

    pydantic's strict types would refuse lists for tuples, and `1e-3`, which is text to YAML: only what Python takes
    for a number and a reader doesn't is refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @classmethod
    def allowed_keys(cls) -> list[str]:
        """Return the keys that the section may have."""
        return list(cls.model_fields)

    @model_validator(mode="before")
    @classmethod
    def _booleans_are_no_numbers(cls, section: Any) -> Any:
        for name, value in section.items() if isinstance(section, Mapping) else ():
            items = value if isinstance(value, list) else value.values() if isinstance(value, Mapping) else [value]
            if name in cls.model_fields and any(isinstance(item, bool) for item in items):
                types = _types_inside(cls.model_fields[name].annotation)
                if (int in types or float in types) and bool not in types and Any not in types:
                    raise ValueError(f"{name} must hold numbers, not {value!r}")
        return section


class KindSection(Section):
    """A section of one of several kinds, each of which has fields of its own."""

    kind: str


def _types_inside(annotation: Any) -> list[Any]:
    """Return the plain types inside an annotation such as `dict[Name, int] | None`."""
    return [annotation, *(inner for argument in get_args(annotation) for inner in _types_inside(argument))]


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


def _distinct_and_sorted(values: tuple[int, ...]) -> tuple[int, ...]:
    """Return seeds in ascending order: the order in which a config lists them changes no result."""
    if len(set(values)) != len(values):
        raise ValueError("must be distinct")
    return tuple(sorted(values))


# What several sections have: seeds that every library takes, a batch whose adjacent images form pairs, layer widths,
# and ranges to draw from.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_distinct_and_sorted)]
PairedBatch = Annotated[int, Field(ge=2), AfterValidator(_even)]
Widths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
PositiveRange = Annotated[tuple[float, float], AfterValidator(_positive_range)]
RangeOfShares = Annotated[tuple[float, float], AfterValidator(_range_of_shares)]
