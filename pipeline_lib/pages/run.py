"""The page of a run: its headline, each dataset, every table and figure, what the numbers mean, how they were made.

Whatever table, figure or metric there is, is on it; the table `zero_shot` is also its headline.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
from markupsafe import Markup, escape

from pipeline_lib.config import kinds
from pipeline_lib.metrics.found import headed
from pipeline_lib.pages.about import About
from pipeline_lib.pages.parts import Typeset, as_data, template, typeset
from pipeline_lib.tables.published import estimate
from pipeline_lib.tables.render import NOTHING, Table, number, with_spread
from pipeline_lib.tables.summary import MEAN, METHODS, OF_HEADS, EvaluationSet, Summary

if TYPE_CHECKING:
    from types import ModuleType

MAIN = "zero_shot"
_METRIC = "auroc_correct"
_BESIDE = ("class_entropy", "knn_distance", "combination")  # what stands beside a head in a headline
_REM_PER_INCH = 9


@dataclass(frozen=True)
class Figure:
    """A figure: its module, and the picture as PNG."""

    name: str
    module: ModuleType
    picture: bytes

    @property
    def heading(self) -> str:
        """What it is called."""
        return capitalised(kinds.label(self.module))

    @property
    def rem(self) -> float:
        """How wide it is at most, in rem: its type is as large as in the others."""
        return round(_REM_PER_INCH * float(self.module.SIZE[0]), 1)

    @property
    def address(self) -> str:
        """The picture as text."""
        return as_data(self.picture, "image/png")

    @property
    def caption(self) -> Markup:
        """The docstring, of which paragraphs and code are kept."""
        paragraphs = inspect.getdoc(self.module).split("\n\n")  # type: ignore[union-attr]
        return Markup("").join(Markup("<p>{}</p>").format(as_html(text)) for text in paragraphs)


class Headline(NamedTuple):
    """One number with its interval ("" where there is none), what it is of, and more about that in a few words."""

    value: str
    interval: str
    of: str
    more: str = ""


@dataclass(frozen=True)
class Section:
    """What a page says about one dataset: R-AUROC of each backbone, published ones, its rows, and some of its images.

    anchor: by which links find it. card: the dataset's folder of cards. sheet: its contact sheet as text.
    """

    name: str
    anchor: str
    role: str
    images: str
    headlines: list[Headline]
    published: list[str]
    numbers: Typeset
    card: str
    sheet: str


def build_page(
    about: About,
    metrics: pd.DataFrame,
    tables: Mapping[str, tuple[str, Table]],
    figures: Sequence[Figure],
    sheets: Mapping[str, bytes],
    software: Mapping[str, str],
    artefacts: int,
) -> str:
    """Return the page. Equal arguments give equal text.

    Parameters
    ----------
    about
        What the run did.
    metrics
        The rows of metrics.csv.
    tables
        By name, each with what it is called; one without rows is left out.
    figures
        In the order of their categories.
    sheets
        A contact sheet as WebP by dataset.
    software
        Versions by package.
    artefacts
        How many artefacts are behind the numbers.
    """
    first = {MAIN: tables[MAIN], **tables}
    shown = {name: (capitalised(label), typeset(table)) for name, (label, table) in first.items() if len(table.shown)}
    find = Summary(metrics)
    return template(Path(__file__).with_suffix(".html")).render(
        about=about,
        headlines=[_of_backbone(find, about, backbone) for backbone in about.backbones],
        sections=[_section(tables[MAIN][1], about, pair, sheets) for pair in about.sets],
        tables=shown,
        figures={
            category: [figure for figure in figures if category == figure.module.CATEGORY]
            for category in dict.fromkeys(figure.module.CATEGORY for figure in figures)
        },
        glossary=list(_glossary(metrics)),
        software=software,
        artefacts=artefacts,
        rows=len(metrics),
    )


def capitalised(text: str) -> str:
    """Return a heading with a capital, where it begins with a word: t-SNE stays."""
    return text[:1].upper() + text[1:] if text[1:2].isalpha() else text


def as_html(text: str) -> Markup:
    """Return a sentence in which ``code`` is marked so."""
    return Markup(re.sub(r"`{1,2}([^`]+)`{1,2}", r"<code>\1</code>", str(escape(text))))


def _of_backbone(find: Summary, about: About, backbone: str) -> Headline:
    """Return the mean over the unseen datasets of the heads on a backbone, beside what they are measured against."""
    around = estimate(find, _METRIC, about.downstream, backbone, "head", about.variant)
    value = find(_METRIC, MEAN, backbone, "head", about.variant)
    others = {
        method: find(_METRIC, MEAN, backbone, method, about.variant if method in OF_HEADS else "") for method in _BESIDE
    }
    recall = find("r1", MEAN, backbone, "representation")
    more = f"{_beside(others)}; Recall@1 {number(recall)}"
    return Headline(
        number(value), _interval(value - around.value + around.low, value - around.value + around.high), backbone, more
    )


def _beside(others: Mapping[str, float] | pd.Series[Any]) -> str:
    """Return what a head is measured against, from R-AUROC by method: what needs none, and itself with the distance."""
    known = [f"{METHODS[method]} {others[method]:.3f}" for method in _BESIDE if not math.isnan(others[method])]
    return ", ".join(known) or "nothing without a head"


def _section(main: Table, about: About, pair: EvaluationSet, sheets: Mapping[str, bytes]) -> Section:
    values = main.values
    is_here = ((values["dataset"] == pair.dataset) & (values["split"] == pair.split)).to_numpy()
    rows, shown = values[is_here], main.shown[is_here]
    of_first = rows[rows["variant"] == about.variant]
    role = "upstream: held-out images" if pair == about.upstream else "never seen in training"
    sheet = sheets.get(pair.dataset)
    return Section(
        name=about.names[pair],
        anchor=f"dataset-{about.sets.index(pair)}",
        role=role,
        images=next((text for text in shown["n"] if text != NOTHING), ""),
        headlines=[
            Headline(
                number(row["head"]), _interval(row["head_ci_low"], row["head_ci_high"]), row["backbone"], _beside(row)
            )
            for _, row in of_first.iterrows()
        ],
        published=_published(of_first),
        numbers=typeset(_on_its_side(main, is_here)),
        card=f"../cards/{pair.dataset}/card.html",
        sheet="" if sheet is None else as_data(sheet, "image/webp"),
    )


def _published(rows: pd.DataFrame) -> list[str]:
    """Return what was published for a dataset, each model once: `ViT-Base 0.740 ± 0.008`."""
    if "published" not in rows:
        return []
    found = rows[["published_model", "published", "published_spread"]].dropna(subset="published").drop_duplicates()
    return [f"{name} {with_spread(*pair)}" for name, *pair in found.to_numpy()]


def _on_its_side(main: Table, is_here: Any) -> Table:
    """Return some rows of a table as columns, headed by the backbone (and variant): it fits on a phone."""
    shown, bold = main.shown[is_here], main.bold.reindex(columns=main.shown.columns, fill_value=False)[is_here]
    heads = [column for column in ("Backbone", "Variant") if column in shown]
    headings = shown[heads].agg(", ".join, axis=1).tolist()
    said = [column for column in shown.columns if column not in (*heads, "Dataset")]
    said = [column for column in said if (shown[column] != NOTHING).any()]
    texts = pd.DataFrame({"R-AUROC and more": said} | dict(zip(headings, shown[said].to_numpy(), strict=True)))
    marks = pd.DataFrame(dict(zip(headings, bold[said].to_numpy(), strict=True)), index=texts.index)
    return Table(main.values[is_here], texts, marks, "")


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) or math.isnan(high) else f"{low:.3f}–{high:.3f}"


def _glossary(metrics: pd.DataFrame) -> Iterator[tuple[str, str, Markup]]:
    """Yield heading, better direction and meaning of each metric of a run; of a family once."""
    found = {entry[0].name: entry[0] for name in metrics["metric"].unique() if (entry := headed(name))}
    for metric in sorted(found.values(), key=lambda metric: metric.label.casefold()):
        yield re.sub(r"{[^}]*}", "…", metric.label).replace("%", " %"), metric.better, as_html(metric.description)
