"""Training from images on a device, against the CPU of the same machine, and going on after an interrupt."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from pipeline_lib.backbones.method import Options as MethodOptions
from pipeline_lib.config import kinds
from pipeline_lib.config.joint_training import JointOptions
from pipeline_lib.evaluation import while_training
from tests import jobs
from tests.gpu.world import PHOTOS, Check, Result, at_most

# Relative, of an epoch's mean loss. Losses over samples are drawn from a generator of each device's own: between seeds,
# those of a batch of 48 differ by 0.008, with dropout by 0.11.
_LOSS = 5e-3
_SAMPLED = {"het_xl": 0.03, "hib": 0.03, "mcinfonce": 0.03, "nivmf": 0.03, "mc_dropout": 0.3}


def method(check: Check, kind: str) -> Result:
    """The loss of a method's first step is the CPU's; it steps, evaluates and is written."""
    found, expected = (
        _method_loss(check, kind, device, check.folder / f"{kind}-{number}-{device}")
        for number, device in enumerate((check.device, "cpu"))
    )
    return at_most(abs(found - expected) / abs(expected), _SAMPLED.get(kind, _LOSS))


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
    **{f"method {kind}": partial(method, kind=kind) for kind in kinds.kinds("methods")},
    "joint training": joint,
    "joint training, interrupted": joint_resumed,
}
