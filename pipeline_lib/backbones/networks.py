"""timm's networks: how they are made for an image size, what their classifier has to be, and how their images look."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, cast

import timm
from timm.data import resolve_model_data_config
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from pipeline_lib.core.errors import PipelineError

DATA_CONFIG = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")


class TimmNetwork(nn.Module):
    """What timm's networks have beside what every module has; for annotations alone."""

    head_hidden_size: int
    pretrained_cfg: dict[str, Any]
    forward_features: Callable[[Tensor], Tensor]
    forward_head: Callable[..., Tensor]
    get_classifier: Callable[[], nn.Module]
    reset_classifier: Callable[[int], None]


def create_network(
    architecture: str, num_classes: int | None, image_size: int | None, pretrained: bool = False
) -> TimmNetwork:
    """Return a timm network.

    Parameters
    ----------
    architecture
        timm's name of it, with or without a tag of weights.
    num_classes, image_size
        Outputs of its classifier, and side of its images in pixels; None: the architecture's own.
    pretrained
        Whether to load timm's weights; else they come from torch's global generator. A pretrained classifier is
        kept where it has `num_classes` outputs.
    """
    arguments: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if image_size is not None and _has_fixed_size(architecture):
        arguments["img_size"] = image_size
    return cast(TimmNetwork, timm.create_model(architecture, pretrained=pretrained, **arguments))


def in_timms_names(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict as a timm network takes it, where timm can convert it, else as it is.

    timm knows the names that the authors of an architecture gave its weights, as CLIP's and DINOv2's did, and resizes
    position embeddings to the network's image size.
    """
    own = network.state_dict()
    if all(name in state and state[name].shape == values.shape for name, values in own.items()):
        return state
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        converted = dict(convert(dict(state), network))
    except Exception:  # of keys that it doesn't know, which are told by what doesn't fit
        return state
    return converted if own.keys() <= converted.keys() else state


def data_config(network: nn.Module, image_size: int | None, crop_pct: float | None = None) -> dict[str, Any]:
    """Return timm's data config of a network; an image size or a share that the crop keeps is its own where None."""
    changes: dict[str, Any] = {} if image_size is None else {"input_size": (3, image_size, image_size)}
    config = resolve_model_data_config(network, args=changes | ({} if crop_pct is None else {"crop_pct": crop_pct}))
    return {key: config[key] for key in DATA_CONFIG}


def linear_classifier(network: TimmNetwork, advice: str) -> nn.Linear:
    """Return the classifier of a network, one linear layer on vectors [n, d].

    Parameters
    ----------
    network
        With its classifier.
    advice
        What to do instead, for the message.

    Raises
    ------
    PipelineError
        The classifier is something else: a convolution in ResNetV2, a pair in distilled models (DeiT, LeViT), a layer
        of layers in RepViT.
    """
    classifier = network.get_classifier()
    if not isinstance(classifier, nn.Linear):
        raise PipelineError(
            f"timm model '{network.pretrained_cfg.get('architecture', type(network).__name__)}' has no linear "
            f"classifier (it has {type(classifier).__name__}); {advice}"
        )
    return classifier


def _has_fixed_size(architecture: str) -> bool:
    """Return whether an architecture has to be built for one image size (as ViTs do)."""
    config = None if ":" in architecture else get_pretrained_cfg(architecture, allow_unregistered=True)
    return config is not None and config.fixed_input_size
