"""Retrieval without uncertain images, as `evaluation.safe_retrieval` measures it."""

from __future__ import annotations

from pipeline_lib.metrics.metric import Metric

METRICS = (
    Metric("error_1nn_full", "1-NN error", "lower", "Share of images whose nearest neighbour has another label."),
    Metric(
        "error_1nn_clean_queries",
        "1-NN error, clean queries",
        "lower",
        "The same without the most uncertain queries of each true class.",
    ),
    Metric(
        "error_1nn_clean_queries_{of}",
        "1-NN error, clean queries ({of})",
        "lower",
        "The same without the most uncertain queries of all (``global``), or of those whose nearest neighbour has the "
        "same class (``per_neighbour_class``).",
    ),
    Metric(
        "error_1nn_clean_database",
        "1-NN error, clean database",
        "lower",
        "The same without the most uncertain images of each true class as queries and in the database.",
    ),
    Metric(
        "error_1nn_clean_database_{of}",
        "1-NN error, clean database ({of})",
        "lower",
        "The same, the most uncertain images being chosen as for the queries.",
    ),
)
