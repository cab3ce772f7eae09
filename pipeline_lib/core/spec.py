"""The spec of a job: exactly the values that its stage reads, typed.

Each stage owns a subclass. Its canonical JSON is part of the job's derivation, the argument of the stage's command and
the record in the artefact's manifest. A value that can't change the result (a number of workers) is no part of it; a
field that the job needs all the same (an address to download from) is declared with `exclude=True`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import to_jsonable_python

_SCALARS = frozenset((str, int, float, type(None)))


class Checked(BaseModel):
    """Values that cannot change: unknown names, NaN, and true and false for numbers are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _booleans_are_no_numbers(cls, values: Any) -> Any:
        for name, value in values.items() if isinstance(values, Mapping) else ():
            if type(value) in _SCALARS:
                continue
            items = value if isinstance(value, list) else value.values() if isinstance(value, Mapping) else [value]
            if name in cls.model_fields and any(isinstance(item, bool) for item in items):
                types = _types_inside(cls.model_fields[name].annotation)
                if (int in types or float in types) and bool not in types and Any not in types:
                    raise ValueError(f"{name} must hold numbers, not {value!r}")
        return values


def _types_inside(annotation: Any) -> list[Any]:
    """Return the plain types inside an annotation such as `dict[Name, int] | None`."""
    return [annotation, *(inner for argument in get_args(annotation) for inner in _types_inside(argument))]


class Spec(Checked):
    """Base of every stage's spec.

    A field that is None by default is left out of the canonical JSON where it is None, also in the sections below: an
    option that is added later, with None for "as before", makes nothing stale.
    """

    def plain(self) -> dict[str, Any]:
        """Return the spec as plain JSON values, from which `model_validate` makes an equal one."""
        return _plain(self, everything=False)

    def complete(self) -> dict[str, Any]:
        """Return all fields as plain JSON values, the excluded ones too: a job's process makes its spec of them."""
        return _plain(self, everything=True)


def _plain(value: Any, everything: bool) -> Any:
    if type(value) in _SCALARS:
        return value
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        # None that isn't the default has to be said: read back, the field would become its default.
        said = {
            name: item
            for name, item in value
            if (field := fields.get(name)) is None  # an extra one, such as the share of a split
            or ((item is not None or field.default is not None) and (everything or not field.exclude))
        }
        return {name: _plain(item, everything) for name, item in said.items()}
    if isinstance(value, Mapping):
        return {str(name): _plain(item, everything) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, everything) for item in value]
    return to_jsonable_python(value)
