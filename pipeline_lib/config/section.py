"""The base of every config section: unknown keys are errors, values cannot change, types are strict."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints


class Section(BaseModel):
    """A part of the config. Every field carries a description; the JSON Schema is generated from them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


# Names become folder names and Snakemake wildcards: nothing that a shell, a path or a wildcard could misread.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
