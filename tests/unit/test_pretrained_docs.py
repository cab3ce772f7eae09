"""The Python that the documentation of checkpoints shows runs as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pipeline_lib.__main__ import STAGES, main
from tests.unit import pretrained_world
from tests.unit.test_docs import ROOT, blocks

PAGES = [ROOT / "README.md", ROOT / "docs/checkpoints.md"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained_world.world(tmp_path_factory.mktemp("world")).export("results/checkpoints/resnet/default")


def test_from_an_image_file_to_its_representation_and_uncertainty(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a checkpoint where the default run puts its own; the card of each checkpoint shows the same lines."""
    monkeypatch.chdir(checkpoint.parents[3])
    Image.effect_noise((50, 40), 80).save("photo.png")
    card = (checkpoint / "README.md").read_text()
    texts = [page.read_text() for page in PAGES]
    texts.append(card.replace("path/to/this/folder", str(checkpoint)).replace("image.png", "photo.png"))
    ran = 0
    for text in texts:
        names: dict[str, Any] = {}
        for block in blocks(text, "python"):
            if "pipeline_lib.pretrained" in block or names:
                exec(compile(block, "documentation", "exec"), names)
                ran += 1
        if names:
            assert names["representation"].shape == (1, names["model"].config.backbone.dim)
            assert names["uncertainty"].shape == (1,)
            assert 0 < float(names["uncertainty"]) < 1
    assert ran >= 3
    torch.testing.assert_close(names["representation"], names["model"](names["images"])[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_is_one(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^(?:\.venv/bin/)?python -m pipeline_lib (.*)$", page.read_text(), re.MULTILINE)
    assert commands
    for command in commands:
        stage, *arguments = shlex.split(command.split("  #")[0])
        if stage not in STAGES:
            assert stage.startswith("<"), command
            continue
        with pytest.raises(SystemExit) as stop:
            main([stage, "--help"])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        for option in arguments:
            if option.startswith("--"):
                assert option in text, f"{stage} has no {option}"
