"""Extraction that was killed goes on where it was, and gives the bytes of one that wasn't."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL.Image import Image

from pipeline_lib.core import artefacts
from pipeline_lib.core.jobs import Job
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.features import extract
from pipeline_lib.features.spec import BlockSpec
from pipeline_lib.stages import features
from tests.unit import worlds

VIEWS = ({"kind": "eval"}, {"kind": "centre_crop"}, worlds.block_spec()["view"])


def jobs(world: Path, output: Path) -> list[Job[BlockSpec]]:
    """Three views of the same images."""
    inputs = {"dataset": (world / "latin",), "backbone": (world / "mine",)}
    specs = [worlds.block_spec(view=view, epochs=[0, 1 + number // 2]) for number, view in enumerate(VIEWS)]
    return [Job("features", BlockSpec.model_validate(spec), inputs, output / spec["view"]["kind"]) for spec in specs]


class Killed(BaseException):
    """What the kernel does."""


@pytest.mark.slow
@pytest.mark.parametrize("others", [False, True])
def test_a_killed_extraction_goes_on_and_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], others: bool
) -> None:
    worlds.glyphs(tmp_path)
    worlds.backbone(tmp_path)
    features.run_together(jobs(tmp_path, tmp_path / "whole"))
    decode, decoded = ImageDataset.image, list[int]()

    def image(images: ImageDataset, position: int) -> Image:
        decoded.append(position)
        if len(decoded) == 70:
            raise Killed
        return decode(images, position)

    monkeypatch.setattr(ImageDataset, "image", image)
    monkeypatch.setattr(extract, "SAVE_SECONDS", 0.0)
    with pytest.raises(Killed):
        features.run_together(jobs(tmp_path, tmp_path / "killed"))
    decoded[:] = [-1] * 100  # it isn't killed again
    again = jobs(tmp_path, tmp_path / "killed")
    features.run_together(again[:2] if others else again)  # fewer views are other work: it starts anew
    went_on_at = decoded[100]
    assert went_on_at == (0 if others else 68) and len(decoded) == 100 + 124 - went_on_at
    for job in again[:2] if others else again:
        name = job.output.name
        whole, resumed = (artefacts.read(tmp_path / run / name, "features") for run in ("whole", "killed"))
        assert (whole.content, whole.facts) == (resumed.content, resumed.facts)
    assert not list((tmp_path / "killed").glob("*.resume*"))
