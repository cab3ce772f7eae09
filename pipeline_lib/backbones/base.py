"""What every backbone is: a frozen encoder e(x), its classifier c, and how images must look.

A kind is a module here that defines

- `Options`, its config section, with a `kind` field;
- `watched_files(options)`, the local files whose change makes the backbone stale;
- `build(options, num_classes) -> Encoder`, the architecture without its weights;
- `prepare(options) -> Encoder`, the same with its weights, unless a stage trains them;
- `data_config(options, encoder)`, the size, mean, std, interpolation and crop of its images.

Heavy imports stay inside functions there: the config reads only `Options`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pipeline_lib.backbones.networks import TimmNetwork, linear_classifier
from pipeline_lib.core.artefacts import Manifest
from pipeline_lib.core.errors import PipelineError

if TYPE_CHECKING:
    from pipeline_lib.methods.base import Method

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Values of images that are normalised at a time: 4 MB in float32.
_NORMALISED_AT_ONCE = 2**20


class Encoder(Protocol):
    """A module whose forward maps images [n, 3, H, W] to (embedding [n, d], logits float32 [n, classes]).

    `classifier` is the layer that maps the embedding to the logits; `network` holds every weight. A network without a
    classifier has logits of 0 classes, and nn.Identity as `classifier`.
    """

    @property
    def network(self) -> nn.Module: ...

    @property
    def classifier(self) -> nn.Module: ...

    def __call__(self, images: Tensor, /) -> tuple[Tensor, Tensor]: ...


class TimmEncoder(nn.Module):
    """e(x) = `forward_head(forward_features(x), pre_logits=True)` of a timm model, c = its classifier, if any."""

    def __init__(self, network: TimmNetwork, has_classifier: bool = True) -> None:
        super().__init__()
        self.network = network
        advice = "choose weights that come with one, or set classifier: false and leave num_classes out"
        self.classifier = linear_classifier(network, advice) if has_classifier else nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (embedding [n, d], logits float32 [n, classes])."""
        embedding = self.network.forward_head(self.network.forward_features(images), pre_logits=True)
        if isinstance(self.classifier, nn.Linear):
            return embedding, self.classifier(embedding.to(self.classifier.weight.dtype))
        return embedding, no_logits(embedding)


def no_logits(embedding: Tensor) -> Tensor:
    """Return logits of 0 classes, float32 [n, 0], for embeddings [n, d]."""
    return embedding.new_zeros((len(embedding), 0), dtype=torch.float32)


class HeadlessEncoder(nn.Module):
    """Any network without a classifier: e(x) is its output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.classifier = network, nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (embedding [n, d], logits float32 [n, 0])."""
        embedding = self.network(images)
        if not isinstance(embedding, Tensor) or embedding.ndim != 2:
            shape = tuple(embedding.shape) if isinstance(embedding, Tensor) else type(embedding).__name__
            raise PipelineError(
                f"a network without a classifier must give one vector per image, [n, d], but its output is {shape}"
            )
        return embedding, no_logits(embedding)


