"""Tables say what the metric rows say, in forms that Markdown and LaTeX read as they are meant."""

from __future__ import annotations

import csv
import math
import re
import statistics
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.evaluation.metric_rows import COLUMNS
from pipeline_lib.metrics.metric import Metric
from pipeline_lib.tables import all_metrics, render, zero_shot
from pipeline_lib.tables.summary import MEAN, EvaluationSet, Summary, names, read_metrics

PUBLISHED = Path(__file__).parents[2] / "workflow" / "published"
UPSTREAM = EvaluationSet("latin", "test")
GREEK = EvaluationSet("greek", "test")
DIGITS = EvaluationSet("digits", "test")
SPEC = zero_shot.Spec(
    upstream=UPSTREAM, downstream=(GREEK, DIGITS), backbones=("vit",), variants=("default",), confidence=0.95
)
HEAD = {"latin": [0.81, 0.80, 0.85], "greek": [0.70, 0.66, 0.71], "digits": [0.55, 0.50, 0.51]}
ENTROPY = {"latin": 0.79, "greek": 0.72, "digits": 0.49}
RECALL = {"latin": 0.9, "greek": 0.6, "digits": 0.3}


def rows() -> list[list[object]]:
    table = []
    for dataset, n in (("latin", 1200), ("greek", 800), ("digits", 500)):
        for seed, value in enumerate(HEAD[dataset], start=1):
            for metric, shift in (
                ("auroc_correct", 0),
                ("auroc_correct_ci_low", -0.02),
                ("auroc_correct_ci_high", 0.03),
            ):
                table.append(["vit", "head", "default", seed, dataset, "test", metric, value + shift, n])
        table.append(["vit", "class_entropy", "", "", dataset, "test", "auroc_correct", ENTROPY[dataset], n])
        table.append(["vit", "representation", "", "", dataset, "test", "r1", RECALL[dataset], n])
    for seed in range(3):
        mean = (HEAD["greek"][seed] + HEAD["digits"][seed]) / 2
        table.append(["vit", "head", "default", seed + 1, "downstream", "", "avg_downstream_auroc_correct", mean, ""])
    return table


def metrics_file(path: Path, table: list[list[object]]) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *table])
    return path


@pytest.fixture
def metrics(tmp_path: Path) -> pd.DataFrame:
    return read_metrics(metrics_file(tmp_path / "metrics.csv", rows()))


def built(metrics: pd.DataFrame, published: pd.DataFrame | None = None) -> pd.DataFrame:
    return zero_shot.build(SPEC, metrics, published)


def test_zero_shot_rows_are_upstream_then_downstream_then_their_mean(metrics: pd.DataFrame) -> None:
    table = built(metrics)
    assert list(table["dataset"]) == ["latin", "greek", "digits", "downstream"]
    assert list(table["role"]) == ["upstream", "downstream", "downstream", "mean"]


def test_a_backbone_without_a_classifier_has_a_dash_for_its_entropy(metrics: pd.DataFrame) -> None:
    shown = zero_shot.present(built(metrics[metrics["method"] != "class_entropy"]), SPEC).shown
    assert set(shown["Class entropy"]) == set(shown["Head − entropy"]) == {render.NOTHING}
    assert render.NOTHING not in set(shown[zero_shot.HEADINGS["head"]])


def test_what_rounds_to_zero_has_no_minus() -> None:
    assert [render.number(value) for value in (-0.0004, -0.0006)] == ["0.000", "−0.001"]
    assert [render.signed(value) for value in (-0.0004, -0.0006)] == ["+0.000", "−0.001"]


def test_zero_shot_values_are_medians_with_the_larger_distance_to_an_end(metrics: pd.DataFrame) -> None:
    table = built(metrics).set_index("dataset")
    means = [(a + b) / 2 for a, b in zip(HEAD["greek"], HEAD["digits"], strict=True)]
    for dataset, values in {**HEAD, "downstream": means}.items():
        median = statistics.median(values)
        assert table.loc[dataset, "head"] == pytest.approx(median)
        assert table.loc[dataset, "head_spread"] == pytest.approx(max(median - min(values), max(values) - median))
        assert table.loc[dataset, "seeds"] == 3
    assert table.loc["greek", "head_ci_low"] == pytest.approx(0.68)
    assert table.loc["greek", "head_ci_high"] == pytest.approx(0.73)
    assert table.loc["greek", "r1"] == 0.6
    assert table.loc["greek", "n"] == 800
    assert table["embedding_norm"].isna().all()


def test_only_the_best_method_of_a_row_is_bold(metrics: pd.DataFrame) -> None:
    table = zero_shot.present(built(metrics), SPEC)
    bold = [[column for column in table.bold.columns if table.bold.loc[row, column]] for row in range(len(table.shown))]
    assert bold == [["Head"], ["Class entropy"], ["Head"], ["Head"]]


