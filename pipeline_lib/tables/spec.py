"""What tables and figures read of the config."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import SerializeAsAny, ValidationError, ValidationInfo, field_validator

from pipeline_lib.config import kinds
from pipeline_lib.config.faults import describe
from pipeline_lib.core.jobs import Ref, Refs
from pipeline_lib.core.spec import Spec
from pipeline_lib.tables.summary import EvaluationSet, read_metrics

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.config.config import Config
    from pipeline_lib.config.sets import Downstream
    from pipeline_lib.core.jobs import Job

METRICS: Refs = {"metrics": Ref.to("metrics")}


class ViewSpec(Spec):
    """Base of the specs of tables and figures.

    A field with one of the names below holds the same part of the config in each of them. `backbone` and `variant` are
    the first ones, for what shows only one.
    """

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return the spec."""
        return cls.with_common(config)

    @classmethod
    def with_common(cls, config: Config, **own: Any) -> Self:
        """Return the spec, of which the caller gives the fields that it has for itself."""
        return cls(**{name: _COMMON[name](config) for name in cls.model_fields if name not in own}, **own)


class SetsSpec(ViewSpec):
    """Of what shows every set."""

    upstream: EvaluationSet
    downstream: tuple[EvaluationSet, ...]

    @property
    def sets(self) -> tuple[EvaluationSet, ...]:
        """The upstream set, then the downstream ones."""
        return (self.upstream, *self.downstream)


class HeadsSpec(ViewSpec):
    """Of what shows the u of single images: by the heads of the first variant on the first backbone."""

    backbone: str
    variant: str
    seeds: tuple[int, ...]

    @property
    def heads(self) -> dict[str, str]:
        """The heads, as their evaluations are found and checked by them."""
        return {"backbone": self.backbone, "variant": self.variant}

    def per_image(self, sets: Iterable[EvaluationSet]) -> dict[str, list[Ref]]:
        """Return what holds a row per image of each set: `scores` of the heads, and `baselines`."""
        pairs = list(sets)
        return {
            "scores": refs("evaluate_heads", pairs, **self.heads),
            "baselines": refs("baselines", pairs, backbone=self.backbone),
        }


class ShownSpec(Spec):
    """Base of the specs of the jobs that make tables and figures: which one, and what it shows: its module's spec."""

    family: ClassVar[Literal["figures", "tables"]]
    name: str
    shows: SerializeAsAny[Spec]

    @field_validator("shows", mode="before")
    @classmethod
    def _as_its_module_has_it(cls, value: Any, info: ValidationInfo) -> Any:
        if "name" not in info.data:
            return value
        model: type[Spec] = kinds.load(cls.family, info.data["name"]).Spec
        try:
            return model.model_validate(value)
        except ValidationError as error:
            raise ValueError(describe(error, model)) from None


def refs(stage: str, evaluation_sets: Iterable[EvaluationSet], **wildcards: object) -> list[Ref]:
    """Return the artefacts of a stage for several sets."""
    return [Ref.to(stage, dataset=dataset, split=split, **wildcards) for dataset, split in evaluation_sets]


def datasets_of(evaluation_sets: Iterable[EvaluationSet]) -> list[Ref]:
    """Return the dataset of each set."""
    return [Ref.to("dataset", dataset=pair.dataset) for pair in evaluation_sets]


def read_beside(job: Job[Any]) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return the metric rows that a job reads and, where it is given them, the published ones."""
    published = job.optional_input("published")
    return read_metrics(job.input("metrics")), None if published is None else read_metrics(published)


def _sets(entries: Iterable[Downstream]) -> tuple[EvaluationSet, ...]:
    return tuple(EvaluationSet(entry.dataset, entry.split) for entry in entries)


def _chosen(names: Iterable[str], config: Config) -> tuple[EvaluationSet, ...]:
    return _sets(entry for entry in config.downstream if entry.dataset in names)


def _projected(config: Config) -> EvaluationSet:
    wanted = config.evaluation.projection.dataset
    return next(entry for entry in _sets(config.downstream) if wanted in (None, entry.dataset))


_COMMON: dict[str, Callable[[Config], Any]] = {
    "upstream": lambda config: EvaluationSet(config.upstream.dataset, config.upstream.eval_split),
    "downstream": lambda config: _sets(config.downstream),
    "averaged": lambda config: _chosen(config.evaluation.averaged, config) or _sets(config.downstream),
    "deteriorated": lambda config: _chosen(config.evaluation.deteriorated, config),
    "projected": _projected,
    "backbones": lambda config: tuple(config.backbones),
    "backbone": lambda config: next(iter(config.backbones)),
    "variants": lambda config: tuple(config.variants),
    "variant": lambda config: next(iter(config.variants)),
    "seeds": lambda config: config.seeds,
    "confidence": lambda config: config.evaluation.bootstrap.confidence,
}
