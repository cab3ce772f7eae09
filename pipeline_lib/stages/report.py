"""Write a run's page: its headline numbers, each dataset, every table and figure, on one page that needs no server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from pipeline_lib.config import kinds
from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.pages.about import About
from pipeline_lib.stages import table
from pipeline_lib.tables.spec import METRICS

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (
    Input("metrics", "metrics.csv"),
    Input("published", "CSVs of published numbers", required=False, many=True),
    Input("figures", "the figures", required=False, many=True),
    Input("cards", "cards of the datasets", required=False, many=True),
    *table.IMAGES,
    Input("provenance", "the artefacts behind the numbers, and the software"),
)
OUTPUT = "report"
PAGE = "index.html"
SHOWN = (PAGE,)
_FIRST = ("Zero-shot", "Retrieval", "Human ambiguity", "Deterioration")  # categories of figures
_SHEET_PIXELS = 1000


class Spec(About):
    """What is shown: each table as its own job has it, the figures by name, and what the run did."""

    tables: tuple[table.Spec, ...]
    figures: tuple[str, ...]

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return the spec of the job."""
        losses = [config.task_loss_of(backbone, name) for backbone in config.backbones for name in config.variants]
        return cls.with_common(
            config,
            tables=tuple(table.Spec.of(config, name) for name in kinds.wanted("tables", config)),
            figures=_figures(config),
            learnt_from=config.upstream.train_split,
            task_losses=tuple(dict.fromkeys(losses)),
            bootstrap=config.evaluation.bootstrap,
        )


def inputs(config: Config) -> Refs:
    """Return everything that the page shows."""
    of_tables = [table.inputs(config, name) for name in kinds.wanted("tables", config)]
    published = (found.get("published") for found in of_tables)
    return {
        **METRICS,
        **{entry.name: found[entry.name] for found in of_tables for entry in table.IMAGES if entry.name in found},
        "published": [ref for ref in dict.fromkeys(published) if isinstance(ref, Ref)],
        "figures": [Ref.to("figure", name=name) for name in _figures(config)],
        "cards": [Ref.to("dataset_card", dataset=name) for name in _datasets(config)],
        "provenance": Ref.to("provenance"),
    }


def _figures(config: Config) -> tuple[str, ...]:
    """Return the names of the figures by category, the zero-shot ones first, those of Figure 1 and so on in order."""
    shown = kinds.wanted("figures", config)

    def rank(name: str) -> tuple[int, str, str]:
        category = shown[name].CATEGORY
        return _FIRST.index(category) if category in _FIRST else len(_FIRST), category, shown[name].PAPER or "~"

    return tuple(sorted(shown, key=rank))


def _datasets(config: Config) -> list[str]:
    return list(dict.fromkeys(entry.dataset for entry in config.evaluation_sets))


def plugins(config: Config) -> list[str]:
    """Return the components that are chosen by name: the tables, and the figures, which say what they are called."""
    tables = [part for name in kinds.wanted("tables", config) for part in table.plugins(config, name)]
    return sorted({*tables, *(f"figures.{name}" for name in _figures(config))})


def run(job: Job[Spec]) -> None:
    """Gather and write."""
    import pandas as pd

    from pipeline_lib.core.artefacts import file_of
    from pipeline_lib.pages.run import Figure, build_page
    from pipeline_lib.tables.summary import read_metrics

    spec = job.spec
    metrics = read_metrics(job.input("metrics"))
    published = {path.stem: read_metrics(path) for path in job.all_inputs("published")}
    modules = {shown.name: kinds.load("tables", shown.name) for shown in spec.tables}
    tables = {
        shown.name: (
            kinds.label(modules[shown.name]),
            table.presented(shown, metrics, published.get(getattr(modules[shown.name], "PUBLISHED", "")), job),
        )
        for shown in spec.tables
    }
    figures = [
        Figure(name, kinds.load("figures", name), file_of(path, f"{name}.png").read_bytes())
        for name, path in zip(spec.figures, job.all_inputs("figures"), strict=True)
    ]
    datasets = dict.fromkeys(pair.dataset for pair in spec.sets)
    sheets = {
        name: _sheet(file_of(path, "contact_sheet.png"))
        for name, path in zip(datasets, job.all_inputs("cards"), strict=True)
    }
    provenance = job.input("provenance")
    software = pd.read_csv(file_of(provenance, "software.csv"), dtype=str).groupby("software", sort=False)
    versions = {str(name): ", ".join(found) for name, found in software["version"]}
    artefacts = len(pd.read_csv(file_of(provenance, "artefacts.csv")))
    page = build_page(spec, metrics, tables, figures, sheets, versions, artefacts)
    with job.writing() as draft:
        (draft.path / PAGE).write_text(page, encoding="utf-8")


def _sheet(path: Path) -> bytes:
    """Return a contact sheet small enough for a page, as WebP."""
    import io

    from PIL import Image

    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((_SHEET_PIXELS, 4 * _SHEET_PIXELS))
    content = io.BytesIO()
    small.save(content, "webp", quality=75, method=2)
    return content.getvalue()