def test_published_columns_stand_where_sets_match(tmp_path: Path, metrics: pd.DataFrame) -> None:
    theirs = [
        ["vit", "head", "default", "", "greek", "test", "auroc_correct", "0.65", ""],
        ["vit", "head", "default", "2", "digits", "test", "auroc_correct", "0.9", ""],
        ["other", "head", "default", "", "digits", "test", "auroc_correct", "0.9", ""],
        ["vit", "class_entropy", "", "", "greek", "test", "auroc_correct", "0.1", ""],
    ]
    published = read_metrics(metrics_file(tmp_path / "published.csv", theirs)).assign(spread=0.01)
    table = built(metrics, published).set_index("dataset")
    assert table.loc["greek", "published"] == 0.65
    assert table.loc["greek", "difference"] == pytest.approx(0.70 - 0.65)
    assert table.loc["digits", ["published", "published_model"]].tolist() == [0.9, "other"]
    assert table["published"].notna().sum() == 2 and table["difference"].notna().sum() == 1
    shown = zero_shot.present(table.reset_index(), SPEC).shown.set_index("Dataset")
    assert shown.loc["greek", "Published"] == "ViT 0.650 ± 0.010"
    assert shown.loc["digits", ["Published", "Difference"]].tolist() == ["other 0.900 ± 0.010", render.NOTHING]
    one = zero_shot.present(built(metrics, published.iloc[:1]), SPEC).shown.set_index("Dataset")
    assert one.loc["greek", "Published: ViT"] == "0.650 ± 0.010"


def test_without_a_match_there_are_no_published_columns(metrics: pd.DataFrame) -> None:
    published = read_metrics(PUBLISHED / "pretrained_uncertainties.csv")
    assert list(built(metrics, published).columns) == list(built(metrics).columns)


def test_all_metrics_repeats_the_representation_beside_each_method(metrics: pd.DataFrame) -> None:
    spec = all_metrics.Spec(**SPEC.model_dump(exclude={"confidence"}))
    table = all_metrics.build(spec, metrics, None)
    assert list(zip(table["method"], table["dataset"], strict=True)) == [
        ("head", "latin"),
        ("head", "greek"),
        ("head", "digits"),
        ("head", "downstream"),
        ("class_entropy", "latin"),
        ("class_entropy", "greek"),
        ("class_entropy", "digits"),
    ]
    assert list(table["r1"].dropna()) == [0.9, 0.6, 0.3] * 2
    assert table["auroc_correct"][1] == 0.70
    shown = all_metrics.present(table, spec).shown
    assert list(shown["R-AUROC"][:3]) == ["0.810", "0.700", "0.510"]
    assert list(shown["Dataset"][:4]) == ["latin", "greek", "digits", "mean of downstream"]


def test_a_mean_over_some_sets_says_so_and_a_minus_is_one(metrics: pd.DataFrame) -> None:
    rows = [["resnet", "head", "default", 1, "greek", "test", "rcorr_entropy", -0.25, 90],
            ["resnet", "head", "default", 1, "downstream", "", "avg_downstream_rcorr_entropy", -0.25, 1]]  # fmt: skip
    some = pd.DataFrame(rows, columns=list(COLUMNS)).replace({"resnet": SPEC.backbones[0]})
    spec = all_metrics.Spec(**SPEC.model_dump(exclude={"confidence"}))
    shown = all_metrics.present(all_metrics.build(spec, pd.concat([metrics, some]), None), spec)
    of_head = shown.shown[shown.shown["Method"].str.startswith("head")].set_index("Dataset")
    assert of_head.loc["greek", "Corr. (votes)"] == "−0.250"
    assert of_head.loc["mean of downstream", "Corr. (votes)"] == "−0.250 (1 of 2)"
    assert "(" not in of_head.loc["mean of downstream", "R-AUROC"] and not render.is_text(shown.shown["Corr. (votes)"])


