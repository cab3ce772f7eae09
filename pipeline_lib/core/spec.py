"""The spec of a job: exactly the values that its stage reads, typed.

Each stage owns a subclass. Its canonical JSON is part of the job's derivation, the argument of the stage's command and
the record in the artefact's manifest. A value that can't change the result (a number of workers) is no part of it; a
field that the job needs all the same (an address to download from) is declared with `exclude=True`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_jsonable_python


class Spec(BaseModel):
    """Base of every stage's spec.

    A field that is None is left out of the canonical JSON: an option that is added later, with None for "as before",
    makes nothing stale.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    def plain(self) -> dict[str, Any]:
        """Return the spec as plain JSON values."""
        return self.model_dump(mode="json", exclude_none=True)

    def complete(self) -> dict[str, Any]:
        """Return all fields as plain JSON values, the excluded ones too: a job's process makes its spec of them."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return to_jsonable_python(fields, exclude_none=True)
