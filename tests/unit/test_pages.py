"""The page of a run says what its tables say, and stands alone."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from pipeline_lib.config import kinds
from pipeline_lib.config.load import load_config, parse_config
from pipeline_lib.pages import parts
from pipeline_lib.pages.run import Figure, as_html, build_page, capitalised
from pipeline_lib.stages import report, table
from pipeline_lib.tables.render import Table
from pipeline_lib.tables.summary import EvaluationSet, read_metrics
from tests.unit.drawings import BACKBONES, SEEDS, UPSTREAM, make_metrics, rows_to_metrics

ROOT = Path(__file__).parents[2]
SETS = [EvaluationSet("pets", "test"), EvaluationSet("greek", "test")]
PUBLISHED = read_metrics(ROOT / "workflow/published/pretrained_uncertainties.csv")


def spec(**changes: object) -> report.Spec:
    content = load_config(ROOT / "config.yaml").model_dump(mode="json", exclude_unset=True)
    found = report.Spec.of(parse_config(content))
    shown = {"upstream": UPSTREAM, "downstream": tuple(SETS), "backbones": tuple(BACKBONES), "figures": ("densities",)}
    sets = {"upstream": UPSTREAM, "downstream": SETS}
    shows = sets | {"backbones": BACKBONES, "variants": ["default"], "confidence": 0.95}
    main = table.Spec(name="zero_shot", shows=shows)
    return found.model_copy(update=shown | {"tables": (main,)} | changes)


@pytest.fixture(scope="module")
def metrics() -> pd.DataFrame:
    rows = make_metrics(SETS, BACKBONES, SEEDS)
    means = [
        [backbone, method, variant, seed, "downstream", "", f"avg_downstream_{metric}", value, 2]
        for backbone in BACKBONES
        for method, variant, seed, metric, value in [
            *(("head", "default", seed, "auroc_correct", 0.7 + seed / 100) for seed in SEEDS),
            ("class_entropy", "", None, "auroc_correct", 0.61),
            ("representation", "", None, "r1", 0.5),
        ]
    ]
    return pd.concat([rows, rows_to_metrics(means)], ignore_index=True)


def page_of(metrics: pd.DataFrame, shown: report.Spec) -> str:
    (main,) = shown.tables
    empty = Table(pd.DataFrame(), pd.DataFrame({"Nothing": []}), pd.DataFrame(), "no rows")
    tables = {"empty": ("empty", empty), "zero_shot": ("zero-shot", table.presented(main, metrics, PUBLISHED))}
    figures = [Figure("densities", kinds.load("figures", "densities"), b"\x89PNG")]
    return build_page(shown, metrics, tables, figures, {"pets": b"webp"}, {"numpy": "2"}, 12)


def section(page: str, heading: str) -> str:
    return plain(page.split(f">{heading}</h3>", 1)[1].split("</section>", 1)[0])


def plain(text: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def test_the_headline_is_the_tables_mean_and_what_needs_no_head(metrics: pd.DataFrame) -> None:
    text = plain(page_of(metrics, spec()))
    assert "0.720" in text and "class entropy 0.610; Recall@1 0.500" in text


def test_published_values_stand_beside_their_dataset_alone(metrics: pd.DataFrame) -> None:
    page = page_of(metrics, spec())
    cards = dict(re.findall(r"<strong>(\w+)</strong>(.*?)</a>", page, re.DOTALL))
    assert list(cards) == ["latin", "pets", "greek"]
    assert "published: ViT-Base 0.740 ± 0.008" in cards["pets"]
    assert "published" not in cards["greek"] + cards["latin"]
    assert "Published: ViT-Base 0.740 ± 0.008" in section(page, "pets") and "Published" not in section(page, "greek")


def test_the_page_stands_alone_and_has_no_empty_table(metrics: pd.DataFrame) -> None:
    page = page_of(metrics, spec())
    assert "table-empty" not in page and 'id="table-zero_shot"' in page
    assert 'src="data:image/png;base64,' in page and 'src="data:image/webp;base64,' in page
    assert not re.findall(r'(?:src|href)="(?!data:|#|\.\./)', page) and "<script" not in page
    assert page_of(metrics, spec()) == page, "equal results, equal bytes"


def test_the_page_says_by_what_the_heads_learnt(metrics: pd.DataFrame) -> None:
    assert "loss of the backbone's own classifier" in page_of(metrics, spec(task_losses=("cross_entropy",)))
    assert "task loss (knn, probe)" in page_of(metrics, spec(task_losses=("knn", "probe")))


def test_every_metric_of_the_run_is_explained_once(metrics: pd.DataFrame) -> None:
    terms = re.findall(r"<dt>(.*?)</dt>", page_of(metrics, spec()))
    assert {"R-AUROC", "R@1", "AUROC (OOD)"} < set(terms) and len(terms) == len(set(terms))
    assert "AURC" not in terms, "it was not measured"


def test_texts_are_escaped_and_code_is_marked() -> None:
    assert as_html("a < b of ``u``") == "a &lt; b of <code>u</code>"
    assert [capitalised(text) for text in ("t-SNE", "safe retrieval", "1-NN")] == ["t-SNE", "Safe retrieval", "1-NN"]
    odd = parts.typeset(Table(pd.DataFrame(), pd.DataFrame({"<b>": ["<script>"]}), pd.DataFrame(index=[0]), ""))
    assert "<script>" not in parts.template(ROOT / "pipeline_lib/pages/parts.html").module.show_table(odd)
