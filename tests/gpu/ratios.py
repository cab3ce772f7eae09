"""Speeds of the library on a device, beside what bounds them there, and energy.

Shown, not judged: the check has never run on a GPU, and a bound that was never measured would be a guess.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from pipeline_lib.backbones.artefact import open_backbone
from pipeline_lib.core.device import choose_device
from pipeline_lib.core.jobs import Settings
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.views import make_view
from pipeline_lib.energy import EnergyMeter
from pipeline_lib.features.decoding import decoded_images
from pipeline_lib.features.spec import BlockSpec
from pipeline_lib.heads.train import train_heads
from tests import jobs
from tests.gpu.results import SEEDS
from tests.gpu.world import MANY_PHOTOS, Check, Result, shown
from tests.unit.heads_world import head_spec, learnable_rows, small_training
from tests.unit.worlds import block_spec

PRECISIONS = ("float32", "bfloat16")


def head_training(check: Check, precision: str) -> Result:
    """Training of five heads beside its matrix products alone; both from float16 rows in memory."""
    sizes, device = check.sizes, choose_device(check.device)
    burst = 8 * sizes.head_batch
    training = small_training(
        device=check.device,
        precision=precision,
        hidden=(sizes.hidden, sizes.hidden),
        batch_size=sizes.head_batch,
        epochs=sizes.steps // 4,
        episode_samples=burst,
        shuffle_buffer=burst,
        shuffle_rows=4096,
        threads=torch.get_num_threads(),
    )
    products = _products(check, precision, device)
    ours: list[float] = []
    bare: list[float] = []
    start = time.perf_counter()

    def on_episode(head: object, record: object) -> None:
        nonlocal start
        if getattr(head, "seed", None) != SEEDS[-1]:
            return
        ours.append(len(SEEDS) * burst / (time.perf_counter() - start))
        start = time.perf_counter()
        for _ in range(burst // sizes.head_batch):
            products()
        _finish(device)
        bare.append(len(SEEDS) * burst / (time.perf_counter() - start))
        start = time.perf_counter()

    rows = learnable_rows(sizes.head_batch * 16, 1, sizes.dim)
    train_heads(rows, [head_spec(seed, training) for seed in SEEDS], on_episode)
    # The first ones load kernels.
    pairs = list(zip(ours, bare, strict=True))[len(ours) // 4 :]
    ratio = statistics.median(one / other for one, other in pairs)
    speed, bound = (statistics.median(values) for values in zip(*pairs, strict=True))
    return shown(f"{ratio:.2f} of products: {speed / 1e6:.2f} of {bound / 1e6:.2f} million images/s")


def _products(check: Check, precision: str, device: torch.device) -> Callable[[], None]:
    """Return a function that does the products of a step of all heads, forward and backward, and nothing else."""
    sizes, dtype = check.sizes, getattr(torch, precision)

    def make(*shape: int) -> torch.Tensor:
        return torch.randn(len(SEEDS), *shape, device=device, dtype=dtype)

    widths = (sizes.dim, sizes.hidden, sizes.hidden, 1)
    activations, gradients = ([make(sizes.head_batch, width) for width in widths] for _ in range(2))
    weights, steps = ([make(out, width) for width, out in itertools.pairwise(widths)] for _ in range(2))

    def run() -> None:
        for layer, weight in enumerate(weights):
            # From the same input each time: of a chain of them, the numbers would grow without end.
            torch.bmm(activations[layer], weight.mT, out=outputs[layer])
        for layer in reversed(range(len(weights))):
            torch.bmm(gradients[layer + 1].mT, activations[layer], out=steps[layer])
            if layer:
                torch.bmm(gradients[layer + 1], weights[layer], out=below[layer])

    outputs, below = [torch.empty_like(values) for values in activations[1:]], list(map(torch.empty_like, gradients))
    return run


def extraction(check: Check, precision: str) -> Result:
    """Extraction of photographs beside the bare forward pass, and beside decoding without a network."""
    sizes, device, name = check.sizes, choose_device(check.device), check.sizes.networks[0]
    count, workers = sizes.many_photos // 2, len(os.sched_getaffinity(0)) - 1
    made_from = {"dataset": check.folder / MANY_PHOTOS, "backbone": check.folder / name}
    changes = {"dataset": MANY_PHOTOS, "backbone": name, "with_task_loss": False}
    changes |= {"samples": [0, count], "epochs": [0, sizes.views], "batch_size": sizes.batch, "device": check.device}
    spec = block_spec(**changes, precision=precision, threads=torch.get_num_threads())
    views = count * sizes.views

    def extract() -> None:
        settings = Settings(workers=workers)
        jobs.run("features", spec, check.folder / f"speed-{precision}", settings, **made_from)

    backbone = open_backbone(made_from["backbone"], device, precision)
    view = make_view(BlockSpec.model_validate(spec).view, backbone.data_config, None, None)

    def decode() -> None:
        images = ImageDataset(made_from["dataset"], "train")
        for _ in decoded_images(images, range(count), [(view, range(sizes.views))], workers, torch.device("cpu")):
            pass

    images = torch.randn(sizes.batch, *backbone.data_config["input_size"], device=device, dtype=backbone._dtype)
    images = images.contiguous(memory_format=torch.channels_last)

    def forward() -> None:
        with torch.inference_mode():
            for _ in range(views // sizes.batch):
                backbone(images)
        _finish(device)

    forward()
    ours, decoding, bare = (views / _seconds(work) for work in (extract, decode, forward))
    bound = min(decoding, bare)
    return shown(
        f"{ours / bound:.2f} of the bound: {ours:,.0f} views/s; forward {bare:,.0f}, decoding {decoding:,.0f} "
        f"with {workers} workers, {'decoding' if bound == decoding else 'the forward pass'} is the bound"
    )


def energy(check: Check) -> Result:
    """What the GPU uses while heads train, by NVML's counter."""
    meter = EnergyMeter(powercap=Path("/without/processors"))
    if meter.joules() is None:
        return shown("left out: NVML counts no energy here")
    start, images = time.perf_counter(), len(SEEDS) * check.sizes.head_batch * 4 * check.sizes.steps
    head_training(check, "bfloat16")
    joules = meter.joules() or 0.0
    seconds = time.perf_counter() - start
    return shown(f"{joules:,.0f} J, {joules / seconds:,.0f} W: {joules / images * 1e6:,.0f} J a million images")


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


LINES: dict[str, Callable[[Check], Result]] = {
    **{f"speed of heads, {precision}": partial(head_training, precision=precision) for precision in PRECISIONS},
    **{f"speed of features, {precision}": partial(extraction, precision=precision) for precision in PRECISIONS},
    "energy of heads, bfloat16": energy,
}
