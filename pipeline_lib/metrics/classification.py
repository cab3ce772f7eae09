"""Telling what the upstream classifier gets wrong."""

from __future__ import annotations

from pipeline_lib.metrics.auroc import auroc
from pipeline_lib.metrics.metric import Metric

METRICS = (
    Metric(
        "auroc_classification",
        "AUROC (classifier)",
        "higher",
        "Probability that a random misclassified image has a larger uncertainty than a random other image.",
        auroc,
        ("uncertainty", "classifier_wrong", "dataset"),
    ),
)
