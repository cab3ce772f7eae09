"""The JSON Schema of the config, generated from the pydantic models.

Editors complete and check `config.yaml` with it. A test fails when the file is out of step with the models.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter

from pipeline_lib.config import kinds
from pipeline_lib.config.config import Config


def config_schema() -> dict[str, Any]:
    """Return the schema, with one alternative per kind of dataset and backbone."""
    schema = Config.model_json_schema()
    definitions = schema["$defs"]
    for family in ("datasets", "backbones"):
        alternatives = []
        for kind in kinds.kinds(family):
            options = TypeAdapter(kinds.options_class(family, kind)).json_schema(ref_template="#/$defs/{model}")
            definitions |= options.pop("$defs", {})
            name = f"{family}_{kind}"
            definitions[name] = options | {"title": name}
            alternatives.append({"$ref": f"#/$defs/{name}"})
        section = schema["properties"][family]
        (name_pattern,) = section["patternProperties"]
        section["patternProperties"] = {name_pattern: {"oneOf": alternatives}}
        section["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def schema_text() -> str:
    """Return the text of `workflow/schemas/config.schema.json`."""
    return json.dumps(config_schema(), indent=2, sort_keys=True) + "\n"
