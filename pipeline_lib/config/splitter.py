"""How a dataset that comes without splits is divided: a share for each split, by image or by class."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field, model_validator

from pipeline_lib.config.section import Name, Section, Seed

Share = Annotated[float, Field(gt=0, lt=1, description="The share of the split; the shares sum to 1.")]
_NAME_PATTERN: str = get_args(Name)[1].pattern
_TOLERANCE = 1e-9


class Splitter(Section):
    """Shares by split name, such as {train: 0.8, validation: 0.1, test: 0.1, by: image, seed: 0}."""

    model_config = ConfigDict(extra="allow")  # every key but `by` and `seed` is the name of a split
    __pydantic_extra__: dict[str, Share]

    by: Literal["image", "class"] = Field(
        "image", description="image = the shares hold within each class; class = every class is whole in one split."
    )
    seed: Seed = Field(0, description="Another seed gives another division.")

    @model_validator(mode="after")
    def _shares_are_complete(self) -> Splitter:
        for name in self.shares:
            if not re.search(_NAME_PATTERN, name):
                raise ValueError(f"split name '{name}' must start with a letter or digit; then also '_', '.' and '-'")
        if len(self.shares) < 2:
            raise ValueError("must give the shares of at least two splits, such as {train: 0.8, test: 0.2}")
        total = math.fsum(self.shares.values())
        if abs(total - 1) > _TOLERANCE:
            raise ValueError(f"the shares of {', '.join(self.shares)} must sum to 1, not {total:.10g}")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Return the share of each split by its name."""
        return dict(self.__pydantic_extra__)
