"""Views: what is done to an image before the backbone sees it.

- `eval`: timm's evaluation transform of the backbone.
- `centre_crop`: a centre crop of a random share of the side, one fixed draw per image, then the same.
- `deteriorations`: blur, grey boxes, zoom and noise of growing severity, each one epoch (`deteriorations.py`).
- augmented: timm's training transform (random resized crop, flip, colour jitter), which a policy changes for a share
  of the draws (`policies.py`, `mixing.py`).

A view is a pure function of (image, sample_id, epoch): the generators that it draws from are seeded anew for each
draw, so no result depends on block, batch, worker or order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline_lib.config.policies import MIXING_POLICIES
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.deteriorations import DeteriorationsView
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.mixing import MixedView
from pipeline_lib.datasets.plain_views import AugmentedView, CentreCropView, EvaluationView, View, draw_seed
from pipeline_lib.datasets.policies import PolicyView

__all__ = ["AugmentedView", "CentreCropView", "EvaluationView", "View", "draw_seed", "make_view"]


def make_view(
    spec: Mapping[str, Any],
    data_config: Mapping[str, Any],
    images: ImageDataset | None = None,
    label_of: Callable[[int, int], int] | None = None,
) -> View:
    """Build a view from its spec (`kind` and its options) and the backbone's data config.

    images: the split from which CutMix and MixUp draw partners; no other view uses it.
    label_of: returns the label of a partner from (epoch, position); None = its label in the split.
    Raises `PipelineError` for an unknown kind of view, policy or deterioration.
    """
    match spec["kind"]:
        case "eval":
            return EvaluationView(data_config)
        case "centre_crop":
            return CentreCropView(spec, data_config)
        case "deteriorations":
            return DeteriorationsView(spec, data_config)
        case "augmented":
            return _augmented(spec, data_config, images, label_of)
    raise PipelineError(f"view kind '{spec['kind']}' is unknown; allowed: augmented, centre_crop, deteriorations, eval")


def _augmented(
    spec: Mapping[str, Any],
    data_config: Mapping[str, Any],
    images: ImageDataset | None,
    label_of: Callable[[int, int], int] | None,
) -> View:
    policy = spec.get("policy")
    if policy is None:
        return AugmentedView(spec, data_config)
    if policy["kind"] not in MIXING_POLICIES:
        return PolicyView(spec, data_config)
    if images is None:
        raise PipelineError(f"policy '{policy['kind']}' mixes two images, so it needs the images of the split")
    return MixedView(spec, data_config, images, label_of)
