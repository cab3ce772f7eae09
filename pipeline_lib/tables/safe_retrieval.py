"""Table 1 of the paper: the error of a nearest-neighbour search without uncertain images.

Over all images, without the most uncertain queries, and with a database that the most uncertain images were taken out
of too. The share is taken from each true class (as published, which needs labels), from all images, or from the images
whose nearest neighbour has the same class. Beside u as what decides stand the distance to the nearest neighbour, and
both together.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

from pipeline_lib.evaluation.spec import KINDS, SIGNALS
from pipeline_lib.tables.published import Counterparts, model
from pipeline_lib.tables.render import NOTHING, Table, count, number, number_of_seeds, with_spreads
from pipeline_lib.tables.spec import SetsSpec
from pipeline_lib.tables.summary import MEAN, EvaluationSet, Summary, role, row_names

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.config.config import Config
    from pipeline_lib.retrieval.signals import Signal

LABEL, PAPER = "safe retrieval", "Table 1"
PUBLISHED = "pretrained_uncertainties"
# What the most uncertain images are the ones of, per kind of threshold.
LABELS = {"per_class": "each true class", "global": "all images", "per_neighbour_class": "each neighbour's class"}
_CLEANED = ("clean_queries", "clean_database")
_BESIDE: dict[Signal, str] = {"distance": "by distance", "both": "by both"}
_PUBLISHED_COLUMNS = ("published_full", *(f"published_{name}{end}" for name in _CLEANED for end in ("", "_spread")))


class Spec(SetsSpec):
    """What is shown: the first variant, with which alone is searched; `table_share` is the share that is left out."""

    backbones: tuple[str, ...]
    variant: str
    table_share: float

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return the spec."""
        return cls.with_common(config, table_share=config.evaluation.safe_retrieval.table_share)


def build(spec: Spec, metrics: pd.DataFrame, published: pd.DataFrame | None) -> pd.DataFrame:
    """Return one row per backbone, set and kind of threshold: the upstream set first, the mean last.

    Columns: `full` is the 1-NN error of all images, `clean_queries` the one without the most uncertain queries,
    `clean_database` the one without the most uncertain images in the database either (medians over seeds, `_spread`:
    the larger distance to the minimum or maximum), `reduction` = 1 - clean_database / full; `clean_queries_by_distance`
    and so on leave out by the other signals. Where at least one row has a published counterpart (same dataset and
    split; kind `per_class`), `published_full` and so on follow.

    metrics, published: rows as `summary.read_metrics` gives them.
    """
    import pandas as pd

    find = Summary(metrics)
    table = pd.DataFrame(
        [
            _row(find, shown, spec.upstream, backbone, spec.variant, kind)
            for backbone in spec.backbones
            for shown in [*spec.sets, MEAN]
            for kind in KINDS
        ]
    )
    table[["n", "seeds"]] = table[["n", "seeds"]].astype("Int64")
    return table if published is None else _beside_published(table, published)


def _row(
    find: Summary, shown: EvaluationSet, upstream: EvaluationSet, backbone: str, variant: str, kind: str
) -> dict[str, str | float]:
    def error(of: str, statistic: str = "median") -> float:
        return find(f"error_1nn_{of}", shown, backbone, "head", variant, statistic)

    full, clean_database = error("full"), error(f"clean_database{KINDS[kind]}")
    return {
        "backbone": backbone,
        "variant": variant,
        "role": role(shown, upstream),
        "dataset": shown.dataset,
        "split": shown.split,
        "n": error("full", "n"),
        "seeds": error("full", "seeds"),
        "kind": kind,
        "full": full,
        **{
            f"{quantity}{by}{end}": error(f"{quantity}{KINDS[kind]}{by}", statistic)
            for by in SIGNALS.values()
            for quantity in _CLEANED
            for end, statistic in (("", "median"), ("_spread", "spread"))
        },
        "reduction": 1 - clean_database / full if full > 0 else float("nan"),
    }


def present(table: pd.DataFrame, spec: Spec) -> Table:
    """Return the result of `build` ready to be written."""
    import pandas as pd

    is_upstream = table["role"] == "upstream"
    shown = pd.DataFrame(
        {
            "Backbone": table["backbone"],
            "Dataset": row_names(table) + is_upstream.map({True: " (upstream)", False: ""}),
            "n": table["n"].astype(float).where(table["role"] != "mean").map(count),
            "Full": table["full"].map(number),
            "Most uncertain of": table["kind"].map(LABELS),
            "+ clean queries": with_spreads(table, "clean_queries", "clean_queries_spread"),
            "+ clean database": with_spreads(table, "clean_database", "clean_database_spread"),
            "Change": table["reduction"].map(_percent),
            **{
                f"{heading} {by}": table[f"{quantity}{SIGNALS[signal]}"].map(number)
                for signal, by in _BESIDE.items()
                for quantity, heading in zip(_CLEANED, ("Queries", "Database"), strict=True)
            },
        }
    )
    if "published_full" in table:
        shown["Published model"] = table["published_model"].fillna(NOTHING)
        shown["Published full"] = table["published_full"].map(number)
        for quantity, heading in zip(_CLEANED, ("Published + queries", "Published + database"), strict=True):
            shown[heading] = with_spreads(table, f"published_{quantity}", f"published_{quantity}_spread")
    share = f"{100 * spec.table_share:g} %"
    caption = (
        f"Safe retrieval, variant {spec.variant}: 1-NN error of all images, without the {share} most uncertain "
        "queries, and without the "
        f"{share} most uncertain images in the database either. The most uncertain of each true class (as published; "
        "it needs the queries' labels), of all images, or of the images whose nearest neighbour has the same class "
        f"(neither needs them). Median over {number_of_seeds(table)} ± the larger distance to the "
        "minimum or maximum. Change: of the error, from full to clean database. By distance: without those farthest "
        "from their nearest neighbours; by both: by z(distance) + max(0, ρ) z(u), ρ their rank correlation on the set "
        "(medians)."
    )
    # Up to "Full" is what the three kinds share.
    return Table(table, shown, pd.DataFrame(index=shown.index), caption, groups=4)


def _beside_published(table: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Add the published columns; a table without any counterpart comes back as it is."""
    find = Counterparts(published)
    columns: dict[str, list[Any]] = {name: [] for name in ("published_model", *_PUBLISHED_COLUMNS)}
    for row in table.to_dict("records"):
        where = (row["dataset"], row["split"], row["backbone"])
        names = ("full", *_CLEANED) if row["kind"] == "per_class" else ()
        all_of = [find(f"error_1nn_{name}", *where) for name in names]
        full, *cleaned = all_of if all_of and all(all_of) else [None] * 3
        columns["published_model"].append(model(full.backbone) if full else None)
        columns["published_full"].append(full.value if full else math.nan)
        for name, found in zip(_CLEANED, cleaned, strict=True):
            columns[f"published_{name}"].append(found.value if found else math.nan)
            columns[f"published_{name}_spread"].append(found.spread if found else math.nan)
    return table.assign(**columns) if any(columns["published_model"]) else table


def _percent(reduction: float) -> str:
    if math.isnan(reduction):
        return NOTHING
    rounded = round(100 * reduction)
    sign = "−" if rounded > 0 else "+" if rounded < 0 else ""
    return f"{sign}{abs(rounded)} %"
