"""`figures`: how large each figure is, and whether it has a title."""

from __future__ import annotations

import importlib
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from pipeline_lib.config import kinds
from pipeline_lib.config.section import Section
from pipeline_lib.core.errors import did_you_mean, one_of

Inches = Annotated[float, Field(ge=0.5, le=100)]


class Size(Section):
    """Size of one figure."""

    width: Inches | None = Field(
        None, description="Width in inches (6.75: both columns of a paper); null = as the figure's module says."
    )
    height: Inches | None = Field(None, description="Height in inches; null = as the figure's module says.")
    dpi: int = Field(200, ge=50, le=2400, description="Dots per inch of the PNG; the PDF is vector graphics.")


class Look(Section):
    """How a figure is drawn, as a job knows it."""

    width: Inches
    height: Inches
    dpi: int = Field(ge=50, le=2400)
    title: bool


class Figures(Section):
    """Sizes by figure, so that changing one re-draws that one."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Size] = Field(init=False)

    title: bool = Field(
        True, description="Titles and explanations inside the figures; false where captions stand beside them."
    )

    @model_validator(mode="after")
    def _figures_are_known(self) -> Figures:
        known = ("title", "reliability", *kinds.kinds("figures"))  # that of calibration is a part of its artefact
        for name in self.__pydantic_extra__:
            if name not in known:
                raise ValueError(f"figures.{name}: unknown figure; allowed: {one_of(known)}{did_you_mean(name, known)}")
        return self

    def look(self, name: str) -> Look:
        """Return how a figure is drawn: as the config says, or else by default."""
        width, height = importlib.import_module(f"pipeline_lib.figures.{name}").SIZE
        size = self.__pydantic_extra__.get(name, Size())
        return Look(width=size.width or width, height=size.height or height, dpi=size.dpi, title=self.title)
