"""Draw a figure of `pipeline_lib.figures`, as png and pdf.

The figure `<name>` is the module of that name. It defines

- its docstring, which is its caption in the report, in reStructuredText;
- `CATEGORY` and `LABEL` in the report, and in `PAPER` what it is there ("Figure 1"), or "";
- `SIZE`, width and height in inches where the config says nothing;
- `Spec`, exactly the parts of the config that it shows, with a class method `of(config)`: that of the bases in
  `pipeline_lib.tables.spec`, which fills fields such as `backbones` or `variant` by their names;
- `inputs(config)`, the artefacts that it is drawn from, by the names in `INPUTS`;
- `figure_of(job, width, height)`, which reads them and draws;

and, where it needs them, `wanted(config)`, whether a config has it, and `plugins(config)`, the components that are
chosen by name and whose code it also runs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline_lib.config import kinds
from pipeline_lib.config.figures import Look
from pipeline_lib.core.jobs import Input, Job, Refs
from pipeline_lib.tables.spec import ShownSpec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = tuple(
    Input(name, help, required=False, many=True)
    for name, help in {
        "metrics": "metrics.csv",
        "published": "a CSV of published numbers",
        "datasets": "datasets",
        "heads": "heads",
        "baselines": "evaluations of baselines",
        "scores": "evaluations of heads",
        "safe_retrieval": "safe retrieval",
        "deteriorations": "evaluations of heads on deteriorated images",
        "projection": "maps of a set",
        "joint_training": "joint trainings",
    }.items()
)
OUTPUT = "records/plots/{name}"
FILES = ("plots/{name}.png", "plots/{name}.pdf")


class Spec(ShownSpec):
    """Which figure, what it shows, and how large."""

    family = "figures"
    look: Look

    @classmethod
    def of(cls, config: Config, name: str) -> Spec:
        """Return the spec of a job."""
        shows = kinds.load("figures", name).Spec.of(config)
        return cls(name=name, look=config.figures.look(name), shows=shows)


def inputs(config: Config, name: str) -> Refs:
    """Return the artefacts that a job reads."""
    found: Refs = kinds.load("figures", name).inputs(config)
    return found


def plugins(config: Config, name: str) -> list[str]:
    """Return the components that are chosen by name and whose code a job also runs."""
    return kinds.components("figures", name, config)


def run(job: Job[Spec]) -> None:
    """Draw and write."""
    from pipeline_lib.figures import style

    spec, look = job.spec, job.spec.look
    shows: Any = spec.shows
    with style.titles(look.title):
        drawn = kinds.load("figures", spec.name).figure_of(replace(job, spec=shows), look.width, look.height)
    with job.writing() as draft:
        style.save(drawn, draft.path / f"{spec.name}.png", draft.path / f"{spec.name}.pdf", look.dpi)
