"""Results of the library on a device, against those on the CPU of the same machine.

A tolerance is what two right implementations may differ by: sums in another order. Where types are coarse it isn't
written down but measured: the device may be as far from the CPU's float32 as the CPU itself is in that type.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.nn import functional
from torchvision.transforms.functional import pil_to_tensor

from pipeline_lib.backbones.method import Options as MethodOptions
from pipeline_lib.config import kinds
from pipeline_lib.config.evaluation import Neighbours
from pipeline_lib.config.joint_training import JointOptions
from pipeline_lib.core.device import choose_device
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.tensor_views import TensorView
from pipeline_lib.datasets.views import make_view
from pipeline_lib.evaluation import while_training
from pipeline_lib.heads import numpy_head
from pipeline_lib.heads.checkpoint import TrainedHead
from pipeline_lib.heads.model import UncertaintyHead
from pipeline_lib.heads.stack import HeadStack
from pipeline_lib.retrieval.search import nearest_neighbours
from tests import jobs
from tests.gpu.world import PHOTOS, Check, Result, at_least, at_most, relative_error
from tests.unit.heads_world import CachedRows, learnable_rows, small_training, trained
from tests.unit.worlds import block_spec, extract_view

_KEPT = ("embedding", "task_loss")
SEEDS = (1, 2, 3, 4, 5)
# Products and convolutions of unit normal numbers: sums of hundreds of terms in float32 err by 1e-6 of their size,
# inputs rounded to TensorFloat-32 by 4e-4.
_FLOAT32_ERROR = 2e-5
# The same through 50 layers.
_FLOAT32_FEATURES = 2e-4
_SHARE = 2.0
# Correlation of the uncertainties of the worst seed. With each step rounding grows, since nearly equal pairs tip over:
# a CPU's own heads fall to 0.994 if their first weights move by 2e-7, and in bfloat16 to 0.976 with other kernels.
_HEADS = {"float32": 0.98, "bfloat16": 0.95}
_LOSS = 5e-3
# Of 255, on average: one in a hundredth of the values between torchvision's ways of resizing, more at hard edges.
_LEVELS = 0.5
# Losses over samples, which each device draws from a generator of its own.
_SAMPLED = ("het_xl", "hib", "mc_dropout", "mcinfonce", "nivmf")
_SAMPLED_LOSS = 0.2


def exact_float32(check: Check) -> Result:
    """Products and convolutions in float32 are computed in float32, once a job has chosen its device."""
    device = choose_device(check.device)
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 512, 512, generator=generator)
    images, kernels = torch.randn(8, 64, 28, 28, generator=generator), torch.randn(64, 64, 3, 3, generator=generator)
    computed: tuple[Callable[..., torch.Tensor], ...] = (torch.mm, functional.conv2d)
    errors = [
        relative_error(f(a.to(device), b.to(device)).cpu().numpy(), f(a.double(), b.double()).numpy())
        for f, a, b in zip(computed, (left, images), (right, kernels), strict=True)
    ]
    return at_most(max(errors), _FLOAT32_ERROR)


def extraction(check: Check, network: int, precision: str) -> Result:
    """Cached representations and task losses are those of the CPU."""
    expected = _features(check, network, "cpu", "float32")
    found = _features(check, network, check.device, precision)
    errors = {name: relative_error(found[name], values) for name, values in expected.items()}
    if precision == "float32":
        return at_most(max(errors.values()), _FLOAT32_FEATURES)
    of_cpu = _features(check, network, "cpu", precision)
    share = max(error / relative_error(of_cpu[name], expected[name]) for name, error in errors.items())
    return at_most(share, _SHARE)


def _features(check: Check, network: int, device: str, precision: str) -> dict[str, np.ndarray]:
    sizes, backbone = check.sizes, check.sizes.networks[network]
    view = check.folder / f"{backbone}-{device}-{precision}"
    block = {"backbone": backbone, "dataset": PHOTOS, "samples": [0, sizes.photos // 2], "epochs": [0, 2]}
    block |= {"device": device, "precision": precision, "dtype": "float32"}
    block |= {"batch_size": sizes.batch, "threads": torch.get_num_threads()}
    cache = extract_view(check.folder, view, check.sizes.photos, 2, check.settings().workers, **block)
    return {name: np.stack([cache.read(name, epoch, 0, cache.rows) for epoch in range(2)]) for name in _KEPT}


def pixels(check: Check) -> Result:
    """Training images that are drawn on the device are the CPU's, up to how bicubic overshoot is cut off at edges."""
    device, images = choose_device(check.device), ImageDataset(check.folder / PHOTOS, "train")
    spec = block_spec()["view"] | {"pixels": "tensor"}
    view = make_view(spec, {"input_size": (3, check.sizes.side, check.sizes.side)})
    assert isinstance(view, TensorView)
    apart = []
    for position in range(8):
        image = pil_to_tensor(images.image(position))
        found, expected = (view.draw(image.to(where), position, [0, 1]).cpu().float() for where in (device, "cpu"))
        apart.append(float((found - expected).abs().mean()))
    return at_most(max(apart), _LEVELS)


