"""Converted checkpoints say what the model says, in programs that know nothing of this library."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch

from pipeline_lib.__main__ import main
from pipeline_lib.checkpoints import exchange
from pipeline_lib.checkpoints.model import PretrainedModel
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.pretrained import load
from tests.unit import pretrained_world


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained_world.world(tmp_path_factory.mktemp("vit"), "test_vit").export()


def require_equal(model: PretrainedModel, run: Callable) -> None:
    """Compare on batches of sizes of which none was seen when the model was traced."""
    generator = torch.Generator().manual_seed(1)
    for count in (1, 7):
        images = torch.randn(count, *model.config.backbone.data_config.input_size, generator=generator)
        found = [np.asarray(output) for output in run(images)]
        representation, uncertainty = model(images)
        assert found[0].shape == tuple(representation.shape)
        np.testing.assert_allclose(found[0], representation, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[1], uncertainty, rtol=1e-4)


@pytest.mark.slow
def test_an_onnx_file_says_what_the_model_says_for_batches_of_any_size(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.onnx"
    assert main(["convert", str(checkpoint), "--to", "onnx", "--output", str(file), "--seeds", "1"]) == 0
    assert f"equal to {checkpoint}" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(file)
    model = load(checkpoint, seeds=[1])
    require_equal(model, lambda images: session.run(None, {"images": images.numpy()}))
    assert [output.name for output in session.get_outputs()] == ["representation", "uncertainty"]
    transform = json.loads(session.get_modelmeta().custom_metadata_map["transform"])
    assert transform == model.config.backbone.data_config.model_dump(mode="json")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"], "weights are inside"


@pytest.mark.slow
def test_an_exported_program_says_what_the_model_says_all_heads_averaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a custom network, whose representation is what a hook sees enter its classifier."""
    made = pretrained_world.world(tmp_path, kind="custom").export()
    model = load(made, backbone=lambda: timm.create_model("test_resnet", num_classes=62))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "model.pt2"
    command = ["convert", str(made), "--to", "torch_export", "--output", str(file), "--backbone", "my_networks:build"]
    assert main(command) == 0
    require_equal(model, torch.export.load(file).module())


class Pixels(torch.nn.Module):
    """A network that returns pixels, brighter ones where all are bright; that it can do without looking at them."""

    def __init__(self, by_value: bool = False) -> None:
        super().__init__()
        self.by_value = by_value

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.by_value and images.sum() > 0:
            images = images * 2
        return images.flatten(1)[:, :64]


def with_backbone(checkpoint: Path, backbone: torch.nn.Module) -> PretrainedModel:
    """Return the model with another backbone than that of its heads."""
    model = load(checkpoint)
    model.backbone = backbone
    return model


def test_a_network_that_can_not_be_traced_is_named(tmp_path: Path, checkpoint: Path) -> None:
    model = with_backbone(checkpoint, Pixels(by_value=True))
    with pytest.raises(PipelineError, match=r"torch\.export can't trace the backbone 'mine'") as error:
        exchange.write_program(model, tmp_path / "model.pt2")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_file_that_says_something_else_is_not_kept(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, other = with_backbone(checkpoint, Pixels()), with_backbone(checkpoint, Pixels())
    for weights in other.heads.parameters():
        weights.data += 0.01
    program = exchange._traced(other)
    monkeypatch.setattr(exchange, "_traced", lambda model: program)
    with pytest.raises(PipelineError, match=r"model\.pt2: the converted model gives other .* it was not written"):
        exchange.write_program(model, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []
