"""The spec of a task loss that needs no classifier."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, SerializeAsAny

from pipeline_lib.config import kinds
from pipeline_lib.config.task_losses import TaskLossOptions
from pipeline_lib.core.spec import Spec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

Options = Annotated[
    SerializeAsAny[TaskLossOptions], BeforeValidator(functools.partial(kinds.validated, "task_losses", where="options"))
]


class TaskLossSpec(Spec):
    """Of which view's rows it is, and how it is computed; `options.kind` is its name."""

    backbone: str
    dataset: str
    split: str
    view: str
    options: Options

    @classmethod
    def of(cls, config: Config, backbone: str, view: str, task_loss: str) -> TaskLossSpec:
        """Return the spec of a job."""
        upstream = config.upstream
        return cls(
            backbone=backbone,
            dataset=upstream.dataset,
            split=upstream.train_split,
            view=view,
            options=config.task_losses.options(task_loss),
        )