def head_step(check: Check, precision: str) -> Result:
    """Outputs and gradients of a stack of heads are the CPU's: before rounding can grow."""
    sizes, random = check.sizes, np.random.default_rng(0)
    widths = (sizes.hidden, sizes.hidden)
    embedding = random.normal(size=(len(SEEDS), sizes.head_batch, sizes.dim)).astype(np.float32)
    gradient = random.normal(size=embedding.shape[:2]).astype(np.float32)

    def step(device: str, precision: str) -> list[np.ndarray]:
        dtype = getattr(torch, precision)
        networks = [UncertaintyHead(sizes.dim, widths, seed) for seed in SEEDS]
        stack = HeadStack(networks, sizes.head_batch, dtype, torch.device(device))
        output = stack.forward(torch.from_numpy(embedding).to(device, dtype)).cpu().numpy()
        stack.backward(torch.from_numpy(gradient).to(device))
        assert stack.parameters.grad is not None
        return [output, stack.parameters.grad.cpu().numpy()]

    def errors(found: list[np.ndarray]) -> list[float]:
        return [relative_error(one, other) for one, other in zip(found, expected, strict=True)]

    expected = step("cpu", "float32")
    found = errors(step(str(choose_device(check.device)), precision))
    if precision == "float32":
        return at_most(max(found), _FLOAT32_ERROR)
    return at_most(max(one / other for one, other in zip(found, errors(step("cpu", precision)), strict=True)), _SHARE)


def heads(check: Check, precision: str) -> Result:
    """Five heads in one stack rank images as those that the CPU trained."""
    rows = _rows(check)
    expected, found = (_trained(check, rows, device, precision) for device in ("cpu", check.device))
    return at_least(_agreement(rows, found, expected), _HEADS[precision])


def heads_alone(check: Check) -> Result:
    """A head comes out alone as in a stack, up to rounding."""
    rows = _rows(check)
    stack, alone = (_trained(check, rows, check.device, "float32", seeds) for seeds in (SEEDS, SEEDS[:1]))
    return at_least(_agreement(rows, alone, stack[:1]), _HEADS["float32"])


def heads_again(check: Check) -> Result:
    """Heads whose training was interrupted are, trained again, those of an undisturbed one to the last bit."""
    rows = _rows(check)
    whole = _trained(check, rows, check.device, "bfloat16")
    try:
        _trained(check, rows, check.device, "bfloat16", on_episode=_interrupt)
    except KeyboardInterrupt:
        again = _trained(check, rows, check.device, "bfloat16")
    same = [
        np.array_equal(values, other.weights[name])
        for head, other in zip(whole, again, strict=True)
        for name, values in head.weights.items()
    ]
    return Result(f"{sum(same)} of {len(same)} arrays equal", "all", all(same))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _rows(check: Check) -> CachedRows:
    """Rows of several buffers."""
    return learnable_rows(check.sizes.head_batch * 16, 2, check.sizes.dim)


