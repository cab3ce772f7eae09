"""The table of safe retrieval says what the metric rows say, beside the published numbers of the same kind."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest

from pipeline_lib.evaluation import safe_retrieval
from pipeline_lib.evaluation.metric_rows import COLUMNS
from pipeline_lib.tables import render
from pipeline_lib.tables import safe_retrieval as table
from pipeline_lib.tables.summary import EvaluationSet

UPSTREAM, DOWNSTREAM = EvaluationSet("known", "test"), (EvaluationSet("unseen", "test"),)
SPEC = table.Spec(upstream=UPSTREAM, downstream=DOWNSTREAM, backbones=("vit",), variant="default", table_share=0.1)


def make_metrics() -> pd.DataFrame:
    rows = []
    for shown in [*DOWNSTREAM, UPSTREAM]:
        for seed, queries, both in [(1, 0.30, 0.20), (2, 0.32, 0.24), (3, 0.31, 0.21)]:
            values = {"error_1nn_full": 0.4}
            endings = itertools.product(safe_retrieval.SIGNALS.values(), safe_retrieval.KINDS.values())
            for number, (by, kind) in enumerate(endings):
                ending = f"{kind}{by}"
                values[f"error_1nn_clean_queries{ending}"] = queries + 0.01 * number
                values[f"error_1nn_clean_database{ending}"] = both + 0.01 * number
            rows += [["vit", "head", "default", seed, *shown, metric, value, 90] for metric, value in values.items()]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"seed": "Int64", "n": "Int64"})


def make_published() -> pd.DataFrame:
    rows = [
        ["vit", "head", "default", None, "known", "test", "error_1nn_full", 0.45, 0.0],
        ["vit", "head", "default", None, "known", "test", "error_1nn_clean_queries", 0.35, 0.002],
        ["vit", "head", "default", None, "known", "test", "error_1nn_clean_database", 0.25, 0.003],
        ["vit", "head", "other", None, "unseen", "test", "error_1nn_clean_queries", 0.99, 0.002],
    ]
    return pd.DataFrame(rows, columns=[*(c for c in COLUMNS if c != "n"), "spread"]).astype({"seed": "Int64"})


def test_table_names_the_metrics_as_the_evaluation_does() -> None:
    assert table.KINDS == safe_retrieval.KINDS
    assert table.LABELS.keys() == safe_retrieval.KINDS.keys()
    assert table.SIGNALS == safe_retrieval.SIGNALS


def test_table_has_medians_spreads_and_the_published_numbers_of_the_same_kind() -> None:
    built = table.build(SPEC, make_metrics(), make_published())
    assert built["kind"].tolist() == [*safe_retrieval.KINDS] * 3
    row = built[(built["dataset"] == "known") & (built["kind"] == "per_class")].iloc[0]
    assert row[["full", "clean_queries", "clean_database"]].tolist() == pytest.approx([0.4, 0.31, 0.21])
    assert row[["clean_queries_spread", "clean_database_spread"]].tolist() == pytest.approx([0.01, 0.03])
    assert row[["clean_queries_by_distance", "clean_database_by_both"]].tolist() == pytest.approx([0.34, 0.27])
    assert row["reduction"] == pytest.approx(1 - 0.21 / 0.4)
    assert row[["published_full", "published_clean_queries", "published_clean_database"]].tolist() == [0.45, 0.35, 0.25]
    others = built[(built["dataset"] != "known") | (built["kind"] != "per_class")]
    assert others[["published_full", "published_clean_queries"]].isna().all(axis=None)
    shown = table.present(built, SPEC)
    text = render.to_markdown(shown)
    assert "0.210 ± 0.030" in text and "−48 %" in text and "0.250 ± 0.003" in text and "10 %" in text
    assert render.to_tex(shown).count(r"\midrule") == 3


def test_table_without_a_published_counterpart_has_no_such_columns() -> None:
    built = table.build(SPEC, make_metrics(), None)
    assert not [column for column in built if column.startswith("published")]
    empty = table.build(SPEC, make_metrics().iloc[:0], None)
    assert empty["full"].isna().all()
    assert "–" in render.to_markdown(table.present(empty, SPEC))
