"""Deteriorations: how strongly each severity of Figure 6 of Pretrained Visual Uncertainties changes an image."""

from __future__ import annotations

import itertools
from typing import Literal, get_args

from pydantic import Field, model_validator

from pipeline_lib.config.section import Section, Seed

Kind = Literal["blur", "box", "zoom", "noise"]
Severities = tuple[float, float, float, float, float]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Deteriorations(Section):
    """Strengths of the five severities of each deterioration, in units that don't depend on the image's size."""

    seed: Seed = Field(0, description="Seed of the box's place and of the noise.")
    blur: Severities = Field(
        (0.0075, 0.015, 0.03, 0.05, 0.08), description="Standard deviation of the blur, as a share of the shorter side."
    )
    box: Severities = Field((0.05, 0.1, 0.2, 0.35, 0.5), description="Share of the area under a grey box.")
    zoom: Severities = Field((0.8, 0.6, 0.45, 0.3, 0.2), description="Share of both sides that a central crop keeps.")
    noise: Severities = Field(
        (0.05, 0.1, 0.2, 0.35, 0.5), description="Standard deviation of the pixels' noise, where white is 1."
    )

    @model_validator(mode="after")
    def _severities_grow(self) -> Deteriorations:
        for kind in KINDS:
            strengths = getattr(self, kind)
            falls, is_share = kind == "zoom", kind in ("box", "zoom")
            ordered = strengths[::-1] if falls else strengths
            grows = all(lower < higher for lower, higher in itertools.pairwise(ordered))
            if not grows or ordered[0] <= 0 or (is_share and ordered[-1] > 1):
                order, bound = "falling" if falls else "growing", " and at most 1" if is_share else ""
                raise ValueError(f"{kind} must be five {order} values above 0{bound}, not {list(strengths)}")
        return self


class Draw(Section):
    """One deterioration of every image: its kind, which severity it is (1 to 5), and how strong."""

    kind: Kind
    severity: int
    strength: float


def draws(section: Deteriorations) -> tuple[Draw, ...]:
    """Return one draw per kind and severity (1 to 5), kind by kind; its position is its epoch in the view."""
    return tuple(
        Draw(kind=kind, severity=severity, strength=strength)
        for kind in KINDS
        for severity, strength in enumerate(getattr(section, kind), start=1)
    )
