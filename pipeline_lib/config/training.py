"""`training` and `variants`: how uncertainty heads are trained.

The defaults are the paper's recipe. A variant is a named change of it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from pipeline_lib.config.features import Device, Precision
from pipeline_lib.config.head_loss import HasHeadLoss
from pipeline_lib.config.section import Name, PairedBatch, Section, Widths, distinct
from pipeline_lib.config.task_losses import TaskLoss

Decay = Annotated[float, Field(ge=0, lt=1)]


class Training(HasHeadLoss):
    """The recipe of a head (appendix A of Pretrained Visual Uncertainties)."""

    task_loss: TaskLoss | None = Field(
        None,
        description="What images are ranked by: the classifier's cross_entropy; knn = how little of their neighbours' "
        "similarity has their label; contrastive = how hard two augmentations of an image are to match (no labels). "
        "null = cross_entropy where the backbone has a classifier, else knn.",
    )
    hidden: Widths = Field((512, 512), description="Widths of the hidden layers.")
    epochs: int | None = Field(
        None, ge=1, description="Passes over the images; null = each cached epoch once. More start over."
    )
    batch_size: PairedBatch = Field(2048, description="Images per optimiser step; even, since pairs are adjacent.")
    learning_rate: float = Field(0.001, gt=0, description="Rate at batch size 256; scaled by sqrt(batch_size / 256).")
    warmup_learning_rate: float = Field(1e-4, ge=0, description="Rate at the start of the warm-up.")
    final_learning_rate: float = Field(1e-8, ge=0, description="Rate at the end of the cosine.")
    episode_samples: int = Field(200_000, ge=1, description="Images per episode; the rate changes once per episode.")
    warmup_episodes: int = Field(25, ge=0, description="Episodes of linear warm-up.")
    schedule: Literal["cosine", "step"] = Field(
        "cosine", description="After the warm-up; step = a tenth of the rate at each third of the training."
    )
    initialisation: Literal["default", "zero"] = Field(
        "default", description="default = nn.Linear's uniform draw; zero = all weights start at zero."
    )
    optimizer: Literal["adamw", "adam", "lion", "sgd"] = Field("adamw", description="Optimiser.")
    betas: tuple[Decay, Decay] = Field(
        (0.8, 0.95), description="Decay of the moment estimates (adamw, adam, lion); the first is sgd's momentum."
    )
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay; decoupled in adamw and lion.")
    precision: Precision = Field("float32", description="Type of the matrix products.")
    device: Device = Field("auto", description="Where heads are trained; auto = a GPU where there is one.")
    threads: int = Field(1, ge=1, le=1024, description="CPU threads of a training job.")
    shuffle_rows: int = Field(4096, ge=1, description="Consecutive rows that are read together.")
    shuffle_buffer: int = Field(
        65_536, ge=2, description="Rows held in memory, from which batches are drawn at random."
    )


# What heads that are trained in one pass over the cache have in common.
SHARED_IN_A_PASS = (
    "task_loss",
    "epochs",
    "batch_size",
    "precision",
    "device",
    "threads",
    "shuffle_rows",
    "shuffle_buffer",
)


class Variant(Section):
    """A named change of the recipe."""

    view: Name = Field("train", description="The view of the upstream training images to learn from.")
    training: dict[str, Any] = Field({}, description="Keys of `training` that differ in this variant.")


class Ablations(Section):
    """Variants that are compared with one of `variants` on the sets of `evaluation.averaged` (Table 3 of the paper).

    Those that learn from the same batches of a view are trained together, all seeds, in one pass over its cache.
    """

    baseline: Name = Field("default", description="The variant, defined below `variants`, to compare with.")
    backbones: Annotated[tuple[Name, ...], AfterValidator(distinct)] = Field(
        min_length=1, description="Backbones to compare on."
    )
    variants: dict[Name, Variant] = Field(min_length=1, description="Every ablation, by name.")
