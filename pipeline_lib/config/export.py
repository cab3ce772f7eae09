"""`export`: what a checkpoint to take home holds."""

from __future__ import annotations

from pydantic import Field

from pipeline_lib.config.section import Section


class Export(Section):
    """One checkpoint per backbone and variant, with the heads of all seeds."""

    backbone: bool = Field(
        True, description="Include the backbone's weights; false = heads alone, a few MB at most, beside the backbone."
    )
