"""InfoNCE between two augmentations of an image: how hard it is to tell them from other images. It reads no label.

With s(a, b) the cosine of two representations, tau the temperature, z_i(e) the representation of image i in cached
epoch e, e' = e + 1 (the first epoch after the last), s_i = s(z_i(e), z_i(e')), and R a fixed sample of images:

    l_i(e) = ln (exp(s_i / tau) + sum_{j in R, j != i} exp(s(z_i(e), z_j(e')) / tau)) - s_i / tau

(van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, eq. 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline_lib.config.task_losses import ComparisonOptions
from pipeline_lib.core.errors import PipelineError

if TYPE_CHECKING:
    import torch

    from pipeline_lib.features.rows import FeatureRows

LEARNT_FROM = (
    "It was learnt from upstream images whose\n"
    "augmentations are hard to tell from other images, without a classifier or labels: it knows nothing of categories."
)
MINIMUM_EPOCHS = 2


class Options(ComparisonOptions):
    """How images are compared."""

    kind: Literal["contrastive"] = "contrastive"


def losses(rows: FeatureRows, options: Options, device: torch.device) -> Iterator[np.ndarray]:
    """Yield the losses of consecutive rows of all epochs, float32, in pieces.

    Raises `PipelineError` when there is only one epoch, and for a representation that is not finite.
    """
    import torch

    from pipeline_lib.task_losses.comparison import chosen_unit_rows, similarities, unit_rows

    if rows.epochs < MINIMUM_EPOCHS:
        raise PipelineError(
            f"task_loss 'contrastive' compares two augmentations of an image, but the view has {rows.epochs} epoch; "
            f"set its epochs to at least {MINIMUM_EPOCHS} (of fit, --epochs)"
        )
    count = min(rows.rows, options.images)
    chosen = np.sort(np.random.default_rng(options.seed).permutation(rows.rows)[:count])
    for epoch in range(rows.epochs):
        partner = (epoch + 1) % rows.epochs
        references = chosen_unit_rows(rows, partner, chosen, device)
        for start, unit, similarity in similarities(rows, epoch, chosen, references, options.temperature):
            other = unit_rows(rows, partner, start, start + len(unit), device)
            own = (unit * other).sum(dim=1) / options.temperature
            yield (torch.logaddexp(own, torch.logsumexp(similarity, dim=1)) - own).cpu().numpy()
