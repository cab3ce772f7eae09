"""SNGP's variance tells images far from the training images from those close by, however it is gathered and kept."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from pipeline_lib.config.method_training import MethodTraining
from pipeline_lib.methods.sngp import Model, Options
from tests.unit.test_method_training import batches, trainer_of

CLUSTERS = 5


def model(**options: Any) -> Model:
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=5, img_size=32)
    return Model(Options(features=256, length_scale=8.0, spectral_norm_bound=None, **options), network, 5)


@torch.no_grad()
@pytest.mark.parametrize("discount", [None, 0.9, 0.999])
def test_representations_far_from_the_training_images_are_the_more_uncertain_ones(discount: float | None) -> None:
    """With the ridge that follows from the discount, near ones have next to no variance, far ones far more."""
    process = model(discount=discount).process
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(CLUSTERS, 64, generator=generator)

    def near(count: int) -> torch.Tensor:
        noise = 0.05 * torch.randn(count, 64, generator=generator)
        return centres[torch.randint(CLUSTERS, (count,), generator=generator)] + noise

    for _ in range(40):
        process.observe(process(near(64))[1])
    variances = [process.variance(process(each)[1]) for each in (near(50), torch.randn(50, 64, generator=generator))]
    assert variances[0].max() < variances[1].min() / 3
    assert variances[0].max() < 0.1


@pytest.mark.parametrize(("discount", "ridge"), [(None, 1.0), (0.999, 1e-6), (0.5, 1e-6)])
def test_the_default_of_the_ridge_follows_the_discount(discount: float | None, ridge: float) -> None:
    assert model(discount=discount).process.ridge == ridge
    assert model(discount=discount, ridge=0.25).process.ridge == 0.25


def test_a_moving_average_of_the_weights_keeps_the_statistics_of_the_last_epoch() -> None:
    """An average of a sum that starts anew each epoch would be next to nothing, and each variance next to 1."""
    recipe = MethodTraining(ema_decay=0.999, optimizer="adamw", warmup_epochs=0)
    subject = trainer_of(model(), recipe, steps_per_epoch=3)
    for epoch in range(2):
        subject.train_epoch(epoch, batches(8, 8, 8), lambda count: None)
    kept, trained = subject.task.evaluated.process, subject.task.model.process
    assert trained.gram.trace() == pytest.approx(24, rel=0.2), "24 images, whose features have length 1"
    assert torch.equal(kept.gram, trained.gram)
    assert not torch.equal(kept.output.weight, trained.output.weight)
