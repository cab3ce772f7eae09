"""The classes of each dataset with the most wrong neighbours, and whether their images are the uncertain ones.

Median rank of u is among all images of the dataset, from 0 to 1. Rejected is how much of the class is among the most
uncertain tenth of all images: where that is most of one class and nothing of others, a threshold for each class is
fairer. u is the mean over seeds. The CSV has every class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.core import artefacts
from pipeline_lib.tables.reading import mean_uncertainty, read_sets
from pipeline_lib.tables.render import Table, count, number
from pipeline_lib.tables.spec import HeadsSpec, SetsSpec, datasets_of
from pipeline_lib.tables.summary import row_names

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.config.config import Config
    from pipeline_lib.core.jobs import Job, Refs
    from pipeline_lib.tables.summary import EvaluationSet

LABEL, PAPER = "classes", ""
_SHOWN = 5  # classes of a dataset that are typeset


class Spec(SetsSpec, HeadsSpec):
    """What is shown."""


def inputs(config: Config) -> Refs:
    """Return what the table is made of: `datasets`, `scores`, `baselines` of each set, the upstream one first."""
    spec = Spec.of(config)
    return {"datasets": datasets_of(spec.sets), **spec.per_image(spec.sets)}


def classes_of_sets(job: Job[Spec]) -> dict[EvaluationSet, pd.DataFrame]:
    """Return `class_table` of each set that a job reads; its classes are numbers."""
    from pipeline_lib.metrics.within_classes import class_table

    spec = job.spec
    scores = read_sets(job.all_inputs("scores"), spec.sets, **spec.heads)
    baselines = read_sets(job.all_inputs("baselines"), spec.sets, backbone=spec.backbone)
    return {
        pair: class_table(
            mean_uncertainty(scores[pair]),
            ~baselines[pair]["correct"].to_numpy(bool),
            baselines[pair]["label"].to_numpy(),
        )
        for pair in spec.sets
    }


def build_from(job: Job[Spec]) -> pd.DataFrame:
    """Return one row per set and class, the largest 1-NN error first: `dataset`, `split`, those of `class_table`."""
    import pandas as pd

    tables = []
    for folder, (pair, table) in zip(job.all_inputs("datasets"), classes_of_sets(job).items(), strict=True):
        names = artefacts.read(folder, "dataset").facts["classes"]
        table = table.assign(dataset=pair.dataset, split=pair.split, **{"class": [names[k] for k in table["class"]]})
        tables.append(table.sort_values("error", ascending=False, kind="stable"))
    table = pd.concat(tables, ignore_index=True)
    return table[["dataset", "split", *table.columns.drop(["dataset", "split"])]]


def present(table: pd.DataFrame, spec: Spec) -> Table:
    """Return the result of `build_from` ready to be written: of each set its first classes."""
    import pandas as pd

    is_upstream = (table["dataset"] == spec.upstream.dataset) & (table["split"] == spec.upstream.split)
    table = table.assign(Dataset=row_names(table) + is_upstream.map({True: " (upstream)", False: ""}))
    first = table.groupby(["dataset", "split"], sort=False).head(_SHOWN)
    shown = pd.DataFrame(
        {
            "Dataset": first["Dataset"],
            "Class": first["class"].astype(str),
            "Images": first["images"].map(count),
            "1-NN error": first["error"].map(number),
            "R-AUROC within": first["r_auroc"].map(number),
            "Median rank of u": first["median_rank"].map(lambda rank: number(rank, 2)),
            "Rejected": [f"{100 * share:.0f} %" for share in first["rejected"]],
        }
    )
    caption = (
        f"The {_SHOWN} classes of each dataset with the largest 1-NN errors; {spec.backbone}, variant {spec.variant}, "
        "u: mean over seeds. R-AUROC within: of the class's own images. Median rank of u: among all images of the "
        "dataset, from 0 to 1. Rejected: how much of the class is among the most uncertain tenth of all images; where "
        "that is most of one class and nothing of others, a threshold per class is fairer. The CSV has every class."
    )
    return Table(table.drop(columns="Dataset"), shown, pd.DataFrame(index=shown.index), caption, groups=1)
