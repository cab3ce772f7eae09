"""`joint_training`: classifier and uncertainty head trained together from an unfrozen backbone (Figure 3)."""

from __future__ import annotations

from pydantic import Field

from pipeline_lib.config.head_loss import HasHeadLoss, HeadLossField, head_loss
from pipeline_lib.config.section import Name, PairedBatch, Section, Seeds, Widths
from pipeline_lib.config.training_from_images import TrainingFromImages


class JointOptions(HasHeadLoss, TrainingFromImages):
    """The recipe: L = L_task + loss_weight * L_u, with AdamW, a linear warm-up and a cosine per step."""

    batch_size: PairedBatch = Field(128, description="Images per step; even, since the order loss pairs images.")
    learning_rate: float = Field(1e-4, gt=0, description="Peak rate of the backbone and its classifier.")
    head_learning_rate: float = Field(1e-3, gt=0, description="Peak rate of the uncertainty head.")
    weight_decay: float = Field(1e-4, ge=0, description="Decoupled weight decay.")
    loss: HeadLossField = Field(default_factory=lambda: head_loss("squared_error"), description="L_u: ")
    loss_weight: float = Field(1.0, ge=0, description="Weight of L_u.")
    hidden: Widths = Field((512, 512), description="Widths of the head's hidden layers.")


class JointTraining(Section):
    """Trained twice, with and without a stop-gradient between the representation and the head."""

    backbone: Name = Field(description="The backbone whose weights training starts from.")
    seeds: Seeds = Field((1,), description="One training per seed, with and without.")
    options: JointOptions = Field(JointOptions(), description="The recipe.")
