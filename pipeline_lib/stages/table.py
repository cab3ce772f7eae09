"""Build a table of `pipeline_lib.tables` from metrics.csv, as csv, md and tex.

The table `<name>` is the module of that name. It defines

- its docstring, which is its caption in the report, in reStructuredText;
- `LABEL` in the report, and in `PAPER` what it is there ("Table 1"), or "";
- `Spec`, exactly the parts of the config that it shows, with a class method `of(config)`;
- `build(spec, metrics, published)`, its numbers as a DataFrame, from metric rows;
- `present(table, spec)`, what a reader sees of them;

and, where it needs them, `PUBLISHED`, the file in workflow/published whose numbers stand beside ours,
`wanted(config)`, whether a config has it, and `plugins(config)`, the components that are chosen by name and whose code
it also runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.config import kinds
from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.tables.spec import METRICS, ShownSpec, read_beside

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.config.config import Config
    from pipeline_lib.tables.render import Table

INPUTS = (Input("metrics", "metrics.csv"), Input("published", "a CSV of published numbers", required=False))
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
    published = getattr(kinds.load("tables", name), "PUBLISHED", None)
    return {**METRICS, "published": Ref.to("published", name=published) if published else None}


def plugins(config: Config, name: str) -> list[str]:
    """Return the components that are chosen by name and whose code a job also runs."""
    return kinds.components("tables", name, config)


def presented(spec: Spec, metrics: pd.DataFrame, published: pd.DataFrame | None) -> Table:
    """Return a table ready to be written, from metric rows and the published ones that it names."""
    module = kinds.load("tables", spec.name)
    shown: Table = module.present(module.build(spec.shows, metrics, published), spec.shows)
    return shown


def run(job: Job[Spec]) -> None:
    """Build and write."""
    from pipeline_lib.tables.render import write

    table = presented(job.spec, *read_beside(job))
    with job.writing() as draft:
        write(table, *(draft.path / f"{job.spec.name}.{suffix}" for suffix in ("csv", "md", "tex")))
