"""`evaluation`: neighbours, intervals, and what is done with uncertainties."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline_lib.config.features import Device
from pipeline_lib.config.section import Name, Section, Seed

Accuracy = Annotated[float, Field(gt=0, le=1)]


class Neighbours(Section):
    """The exact search for each image's nearest neighbour."""

    backend: Literal["torch", "faiss"] = Field("torch", description="Library that computes the similarities.")
    device: Device = Field("auto", description="Where they are computed; auto = a GPU where there is one.")
    threads: int = Field(1, ge=1, le=1024, description="CPU threads.")
    block_rows: int = Field(4096, ge=1, description="Queries and gallery rows held in memory at a time.")


class Bootstrap(Section):
    """Percentile-bootstrap intervals over classes or images; neighbours are not searched anew."""

    unit: Literal["auto", "classes", "images"] = Field(
        "auto",
        description="What is drawn anew: whole classes, or single images as if their neighbours were independent of "
        "each other, which gives intervals that are too narrow; auto = classes where a set has ten or more.",
    )
    resamples: int = Field(1000, ge=1, description="Number of resamples.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Coverage of the interval.")
    seed: Seed = Field(0, description="Seed of the resamples.")


class Mix(Section):
    """The mix of upstream and downstream images behind `auroc_correct_mixed`."""

    images: int = Field(50_000, ge=1, description="At most this many images of each of the two sets.")
    seed: Seed = Field(0, description="Seed of the sample, where a set has more.")


class SafeRetrieval(Section):
    """Leaving out uncertain queries and database images (Table 1 of the paper)."""

    shares: tuple[float, ...] = Field(
        tuple(percent / 100 for percent in range(0, 51, 5)), min_length=1, description="Shares that are left out."
    )
    table_share: float = Field(0.1, gt=0, lt=1, description="The share that the table shows.")

    @model_validator(mode="after")
    def _shares(self) -> SafeRetrieval:
        if list(self.shares) != sorted(set(self.shares)) or self.shares[0] != 0 or self.shares[-1] >= 1:
            raise ValueError(f"shares must grow from 0 and stay below 1, not {list(self.shares)}")
        if self.table_share not in self.shares:
            raise ValueError(f"table_share {self.table_share} must be one of the shares {list(self.shares)}")
        return self


class Calibration(Section):
    """From uncertainties to probabilities of a wrong neighbour, and thresholds that control the error."""

    images: int = Field(300, ge=10, description="Labelled images to calibrate on; the others of the set test it.")
    seed: Seed = Field(0, description="Seed of which images these are, of the folds and of the simulation.")
    kind: Literal["isotonic", "logistic"] | None = Field(
        None, description="The map; null = the one of the smaller cross-validated log loss."
    )
    folds: int = Field(5, ge=2, description="Folds of the cross-validation.")
    bins: int = Field(10, ge=1, description="Bins of the reliability figure and of the calibration errors.")
    alpha: float = Field(0.2, gt=0, lt=1, description="The error that the thresholds keep to.")
    confidence: float = Field(0.9, gt=0, lt=1, description="Probability with which learn then test keeps to it.")
    draws: int = Field(1000, ge=1, description="Draws of labelled images that the simulation checks this with.")


class Projection(Section):
    """The maps of one set by t-SNE and UMAP (Figure 9 of the paper), on the first backbone."""

    dataset: Name | None = Field(None, description="A set of `downstream`; null = the first.")
    classes: tuple[str, ...] | None = Field(None, description="Classes to show; null = those with most images.")
    class_count: int = Field(6, ge=1, description="How many classes, where they are not named.")
    max_images: int = Field(2000, ge=10, description="At most this many images.")
    perplexity: float = Field(30.0, gt=0, description="Perplexity of t-SNE.")
    neighbours: int = Field(15, ge=2, description="Neighbours of UMAP.")
    seed: Seed = Field(0, description="Seed of both.")


class Evaluation(Section):
    """Everything after the caches."""

    neighbours: Neighbours = Field(Neighbours(), description="Nearest-neighbour search.")
    bootstrap: Bootstrap = Field(Bootstrap(), description="Confidence intervals.")
    target_accuracies: tuple[Accuracy, ...] = Field(
        (0.9, 0.95), description="1-NN accuracies for which to report how many images can be kept."
    )
    compat: Literal["none", "reference"] = Field(
        "none", description="reference = R@1 and R-AUROC as the reference code computes them, deviations included."
    )
    mix: Mix = Field(Mix(), description="The mix of upstream and downstream images.")
    safe_retrieval: SafeRetrieval = Field(SafeRetrieval(), description="Leaving out uncertain images.")
    calibration: Calibration = Field(Calibration(), description="Calibration of uncertainties on labelled images.")
    averaged: tuple[Name, ...] = Field(
        (), description="Sets of `downstream` that Table 3 and Figure 4 average over; [] = all."
    )
    deteriorated: tuple[Name, ...] = Field(
        (), description="Sets of `downstream` whose images are also deteriorated, on the first backbone; [] = none."
    )
    projection: Projection = Field(Projection(), description="Maps of one set.")
    card_images: int | None = Field(
        10_000, ge=1, description="Dataset cards decode at most so many images per split, drawn at random; null = all."
    )
