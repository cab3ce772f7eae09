"""Ours beside the published numbers: means over sets, intervals, and what counts as a match."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.config.load import load_config
from pipeline_lib.evaluation.metric_rows import COLUMNS
from pipeline_lib.tables import ablations, compat, published, selective
from pipeline_lib.tables.published import Estimate, estimate, lies_within
from pipeline_lib.tables.render import NOTHING, to_markdown, to_tex
from pipeline_lib.tables.summary import EvaluationSet, Summary, read_metrics

PUBLISHED = Path(__file__).parents[2] / "workflow" / "published" / "pretrained_uncertainties.csv"
CUB, CARS, SOP = SETS = [EvaluationSet(name, "test") for name in ("cub", "cars", "sop")]
SEEDS = (1, 2, 3)
COMPARED = published.Spec(
    upstream=EvaluationSet("imagenet21k", "test"),
    downstream=SETS,
    backbones=("vit_base",),
    variants=("default", "adam", "zero_start"),
)
# R-AUROC per variant, set and seed: the best seed differs between sets.
VALUES = {
    "default": {"cub": (0.62, 0.63, 0.64), "cars": (0.60, 0.58, 0.59), "sop": (0.61, 0.61, 0.60)},
    "adam": {"cub": (0.72, 0.73, 0.74), "cars": (0.70, 0.68, 0.69), "sop": (0.71, 0.71, 0.70)},
    "zero_start": dict.fromkeys(("cub", "cars", "sop"), (0.5, 0.5, 0.5)),
}


def of_ablations(averaged: list[EvaluationSet], variants: list[str]) -> ablations.Spec:
    return ablations.Spec(
        averaged=averaged, backbones=("vit_base",), baseline="default", variants=variants, confidence=0.9
    )


@pytest.fixture
def metrics(tmp_path: Path) -> pd.DataFrame:
    table = []
    for variant, sets in VALUES.items():
        for dataset, values in sets.items():
            for seed, value in zip(SEEDS, values, strict=True):
                key = ["vit_base", "head", variant, seed, dataset, "test"]
                table.append([*key, "auroc_correct", value, 100])
                table.append([*key, "auroc_correct_ci_low", value - 0.03, 100])
                table.append([*key, "auroc_correct_ci_high", value + 0.06, 100])
                table.append([*key, "aurc", 1 - value, 100])
                table.append([*key, "coverage_at_r1_0.9", value / 2, 100])
                table.append([*key, "reference_auroc_correct", value - 0.01, 100])
    for dataset, recall in (("cub", 0.7), ("cars", 0.4), ("sop", 0.6)):
        table.append(["vit_base", "representation", "", "", dataset, "test", "r1", recall, 100])
        table.append(["vit_base", "class_entropy", "", "", dataset, "test", "aurc", 0.3, 100])
    with open(tmp_path / "metrics.csv", "w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *table])
    return read_metrics(tmp_path / "metrics.csv")


def test_a_mean_over_sets_has_a_mean_value_and_a_combined_interval(metrics: pd.DataFrame) -> None:
    ours = estimate(Summary(metrics), "auroc_correct", SETS, "vit_base", "head", "default")
    assert ours.value == pytest.approx((0.63 + 0.59 + 0.61) / 3)
    assert ours.spread == pytest.approx((0.01 + 0.01 + 0.01) / 3)
    assert ours.value - ours.low == pytest.approx(0.03 * math.sqrt(3) / 3)
    assert ours.high - ours.value == pytest.approx(0.06 * math.sqrt(3) / 3)
    assert math.isnan(
        estimate(
            Summary(metrics), "auroc_correct", [*SETS, EvaluationSet("dtd", "test")], "vit_base", "head", "default"
        ).value
    )


@given(*[st.floats(0, 1) for _ in range(3)], *[st.floats(0, 0.2) for _ in range(3)])
def test_within_is_the_published_spread_widened_by_our_interval(
    value: float, printed: float, unused: float, spread: float, below: float, above: float
) -> None:
    ours = Estimate(value, 0.0, value - below, value + above)
    expected = printed - spread - above <= value <= printed + spread + below
    if min(abs(value - (printed - spread - above)), abs(value - (printed + spread + below))) > 1e-12:
        assert lies_within(ours, printed, spread) == expected
    assert lies_within(Estimate(value, 0, math.nan, math.nan), value, math.nan)


def test_every_published_number_with_a_counterpart_is_listed_and_no_other(metrics: pd.DataFrame) -> None:
    theirs = read_metrics(PUBLISHED)
    table = published.build(COMPARED, metrics, theirs)
    assert set(table["backbone"]) == {"vit_base"}
    found = table.set_index(["method", "variant", "dataset", "metric"])
    assert found.loc[("head", "default", "cub+cars+sop", "auroc_correct"), "published"] == 0.608
    assert found.loc[("head", "adam", "cub+cars+sop", "auroc_correct"), "ours"] == pytest.approx(
        (0.73 + 0.69 + 0.71) / 3
    )
    assert found.loc[("representation", "", "cub", "r1"), "difference"] == pytest.approx(0.7 - 0.7308)
    assert bool(found.loc[("head", "zero_start", "cub+cars+sop", "auroc_correct"), "is_within_published"])
    assert not bool(found.loc[("head", "adam", "cub+cars+sop", "auroc_correct"), "is_within_published"])
    assert "caltech101" not in set(table["dataset"])
    shown = published.present(table, COMPARED)
    assert len(shown.shown) == len(table) > 5
    assert "| yes" in to_markdown(shown)


def test_a_backbone_of_ones_own_stands_beside_the_papers_model(metrics: pd.DataFrame) -> None:
    mine = COMPARED.model_copy(update={"backbones": ("mine",), "variants": ("first", "other")})
    table = published.build(
        mine, metrics.assign(backbone="mine").replace({"default": "first"}), read_metrics(PUBLISHED)
    )
    assert set(table["backbone"]) == {"mine"} and {"ViT-Base", "ViT-Large"} < set(table["published_model"])
    of_recipe = table[(table["metric"] == "auroc_correct") & (table["dataset"] == "cub")]
    assert list(of_recipe["variant"]) == ["first"] and of_recipe["difference"].isna().all()
    shown = published.present(table, mine)
    assert set(shown.shown["Metric"]) == {"R-AUROC", "R@1"}
    assert (
        "Difference" not in shown.shown and "ViT-Base 0.7308" not in to_tex(shown) and "ViT-Base 0.731" in to_tex(shown)
    )


def test_a_mean_is_beside_the_mean_over_the_same_sets_alone(metrics: pd.DataFrame) -> None:
    rows = [["vit_base", "head", "default", 1, name, "test", "auroc_ood", 0.5, 9] for name in ("cub", "cars", "sop")]
    rows.append(["vit_base", "head", "default", 1, "downstream", "", "avg_downstream_auroc_ood", 0.5, 3])
    ours = pd.concat([metrics, pd.DataFrame(rows, columns=list(COLUMNS))])
    table = published.build(COMPARED, ours, read_metrics(PUBLISHED))
    assert "auroc_ood" not in set(table["metric"]), "the paper's mean is over twelve sets"


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ("vit_base", "ViT-Base"),
        ("vit_medium_imagenet1k", "ViT-Medium (ImageNet-1k)"),
        ("resnet50_imagenet1k", "ResNet-50 (ImageNet-1k)"),
    ],
)
def test_published_models_are_named_as_in_the_paper(backbone: str, name: str) -> None:
    assert published.model(backbone) == name


def test_a_config_without_a_published_set_has_no_empty_comparison() -> None:
    root = PUBLISHED.parents[2]
    assert not published.wanted(load_config(root / "config.yaml"))
    assert published.wanted(load_config(root / "workflow/configs/paper.yaml"))


def test_ablations_average_each_seed_over_the_sets_and_stand_beside_the_paper(metrics: pd.DataFrame) -> None:
    theirs = read_metrics(PUBLISHED)
    spec = of_ablations([SOP, CUB, CARS], ["adam", "zero_start"])
    table = ablations.build(spec, metrics, theirs)
    means = np.array([VALUES["default"][name] for name in ("cub", "cars", "sop")]).mean(axis=0)
    assert table.loc[0, "auroc_correct"] == pytest.approx(np.median(means))
    assert table.loc[0, "spread"] == pytest.approx(max(np.median(means) - means.min(), means.max() - np.median(means)))
    assert table.loc[1, "change"] == pytest.approx(0.1)
    assert list(table["published"]) == [0.608, 0.609, 0.500]
    assert list(table["is_within_published"]) == [True, False, True]
    shown = ablations.present(table, spec)
    assert list(shown.shown["Variant"]) == ["default", "adam", "zero start"]
    assert list(shown.bold["R-AUROC"]) == [False, True, False]
    assert shown.shown["Change"][2].startswith("−0.1")
    assert "90 % interval" in shown.shown and "95 %" not in to_tex(shown)


def test_an_ablation_that_is_undefined_on_a_set_has_no_mean_over_the_others(metrics: pd.DataFrame) -> None:
    is_cars = (metrics["dataset"] == "cars") & (metrics["metric"] == "auroc_correct") & (metrics["method"] == "head")
    gone = metrics.assign(value=metrics["value"].mask(is_cars))
    spec = of_ablations([CUB, CARS], ["adam"])
    shown = ablations.present(ablations.build(spec, gone, None), spec).shown
    assert (shown[["R-AUROC", "90 % interval", "Change"]] == NOTHING).all(axis=None)


def test_ablations_on_other_sets_have_no_published_numbers(metrics: pd.DataFrame) -> None:
    table = ablations.build(of_ablations([CUB, CARS], ["adam"]), metrics, read_metrics(PUBLISHED))
    assert "published" not in table
    assert table.loc[0, "dataset"] == "cub+cars"


def test_selective_table_marks_the_lower_risk(metrics: pd.DataFrame) -> None:
    spec = selective.Spec(downstream=(CUB,), backbones=("vit_base",), variant="default")
    table = selective.build(spec, metrics, None)
    assert list(table["aurc"].dropna()) == pytest.approx([0.37, 0.3])
    shown = selective.present(table, spec)
    assert list(shown.bold["AURC"])[:2] == [False, True]
    assert shown.shown["Coverage at R@1 90 %"][0] == "0.315"


def test_compat_table_shows_what_a_switch_changes(metrics: pd.DataFrame) -> None:
    spec = compat.Spec(downstream=SETS, backbones=("vit_base",), variant="default")
    table = compat.build(spec, metrics, None)
    auroc = table[table["switch"] == "auroc"]
    assert list(auroc["difference"]) == pytest.approx([-0.01] * 3)
    shown = compat.present(table, spec)
    assert list(shown.shown["Difference"][shown.bold["Difference"]]) == ["−0.010"] * 3
