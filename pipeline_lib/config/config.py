"""The whole config, cross-checked: every name that is used is defined."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from pipeline_lib.config import kinds
from pipeline_lib.config.benchmark import Benchmark
from pipeline_lib.config.dask import Dask
from pipeline_lib.config.deteriorations import draws
from pipeline_lib.config.evaluation import Evaluation
from pipeline_lib.config.export import Export
from pipeline_lib.config.faults import describe
from pipeline_lib.config.features import Features
from pipeline_lib.config.figures import Figures
from pipeline_lib.config.joint_training import JointTraining
from pipeline_lib.config.policies import MIXING_POLICIES
from pipeline_lib.config.section import KindSection, Name, Section, Seeds
from pipeline_lib.config.sets import Downstream, DownstreamEntry, Upstream
from pipeline_lib.config.task_losses import CROSS_ENTROPY, TaskLoss, TaskLosses
from pipeline_lib.config.training import Ablations, Training, Variant
from pipeline_lib.core.errors import did_you_mean, one_of


def _unlike_shell(value: str) -> str:
    if found := re.search(r"""[\s{}'"`$*?<>|&;()!#~\[\]\\]""", value):
        raise ValueError(f"must be a path without blanks, quotes, braces and the like, not with {found[0]!r}")
    return value


# Rules and their shell commands are made of it.
ResultsDir = Annotated[str, Field(min_length=1), AfterValidator(_unlike_shell)]


class Config(Section):
    """config.yaml."""

    results_dir: ResultsDir = Field("results", description="Where everything that a run makes goes.")
    data_dir: str = Field("data", min_length=1, description="Where raw images are; relative paths start here.")
    upstream: Upstream = Field(description="What the heads learn from.")
    downstream: tuple[DownstreamEntry, ...] = Field(
        # A file must have one (`load.parse_config`); `fit`, which makes no table, has none.
        json_schema_extra={"minItems": 1},
        description="Zero-shot datasets, in the order of tables and plots.",
    )
    datasets: dict[Name, Any] = Field(min_length=1, description="Every dataset, by name.")
    backbones: dict[Name, Any] = Field(min_length=1, description="Every backbone, by name.")
    variants: dict[Name, Variant] = Field(min_length=1, description="Every way to train a head, by name.")
    seeds: Seeds = Field(description="One head is trained per seed.")
    features: Features = Field(Features(), description="Extraction and storage of representations.")
    task_losses: TaskLosses = Field(TaskLosses(), description="Task losses that need no classifier.")
    training: Training = Field(Training(), description="The recipe of the heads.")
    ablations: Ablations | None = Field(None, description="Changes of the recipe to compare; null = none.")
    joint_training: JointTraining | None = Field(None, description="Training of both from images; null = none.")
    benchmark: Benchmark | None = Field(None, description="Methods of the URL benchmark to train; null = none.")
    export: Export = Field(Export(), description="Checkpoints to take home.")
    curves: tuple[Literal["tensorboard", "wandb"], ...] = Field(
        (), description="Where the curves of methods also go while they train, besides curve.jsonl of each."
    )
    evaluation: Evaluation = Field(Evaluation(), description="Neighbours, intervals, analyses of uncertainties.")
    figures: Figures = Field(Figures(), description="Sizes and titles of the figures.")
    dask: Dask = Field(Dask(), description="Where caches larger than memory are worked through.")

    @field_validator("datasets", "backbones", mode="after")
    @classmethod
    def _dispatch_on_kind(cls, sections: dict[str, Any], info: Any) -> dict[str, KindSection]:
        return {
            name: kinds.validated(info.field_name, section, f"{info.field_name}.{name}")
            for name, section in sections.items()
        }

    @model_validator(mode="after")
    def _names_are_defined(self) -> Config:
        _require(self.datasets, self.upstream.dataset, "upstream.dataset", "datasets")
        for entry in self.downstream:
            _require(self.datasets, entry.dataset, "downstream", "datasets")
            if (entry.dataset, entry.split) == (self.upstream.dataset, self.upstream.eval_split):
                raise ValueError(f"downstream: {entry.dataset}/{entry.split} is the upstream evaluation set")
        pairs = [(entry.dataset, entry.split) for entry in self.downstream]
        for pair in pairs:
            if pairs.count(pair) > 1:
                raise ValueError(f"downstream: {'/'.join(pair)} is listed twice")
        for name, variant in self.variants.items():
            _require(self.features.views, variant.view, f"variants.{name}.view", "features.views")
            self.training_of(name)
        return self

    @model_validator(mode="after")
    def _downloads_agree(self) -> Config:
        wanted: dict[str, tuple[str, tuple[str, str | None]]] = {}
        for name, options in self.datasets.items():
            if options.download and options.kind == "tfds":
                raise ValueError(f"datasets.{name}.download: kind tfds fetches its files itself; leave 'download' out")
            for download in options.download:
                key = (download.url, download.sha256)
                before, known = wanted.setdefault(download.file, (name, key))
                if key != known:
                    raise ValueError(
                        f"datasets.{name}.download: '{download.file}' has another url or sha256 than in "
                        f"datasets.{before}.download; give one of them another 'path'"
                    )
        _require_separate(sorted({d.unpack_to for o in self.datasets.values() for d in o.download if d.unpack_to}))
        return self

    @model_validator(mode="after")
    def _sets_are_downstream(self) -> Config:
        names = [entry.dataset for entry in self.downstream]
        for field in ("averaged", "deteriorated"):
            for dataset in getattr(self.evaluation, field):
                _require(names, dataset, f"evaluation.{field}", "downstream")
        if self.evaluation.projection.dataset is not None:
            _require(names, self.evaluation.projection.dataset, "evaluation.projection.dataset", "downstream")
        if self.joint_training is not None:
            _require(self.backbones, self.joint_training.backbone, "joint_training.backbone", "backbones")
        return self

    @model_validator(mode="after")
    def _ablations_are_defined(self) -> Config:
        if self.ablations is None:
            return self
        _require(self.variants, self.ablations.baseline, "ablations.baseline", "variants")
        for backbone in self.ablations.backbones:
            _require(self.backbones, backbone, "ablations.backbones", "backbones")
        for name, variant in self.ablations.variants.items():
            if name in self.variants:
                raise ValueError(f"ablations.variants.{name}: the name is taken by a variant below variants")
            _require(self.features.views, variant.view, f"ablations.variants.{name}.view", "features.views")
        return self

    @model_validator(mode="after")
    def _task_losses_are_defined(self) -> Config:
        if self.joint_training is not None and not self.has_classifier(self.joint_training.backbone):
            raise ValueError(
                f"joint_training.backbone: '{self.joint_training.backbone}' has no classifier to train; choose another"
            )
        for backbone, name in self.heads():
            section = "variants" if name in self.variants else "ablations.variants"
            task_loss, view = self.task_loss_of(backbone, name), self.variant(name).view
            where = f"{section}.{name}.training.task_loss: {task_loss}"
            if task_loss == CROSS_ENTROPY and not self.has_classifier(backbone):
                raise ValueError(
                    f"{where} needs a classifier, but backbone '{backbone}' has none; use knn or probe, or null"
                )
            if task_loss == CROSS_ENTROPY:
                continue
            options = self.features.views[view]
            if options.policy is not None and options.policy.kind in MIXING_POLICIES:
                raise ValueError(f"{where} says nothing of images that view '{view}' mixes; use another view")
            least = getattr(kinds.load("task_losses", task_loss), "MINIMUM_EPOCHS", 1)
            if options.epochs < least:
                raise ValueError(
                    f"{where} compares {least} epochs, but view '{view}' has {options.epochs}; set its epochs to at "
                    f"least {least}"
                )
        return self

    @model_validator(mode="after")
    def _benchmark_is_defined(self) -> Config:
        for name in self.benchmark_backbones:
            if name in self.backbones:
                raise ValueError(f"benchmark: the name '{name}' of a model is taken by a backbone below backbones")
        return self

    @functools.cached_property
    def benchmark_backbones(self) -> dict[str, KindSection]:
        """The backbone of every model of the benchmark, by name."""
        return self.benchmark.backbones() if self.benchmark else {}

    @functools.cached_property
    def evaluation_sets(self) -> list[Downstream]:
        """Every set that is evaluated: the upstream evaluation split first, then downstream in order."""
        return [Downstream(dataset=self.upstream.dataset, split=self.upstream.eval_split), *self.downstream]

    @property
    def averaged_sets(self) -> list[Downstream]:
        """The downstream sets that Table 3 and Figure 4 average over."""
        names = self.evaluation.averaged
        return [entry for entry in self.downstream if not names or entry.dataset in names]

    @property
    def deteriorated_sets(self) -> list[Downstream]:
        """The downstream sets whose images are also deteriorated."""
        return [entry for entry in self.downstream if entry.dataset in self.evaluation.deteriorated]

    @property
    def projected_set(self) -> Downstream:
        """The downstream set that is mapped."""
        wanted = self.evaluation.projection.dataset
        return next(entry for entry in self.downstream if wanted in (None, entry.dataset))

    @property
    def downloaded_datasets(self) -> list[str]:
        """The datasets whose files are fetched."""
        return [name for name, options in self.datasets.items() if options.download]

    @property
    def tfds_datasets(self) -> list[str]:
        """The datasets that TensorFlow Datasets fetches and prepares."""
        return [name for name, options in self.datasets.items() if options.kind == "tfds"]

    @property
    def method_backbones(self) -> list[str]:
        """The backbones that a method trains: those of kind `method`, and the models of the benchmark."""
        own = [name for name, options in self.backbones.items() if options.kind == "method"]
        return [*own, *self.benchmark_backbones]

    @functools.cached_property
    def joint_views(self) -> list[str]:
        """The views that only ablations learn from: they are extracted together, from images decoded once."""
        views = {variant.view for variant in self.variants.values()}
        of_ablations = self.ablations.variants.values() if self.ablations else ()
        return sorted({variant.view for variant in of_ablations} - views)

    def view_epochs(self, view: str) -> int:
        """Return how many epochs of a view are cached; a deterioration's draws count as epochs."""
        if view == "deteriorations":
            return len(draws(self.features.deteriorations))
        return self.features.views[view].epochs if view in self.features.views else 1

    def block_epochs(self, view: str) -> int:
        """Return how many epochs of a view one block holds: all of those that are few or are extracted together."""
        if view == "deteriorations" or view in self.joint_views:
            return self.view_epochs(view)
        return self.features.block_epochs

    def backbone(self, name: str) -> KindSection:
        """Return a backbone, or a model of the benchmark, by its name."""
        return self.backbones[name] if name in self.backbones else self.benchmark_backbones[name]

    def is_upstream_set(self, dataset: str, split: str) -> bool:
        """Return whether a set is the upstream evaluation set."""
        return (dataset, split) == (self.upstream.dataset, self.upstream.eval_split)

    def has_classifier(self, backbone: str) -> bool:
        """Return whether a backbone has a classifier."""
        return getattr(self.backbone(backbone), "classifier", True) is not False

    @functools.cached_property
    def classifiers_to_learn_from(self) -> frozenset[str]:
        """The backbones from whose classifier's task loss any head learns."""
        return frozenset(name for name, variant in self.heads() if self.task_loss_of(name, variant) == CROSS_ENTROPY)

    def heads(self) -> list[tuple[str, str]]:
        """Return the backbone and the variant of all heads of a seed."""
        names = [(backbone, variant) for backbone in self.backbones for variant in self.variants]
        ablations = self.ablations
        return names + [(b, v) for b in ablations.backbones for v in ablations.variants] if ablations else names

    def task_loss_of(self, backbone: str, variant: str) -> TaskLoss:
        """Return what the heads of a variant rank the images of a backbone by."""
        chosen = self.training_of(variant).task_loss
        return chosen or (CROSS_ENTROPY if self.has_classifier(backbone) else "knn")

    def variant(self, name: str) -> Variant:
        """Return a variant or an ablation by its name."""
        if name in self.variants or self.ablations is None:
            return self.variants[name]
        return self.ablations.variants[name]

    def training_of(self, variant: str) -> Training:
        """Return the recipe of a variant or ablation: `training` with its changes."""
        if variant not in self._trainings:  # the graph asks for each head's several times
            changes = self.variant(variant).training
            section = "variants" if variant in self.variants else "ablations.variants"
            try:
                self._trainings[variant] = self.training.changed(changes)
            except ValidationError as error:
                raise ValueError(describe(error, Training, prefix=f"{section}.{variant}.training")) from None
        return self._trainings[variant]

    @functools.cached_property
    def _trainings(self) -> dict[str, Training]:
        return {}


def _require_separate(folders: list[str]) -> None:
    """Raise for a folder to unpack into that lies in another one: whose files are whose could not be told."""
    for one in folders:
        for other in folders:
            if other.startswith(f"{one}/"):
                raise ValueError(f"datasets.*.download.unpack_to: '{other}' lies in '{one}'; use separate folders")


def _require(defined: Collection[str], name: str, where: str, section: str) -> None:
    if name not in defined:
        raise ValueError(
            f"{where}: '{name}' is not defined below {section}; defined: {one_of(defined)}{did_you_mean(name, defined)}"
        )
