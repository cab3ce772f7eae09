"""A metric is one file: it is found by its name and reaches metrics.csv, tables, the glossary and reports on arrays."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from docutils.core import publish_string

from pipeline_lib.arrays.evaluation import OPTIONS, evaluate
from pipeline_lib.arrays.figures import draw_figures
from pipeline_lib.arrays.inputs import Inputs
from pipeline_lib.arrays.page import build_page
from pipeline_lib.arrays.tables import build_tables
from pipeline_lib.config import kinds
from pipeline_lib.config.load import load_config
from pipeline_lib.evaluation.measures import (
    Images,
    Uncertainty,
    measure_representation,
    measure_uncertainties,
    resampled_aurocs,
)
from pipeline_lib.evaluation.metric_rows import metric_rows
from pipeline_lib.evaluation.mixed import MixedRows
from pipeline_lib.evaluation.spec import KINDS, EvaluationSpec
from pipeline_lib.metrics import found
from pipeline_lib.metrics.glossary import glossary
from pipeline_lib.metrics.metric import Metric, Value
from pipeline_lib.metrics.r_auroc import Rival
from pipeline_lib.stages import baselines, evaluate_heads, safe_retrieval
from pipeline_lib.tables import all_metrics, render

CONFIG = Path(__file__).parents[2] / "config.yaml"
GREEK = {"backbone": "resnet", "dataset": "greek", "split": "test"}


def images_of(n: int = 60) -> Images:
    """Everything that can be known about images."""
    rng = np.random.default_rng(0)
    rank = rng.integers(0, 6, n)
    return Images(
        dataset="birds",
        correct=rng.random(n) < 0.6,
        reference_correct=rng.random(n) < 0.6,
        label=rng.integers(0, 12, n),
        crop_fraction=rng.random(n),
        classifier_correct=rank == 0,
        label_rank=rank,
        vote_entropy=np.where(rng.random(n) < 0.5, 0.0, rng.random(n)),
        lone_class_images=3,
        mix=MixedRows(np.arange(n), np.arange(n), rng.random(2 * n) < 0.5),
    )


def measured(images: Images) -> tuple[dict[str, Value], dict[str, Value]]:
    """Return all metrics of the representation, and all of an uncertainty."""
    rng = np.random.default_rng(1)
    u, crop, upstream = rng.random((3, len(images.correct)))
    resampled = resampled_aurocs(images, [u], OPTIONS)
    rivals = {"other": Rival(0.5, resampled[0][::-1])}
    found_ = measure_uncertainties(images, {"u": Uncertainty(u, crop, upstream)}, resampled, rivals, OPTIONS)
    return measure_representation(images, OPTIONS), found_["u"]


def test_everything_that_is_measured_is_described_and_the_other_way_round() -> None:
    of_representation, of_uncertainty = measured(images_of())
    for family, values in (("metrics.representation", of_representation), ("metrics", of_uncertainty)):
        for metric in found.found_metrics(family):
            is_measured = any(metric.label_of(name) for name in values)
            assert is_measured == (metric.compute is not None), f"{metric.name} was not measured"
    names = [
        *of_representation,
        *of_uncertainty,
        "error_1nn_full",
        "median_unc_clean",
        "rises_blur_2",
        "median_unc_box_5",
    ]
    names += [f"error_1nn_clean_{what}{ending}" for what in ("queries", "database") for ending in KINDS.values()]
    for name in names:
        entry = found.headed(name)
        assert entry is not None and entry[1] and "{" not in entry[1], name
    assert found.headed("no_such_metric") is None and found.label("no_such_metric") == "no_such_metric"


def test_the_table_of_all_metrics_leaves_out_what_other_tables_show() -> None:
    every = [metric for family in ("metrics", "metrics.representation") for metric in found.found_metrics(family)]
    shown = {metric.name for metric in every if metric.is_shown}
    assert shown >= {"r1", "auroc_correct", "auroc_ood", "rcorr_entropy", "croppedHasBiggerUnc"}
    assert not shown & {"aurc", "e_aurc", "reference_r1", "unc_q{percent}", "error_1nn_full", "median_unc_{image}"}


@pytest.mark.parametrize(
    ("name", "heading"),
    [
        ("coverage_at_r1_0.9", "Coverage at R@1 90 %"),
        ("coverage_at_r1_0.995", "Coverage at R@1 99.5 %"),
        ("coverage_at_r1_1", "Coverage at R@1 100 %"),
        ("unc_q25", "25 %"),
        ("unc_iqr_90_10", "10 to 90 %"),
        ("auroc_correct_minus_knn_distance", "R-AUROC minus that of knn_distance"),
        ("auroc_correct", "R-AUROC"),
        ("rises_blur_2", "u rises, blur 2"),
        ("error_1nn_clean_queries_global", "1-NN error, clean queries_global"),
    ],
)
def test_headings_say_what_differs_in_a_family(name: str, heading: str) -> None:
    assert found.label(name) == heading


def test_a_metric_is_left_out_where_something_that_it_needs_is_not_known() -> None:
    few = Images("birds", images_of().correct)
    of_representation, of_uncertainty = measured(few)
    assert of_representation.keys() == {"r1", "r1_ci_low", "r1_ci_high", "resampled_classes"}
    left_out = {"reference_auroc_correct", "auroc_classification", "rcorr_entropy", "auroc_correct_mixed"}
    assert not left_out & of_uncertainty.keys() and "auroc_ood" in of_uncertainty


def test_the_metrics_are_components_of_the_evaluations_alone() -> None:
    config = load_config(CONFIG)
    of_baselines = baselines.plugins(config, **GREEK)
    assert set(of_baselines) > {"metrics.votes", "metrics.r_auroc", "metrics.representation.top_k"}
    of_heads = evaluate_heads.plugins(config, variant="default", **GREEK)
    assert of_heads == [name for name in of_baselines if not name.startswith("metrics.representation.")]
    assert not hasattr(safe_retrieval, "plugins")
    assert not {"metrics.auroc", "metrics.bootstrap", "metrics.metric"} & set(of_baselines)  # shared, not found by name


def test_values_are_shown_as_their_metric_says() -> None:
    metric = Metric("x", "X", "higher", "A thing.", form=".1%")
    assert metric.shown(0.1234) == "12.3 %"
    assert Metric("x", "X", "", "A thing.").shown(-0.5) == "−0.500"
    assert Metric("x", "X", "", "A thing.").shown(-0.0001) == "0.000"


def test_the_glossary_is_markdown_and_restructuredtext() -> None:
    text, errors = glossary(), io.StringIO()
    publish_string(text, settings_overrides={"warning_stream": errors, "report_level": 1})
    assert errors.getvalue() == ""
    entries = [line for line in text.splitlines() if line.startswith("- **")]
    assert len(entries) == sum(len(found.found_metrics(family)) for family in ("metrics", "metrics.representation"))
    assert "- **AURC** (``aurc``; lower is better): Mean risk" in text


@pytest.fixture
def one_more(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """One more metric, as a file would bring it in; yields its description."""
    metric = Metric(
        "tenth",
        "Worst tenth",
        "higher",
        "Share of wrong queries in the most uncertain tenth.",
        lambda u, wrong: float(wrong[np.argsort(-u)[: len(u) // 10]].mean()),
        ("uncertainty", "wrong"),
    )
    known, load = kinds.kinds, kinds.load
    monkeypatch.setattr(kinds, "kinds", lambda family: (*known(family), *(["tenth"] if family == "metrics" else [])))
    more = SimpleNamespace(METRICS=(metric,))
    monkeypatch.setattr(kinds, "load", lambda family, name: more if name == "tenth" else load(family, name))
    found.found_metrics.cache_clear()
    yield metric.description
    found.found_metrics.cache_clear()


def test_one_more_file_reaches_metrics_tables_glossary_and_reports(one_more: str) -> None:
    assert "metrics.tenth" in evaluate_heads.plugins(load_config(CONFIG), variant="default", **GREEK)
    of_representation, of_uncertainty = measured(images_of())
    assert of_uncertainty["tenth"].n == 60
    about = EvaluationSpec(backbone="b", dataset="birds", split="test", is_upstream=True)
    rows = metric_rows(about, "class_entropy", None, of_uncertainty)
    rows += metric_rows(about, "representation", None, of_representation)
    birds = {"dataset": "birds", "split": "test"}
    spec = all_metrics.Spec.model_validate(
        {"upstream": birds, "downstream": [birds], "backbones": ["b"], "variants": ["v"]}
    )
    table = all_metrics.present(all_metrics.build(spec, pd.DataFrame(rows), None), spec)
    assert "Worst tenth" in table.shown and f"Worst tenth: {one_more}" in table.caption
    assert f"- **Worst tenth** (``tenth``; higher is better): {one_more}" in glossary()
    rng = np.random.default_rng(0)
    inputs = Inputs({"head": rng.random(50)}, rng.random(50) < 0.5, None, None, {}, {})
    report = evaluate(inputs, "Birds")
    assert "tenth" in report.nested()["uncertainties"]["head"] and "tenth" in set(report.rows()["metric"])
    tables = build_tables(report)
    assert "| Worst tenth |" in render.to_markdown(tables["summary"])
    page = build_page(report, tables, draw_figures(inputs.uncertainties, inputs.correct, "Birds"), "", {}, {})
    assert f"<dt>Worst tenth</dt><dd>{one_more}</dd>" in page