def _trained(
    check: Check, rows: CachedRows, device: str, precision: str, seeds: tuple[int, ...] = SEEDS, **more: Any
) -> list[TrainedHead]:
    sizes = check.sizes
    recipe = {"hidden": (sizes.hidden, sizes.hidden), "batch_size": sizes.head_batch, "epochs": sizes.steps // 16}
    recipe |= {"episode_samples": 8 * sizes.head_batch, "shuffle_buffer": 8 * sizes.head_batch, "shuffle_rows": 512}
    recipe |= {"threads": torch.get_num_threads()}
    return trained(rows, small_training(device=device, precision=precision, **recipe), seeds, **more)


def _agreement(rows: CachedRows, found: list[TrainedHead], expected: list[TrainedHead]) -> float:
    """Return the correlation of two heads' uncertainties, of the pair in which it is lowest."""
    embedding = rows.read("embedding", 0, 0, min(rows.rows, 4096))
    scores = [[numpy_head.score(head.weights, embedding) for head in heads] for heads in (found, expected)]
    return float(min(np.corrcoef(*pair)[0, 1] for pair in zip(*scores, strict=True)))


def neighbours(check: Check) -> Result:
    """The exact search finds the CPU's neighbours, of rows among which many are nearly or quite the same."""
    count, random = check.sizes.gallery, np.random.default_rng(0)
    values = random.normal(size=(count, check.sizes.dim)).astype(np.float16)
    near, same = values[: count // 8], values[count // 8 : count // 4]
    values[-len(near) :] = near + random.normal(scale=1e-3, size=near.shape)
    values[len(values) // 2 :][: len(same)] = same
    found, expected = (
        nearest_neighbours(lambda start, stop: values[start:stop], count, Neighbours(device=device))  # type: ignore[arg-type]
        for device in (check.device, "cpu")
    )
    return at_most(int((found.index != expected.index).sum()), 0)


def task_loss(check: Check, kind: str) -> Result:
    """Task losses without a classifier are the CPU's."""
    random, classes = np.random.default_rng(0), 10
    label = np.arange(classes * 200) % classes
    centres = random.normal(size=(classes, check.sizes.dim))
    rows = CachedRows(
        (centres[label] + random.normal(size=(2, len(label), check.sizes.dim))).astype(np.float16), label=label
    )
    module = kinds.load("task_losses", kind)
    found, expected = (
        np.concatenate(list(module.losses(rows, module.Options(), choose_device(device))))
        for device in (check.device, "cpu")
    )
    return at_most(relative_error(found, expected), _LOSS)


def method(check: Check, kind: str) -> Result:
    """The loss of a method's first step is the CPU's; it steps, evaluates and is written."""
    found, expected = (
        _method_loss(check, kind, device, check.folder / f"{kind}-{number}-{device}")
        for number, device in enumerate((check.device, "cpu"))
    )
    return at_most(abs(found - expected) / abs(expected), _SAMPLED_LOSS if kind in _SAMPLED else _LOSS)


def _method_loss(check: Check, kind: str, device: str, output: Path) -> float:
    recipe = {
        "epochs": 1,
        "batch_size": check.sizes.photos // 2,
        "learning_rate": 1e-3,
        "warmup_epochs": 0,
        "device": device,
    }
    section = {"kind": "method", "architecture": check.sizes.small, "image_size": check.sizes.side, "seed": 3}
    options = MethodOptions.model_validate(section | {"method": {"kind": kind}, "training": recipe})
    spec = {"name": kind, "options": options.model_dump(mode="json"), "train_split": "train", "eval_split": "test"}
    jobs.run("method", spec, output, check.settings(), dataset=check.folder / PHOTOS)
    return _curve(output)[-1]["loss"]


def joint(check: Check) -> Result:
    """The losses of joint training's first epoch are the CPU's."""
    found, expected = (
        _curve(_joint(check, device, f"{number}")) for number, device in enumerate((check.device, "cpu"))
    )
    losses = ("train_task_loss", "train_head_loss")
    return at_most(max(abs(found[1][name] / expected[1][name] - 1) for name in losses), _LOSS)


def joint_resumed(check: Check) -> Result:
    """A joint training that was interrupted goes on, and ends with the weights of an undisturbed one."""
    calls, evaluate = iter(range(10)), while_training.evaluate

    def interrupted(*arguments: Any, **named: Any) -> dict[str, float | None]:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(*arguments, **named)

    whole = _joint(check, check.device, "whole")
    try:
        with mock.patch.object(while_training, "evaluate", interrupted):
            _joint(check, check.device, "resumed")
    except KeyboardInterrupt:
        resumed = _joint(check, check.device, "resumed")
    same = [(folder / "manifest.json").read_text().count(_digest(whole)) for folder in (whole, resumed)]
    return Result("same weights" if all(same) else "other weights", "same", all(same))


def _digest(folder: Path) -> str:
    return json.loads((folder / "manifest.json").read_text())["facts"]["network_xxh3_128"]


def _joint(check: Check, device: str, name: str) -> Path:
    sizes, output = check.sizes, check.folder / f"joint-{name}-{device}"
    recipe = {"epochs": 2, "batch_size": sizes.photos // 4, "hidden": [16], "warmup_epochs": 0, "device": device}
    recipe |= {"threads": torch.get_num_threads()}
    spec = {"backbone": sizes.small, "dataset": PHOTOS, "train_split": "train", "eval_split": "test"}
    spec |= {"stop_gradient": False, "seed": 1, "options": JointOptions.model_validate(recipe).model_dump(mode="json")}
    made_from = {"dataset": check.folder / PHOTOS, "backbone": check.folder / sizes.small}
    return jobs.run("joint_training", spec, output, check.settings(), **made_from)


def _curve(output: Path) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in (output / "curve.jsonl").read_text().splitlines()]


LINES: dict[str, Callable[[Check], Result]] = {
    "float32 is float32": exact_float32,
    **{
        f"features, {name}, {precision}": partial(extraction, network=number, precision=precision)
        for number, name in enumerate(("transformer", "convolutions"))
        for precision in ("float32", "bfloat16")
    },
    "features, pixels drawn there": pixels,
    **{f"heads, a step, {precision}": partial(head_step, precision=precision) for precision in _HEADS},
    **{f"heads, five in a stack, {precision}": partial(heads, precision=precision) for precision in _HEADS},
    "heads, one alone, float32": heads_alone,
    "heads, interrupted, bfloat16": heads_again,
    "nearest neighbours": neighbours,
    **{f"task loss {kind}": partial(task_loss, kind=kind) for kind in kinds.kinds("task_losses")},
    **{f"method {kind}": partial(method, kind=kind) for kind in kinds.kinds("methods")},
    "joint training": joint,
    "joint training, interrupted": joint_resumed,
}
