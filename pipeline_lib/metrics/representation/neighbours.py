"""Retrieval by the nearest neighbour."""

from __future__ import annotations

import numpy as np

from pipeline_lib.config.evaluation import Bootstrap
from pipeline_lib.metrics.bootstrap import Resampling, bootstrap_recall_at_1, percentile_interval
from pipeline_lib.metrics.metric import Metric
from pipeline_lib.metrics.retrieval import recall_at_1


def _interval(correct: np.ndarray, resampling: Resampling, bootstrap: Bootstrap) -> dict[str, float]:
    resampled = bootstrap_recall_at_1(correct, resampling)
    return dict(zip(("r1_ci_low", "r1_ci_high"), percentile_interval(resampled, bootstrap.confidence), strict=True))


METRICS = (
    Metric(
        "r1",
        "R@1",
        "higher",
        "Recall@1, the share of images whose nearest other image, by cosine similarity, has the same label.",
        recall_at_1,
        ("correct",),
    ),
    Metric(
        "reference_r1",
        "R@1 (reference)",
        "higher",
        "Recall@1 as the reference code computes it, where the second of two equal images finds itself.",
        recall_at_1,
        ("reference_correct",),
        is_shown=False,
    ),
    Metric(
        "r1_ci_{end}",
        "R@1, {end} end",
        "",
        "Ends of the bootstrap interval of Recall@1, over classes or images; neighbours are not searched anew.",
        _interval,
        ("correct", "resampling", "bootstrap"),
        is_shown=False,
    ),
    Metric(
        "resampled_classes",
        "Resampled classes",
        "",
        "How many classes the bootstrap intervals of the set draw from; 0: they draw images.",
        lambda resampling: resampling.classes,
        ("resampling",),
        form="z,.0f",
        is_shown=False,
    ),
    Metric(
        "lone_class_images",
        "Alone in their class",
        "",
        "Number of images that are the only one of their class: their neighbour can't be right.",
        int,
        ("lone_class_images",),
        form="z,.0f",
        is_shown=False,
    ),
)
