"""Every method of the URL benchmark on every architecture, averaged over datasets that no method has seen.

How well its own uncertainty predicts wrong nearest neighbours (R-AUROC), how good its representation is (R@1), whether
crops get a larger uncertainty, agreement with people where a dataset has votes, detection of unseen datasets, and
R-AUROC on a mix with upstream images. Rows `head …` are pretrained heads on frozen backbones. Published numbers where
architecture and datasets match.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pipeline_lib.config.benchmark import backbone_name
from pipeline_lib.tables.published import MEAN_OF
from pipeline_lib.tables.render import Table, number, number_of_seeds, signed, with_spreads, without_constant
from pipeline_lib.tables.spec import ViewSpec
from pipeline_lib.tables.summary import EvaluationSet, on_sets

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.config.config import Config

LABEL, PAPER = "methods of the URL benchmark", ""
PUBLISHED = "url_benchmark"
OWN = "own_uncertainty"  # metric rows of a method's own uncertainty
# Metric -> (the method whose rows hold it: None = the representation's; heading).
METRICS_SHOWN = {
    "auroc_correct": (OWN, "R-AUROC"),
    "r1": (None, "R@1"),
    "croppedHasBiggerUnc": (OWN, "Crop has larger u"),
    "rcorr_entropy": (OWN, "Corr. with people"),
    "auroc_ood": (OWN, "OOD AUROC"),
    "auroc_correct_mixed": (OWN, "R-AUROC, mixed"),
}
# Each published metric is that of the model chosen by it.
_PUBLISHED_VARIANT = {"auroc_correct": "", "r1": "selected_by_r1"}


class Entry(NamedTuple):
    """One row: an architecture, a method, and the backbone of each seed.

    head: None for a method of the benchmark; the variant of a pretrained head, all of whose seeds are on one backbone.
    selection: the metric that a method's models were chosen by.
    """

    architecture: str
    method: str
    backbones: Mapping[int, str]
    head: str | None = None
    selection: str | None = None


class Spec(ViewSpec):
    """What is shown: the rows of an architecture together, its methods first, then the pretrained heads on it."""

    averaged: tuple[EvaluationSet, ...]
    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return the spec."""
        entries = [*_methods(config), *_pretrained_heads(config)]
        order = list(dict.fromkeys(entry.architecture for entry in entries))
        return cls.with_common(config, entries=sorted(entries, key=lambda entry: order.index(entry.architecture)))


def wanted(config: Config) -> bool:
    """Return whether a config has the table and the figure of the same name."""
    return config.benchmark is not None


def _methods(config: Config) -> Iterator[Entry]:
    assert config.benchmark is not None, "a config without the benchmark doesn't want its table"
    for name, architecture in config.benchmark.architectures.items():
        for method in architecture.methods:
            models = {seed: backbone_name(name, method, seed) for seed in config.benchmark.seeds}
            backbone: Any = config.backbone(next(iter(models.values())))
            yield Entry(name, method, models, selection=backbone.training.selection)


def _pretrained_heads(config: Config) -> Iterator[Entry]:
    architectures = {name: _architecture(config, name) for name in config.backbones}
    for name, architecture in architectures.items():
        on = "" if list(architectures.values()).count(architecture) == 1 else f"_on_{name}"
        for variant in config.variants:
            yield Entry(architecture, f"head_{variant}{on}", dict.fromkeys(config.seeds, name), variant)


def _architecture(config: Config, backbone: str) -> str:
    """Return the benchmark's architecture that a backbone is of: the same timm model, else another tag of it.

    A backbone whose architecture no method trains is one of its own.
    """
    options = config.backbone(backbone)
    model = getattr(options, "model", None) or getattr(options, "architecture", None) or ""
    architectures = config.benchmark.architectures.items() if config.benchmark else ()
    exact = [name for name, known in architectures if known.architecture == model]
    similar = [name for name, known in architectures if known.architecture.split(".")[0] == model.split(".")[0]]
    return [*exact, *similar, backbone][0]


def seed_means(metrics: pd.DataFrame, entry: Entry, averaged: Sequence[EvaluationSet]) -> pd.DataFrame:
    """Return one row per seed and one column per metric of `METRICS_SHOWN`: plain means over the sets that have it.

    metrics: rows as `summary.read_metrics` gives them.
    """
    import pandas as pd

    rows = on_sets(metrics, averaged)
    found = {}
    for seed, backbone in entry.backbones.items():
        of_backbone = rows[rows["backbone"] == backbone]
        is_own = of_backbone["method"] == OWN
        if entry.head is not None:
            is_own = (
                (of_backbone["method"] == "head")
                & (of_backbone["variant"] == entry.head)
                & (of_backbone["seed"] == seed)
            )
        own, representation = of_backbone[is_own], of_backbone[of_backbone["method"] == "representation"]
        found[seed] = {
            metric: rows_of.loc[rows_of["metric"] == metric, "value"].mean()
            for metric, (method, _) in METRICS_SHOWN.items()
            for rows_of in [representation if method is None else own]
        }
    return pd.DataFrame.from_dict(found, orient="index", columns=list(METRICS_SHOWN))


