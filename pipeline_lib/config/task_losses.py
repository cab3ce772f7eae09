"""`task_losses`: losses of upstream images that need no classifier, for heads to rank images by.

A task loss is a module of `pipeline_lib/task_losses/`, found by its name. It defines

- `Options`, a `TaskLossOptions` whose `kind` is the module's name; its fields are keys of the section `task_losses`;
- `losses(rows, options, device)`, which yields those of the rows of all epochs, in order, float32, in pieces;
- `LEARNT_FROM`, what a model card says of heads that learnt from it;

and, where it needs them,

- `MINIMUM_EPOCHS`, how many epochs a view must have;
- `warning(rows, options)`, what a user should know of the loss on these rows, or None.

torch is imported inside functions there: the config reads only `Options`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticKnownError

from pipeline_lib.config import kinds
from pipeline_lib.config.features import Device
from pipeline_lib.config.section import KindSection, Section, Seed

_FAMILY: kinds.Family = "task_losses"
# Of a backbone's classifier; extraction stores it beside the representations.
CROSS_ENTROPY = "cross_entropy"
TASK_LOSSES = (CROSS_ENTROPY, *kinds.kinds(_FAMILY))


def _known(name: str) -> str:
    if name not in TASK_LOSSES:
        raise PydanticKnownError("literal_error", {"expected": " or ".join(map(repr, TASK_LOSSES))})
    return name


TaskLoss = Annotated[str, AfterValidator(_known), WithJsonSchema({"enum": list(TASK_LOSSES), "type": "string"})]


class Computation(Section):
    """Where a task loss is computed, and what it draws."""

    seed: Seed = Field(0, description="Seed of the images that others are compared with, and of folds.")
    device: Device = Field("auto", description="Where it is computed; auto = a GPU where there is one.")
    threads: int = Field(1, ge=1, le=1024, description="CPU threads.")


class Comparison(Computation):
    """How a representation is compared with those of other images of its view."""

    temperature: float = Field(
        0.1, gt=0, description="tau: similarities are divided by it; small values look at the nearest images only."
    )
    images: int = Field(
        16_384,
        ge=2,
        description="Each image is compared with at most so many others per epoch, drawn by `seed`; knn needs at least "
        "twice the number of upstream classes.",
    )


class TaskLossOptions(Computation, KindSection):
    """A task loss and its options."""


class ComparisonOptions(Comparison, TaskLossOptions):
    """A task loss that compares images."""


class TaskLosses(Comparison):
    """How task losses that need no classifier are computed."""

    # Options that one task loss has alone; `_options_are_of_a_task_loss` refuses all else.
    model_config = ConfigDict(extra="allow")

    def options(self, task_loss: str) -> TaskLossOptions:
        """Return the options of a task loss."""
        options = kinds.options_class(_FAMILY, task_loss)
        own = {name: value for name, value in self if name in options.model_fields}
        found = options.model_validate({"kind": task_loss, **own})
        assert isinstance(found, TaskLossOptions)
        return found

    @classmethod
    def allowed_keys(cls) -> list[str]:
        """Return the keys that the section may have."""
        return list(dict.fromkeys([*cls.model_fields, *kinds.kinds_by_option(_FAMILY)]))

    @model_validator(mode="after")
    def _options_are_of_a_task_loss(self) -> TaskLosses:
        for name, value in (self.model_extra or {}).items():
            if name not in self.allowed_keys():
                fault = InitErrorDetails(type="extra_forbidden", loc=(name,), input=value)
                raise ValidationError.from_exception_data(type(self).__name__, [fault])
        if self.model_extra:
            for task_loss in kinds.kinds(_FAMILY):
                self.options(task_loss)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        resolved = handler.resolve_ref_schema(schema)
        resolved["properties"] = kinds.option_schemas(_FAMILY) | resolved["properties"]
        resolved["additionalProperties"] = False
        return schema
