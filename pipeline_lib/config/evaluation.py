"""`evaluation`: neighbours, intervals and the look of the figures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline_lib.config.features import Device
from pipeline_lib.config.section import Section


class Neighbours(Section):
    """The exact search for each image's nearest neighbour."""

    backend: Literal["torch", "faiss"] = Field("torch", description="Library that computes the similarities.")
    device: Device = Field("auto", description="Where they are computed; auto = a GPU where there is one.")
    threads: int = Field(1, ge=1, description="CPU threads.")
    block_rows: int = Field(4096, ge=1, description="Queries and gallery rows held in memory at a time.")


class Bootstrap(Section):
    """Percentile-bootstrap intervals over images."""

    resamples: int = Field(1000, ge=1, description="Number of resamples.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Coverage of the interval.")
    seed: int = Field(0, ge=0, description="Seed of the resamples.")


class Plot(Section):
    """Size of one figure."""

    width: float = Field(6.75, gt=0, description="Width in inches (6.75 = both columns of a paper).")
    height: float = Field(3.0, gt=0, description="Height in inches.")
    dpi: int = Field(200, ge=50, description="Dots per inch of the PNG; the PDF is vector graphics.")


class Plots(Section):
    """One entry per figure, so that changing one re-draws that one."""

    zero_shot: Plot = Field(Plot(), description="R-AUROC per dataset (Figure 1 of the paper).")
    recall_vs_auroc: Plot = Field(
        Plot(width=4.5, height=3.4), description="R@1 against R-AUROC per backbone (Figure 4)."
    )
    densities: Plot = Field(Plot(height=3.4), description="Uncertainty upstream and downstream (Figure 8).")
    examples: Plot = Field(Plot(height=7.5), description="Images with the lowest and highest uncertainty (Figure 5).")
    training_curves: Plot = Field(Plot(), description="Head training loss and order accuracy.")


class Evaluation(Section):
    """Everything after the caches."""

    neighbours: Neighbours = Field(Neighbours(), description="Nearest-neighbour search.")
    bootstrap: Bootstrap = Field(Bootstrap(), description="Confidence intervals.")
    plots: Plots = Field(Plots(), description="Figure sizes.")
