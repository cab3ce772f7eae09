"""What uncertainty heads add to their backbone: parameters, memory, latency.

Pretrained Visual Uncertainties, principle iv: uncertainties come at next to no cost beside the representation.
"""

from __future__ import annotations

import platform
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline_lib.checkpoints.card import COST_HEADING
from pipeline_lib.checkpoints.checkpoint import CARD
from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import ArtefactError

_WARM_UP = 2
_MINIMUM_RUNS = 5


class Latency(NamedTuple):
    """Median seconds per batch of `batch` images: of the backbone, and of the heads after it in the same pass."""

    batch: int
    backbone: float
    heads: float

    @property
    def share(self) -> float:
        """The heads' time as a share of the backbone's."""
        return self.heads / self.backbone


class Overhead(NamedTuple):
    """What heads cost beside their backbone; bytes are those of parameters and buffers."""

    device: str
    backbone_parameters: int
    head_parameters: int
    backbone_bytes: int
    head_bytes: int
    latencies: tuple[Latency, ...]


def measure(
    backbone: nn.Module,
    heads: nn.Module,
    uncertainty_of: Callable[[Tensor], Tensor],
    input_size: Sequence[int],
    batches: Sequence[int] = (1, 8),
    seconds: float = 5.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Overhead:
    """Measure on the device where the backbone is.

    Each pass is timed in two parts, first the backbone, then the heads: in separate passes, what else the machine does
    in the meantime would look like a difference between the two.

    Parameters
    ----------
    backbone
        Maps images [n, 3, H, W] to representations [n, d].
    heads
        The modules whose parameters and buffers are counted.
    uncertainty_of
        Maps representations to uncertainties, by these heads.
    input_size
        Channels, height and width of the images.
    batches
        Sizes of batches.
    seconds
        How long each size is measured.
    clock
        Returns seconds. `time.process_time`, with one thread, leaves out what other processes take.
    """
    device = next(backbone.parameters()).device
    generator = torch.Generator().manual_seed(0)
    latencies = []
    with torch.inference_mode():
        for batch in batches:
            images = torch.randn(batch, *input_size, generator=generator).to(device)
            latencies.append(_latency(backbone, uncertainty_of, images, seconds, clock))
    return Overhead(
        device=_device_name(device),
        backbone_parameters=_parameters(backbone),
        head_parameters=_parameters(heads),
        backbone_bytes=_bytes(backbone),
        head_bytes=_bytes(heads),
        latencies=tuple(latencies),
    )


def to_markdown(overhead: Overhead) -> str:
    """Return a paragraph and a table in Markdown."""
    share = 100 * overhead.head_parameters / overhead.backbone_parameters
    rows = "".join(
        f"| {one.batch} | {1e3 * one.backbone:.2f} | {1e3 * one.heads:.3f} | {100 * one.share:.2f} % |\n"
        for one in overhead.latencies
    )
    return f"""\
Heads: {overhead.head_parameters:,} parameters ({share:.2g} % of the backbone's {overhead.backbone_parameters:,}), \
{overhead.head_bytes / 1e6:.2f} MB
beside {overhead.backbone_bytes / 1e6:.2f} MB.
Latency on {overhead.device}, medians:

| images per batch | backbone, ms | heads, ms | added |
|--:|--:|--:|--:|
{rows}"""


def write_into_card(directory: Path, overhead: Overhead) -> None:
    """Put a measurement into the card of a checkpoint, in place of an earlier one, and update its manifest.

    A checkpoint from the Hub has no manifest, and needs none.

    Raises
    ------
    ArtefactError
        When a file differs from the manifest's, or the card has lost the section on costs.
    """
    has_manifest = (directory / artefacts.MANIFEST).exists()
    manifest = artefacts.read(directory) if has_manifest else None
    card = (directory / CARD).read_text(encoding="utf-8")
    before, heading, rest = card.partition(f"{COST_HEADING}\n")
    if not heading:
        raise ArtefactError(f"{directory / CARD}: has no section '{COST_HEADING}' to write the measurement into")
    _, following, after = rest.partition("\n## ")
    changed = f"{before}{heading}\n{to_markdown(overhead)}{following}{after}"
    if manifest is None:
        with artefacts.writing_file(directory / CARD) as file:
            file.write(changed)
        return
    same = (manifest.stage, manifest.spec, manifest.inputs, manifest.code, manifest.derivation, manifest.software)
    with artefacts.writing(directory, *same) as draft:
        draft.facts = dict(manifest.facts)
        for name in manifest.files:
            shutil.copyfile(directory / name, draft.path / name)
        (draft.path / CARD).write_text(changed, encoding="utf-8")


def _latency(
    backbone: nn.Module,
    uncertainty_of: Callable[[Tensor], Tensor],
    images: Tensor,
    seconds: float,
    clock: Callable[[], float],
) -> Latency:
    backbone_times: list[float] = []
    head_times: list[float] = []
    finish = torch.cuda.synchronize if images.is_cuda else lambda: None
    for _ in range(_WARM_UP):
        uncertainty_of(backbone(images))
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(head_times) < _MINIMUM_RUNS:
        finish()
        start = clock()
        representation = backbone(images)
        finish()
        between = clock()
        uncertainty_of(representation)
        finish()
        head_times.append(clock() - between)
        backbone_times.append(between - start)
    return Latency(len(images), statistics.median(backbone_times), statistics.median(head_times))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _bytes(module: nn.Module) -> int:
    return sum(value.nbytes for value in [*module.parameters(), *module.buffers()])


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({torch.get_num_threads()} threads)"
