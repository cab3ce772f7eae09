"""Weights as people have them: under other names, for another image size, with more than one head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from pipeline_lib.backbones import timm as timm_kind
from pipeline_lib.core.errors import PipelineError

State = dict[str, Tensor]
VIT = "test_vit"


@pytest.fixture(scope="module")
def vit() -> State:
    torch.manual_seed(0)
    network = timm.create_model(VIT, num_classes=0, img_size=64)
    return dict(network.state_dict())


def prepared(tmp_path: Path, state: Any, model: str = VIT, **options: Any) -> Any:
    torch.save(state, tmp_path / "weights.pth")
    section = {"kind": "timm", "model": model, "checkpoint": str(tmp_path / "weights.pth"), **options}
    return timm_kind.prepare(timm_kind.Options.model_validate(section))


def as_openai_clip(state: State) -> State:
    """Return the image tower of CLIP under the names of its authors."""
    parts = {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "attn.proj": "attn.out_proj",
    }
    renamed = {}
    for name, values in state.items():
        new = name.replace("blocks.", "transformer.resblocks.")
        for old, theirs in parts.items():
            new = new.replace(old, theirs)
        new = new.replace("attn.qkv.weight", "attn.in_proj_weight").replace("attn.qkv.bias", "attn.in_proj_bias")
        new = {"cls_token": "class_embedding", "pos_embed": "positional_embedding"}.get(new, new)
        new = new.replace("patch_embed.proj.", "conv1.").replace("norm_pre.", "ln_pre.")
        new = "ln_post." + new.removeprefix("norm.") if new.startswith("norm.") else new
        renamed[f"visual.{new}"] = (
            values[0, 0] if new == "class_embedding" else values.squeeze(0) if "posit" in new else values
        )
    return renamed


def test_position_embeddings_are_resized_to_the_image_size(tmp_path: Path, vit: State) -> None:
    encoder = prepared(tmp_path, vit, classifier=False, image_size=96)
    assert encoder.network.pos_embed.shape == (1, 37, 64)
    assert torch.equal(encoder.network.blocks[1].attn.qkv.weight, vit["blocks.1.attn.qkv.weight"])
    embedding, _ = encoder(torch.zeros(1, 3, 96, 96))
    assert embedding.shape == (1, 64)


def test_a_masked_autoencoders_decoder_is_left_out_and_said(
    tmp_path: Path, vit: State, capsys: pytest.CaptureFixture[str]
) -> None:
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, 64)}
    decoder["decoder_blocks.0.norm1.weight"] = torch.zeros(8)
    encoder = prepared(tmp_path, {"model": vit | decoder}, classifier=False, image_size=64)
    assert torch.equal(encoder.network.norm.weight, vit["norm.weight"])
    assert "3 keys are of a classifier or decoder that is not used, and left out" in capsys.readouterr().out
    with pytest.raises(PipelineError, match=r"1 keys are not in the network, such as 'blocks\.12"):
        prepared(tmp_path, vit | {"blocks.12.norm1.weight": torch.zeros(64)}, classifier=False, image_size=64)


@pytest.mark.slow
def test_clips_image_tower_is_read_under_its_authors_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("vit_base_patch32_clip_224", num_classes=0, img_size=64)
    state = dict(network.state_dict())
    encoder = prepared(tmp_path, as_openai_clip(state), "vit_base_patch32_clip_224", classifier=False, image_size=64)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = network.eval().forward_head(network.forward_features(images), pre_logits=True)
        torch.testing.assert_close(encoder.network.eval() and encoder(images)[0], expected)


@pytest.mark.slow
def test_a_network_with_two_heads_loads_without_them_as_its_message_says(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = "deit_tiny_distilled_patch16_224"
    state = dict(timm.create_model(model, num_classes=7, img_size=64).state_dict())
    with pytest.raises(
        PipelineError, match=r"has no linear classifier.*set classifier: false and leave num_classes out"
    ):
        prepared(tmp_path, state, model, num_classes=7, image_size=64)
    encoder = prepared(tmp_path, state, model, classifier=False, image_size=64)
    assert encoder(torch.zeros(1, 3, 64, 64))[0].shape == (1, 192)


@pytest.mark.parametrize(
    ("wrap", "prefixes"),
    [
        (lambda state: {f"module.{name}": value for name, value in state.items()}, ["module."]),
        (lambda state: {"state_dict": {f"model.net.{n}": v for n, v in state.items()}}, ["model.net."]),
        (
            lambda state: {f"{who}.backbone.{n}": v for who in ("student", "teacher") for n, v in state.items()},
            ["student.backbone.", "teacher.backbone."],
        ),
    ],
    ids=["parallel", "Lightning", "two networks"],
)
def test_a_prefix_is_named_with_the_option_that_removes_it(
    tmp_path: Path, vit: State, wrap: Callable[[State], Any], prefixes: list[str]
) -> None:
    with pytest.raises(PipelineError, match=f"its keys begin with '{prefixes[0]}'.*: set that as key_prefix"):
        prepared(tmp_path, wrap(vit), classifier=False, image_size=64)
    for prefix in prefixes:
        prepared(tmp_path, wrap(vit), classifier=False, image_size=64, key_prefix=prefix)


def test_dinos_teacher_is_taken_from_its_checkpoint(tmp_path: Path, vit: State) -> None:
    teacher = {f"backbone.{name}": value for name, value in vit.items()}
    encoder = prepared(
        tmp_path, {"teacher": teacher, "epoch": 3}, classifier=False, image_size=64, key_prefix="backbone."
    )
    assert torch.equal(encoder.network.cls_token, vit["cls_token"])
