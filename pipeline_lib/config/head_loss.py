"""The loss of a head in the config: the key `loss` names it, and its options stand beside that key.

A loss is a module of `pipeline_lib/heads/losses/`, found by its name. It defines

- `Options`, a `HeadLoss` whose `kind` is the module's name, described in a few words;
- `loss_and_gradient(uncertainty, task_loss, options)`, see `heads.loss`.

torch is imported inside functions there: the config reads only `Options`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NoReturn, Self

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails

from pipeline_lib.config import kinds
from pipeline_lib.config.section import KindSection, Section
from pipeline_lib.core.errors import one_of

_FAMILY: kinds.Family = "heads.losses"


class HeadLoss(KindSection):
    """A loss: its name and its options."""


HeadLossField = Annotated[SerializeAsAny[HeadLoss], WithJsonSchema({"type": "string"})]


def head_loss(name: str) -> HeadLoss:
    """Return a loss with its options as they are by default."""
    loss = kinds.options_class(_FAMILY, name)(kind=name)
    assert isinstance(loss, HeadLoss)
    return loss


class HasHeadLoss(Section):
    """A section with the loss of a head. In the config and in a dump, its options stand beside its name."""

    loss: HeadLossField = Field(default_factory=lambda: head_loss("order"))

    @classmethod
    def allowed_keys(cls) -> list[str]:
        """Return the keys that the section may have."""
        return [*super().allowed_keys(), *kinds.kinds_by_option(_FAMILY)]

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Return the section with changes of some keys; another loss has none of the options of this one."""
        kept = {name: value for name, value in changes.items() if (name, value) != ("loss", self.loss.kind)}
        return self.model_validate({**dict(self), **kept})

    @model_validator(mode="before")
    @classmethod
    def _options_belong_to_the_loss(cls, section: Any) -> Any:
        if not isinstance(section, Mapping):
            return section
        given = section.get("loss", cls.model_fields["loss"].get_default(call_default_factory=True))
        loss = dict(given) if isinstance(given, (Mapping, HeadLoss)) else {"kind": given}
        if (name := loss.get("kind")) not in kinds.kinds(_FAMILY):
            expected = " or ".join(map(repr, kinds.kinds(_FAMILY)))
            cls._refuse("literal_error", "loss", name, {"expected": expected})
        by_option = kinds.kinds_by_option(_FAMILY)
        options = {key: value for key, value in section.items() if key in by_option and key not in cls.model_fields}
        for key, value in options.items():
            if name not in by_option[key]:
                error = ValueError(f"is an option of loss {one_of(by_option[key])}, but the loss is {name}")
                cls._refuse("value_error", key, value, {"error": error})
        others = {key: value for key, value in section.items() if key not in options}
        return {**others, "loss": kinds.options_class(_FAMILY, name).model_validate(loss | options)}

    @classmethod
    def _refuse(cls, kind: str, key: str, value: Any, context: dict[str, Any]) -> NoReturn:
        """Raise the error of one key; raised as a `ValueError`, it would be one of the whole section."""
        fault = InitErrorDetails(type=kind, loc=(key,), input=value, ctx=context)
        raise ValidationError.from_exception_data(cls.__name__, [fault])

    @model_serializer(mode="wrap")
    def _with_options_beside(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped = handler(self)
        return dumped | {"loss" if key == "kind" else key: value for key, value in dumped["loss"].items()}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        field, names = cls.model_fields["loss"], kinds.kinds(_FAMILY)
        meanings = [f"{name} = {kinds.options_class(_FAMILY, name).model_fields['kind'].description}" for name in names]
        properties = handler.resolve_ref_schema(schema)["properties"]
        properties["loss"] |= {
            "default": field.get_default(call_default_factory=True).kind,
            "description": f"{field.description or ''}{'; '.join(meanings)}.",
            "enum": list(names),
        }
        properties |= kinds.option_schemas(_FAMILY)
        return schema
