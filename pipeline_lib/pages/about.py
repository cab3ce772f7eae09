"""What a page says of a run beside its numbers."""

from __future__ import annotations

from pipeline_lib.config.evaluation import Bootstrap
from pipeline_lib.tables.spec import SetsSpec
from pipeline_lib.tables.summary import EvaluationSet, names


class About(SetsSpec):
    """Sets, backbones, the first variant and the seeds of its heads, what they learnt from, and the intervals.

    learnt_from: the upstream split. task_losses: of the heads of all variants.
    """

    backbones: tuple[str, ...]
    variant: str
    seeds: tuple[int, ...]
    learnt_from: str
    task_losses: tuple[str, ...]
    bootstrap: Bootstrap

    @property
    def names(self) -> dict[EvaluationSet, str]:
        """What to call each set, the upstream one first."""
        return names(self.sets)
