"""Build a table of `pipeline_lib.tables` from metrics.csv, as csv, md and tex.

The table `<name>` is the module of that name. It defines

- its docstring, which is its caption in the report, in reStructuredText;
- `LABEL` in the report, and in `PAPER` what it is there ("Table 1"), or "";
- `Spec`, exactly the parts of the config that it shows, with a class method `of(config)`;
- `build(spec, metrics, published)`, its numbers as a DataFrame, from metric rows; or, where these are not enough,
  `inputs(config)`, the artefacts that it is made of, by the names in `INPUTS`, and `build_from(job)`, which reads them;
- `present(table, spec)`, what a reader sees of them;

and, where it needs them, `PUBLISHED`, the file in workflow/published whose numbers stand beside ours,
`wanted(config)`, whether a config has it, and `plugins(config)`, the components that are chosen by name and whose code
it also runs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline_lib.config import kinds
from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.tables.spec import METRICS, ShownSpec, read_beside

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.config.config import Config
    from pipeline_lib.tables.render import Table

# What a table may be made of beside metrics.csv.
IMAGES = (
    Input("datasets", "datasets", required=False, many=True),
    Input("scores", "evaluations of heads", required=False, many=True),
    Input("baselines", "evaluations of baselines", required=False, many=True),
)
INPUTS = (
    Input("metrics", "metrics.csv", required=False),
    Input("published", "a CSV of published numbers", required=False),
    *IMAGES,
)
OUTPUT = "records/tables/{name}"
FILES = ("tables/{name}.csv", "tables/{name}.md", "tables/{name}.tex")


class Spec(ShownSpec):
    """Which table, and what it shows."""

    family = "tables"

    @classmethod
    def of(cls, config: Config, name: str) -> Spec:
        """Return the spec of a job."""
        return cls(name=name, shows=kinds.load("tables", name).Spec.of(config))


def inputs(config: Config, name: str) -> Refs:
    """Return what a job reads."""
    module = kinds.load("tables", name)
    if hasattr(module, "inputs"):
        found: Refs = module.inputs(config)
        return found
    published = getattr(module, "PUBLISHED", None)
    return {**METRICS, "published": Ref.to("published", name=published) if published else None}


def plugins(config: Config, name: str) -> list[str]:
    """Return the components that are chosen by name and whose code a job also runs."""
    return kinds.components("tables", name, config)


def presented(
    spec: Spec, metrics: pd.DataFrame | None, published: pd.DataFrame | None, job: Job[Any] | None = None
) -> Table:
    """Return a table ready to be written.

    metrics, published: metric rows, and the published ones that it names. job: reads what a table is made of otherwise.
    """
    module = kinds.load("tables", spec.name)
    shows: Any = spec.shows
    if hasattr(module, "build_from") and job is not None:
        table = module.build_from(replace(job, spec=shows))
    else:
        table = module.build(shows, metrics, published)
    shown: Table = module.present(table, shows)
    return shown


def run(job: Job[Spec]) -> None:
    """Build and write."""
    from pipeline_lib.tables.render import write

    metrics, published = read_beside(job) if job.optional_input("metrics") else (None, None)
    table = presented(job.spec, metrics, published, job)
    with job.writing() as draft:
        write(table, *(draft.path / f"{job.spec.name}.{suffix}" for suffix in ("csv", "md", "tex")))
