"""Checkpoints of the papers' own code become ours with one command."""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from pipeline_lib.__main__ import main
from pipeline_lib.checkpoints.reference import convert_reference
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.pretrained import load

CLASSES, WIDTH = 5, 12
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Reference(nn.Module):
    """The structure of the reference: a timm model and, on its representation, a perceptron two levels down."""

    def __init__(self, architecture: str = "test_resnet", hidden: int = 2, reads: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = timm.create_model(architecture, num_classes=CLASSES).eval()
        widths = [reads or self.model.num_features] + [WIDTH] * hidden
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.LeakyReLU()]
        self.unc_module = nn.Module()
        self.unc_module.unc_module = nn.Sequential(*layers, nn.Linear(WIDTH, 1), nn.Softplus())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.forward_head(self.model.forward_features(images), pre_logits=True)
        return features, 1e-6 + self.unc_module.unc_module(features).squeeze(1)


def saved(path: Path, reference: nn.Module, state: dict[str, Any] | None = None, **more: Any) -> Path:
    """Write a file as the reference does, with the arguments of its script and the metric of the best epoch."""
    content = {
        "epoch": 3,
        "arch": "test_resnet",
        "state_dict": reference.state_dict() if state is None else state,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999)}]},
        "version": 2,
        "args": argparse.Namespace(model="test_resnet", lr=0.1, img_size=None, dataset_downstream=["repr/cub"]),
        "metric": np.float64(0.7),
        **more,
    }
    torch.save(content, path)
    return path


@pytest.mark.parametrize("hidden", [1, 2, 3])
def test_a_converted_checkpoint_says_what_the_reference_says(tmp_path: Path, hidden: int) -> None:
    reference = Reference(hidden=hidden)
    file = saved(tmp_path / "model_best.pth.tar", reference)
    assert main(["convert_reference", str(file), "--architecture", "test_resnet", "--output", str(tmp_path / "c")]) == 0
    model = load(tmp_path / "c")
    with torch.inference_mode():
        expected, uncertainty = reference(IMAGES)
        found = model(IMAGES)
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(found[1], uncertainty - 1e-6, rtol=1e-5, atol=1e-7)
    assert model.config.backbone.num_classes == CLASSES
    assert model.config.heads.hidden == (WIDTH,) * hidden


def test_the_card_of_a_converted_checkpoint_claims_no_results(tmp_path: Path) -> None:
    convert_reference(saved(tmp_path / "a.pth.tar", Reference()), "test_resnet", tmp_path / "c")
    card = load(tmp_path / "c").card
    assert card.data.eval_results is None
    assert "R-AUROC" not in card.text
    assert str(tmp_path) not in card.content + json.dumps(json.loads((tmp_path / "c/config.json").read_text()))


def test_a_model_trained_in_parallel_converts_to_the_same(tmp_path: Path) -> None:
    reference = Reference()
    parallel = {f"module.{name}": value for name, value in reference.state_dict().items()}
    without_wrapper = {name.removeprefix("model."): value for name, value in reference.state_dict().items()}
    folders = []
    for number, state in enumerate([None, parallel, without_wrapper]):
        file = saved(tmp_path / f"{number}.pth.tar", reference, state)
        folders.append(tmp_path / str(number))
        convert_reference(file, "test_resnet", folders[-1])
    weights = {(folder / "model.safetensors").read_bytes() for folder in folders}
    assert len(weights) == 1


def test_heads_alone_leave_the_backbone_to_the_user(tmp_path: Path) -> None:
    reference = Reference()
    file = saved(tmp_path / "a.pth.tar", reference)
    convert_reference(file, "test_resnet", tmp_path / "c", include_backbone=False)
    found = load(tmp_path / "c", backbone=reference.model)(IMAGES)
    torch.testing.assert_close(found[0], reference(IMAGES)[0])


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("this must never run",)


def without(reference: nn.Module, part: str) -> dict[str, Tensor]:
    return {name: value for name, value in reference.state_dict().items() if part not in name}


@pytest.mark.parametrize(
    ("change", "architecture", "expected"),
    [
        (lambda r: {"state": without(r, "unc_module")}, "test_resnet", "has no uncertainty module"),
        (lambda r: {"state": r.state_dict() | {"embed_module.0.weight": IMAGES}}, "test_resnet", "embed_module"),
        (lambda r: {"state": without(r, "unc_module.2.bias")}, "test_resnet", "a layer of its .* has no 'bias'"),
        (lambda r: {"state": without(r, "unc_module.4.")}, "test_resnet", r"ends in one number \(their shapes: "),
        (lambda r: {}, "test_vit", "has no 'head.weight', so its backbone is no test_vit; give the --architecture"),
        (lambda r: {}, "test_resnett", "no architecture 'test_resnett'; did you mean 'test_resnet'?"),
        (lambda r: {"state": without(r, "layer1.0.conv1")}, "test_resnet", "keys of the network are missing"),
        (lambda r: {"extra": Evil()}, "test_resnet", "could run code from the file"),
    ],
    ids=["no head", "another method", "half a layer", "no end", "another backbone", "misspelt", "holes", "code"],
)
def test_a_file_that_can_not_be_converted_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, architecture: str, expected: str
) -> None:
    reference = Reference()
    file = saved(tmp_path / "a.pth.tar", reference, **change(reference))
    with pytest.raises(PipelineError, match=expected.replace("?", r"\?")) as error:
        convert_reference(file, architecture, tmp_path / "c")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "c").exists()
    assert "this must never run" not in capsys.readouterr().out


def test_a_head_on_other_layers_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.pth.tar", Reference(reads=7))
    with pytest.raises(PipelineError, match=r"reads 7 numbers, but test_resnet gives \d+; only modules on the repr"):
        convert_reference(file, "test_resnet", tmp_path / "c")


def test_a_file_that_is_not_there_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"checkpoint .*none\.pth\.tar: no such file"):
        convert_reference(tmp_path / "none.pth.tar", "test_resnet", tmp_path / "c")
    (tmp_path / "a.pth.tar").write_bytes(b"half a download")
    with pytest.raises(PipelineError, match=r"checkpoint .*a\.pth\.tar: "):
        convert_reference(tmp_path / "a.pth.tar", "test_resnet", tmp_path / "c")
