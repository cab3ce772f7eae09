"""`upstream` and `downstream`: which sets are learnt from and tested on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pipeline_lib.config.section import Name, Section


class Upstream(Section):
    """The dataset that heads learn on; the best case is that the backbones' classifiers know its classes."""

    dataset: Name = Field(description="Name of a dataset below `datasets`.")
    train_split: Name = Field("train", description="Split that heads (and `trained` backbones) learn from.")
    eval_split: Name = Field("test", description="Held-out split for upstream metrics.")
    loss_over: Literal["all", "classes"] = Field(
        "all",
        description="The outputs of a classifier that its task loss and entropy are of: all, or those alone that are "
        "classes of the dataset.",
    )


class Downstream(Section):
    """A dataset to be tested zero-shot. A plain name stands for its test split."""

    dataset: Name = Field(description="Name of a dataset below `datasets`.")
    split: Name = Field("test", description="The split to test on.")


def _from_name(value: Any) -> Any:
    return {"dataset": value} if isinstance(value, str) else value


DownstreamEntry = Annotated[Downstream, BeforeValidator(_from_name, json_schema_input_type=Name | Downstream)]