def test_a_metric_that_a_file_adds_is_shown_and_explained(
    metrics: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = Metric("sharpness", "Sharp", "higher", "How sharp it is.")
    headed = all_metrics.headed
    monkeypatch.setattr(all_metrics, "headed", lambda name: (added, "Sharp") if name == added.name else headed(name))
    sharp = metrics.iloc[:1].assign(metric="sharpness", value=0.25)
    spec = all_metrics.Spec(**SPEC.model_dump(exclude={"confidence"}))
    table = all_metrics.present(all_metrics.build(spec, pd.concat([metrics, sharp]), None), spec)
    assert table.shown["Sharp"].iloc[0] == "0.250" and table.caption.endswith("Sharp: How sharp it is.")


def test_a_dataset_of_two_splits_is_named_with_its_split() -> None:
    sets = [GREEK, EvaluationSet("greek", "train"), DIGITS]
    assert list(names(sets).values()) == ["greek/test", "greek/train", "digits"]


def test_a_dataset_may_be_called_null(tmp_path: Path) -> None:
    path = metrics_file(tmp_path / "m.csv", [["NA", "head", "None", 1, "null", "nan", "auroc_correct", 0.6, 10]])
    find = Summary(read_metrics(path))
    assert find("auroc_correct", EvaluationSet("null", "nan"), "NA", "head", "None") == 0.6


def test_what_was_not_measured_is_nan_and_shown_as_a_dash(metrics: pd.DataFrame) -> None:
    assert math.isnan(Summary(metrics)("auroc_correct", MEAN, "vit", "class_entropy"))
    assert "–" in zero_shot.present(built(metrics), SPEC).shown["Embedding norm"].unique()


def test_missing_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("backbone,method\nvit,head\n")
    with pytest.raises(PipelineError, match=r"bad\.csv: no column 'variant'"):
        read_metrics(path)


def test_written_files_hold_the_same_numbers(tmp_path: Path, metrics: pd.DataFrame) -> None:
    table = zero_shot.present(built(metrics), SPEC)
    paths = [tmp_path / f"zero_shot.{suffix}" for suffix in ("csv", "md", "tex")]
    render.write(table, *paths)
    assert pd.read_csv(paths[0])["head"].tolist() == pytest.approx(table.values["head"].tolist(), rel=1e-5)
    markdown = paths[1].read_text()
    assert (
        "| vit | latin (upstream) | 1,200 | 0.900 | **0.810 ± 0.040** | 0.790 to 0.840 | – | 0.790 | – | – | – |"
        " – | – | – | – |" in markdown
    )
    tex = paths[2].read_text()
    row = r"vit & latin (upstream) & 1,200 & 0.900 & \textbf{0.810 $\pm$ 0.040} & 0.790 to 0.840 & -- & 0.790"
    assert row + r" & -- & -- & -- & -- & -- & -- & -- \\" in tex
    assert tex.count(r"\midrule") == 1 and tex.rstrip().endswith(r"\end{tabular}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "metrics.csv",
        "zero_shot.csv",
        "zero_shot.md",
        "zero_shot.tex",
    ]


def test_groups_are_parted_by_a_rule_and_named_once() -> None:
    shown = pd.DataFrame({"Backbone": ["a", "a", "b"], "R": ["0.1", "0.2", "0.3"]})
    table = render.Table(shown, shown, shown == "none", "caption", groups=1)
    body = render.to_tex(table).splitlines()
    assert body[3:] == [
        r"Backbone & R \\",
        r"\midrule",
        r"a & 0.1 \\",
        r" & 0.2 \\",
        r"\midrule",
        r"b & 0.3 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def unescape_tex(text: str) -> str:
    named = {"textbackslash{}": "\\", "textasciitilde{}": "~", "textasciicircum{}": "^"}
    text = re.sub(r"\$([<>|])\$", r"\1", text)
    return re.sub(r"\\(text[a-z]+\{\}|.)", lambda match: named.get(match[1], match[1]), text)


@given(st.text(alphabet="ab_&%$#{}~^\\<>|*`[] ", min_size=1, max_size=20))
def test_names_survive_markdown_and_tex(name: str) -> None:
    frame = pd.DataFrame({"Name": [name]})
    table = render.Table(frame, frame, pd.DataFrame({"Name": [False]}), "caption")
    tex_row = render.to_tex(table).splitlines()[5].removesuffix(r" \\")
    assert unescape_tex(tex_row) == name
    markdown_row = render.to_markdown(table).splitlines()[-1].removeprefix("| ").removesuffix(" |")
    assert re.sub(r"\\(.)", r"\1", markdown_row) == name
    assert not re.search(r"(?<!\\)(\\\\)*[|*_`<]", markdown_row)


@pytest.mark.parametrize("file", ["pretrained_uncertainties.csv", "url_benchmark.csv"])
def test_published_numbers_are_tidy(file: str) -> None:
    table = read_metrics(PUBLISHED / file)
    key = [column for column in COLUMNS if column not in ("value", "n")]
    assert not table.duplicated(key).any()
    assert table["value"].notna().all()
    assert (table["source"] != "").all()


def test_published_averages_follow_from_their_parts() -> None:
    table = read_metrics(PUBLISHED / "pretrained_uncertainties.csv")
    mine = table[
        (table["backbone"] == "vit_base") & (table["variant"] == "default") & (table["metric"] == "auroc_correct")
    ]
    parts = mine[mine["dataset"].isin(["cub", "cars", "sop"])]["value"]
    assert len(parts) == 3
    whole = mine[mine["dataset"] == "cub+cars+sop"]
    assert parts.mean() == pytest.approx(whole[whole["seed"].isna()]["value"].item(), abs=0.001)
    assert whole[whole["seed"].notna()]["value"].median() == pytest.approx(0.608, abs=0.0005)
    inside = mine.dropna(subset="minimum")
    assert len(inside) == 13
    assert (inside["value"].between(inside["minimum"] - 5e-4, inside["maximum"] + 5e-4)).all()
