"""The model that a checkpoint holds: images in, representations and uncertainties out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from huggingface_hub import ModelCard
from PIL.Image import Image
from torch import Tensor, nn

from pipeline_lib.backbones.base import DTYPES, Encoder, TimmEncoder, set_precision
from pipeline_lib.checkpoints.checkpoint import CheckpointConfig, DataConfig
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.base import to_rgb
from pipeline_lib.datasets.plain_views import EvaluationView
from pipeline_lib.heads.model import UncertaintyHead


class PretrainedModel(nn.Module):
    """A frozen backbone with its uncertainty heads: `representation, uncertainty = model(images)`.

    With one head the uncertainty is the head's own u > 0. Several are averaged by rank: each u becomes its rank among
    the uncertainties of that head on the upstream evaluation images, which the checkpoint holds (see `rank`), and the
    mean over the heads, in (0, 1), is the uncertainty. It doesn't depend on the other images of a batch. Either way it
    ranks images: larger is less certain, and no value is a probability.

    The model stays in evaluation mode, also when `train()` is called on a module that contains it.

    Attributes
    ----------
    transform : Transform
        Turns a PIL image into what the model takes.
    seeds : tuple of int
        Seeds of the heads that are used.
    config, card
        As given.

    Parameters
    ----------
    representation
        Maps images [n, 3, H, W] to representations [n, d].
    heads
        By seed.
    quantiles
        Of each head's uncertainty in rising order, float32 [heads, q]; needed for several heads.
    config
        The checkpoint's `config.json`.
    card
        Its model card.
    precision
        `float32`, or `bfloat16` for the backbone alone.
    """

    quantiles: Tensor | None
    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        representation: nn.Module,
        heads: Mapping[int, UncertaintyHead],
        quantiles: Tensor | None,
        config: CheckpointConfig,
        card: ModelCard,
        precision: str = "float32",
    ) -> None:
        super().__init__()
        self.config, self.card, self.seeds = config, card, tuple(heads)
        self.transform = Transform(config.backbone.data_config)
        self._dtype = DTYPES[precision]
        # Heads stay in float32: in bfloat16, uncertainties of different images would often be equal.
        if isinstance(representation, EncoderRepresentation):
            set_precision(representation.encoder, self._dtype)
        else:
            representation.to(self._dtype)
        self.backbone = representation
        self.heads = nn.ModuleList(heads.values())
        if any(parameter.ndim == 4 for parameter in representation.parameters()):
            self.backbone.to(memory_format=torch.channels_last)
        self.register_buffer("quantiles", quantiles)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(config.backbone.data_config, name)).view(1, 3, 1, 1) * 255
            self.register_buffer(f"_{name}", values)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> PretrainedModel:
        """Stay in evaluation mode: no BatchNorm statistic moves and nothing is dropped."""
        return super().train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (representation [n, d], uncertainty [n]) of images [n, 3, H, W] as `transform` makes them.

        Raises `PipelineError` for whole numbers, such as pixels that are not normalised.
        """
        if not images.is_floating_point():
            raise PipelineError(
                f"the model takes normalised images, but these are {images.dtype}; make them with `model.transform`, "
                "or give pixels to `model.from_pixels`"
            )
        representation = self.backbone(images.to(self._dtype))
        return representation, self.uncertainty_of(representation)

    def from_pixels(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return (representation, uncertainty) of uint8 pixels [n, 3, H, W] as `transform.pixels` makes them.

        They may be on any device. Pixels have a quarter of the bytes of normalised images: make them in worker
        processes, and let the model's device normalise them. Raises `PipelineError` for any other type.
        """
        if pixels.dtype != torch.uint8:
            raise PipelineError(f"pixels are torch.uint8, but these are {pixels.dtype}; give images to the model")
        # In place: to allocate three arrays of this size would take longer than decoding on a fast device.
        values = pixels.to(self._mean.device, non_blocking=True).to(self._mean.dtype)
        return self(values.sub_(self._mean).div_(self._std))

    def uncertainty_of(self, representation: Tensor) -> Tensor:
        """Return the uncertainty [n] of representations [n, d]: float32 of one head, float64 of several."""
        uncertainty = torch.stack([head(representation.float()) for head in self.heads])
        if len(self.heads) == 1:
            return uncertainty[0]
        assert self.quantiles is not None  # `load` lets several heads through only where there are quantiles
        return torch.stack([rank(u, q) for u, q in zip(uncertainty, self.quantiles, strict=True)]).mean(dim=0)


class Transform:
    """A PIL image, of any mode, to a normalised float32 tensor [3, H, W]: resized and cropped as the backbone asks."""

    def __init__(self, data_config: DataConfig) -> None:
        self._view = EvaluationView(data_config.model_dump())
        self._mean = torch.tensor(data_config.mean).view(3, 1, 1) * 255
        self._std = torch.tensor(data_config.std).view(3, 1, 1) * 255

    def __call__(self, image: Image) -> Tensor:
        """Return the normalised image, float32 [3, H, W]."""
        return (self.pixels(image) - self._mean) / self._std

    def pixels(self, image: Image) -> Tensor:
        """Return the resized and cropped image before it is normalised, uint8 [3, H, W]."""
        pixels, _ = self._view(to_rgb(image, getattr(image, "filename", "") or "image"), sample_id=0, epoch=0)
        return torch.as_tensor(pixels)


class TimmRepresentation(nn.Module):
    """e(x) = `forward_head(forward_features(x), pre_logits=True)` of a timm model."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return representations [n, d]."""
        features: Tensor = self.network.forward_features(images)  # type: ignore[operator]  # every timm model has it
        return self.network.forward_head(features, pre_logits=True)  # type: ignore[operator]  # and this one


class EncoderRepresentation(nn.Module):
    """e(x) of an encoder whose forward pass also computes logits."""

    encoder: Encoder

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """Return representations [n, d]."""
        return self.encoder(images)[0]


def representation_of(encoder: Encoder) -> nn.Module:
    """Return the module that maps images to an encoder's representations, without its classifier where it can."""
    return TimmRepresentation(encoder.network) if isinstance(encoder, TimmEncoder) else EncoderRepresentation(encoder)


def rank(uncertainty: Tensor, quantiles: Tensor) -> Tensor:
    """Return what `heads.rank_mean.rank` returns, as torch computes it and ONNX can: float64 [n], in (0, 1).

    uncertainty: [n], positive. quantiles: [q], in rising order. In float64, uncertainties that differ have ranks that
    differ.
    """
    count = len(quantiles)
    # Each u is compared with all quantiles: for a thousand, as fast as a binary search, which ONNX lacks.
    left = (uncertainty[:, None] >= quantiles).sum(dim=1).sub(1).clamp(0, count - 2)
    quantiles, uncertainty = quantiles.double(), uncertainty.double()
    low, high = quantiles[left], quantiles[left + 1]
    tiny = torch.finfo(torch.float64).tiny
    position = left + 1 + ((uncertainty - low) / (high - low).clamp_min(tiny)).clamp(0, 1)
    position = torch.where(uncertainty < quantiles[0], uncertainty / quantiles[0].clamp_min(tiny), position)
    beyond = count + 1 - quantiles[-1] / uncertainty.clamp_min(tiny)
    return torch.where(uncertainty > quantiles[-1], beyond, position) / (count + 1)
