"""What a head adds to its backbone is measured, small, and in the card."""

from __future__ import annotations

import re
import shutil
import sys
import time
from pathlib import Path

import pytest
import timm
import torch

from pipeline_lib.__main__ import main
from pipeline_lib.checkpoints.checkpoint import CARD
from pipeline_lib.checkpoints.model import TimmRepresentation
from pipeline_lib.checkpoints.overhead import measure, write_into_card
from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import ArtefactError
from pipeline_lib.heads.model import UncertaintyHead
from pipeline_lib.pretrained import load
from tests.unit import pretrained_world


@pytest.mark.slow
def test_the_papers_head_adds_less_than_two_percent_to_vit_small_at_224_px(one_thread: None) -> None:
    network = timm.create_model("vit_small_patch16_224").eval()
    head = UncertaintyHead(network.num_features)
    backbone = TimmRepresentation(network)
    # In processor time: tests that run beside this one don't count.
    found = measure(backbone, head, head, (3, 224, 224), batches=(1, 2), seconds=0, clock=time.process_time)
    assert [latency.batch for latency in found.latencies] == [1, 2]
    assert max(latency.share for latency in found.latencies) < 0.02
    assert found.head_parameters == 384 * 512 + 512 * 512 + 512 + 512 + 512 + 1
    assert found.head_bytes == 4 * found.head_parameters
    assert found.backbone_parameters == sum(parameter.numel() for parameter in network.parameters())


def test_latencies_are_seconds_of_each_part() -> None:
    backbone = torch.nn.Linear(2, 2)
    backbone.forward = lambda images: time.sleep(0.02) or images.flatten(1)

    def uncertainty_of(representation: torch.Tensor) -> torch.Tensor:
        time.sleep(0.005)
        return representation[:, 0]

    (found,) = measure(backbone, torch.nn.Linear(1, 1), uncertainty_of, (3, 2, 2), batches=(4,), seconds=0).latencies
    assert 0.02 <= found.backbone < 0.2
    assert 0.005 <= found.heads < 0.05
    assert found.share == found.heads / found.backbone


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained_world.world(tmp_path_factory.mktemp("world")).export()


@pytest.fixture
def checkpoint(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "checkpoint")


def test_the_measurement_goes_into_the_card_and_replaces_an_earlier_one(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = artefacts.read(checkpoint, "export")
    assert "safetensors" in manifest.software
    command = ["overhead", "--checkpoint", str(checkpoint), "--write", "--seconds", "0", "--batches", "2", "5"]
    for _ in range(2):
        assert main(command) == 0
    printed = capsys.readouterr().out
    text = (checkpoint / "README.md").read_text()
    assert text.count("images per batch") == 1
    last = printed[printed.rindex("Heads:") :]
    assert f"## What a head costs\n\n{last}\n## What it is not" in text
    assert re.search(r"^\| 5 \| [\d.]+ \| [\d.]+ \| [\d.]+ % \|$", text, re.MULTILINE)
    again = artefacts.read(checkpoint, "export", manifest.spec)
    kept = ("facts", "inputs", "code", "derivation", "software")
    assert all(getattr(again, name) == getattr(manifest, name) for name in kept)
    assert {name for name in again.files if again.files[name] != manifest.files[name]} == {"README.md"}
    assert load(checkpoint).card.text.count("R-AUROC")


def test_a_checkpoint_without_a_manifest_has_a_card_to_write_into_too(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkpoint / "manifest.json").unlink()  # as the Hub gives it
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    assert main(["overhead", "--checkpoint", str(checkpoint), "--write", "--seconds", "0", "--batches", "1"]) == 0
    assert f"## What a head costs\n\n{capsys.readouterr().out}\n## What it is not" in (checkpoint / CARD).read_text()
    after = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {CARD}


def test_a_backbone_of_your_own_code_is_measured_by_its_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = pretrained_world.world(tmp_path, kind="custom").export()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    command = ["overhead", "--checkpoint", str(made), "--seconds", "0", "--batches", "1"]
    assert main(command) == 1
    assert "on the command line as --backbone MODULE:FUNCTION" in capsys.readouterr().err
    assert main([*command, "--backbone", "my_networks:build"]) == 0
    parameters = sum(values.numel() for values in timm.create_model("test_resnet", num_classes=62).parameters())
    assert f"of the backbone's {parameters:,})" in capsys.readouterr().out


def test_a_card_without_the_section_is_named(checkpoint: Path) -> None:
    (checkpoint / "README.md").write_text("my own words")
    with pytest.raises(ArtefactError, match=r"README\.md: "):
        write_into_card(checkpoint, None)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--architecture", "vit_smal_patch16_224"], "did you mean 'vit_small_patch16_224'?"),
        (["--architecture", "test_vit", "--write"], "--write: needs a --checkpoint that is a folder"),
        (["--architecture", "test_vit", "--backbone", "test_vit"], "--backbone: is that of a --checkpoint"),
        (["--architecture", "test_vit", "--batches", "0"], "--batches 0: a batch has at least one image"),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["overhead", *arguments]) == 1
    assert expected in capsys.readouterr().err


def test_any_timm_architecture_is_measured_with_a_new_head(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["overhead", "--architecture", "test_efficientnet", "--seconds", "0", "--hidden", "8", "--batches", "1"]
    assert main(command) == 0
    dim = timm.create_model("test_efficientnet").head_hidden_size
    assert f"Heads: {dim * 8 + 8 + 8 + 1:,} parameters" in capsys.readouterr().out