def build(spec: Spec, metrics: pd.DataFrame, published: pd.DataFrame | None) -> pd.DataFrame:
    """Return one row per architecture and method: medians over seeds of the means over the sets, and their spreads.

    Columns architecture, method, dataset, seeds, and <metric>, <metric>_spread (NaN of one seed);
    `published_<metric>` for R-AUROC and R@1 where the paper prints a number for the architecture and method on the same
    sets, and `difference_<metric>` from it where our models were chosen by that metric, as the published ones were.

    metrics, published: rows as `summary.read_metrics` gives them.
    """
    import pandas as pd

    names = sorted(pair.dataset for pair in spec.averaged)
    rows = []
    for entry in spec.entries:
        means = seed_means(metrics, entry, spec.averaged)
        median = means.median()
        row: dict[str, Any] = {"architecture": entry.architecture, "method": entry.method}
        row |= {"dataset": MEAN_OF.join(names), "seeds": len(means)}
        for metric in METRICS_SHOWN:
            row[metric] = median[metric]
            largest = max(median[metric] - means[metric].min(), means[metric].max() - median[metric])
            row[f"{metric}_spread"] = largest if len(means) > 1 else float("nan")
        if published is not None and entry.head is None:
            row |= _published(published, entry, spec.averaged)
            if entry.selection and (theirs := row.get(f"published_{entry.selection}")) is not None:
                row[f"difference_{entry.selection}"] = row[entry.selection] - theirs
        rows.append(row)
    return pd.DataFrame(rows)


def present(table: pd.DataFrame, spec: Spec) -> Table:
    """Return the result of `build` ready to be written; the best R-AUROC and R@1 of each architecture are bold."""
    import pandas as pd

    shown = pd.DataFrame({"Architecture": table["architecture"], "Method": table["method"].str.replace("_", " ")})
    bold = pd.DataFrame(index=shown.index)
    for metric, (_, heading) in METRICS_SHOWN.items():
        if table[metric].isna().all():
            continue
        shown[heading] = with_spreads(table, metric, f"{metric}_spread")
        if metric in _PUBLISHED_VARIANT:
            rounded = table[metric].round(3)
            bold[heading] = rounded == rounded.groupby(table["architecture"]).transform("max")
        if f"published_{metric}" in table:
            shown[f"{heading}, published"] = table[f"published_{metric}"].map(number)
        if f"difference_{metric}" in table:
            shown[f"{heading}, difference"] = table[f"difference_{metric}"].map(signed)
    caption = (
        f"The methods of the URL benchmark, averaged over {', '.join(table['dataset'].iloc[0].split(MEAN_OF))}, which "
        f"no method has seen. Median over {number_of_seeds(table)}"
        + (" ± the larger distance to the minimum or maximum" if table["seeds"].max() > 1 else "")
        + ". R-AUROC: how well a method's own uncertainty predicts that an image's nearest neighbour has another label "
        "(0.5 = chance). Bold: the best of an architecture."
    )
    if any(f"published_{metric}" in table for metric in _PUBLISHED_VARIANT):
        caption += (
            " Published: R-AUROC of the models chosen by R-AUROC, R@1 of those chosen by R@1. Differences: where ours "
            "were chosen by the same metric."
        )
    shown, groups = without_constant(shown, "Architecture", 1)
    return Table(table, shown, bold, caption, groups)


def _published(published: pd.DataFrame, entry: Entry, averaged: Sequence[EvaluationSet]) -> dict[str, float]:
    """Return the printed numbers of a row, by column."""
    import pandas as pd

    same = published[(published["backbone"] == entry.architecture) & (published["method"] == entry.method)]
    is_on_sets = [
        sorted(averaged) == sorted(EvaluationSet(name, split) for name in dataset.split(MEAN_OF))
        for dataset, split in same[["dataset", "split"]].itertuples(index=False, name=None)
    ]
    # As booleans, also of no row at all: an empty list would choose columns.
    same = same[pd.Series(is_on_sets, index=same.index, dtype=bool)]
    found = {}
    for metric, variant in _PUBLISHED_VARIANT.items():
        values = same.loc[(same["metric"] == metric) & (same["variant"] == variant), "value"]
        if len(values):
            found[f"published_{metric}"] = float(values.iloc[0])
    return found
