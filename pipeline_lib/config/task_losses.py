"""`task_losses`: losses of upstream images that need no classifier, for heads to rank images by."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline_lib.config.features import Device
from pipeline_lib.config.section import Section, Seed

TaskLoss = Literal["cross_entropy", "knn", "contrastive"]


class TaskLosses(Section):
    """How `knn` and `contrastive` compare a representation with those of other images of its view."""

    temperature: float = Field(
        0.1, gt=0, description="tau: similarities are divided by it; small values look at the nearest images only."
    )
    images: int = Field(
        16_384,
        ge=2,
        description="Each image is compared with at most so many others per epoch, drawn by `seed`; knn needs at least "
        "twice the number of upstream classes.",
    )
    seed: Seed = Field(0, description="Seed of which images these are.")
    device: Device = Field("auto", description="Where similarities are computed; auto = a GPU where there is one.")
    threads: int = Field(1, ge=1, description="CPU threads.")
