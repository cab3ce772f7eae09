"""Validation errors as one readable line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ValidationError

from pipeline_lib.core.errors import did_you_mean, one_of

_MOST_SHOWN = 80
# What pydantic calls by the names of Python's types.
_WORDS = {
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
}


def describe(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """Return a fault as `key: what is wrong (value); what is allowed`, and how many more there are.

    It is the first, but for an unknown key, which may be what another fault misses.
    """
    faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    line = _describe_one(faults[0], model, prefix)
    return line + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else "")


def _describe_one(fault: Mapping[str, Any], model: type[BaseModel], prefix: str) -> str:
    location = [str(part) for part in fault["loc"]]
    where = ".".join([prefix, *location] if prefix else location)
    if fault["type"] == "extra_forbidden":
        allowed = _fields_at(model, location[:-1])
        return f"{where}: unknown key; allowed here: {one_of(allowed)}{did_you_mean(location[-1], allowed)}"
    if fault["type"] == "missing":
        return f"{where}: this {'item' if isinstance(fault['loc'][-1], int) else 'key'} is required"
    if fault["type"] == "value_error":
        message = str(fault["ctx"]["error"])
        if not location:  # cross-checks of the whole config name their keys; those of a section don't name the section
            return f"{prefix}: {message}" if prefix else message
        if message.startswith((f"{location[0]}.", f"{location[0]}:")):  # of a section below, described already
            return f"{prefix}.{message}" if prefix else message
        is_section = isinstance(fault["input"], (Mapping, BaseModel))
        return f"{where}: {message}" + ("" if is_section else f" (it is {_shown(fault['input'])})")
    message = _WORDS.get(fault["type"], fault["msg"].replace("Tuple", "List"))
    message = message[0].lower() + message[1:]
    return f"{where}: {_shown(fault['input'])} is not allowed: {message}{_suggestion(fault)}"


def _shown(value: Any) -> str:
    """Return a value as text, short enough for one line."""
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]} ..."


def _suggestion(fault: Mapping[str, Any]) -> str:
    if fault["type"] != "literal_error":
        return ""
    allowed = [part.strip(" '") for part in fault["ctx"]["expected"].replace(" or ", ", ").split(",")]
    return did_you_mean(str(fault["input"]), allowed)


def _fields_at(model: type[BaseModel], location: list[str]) -> list[str]:
    """Return the field names of the section at a location, following nested models, dicts and unions of models."""
    sections: list[type[BaseModel]] = [model]
    for part in location:
        if len(sections) > 1:  # a union of kinds, of which the location names one
            sections = [section for section in sections if part in get_args(section.model_fields["kind"].annotation)]
        elif sections and part in sections[0].model_fields:
            sections = _models_inside(sections[0].model_fields[part].annotation)
        elif sections and sections[0].model_config.get("extra") == "allow":
            sections = _models_inside(get_type_hints(sections[0])["__pydantic_extra__"])
        # Anything else is a name in a dict of sections, or a position in a list.
    if not sections:
        return []
    return sections[0].allowed_keys() if hasattr(sections[0], "allowed_keys") else list(sections[0].model_fields)


def _models_inside(annotation: Any) -> list[type[BaseModel]]:
    """Return the section classes inside an annotation such as `dict[Name, View]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_inside(argument)]
