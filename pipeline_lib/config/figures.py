"""`figures`: how large each figure is, and whether it has a title."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model

from pipeline_lib.config import kinds
from pipeline_lib.config.section import Section


class Size(Section):
    """Size of one figure."""

    width: float | None = Field(
        None, gt=0, description="Width in inches (6.75: both columns of a paper); null = as the figure's module says."
    )
    height: float | None = Field(None, gt=0, description="Height in inches; null = as the figure's module says.")
    dpi: int = Field(200, ge=50, description="Dots per inch of the PNG; the PDF is vector graphics.")


class Look(Section):
    """How a figure is drawn, as a job knows it."""

    width: float
    height: float
    dpi: int
    title: bool


class _Figures(Section):
    """Sizes by figure, so that changing one re-draws that one."""

    title: bool = Field(
        True, description="Titles and explanations inside the figures; false where captions stand beside them."
    )

    def look(self, name: str) -> Look:
        """Return how a figure is drawn: as the config says, or else by default."""
        width, height = importlib.import_module(f"pipeline_lib.figures.{name}").SIZE
        size: Size = getattr(self, name)
        return Look(width=size.width or width, height=size.height or height, dpi=size.dpi, title=self.title)


if TYPE_CHECKING:
    Figures = _Figures
else:
    _SIZES: dict[str, Any] = {
        # The figure of calibration is a part of that artefact.
        name: (Size, Field(Size(), description=f"The figure {name}."))
        for name in (*kinds.kinds("figures"), "reliability")
    }
    Figures = create_model("Figures", __base__=_Figures, __doc__=_Figures.__doc__, **_SIZES)
