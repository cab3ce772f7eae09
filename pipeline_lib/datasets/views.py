"""Views: what is done to an image before the backbone sees it.

- `eval`: timm's evaluation transform of the backbone.
- `centre_crop`: a centre crop of a random share of the side, one fixed draw per image, then the same.
- `deteriorations`: blur, grey boxes, zoom and noise of growing severity, each one epoch (`deteriorations.py`).
- augmented: timm's training transform (random resized crop, flip, colour jitter), which a policy changes for a share
  of the draws (`policies.py`, `mixing.py`); on Pillow's images, or on tensors (`tensor_views.py`).

A view is a pure function of (image, sample_id, epoch): the generators that it draws from are seeded anew for each
draw, so no result depends on block, batch, worker or order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter

from pipeline_lib.config.policies import CutMix, MixUp
from pipeline_lib.config.views import DrawnCentreCrop, DrawnDeteriorations, Eval, ViewSpec
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.deteriorations import DeteriorationsView
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.mixing import MixedView
from pipeline_lib.datasets.plain_views import AugmentedView, CentreCropView, EvaluationView, View, draw_seed
from pipeline_lib.datasets.policies import PolicyView
from pipeline_lib.datasets.tensor_views import augmented_view

__all__ = ["AugmentedView", "CentreCropView", "EvaluationView", "View", "draw_seed", "make_view"]

_SPEC: TypeAdapter[ViewSpec] = TypeAdapter(ViewSpec)


def make_view(
    spec: ViewSpec | Mapping[str, Any],
    data_config: Mapping[str, Any],
    images: ImageDataset | None = None,
    label_of: Callable[[int, int], int] | None = None,
) -> View:
    """Build a view.

    Parameters
    ----------
    spec : ViewSpec
        What it does, or the same as plain values.
    data_config : mapping
        How the backbone wants its images: size, interpolation, crop.
    images : ImageDataset, optional
        The split from which CutMix and MixUp draw partners; no other view uses it.
    label_of : callable, optional
        Returns the label of a partner from (epoch, position); None = its label in the split.

    Raises
    ------
    pydantic.ValidationError
        The plain values name an unknown kind of view, policy or deterioration, or lack something.
    PipelineError
        A policy that mixes images has none to mix with.
    """
    spec = _SPEC.validate_python(spec)
    match spec:
        case Eval():
            return EvaluationView(data_config)
        case DrawnCentreCrop():
            return CentreCropView(spec, data_config)
        case DrawnDeteriorations():
            return DeteriorationsView(spec, data_config)
    match spec.policy:
        case None:
            return augmented_view(spec, data_config)
        case CutMix() | MixUp() as policy:
            if images is None:
                raise PipelineError(f"policy '{policy.kind}' mixes two images, so it needs the images of the split")
            return MixedView(spec, policy, data_config, images, label_of)
        case policy:
            return PolicyView(spec, policy, data_config)
