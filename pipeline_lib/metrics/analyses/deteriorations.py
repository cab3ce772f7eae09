"""The uncertainty of images that are deteriorated step by step, as `evaluation.deteriorations` measures it."""

from __future__ import annotations

from pipeline_lib.metrics.metric import Metric

METRICS = (
    Metric("median_unc_clean", "Median u, clean", "", "Median uncertainty of the images as they are.", form=".4g"),
    Metric(
        "median_unc_{kind}_{severity}",
        "Median u, {kind} {severity:g}",
        "",
        "Median uncertainty of the images with this deterioration at this severity.",
        form=".4g",
    ),
    Metric(
        "rises_{kind}_{severity}",
        "u rises, {kind} {severity:g}",
        "higher",
        "Share of images that are more uncertain than at the severity before; before the first comes the clean image.",
    ),
)