class HookedEncoder(nn.Module):
    """Any network: e(x) is what enters the layer called `classifier`, c is that layer."""

    def __init__(self, network: nn.Module, classifier: str) -> None:
        super().__init__()
        self.network = network
        layers = dict(network.named_modules())
        if classifier not in layers or classifier == "":
            linear = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
            raise PipelineError(
                f"the network has no layer '{classifier}' to use as classifier; its linear layers: "
                f"{', '.join(linear[-5:]) or 'none'}"
            )
        self.classifier = layers[classifier]
        self._embedding: Tensor | None = None
        self.classifier.register_forward_pre_hook(self._keep_embedding)

    def _keep_embedding(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self._embedding = inputs[0]
        return (inputs[0].to(next(layer.parameters()).dtype), *inputs[1:])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (embedding [n, d], logits float32 [n, classes])."""
        logits = self.network(images)
        embedding, self._embedding = self._embedding, None
        if embedding is None or embedding.ndim != 2 or logits.ndim != 2:
            raise PipelineError(
                "the classifier layer must be called once per forward pass with one vector per image and give the "
                f"network's output; its input has shape {None if embedding is None else tuple(embedding.shape)}"
            )
        return embedding, logits


class MethodEncoder(nn.Module):
    """A model of the URL benchmark, which has an uncertainty of its own."""

    def __init__(self, network: Method) -> None:
        super().__init__()
        self.network = network
        self.classifier: nn.Module = network.network.get_classifier()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (embedding [n, d], logits float32 [n, classes])."""
        logits, _, embedding = self.network(images)
        return embedding, logits


def set_precision(encoder: Encoder, dtype: torch.dtype) -> None:
    """Let the network of an encoder compute in a type, in place; what follows the embedding stays in float32."""
    # What a method adds to its network stays in float32: uncertainties are there to rank images, and must not tie.
    (encoder.network.network if isinstance(encoder, MethodEncoder) else encoder.network).to(dtype)
    # Differences of a thousandth between task losses decide how pairs are ranked: logits stay in float32.
    encoder.classifier.float()


class Encoded(NamedTuple):
    """What a backbone says of n images: embedding [n, d], logits float32 [n, classes], its own uncertainty or None.

    uncertainty: float32 [n].
    """

    embedding: Tensor
    logits: Tensor
    uncertainty: Tensor | None


class Backbone(nn.Module):
    """A frozen encoder, ready to use: no parameter and no BatchNorm statistic ever moves.

    data_config: `input_size` (3, H, W), `mean`, `std`, `interpolation`, `crop_pct`, `crop_mode`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: Encoder,
        data_config: Mapping[str, Any],
        dim: int,
        num_classes: int,
        manifest: Manifest,
        device: torch.device,
        precision: str = "float32",
    ) -> None:
        super().__init__()
        self.data_config, self.dim, self.num_classes, self.manifest = data_config, dim, num_classes, manifest
        self._dtype = DTYPES[precision]
        encoder.network.requires_grad_(False).eval().to(device)
        set_precision(encoder, self._dtype)
        if any(parameter.ndim == 4 for parameter in encoder.network.parameters()):
            encoder.network.to(memory_format=torch.channels_last)
        self.encoder = encoder
        self.register_buffer("mean", torch.tensor(data_config["mean"], device=device).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(data_config["std"], device=device).view(1, 3, 1, 1) * 255)

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode: `model.train()` further up must not move BatchNorm statistics."""
        return super().train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (embedding [n, d], logits float32 [n, classes]) of normalised images [n, 3, H, W]."""
        return self.encoder(images)

    @property
    def has_uncertainty(self) -> bool:
        """Whether the model has an uncertainty of its own."""
        return isinstance(self.encoder, MethodEncoder)

    def from_pixels(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return (embedding [n, d], logits float32 [n, classes]) of uint8 pixels [n, 3, H, W]."""
        return self(self._normalise(pixels))

    def encode(self, pixels: Tensor) -> Encoded:
        """Return everything that the backbone says of uint8 pixels [n, 3, H, W]."""
        images = self._normalise(pixels)
        if isinstance(self.encoder, MethodEncoder):
            logits, uncertainty, embedding = self.encoder.network(images)
            return Encoded(embedding, logits, uncertainty)
        embedding, logits = self(images)
        return Encoded(embedding, logits, None)

    def _normalise(self, pixels: Tensor) -> Tensor:
        pixels = pixels.to(self.mean.device, non_blocking=True)
        images = torch.empty_like(pixels, dtype=self._dtype)
        # A few images at a time: larger steps between would take new pages for each batch (57 ms for 64 images of
        # 224 pixels to bfloat16, against 11 ms).
        count = max(1, _NORMALISED_AT_ONCE // max(1, pixels[:1].numel()))
        for source, target in zip(pixels.split(count), images.split(count), strict=True):
            target.copy_((source - self.mean) / self.std)
        return images
