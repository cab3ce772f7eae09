"""What stages of their own measure: errors without uncertain images, and u of deteriorated images."""

from __future__ import annotations

from pipeline_lib.metrics.metric import Metric

METRICS = (
    Metric(
        "error_1nn_full",
        "1-NN error",
        "lower",
        "Share of images whose nearest neighbour has another label.",
        is_shown=False,
    ),
    Metric(
        "error_1nn_clean_{what}",
        "1-NN error, clean {what}",
        "lower",
        "The same without the most uncertain queries of each true class (``queries``), and without these images in the "
        "database either (``database``); with ``_global`` of all images, with ``_per_neighbour_class`` of those whose "
        "nearest neighbour has the same class; ``_by_distance`` leaves out those farthest from their neighbours, "
        "``_by_both`` those of the largest z(distance) + max(0, ρ) z(u).",
        is_shown=False,
    ),
    Metric(
        "median_unc_{image}",
        "Median u, {image}",
        "",
        "Median uncertainty of the images as they are (``clean``), or with a deterioration at one of its severities.",
        form="z.4g",
        is_shown=False,
    ),
    Metric(
        "rises_{kind}_{severity}",
        "u rises, {kind} {severity:g}",
        "higher",
        "Share of images that are more uncertain than at the severity before; before the first comes the clean image.",
        is_shown=False,
    ),
)
