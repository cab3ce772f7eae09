"""The table and the figure of the URL benchmark, against sums by hand."""

from __future__ import annotations

import functools
from pathlib import Path

import pandas as pd
import pytest

from pipeline_lib.config import kinds
from pipeline_lib.config.config import Config
from pipeline_lib.config.load import load_config, parse_config
from pipeline_lib.core.jobs import Ref
from pipeline_lib.figures import benchmark as benchmark_figure
from pipeline_lib.stages import table
from pipeline_lib.tables import benchmark
from pipeline_lib.tables.benchmark import OWN, Entry
from pipeline_lib.tables.render import Table
from pipeline_lib.tables.summary import EvaluationSet, read_metrics

WORKFLOW = Path(__file__).parents[2] / "workflow"
PUBLISHED = read_metrics(WORKFLOW / "published/url_benchmark.csv")
SETS = [EvaluationSet(name, "test") for name in ("cub", "cars", "sop")]


@functools.cache
def shipped(file: str) -> Config:
    return load_config(WORKFLOW / f"configs/{file}.yaml")


def rows(backbone: str, method: str, metric: str, values: list[float], variant: str = "", seed: int | None = None):
    return [
        {"backbone": backbone, "method": method, "variant": variant, "seed": seed, "dataset": pair.dataset,
         "split": pair.split, "metric": metric, "value": value, "n": 10}
        for pair, value in zip(SETS, values, strict=False)
    ]  # fmt: skip


@pytest.fixture
def metrics() -> pd.DataFrame:
    found = []
    for seed, shift in ((1, 0.0), (2, 0.03), (3, -0.09)):
        name = f"resnet50_imagenet1k_ce_seed{seed}"
        found += rows(name, OWN, "auroc_correct", [0.5 + shift, 0.6 + shift, 0.7 + shift])
        found += rows(name, "class_entropy", "auroc_correct", [0.1, 0.1, 0.1])
        found += rows(name, "representation", "r1", [0.3 + shift, 0.4 + shift, 0.5 + shift])
        found += rows(name, OWN, "rcorr_entropy", [0.2 + shift])  # one set with votes
        found += [{**row, "dataset": "elsewhere", "value": 0.99} for row in found[-1:]]
    found += rows("resnet50", "representation", "r1", [0.2, 0.3, 0.4])
    for seed, value in ((1, 0.8), (2, 0.7)):
        found += rows("resnet50", "head", "auroc_correct", [value] * 3, "default", seed)
        found += rows("resnet50", "head", "auroc_correct", [0.1] * 3, "other", seed)
    table = pd.DataFrame(found)
    return table.assign(seed=table["seed"].astype("Int64"))


ENTRIES = [
    Entry(
        "resnet50_imagenet1k",
        "ce",
        {seed: f"resnet50_imagenet1k_ce_seed{seed}" for seed in (1, 2, 3)},
        selection="auroc_correct",
    ),
    Entry("resnet50", "head_default", {1: "resnet50", 2: "resnet50"}, "default"),
]


def built(metrics, entries=ENTRIES, averaged=SETS, published: pd.DataFrame | None = PUBLISHED) -> pd.DataFrame:
    return benchmark.build(benchmark.Spec(entries=entries, averaged=averaged), metrics, published)


def presented(table: pd.DataFrame) -> Table:
    return benchmark.present(table, benchmark.Spec(entries=(), averaged=()))


def test_values_are_medians_over_seeds_of_means_over_sets(metrics: pd.DataFrame) -> None:
    table = built(metrics)
    ce, head = table.to_dict("records")
    assert ce["auroc_correct"] == pytest.approx(0.6)
    assert ce["auroc_correct_spread"] == pytest.approx(0.09)
    assert ce["r1"] == pytest.approx(0.4)
    assert ce["rcorr_entropy"] == pytest.approx(0.2)
    assert (head["auroc_correct"], head["r1"]) == (pytest.approx(0.75), pytest.approx(0.3))
    assert head["r1_spread"] == pytest.approx(0)
    assert pd.isna(ce["auroc_ood"])


def test_published_numbers_stand_beside_the_same_architecture_method_and_sets(metrics: pd.DataFrame) -> None:
    ce, head = built(metrics, averaged=SETS[::-1]).to_dict("records")
    assert (ce["published_auroc_correct"], ce["published_r1"]) == (0.504, 0.476)
    assert pd.isna(head["published_auroc_correct"])
    fewer = built(metrics, averaged=SETS[:2])
    assert "published_auroc_correct" not in fewer
    validation = [shown._replace(split="validation") for shown in SETS]
    elsewhere = built(metrics.assign(split="validation"), averaged=validation)
    assert elsewhere["auroc_correct"][0] == pytest.approx(0.6)
    assert "published_auroc_correct" not in elsewhere, "the published split is another"
    unheard_of = [ENTRIES[0]._replace(architecture="mine")]
    assert "published_auroc_correct" not in built(metrics, unheard_of)


