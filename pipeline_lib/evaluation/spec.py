"""The specs of the evaluations: what their stages are asked for, and what a reader finds in their manifests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pipeline_lib.config.deteriorations import Draw, draws
from pipeline_lib.config.evaluation import Bootstrap, Evaluation, Projection, SafeRetrieval
from pipeline_lib.core.jobs import Ref
from pipeline_lib.core.spec import Spec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config
    from pipeline_lib.retrieval.signals import Signal

# The plain means over the downstream sets: their metrics begin with this, and stand under this name of a dataset.
MEAN_PREFIX, MEAN_DATASET = "avg_downstream_", "downstream"


class SetSpec(Spec):
    """The images that a stage is about: one split of one dataset, as a backbone represents it."""

    backbone: str
    dataset: str
    split: str

    def same_set(self, *fields: str) -> dict[str, Any]:
        """Return what an artefact about the same images must have in its spec: the set, and these fields."""
        return self.model_dump(mode="json", include={*SetSpec.model_fields, *fields})


class EvaluationSpec(SetSpec):
    """What every artefact with metric rows is about. variant: of the heads; None where no head is evaluated."""

    is_upstream: bool
    variant: str | None = None

    @classmethod
    def of_manifest(cls, spec: Mapping[str, Any]) -> EvaluationSpec:
        """Return what the spec of any such artefact says about it."""
        return cls.model_validate({name: value for name, value in spec.items() if name in cls.model_fields})


class MetricOptions(Spec):
    """What metrics depend on besides the images.

    compat: with "reference", point values are those of the reference code where it deviates from the definition.
    """

    bootstrap: Bootstrap
    target_accuracies: tuple[float, ...]
    compat: Literal["none", "reference"]

    @staticmethod
    def values(section: Evaluation) -> dict[str, Any]:
        """Return the values of these fields."""
        return {name: getattr(section, name) for name in MetricOptions.model_fields}


class BaselinesSpec(EvaluationSpec, MetricOptions):
    """The evaluation of a representation and of the uncertainties that need no head."""

    @classmethod
    def of(cls, config: Config, backbone: str, dataset: str, split: str) -> Self:
        """Return the spec of a job."""
        return cls(**_set(config, backbone, dataset, split), **MetricOptions.values(config.evaluation))


class HeadsSpec(EvaluationSpec, MetricOptions):
    """The evaluation of the heads of one variant, one per seed."""

    variant: str
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, config: Config, backbone: str, variant: str, dataset: str, split: str) -> Self:
        """Return the spec of a job."""
        options = MetricOptions.values(config.evaluation)
        return cls(**_set(config, backbone, dataset, split), variant=variant, seeds=config.seeds, **options)


# How images are grouped of which a share is left out, and by what, with what the names of the metrics end in; those of
# the published ones have no ending.
KINDS = {"per_class": "", "global": "_global", "per_neighbour_class": "_per_neighbour_class"}
SIGNALS: dict[Signal, str] = {"uncertainty": "", "distance": "_by_distance", "both": "_by_both"}


class SafeRetrievalSpec(EvaluationSpec):
    """The error without the images that the heads of a variant are most uncertain of."""

    variant: str
    seeds: tuple[int, ...]
    left_out: SafeRetrieval

    @classmethod
    def of(cls, config: Config, backbone: str, variant: str, dataset: str, split: str) -> Self:
        """Return the spec of a job."""
        left_out = config.evaluation.safe_retrieval
        return cls(**_set(config, backbone, dataset, split), variant=variant, seeds=config.seeds, left_out=left_out)


class DeteriorationsSpec(EvaluationSpec):
    """The evaluation of the heads of a variant on deteriorated images; a draw's position is its epoch in the view."""

    variant: str
    seeds: tuple[int, ...]
    draws: tuple[Draw, ...]

    @classmethod
    def of(cls, config: Config, backbone: str, variant: str, dataset: str, split: str) -> Self:
        """Return the spec of a job."""
        drawn = draws(config.features.deteriorations)
        return cls(**_set(config, backbone, dataset, split), variant=variant, seeds=config.seeds, draws=drawn)


class ProjectionSpec(SetSpec):
    """The maps of one set."""

    maps: Projection

    @classmethod
    def of(cls, config: Config, backbone: str, dataset: str, split: str) -> Self:
        """Return the spec of a job."""
        # Which set the config chooses is said by the rest of the spec.
        maps = config.evaluation.projection.model_copy(update={"dataset": None})
        return cls(backbone=backbone, dataset=dataset, split=split, maps=maps)


def wanted_ablations(config: Config) -> list[Ref]:
    """Return the evaluations of the ablations."""
    if config.ablations is None:
        return []
    return [
        Ref.to("evaluate_heads", backbone=backbone, variant=variant, dataset=entry.dataset, split=entry.split)
        for backbone in config.ablations.backbones
        for variant in config.ablations.variants
        for entry in config.averaged_sets
    ]


def _set(config: Config, backbone: str, dataset: str, split: str) -> dict[str, Any]:
    is_upstream = config.is_upstream_set(dataset, split)
    return {"backbone": backbone, "dataset": dataset, "split": split, "is_upstream": is_upstream}
