"""What is done to the images of a view before the backbone sees them, as specs say it: one class per kind of view.

The number of epochs is no part of it, so that more of them only add rows.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline_lib.config.deteriorations import Draw, draws
from pipeline_lib.config.features import CentreCrop, DrawnAugmentation, Features
from pipeline_lib.config.section import Section, Seed


class Eval(Section):
    """The backbone's evaluation transform."""

    kind: Literal["eval"] = "eval"


class DrawnCentreCrop(CentreCrop):
    """A centre crop of a random share of the side, then the evaluation transform."""

    kind: Literal["centre_crop"] = "centre_crop"


class DrawnDeteriorations(Section):
    """Deteriorations of growing severity; epoch e is the e-th of the draws."""

    kind: Literal["deteriorations"] = "deteriorations"
    seed: Seed
    draws: tuple[Draw, ...]


class Augmented(DrawnAugmentation):
    """A training augmentation."""

    kind: Literal["augmented"] = "augmented"
    pixels: Literal["tensor"] | None = None  # None: Pillow's, as before there was a choice


ViewSpec = Annotated[Eval | DrawnCentreCrop | DrawnDeteriorations | Augmented, Field(discriminator="kind")]


def view_spec(features: Features, view: str) -> ViewSpec:
    """Return what a view does: a built-in one, or one of `features.views`."""
    match view:
        case "eval":
            return Eval()
        case "centre_crop":
            return DrawnCentreCrop(**features.centre_crop.model_dump())
        case "deteriorations":
            section = features.deteriorations
            return DrawnDeteriorations(seed=section.seed, draws=draws(section))
    pixels = None if features.pixels == "pil" else features.pixels
    return Augmented(**features.views[view].model_dump(exclude={"epochs"}), pixels=pixels)