def test_the_page_shows_what_there_is_and_marks_the_best(metrics: pd.DataFrame) -> None:
    shown = presented(built(metrics))
    assert "OOD AUROC" not in shown.shown, "no set has it"
    assert shown.shown["R-AUROC"].tolist() == ["0.600 ± 0.090", "0.750 ± 0.050"]
    assert shown.shown["R-AUROC, difference"].tolist() == ["+0.096", "–"]
    assert shown.bold["R-AUROC"].tolist() == [True, True], "the best of its architecture"
    assert "Median over 3 seeds" in shown.caption


def test_one_seed_has_no_spread(metrics: pd.DataFrame) -> None:
    one = ENTRIES[0]._replace(backbones={1: "resnet50_imagenet1k_ce_seed1"})
    shown = presented(built(metrics, [one], published=None))
    assert shown.shown["R-AUROC"].tolist() == ["0.600"]


def test_the_figure_has_a_point_per_seed(metrics: pd.DataFrame) -> None:
    figure = benchmark_figure.draw(metrics, ENTRIES, SETS, 6.75, 3.6)
    points = {line.get_gid(): (line.get_xdata(), line.get_ydata()) for axes in figure.axes for line in axes.lines}
    x, y = points["resnet50_imagenet1k/ce"]
    assert sorted(x) == pytest.approx([0.31, 0.4, 0.43])
    assert sorted(y) == pytest.approx([0.51, 0.6, 0.63])
    assert len(figure.axes) == 2


@pytest.mark.parametrize("selection", ["auroc_correct", "r1", "last"])
def test_a_difference_compares_models_that_were_chosen_by_the_same_metric(
    metrics: pd.DataFrame, selection: str
) -> None:
    shown = presented(built(metrics, [ENTRIES[0]._replace(selection=selection)]))
    assert shown.shown[["R-AUROC, published", "R@1, published"]].to_numpy().tolist() == [["0.504", "0.476"]]
    differences = {"auroc_correct": {"R-AUROC": "+0.096"}, "r1": {"R@1": "−0.076"}, "last": {}}[selection]
    found = {name: shown.shown[name].item() for name in shown.shown if name.endswith("difference")}
    assert found == {f"{heading}, difference": value for heading, value in differences.items()}
    assert "R@1 of those chosen by R@1" in shown.caption


@pytest.mark.slow
@pytest.mark.parametrize(("file", "architectures"), [("url_benchmark", 2), ("url_mini", 1)])
def test_the_pretrained_head_stands_beside_the_methods_of_its_architecture(
    metrics: pd.DataFrame, file: str, architectures: int
) -> None:
    """As the benchmark ships: its table marks one best model of each architecture, its figure has a panel for each."""
    entries = benchmark.Spec.of(shipped(file)).entries
    names = [entry.architecture for entry in entries]
    assert [names.count(name) for name in names] == [12] * 12 * architectures
    assert names == sorted(names), "the rows of an architecture are together"
    assert [entry.method for entry in entries][11::12] == ["head_default"] * architectures
    assert len(benchmark_figure.draw(metrics, entries, SETS, 6.75, 3.6).axes) == architectures
    assert all((entry.selection == "auroc_correct") == (entry.head is None) for entry in entries)


def test_of_the_shipped_benchmark_only_the_best_of_an_architecture_is_bold(metrics: pd.DataFrame) -> None:
    entries = benchmark.Spec.of(shipped("url_benchmark")).entries
    table = built(metrics, entries)
    assert table.loc[presented(table).bold["R-AUROC"], "method"].tolist() == ["head_default"]
    assert table.loc[presented(table).bold["R@1"], "method"].tolist() == ["ce"]


def test_heads_on_several_backbones_of_an_architecture_are_told_apart() -> None:
    world = shipped("url_benchmark").model_dump()
    world["backbones"] |= {
        "other_weights": {"kind": "timm", "model": "resnet50.tv_in1k"},
        "elsewhere": {"kind": "timm", "model": "resnet18.a1_in1k"},
    }
    entries = benchmark.Spec.of(parse_config(world)).entries
    assert [(entry.architecture, entry.method) for entry in entries if entry.head] == [
        ("resnet50_imagenet1k", "head_default_on_resnet50"),
        ("resnet50_imagenet1k", "head_default_on_other_weights"),
        ("vit_medium_imagenet1k", "head_default"),
        ("elsewhere", "head_default"),
    ]


def test_a_config_with_methods_has_the_table_and_the_figure() -> None:
    config = shipped("url_mini")
    for family in ("figures", "tables"):
        assert "benchmark" in kinds.wanted(family, config)
    spec = table.Spec.of(config, "benchmark")
    assert table.Spec.model_validate(spec.plain()) == spec
    assert table.inputs(config, "benchmark")["published"] == Ref.to("published", name="url_benchmark")
