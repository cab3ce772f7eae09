"""Augmentation on tensors: the draws of timm, whatever is drawn beside them."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import functional
from torchvision.transforms.functional import pil_to_tensor

from pipeline_lib.config.features import Features
from pipeline_lib.config.views import Augmented, view_spec
from pipeline_lib.datasets.jitter import BRIGHTNESS, CONTRAST, SATURATION, jitter
from pipeline_lib.datasets.tensor_views import TensorView
from pipeline_lib.datasets.views import make_view
from pipeline_lib.features import decoding
from tests.unit import worlds
from tests.unit.worlds import extract_view

DATA_CONFIG = {"input_size": (3, 64, 64), "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center"}
PILLOW = {
    BRIGHTNESS: functional.adjust_brightness,
    CONTRAST: functional.adjust_contrast,
    SATURATION: functional.adjust_saturation,
}


def noise(seed: int, width: int = 60, height: int = 50) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def photo(seed: int) -> Image.Image:
    """Return an image with edges and some noise, of a size of its own."""
    image = noise(seed, 9, 7).resize((150 + 20 * seed, 170), Image.Resampling.NEAREST)
    return Image.blend(image, noise(seed + 1, *image.size), 0.2).filter(ImageFilter.GaussianBlur(1))


def view(**changes: Any) -> Any:
    return make_view({"kind": "augmented", "seed": 3, **changes}, DATA_CONFIG)


@pytest.mark.parametrize("strength", [0.4, 1.5])
def test_jitter_is_that_of_pillow_bit_for_bit(strength: float) -> None:
    generator = np.random.default_rng(0)
    for seed, order in enumerate(itertools.permutations(PILLOW)):
        steps = [(kind, generator.uniform(max(0, 1 - strength), 1 + strength)) for kind in order]
        image = expected = noise(seed) if seed % 2 else photo(seed)
        for kind, factor in steps:
            expected = PILLOW[kind](expected, factor)
        assert torch.equal(jitter(pil_to_tensor(image)[None], [steps])[0], pil_to_tensor(expected))


def test_jitter_of_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    generator = np.random.default_rng(0)
    pixels = torch.stack([pil_to_tensor(noise(seed)) for seed in range(6)])
    steps = [[(kind, generator.uniform(0.6, 1.4)) for kind in order] for order in itertools.permutations(PILLOW)]
    together = jitter(pixels, steps)
    for image, own, expected in zip(pixels, steps, together, strict=True):
        assert torch.equal(jitter(image[None], [own])[0], expected)


@pytest.mark.parametrize(
    ("changes", "largest"),
    [
        ({"interpolation": "bilinear", "color_jitter": 0}, 1),
        ({}, 30),
        ({"color_jitter_probability": 0.5, "horizontal_flip": 0.3}, 30),
        ({"policy": {"kind": "small_crops", "probability": 0.5}}, 30),
    ],
    ids=str,
)
def test_draws_are_those_of_timm_within_a_tolerance(changes: dict[str, Any], largest: int) -> None:
    """Of levels of 255; resizing rounds one up instead of down, and jitter and bicubic overshoots make more of it."""
    on_pillow, on_tensors = view(**changes), view(**changes, pixels="tensor")
    for seed, epoch in itertools.product(range(5), range(6)):
        expected, found = (one(photo(seed), seed, epoch)[0] for one in (on_pillow, on_tensors))
        assert found.dtype == expected.dtype and found.shape == expected.shape
        difference = (found.int() - expected.int()).abs()
        assert difference.max() <= largest
        assert difference.float().mean() < 0.3


@pytest.mark.parametrize("changes", [{}, {"color_jitter_probability": 0.5}], ids=str)
def test_a_draw_does_not_depend_on_what_is_drawn_with_it(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_tensors = view(**changes, pixels="tensor")
    assert isinstance(on_tensors, TensorView)
    image = pil_to_tensor(photo(0))
    together = on_tensors.draw(image, 7, range(8))
    assert len({pixels.numpy().tobytes() for pixels in together}) == 8
    for epoch in (5, 0, 7):
        assert torch.equal(on_tensors.draw(image, 7, [epoch])[0], together[epoch])
        assert torch.equal(on_tensors.draw(image.contiguous(), 7, [epoch])[0], together[epoch])
        assert torch.equal(on_tensors(photo(0), 7, epoch)[0], together[epoch])
    assert not torch.equal(on_tensors.draw(image, 8, [0])[0], together[0])
    on_a_gpu = SimpleNamespace(shape=image.shape, device=torch.device("cuda"))
    monkeypatch.setattr(on_tensors, "_cropped", lambda _, draw: TensorView._cropped(on_tensors, image, draw))
    monkeypatch.setattr(on_tensors, "_draw", lambda _, *draw: TensorView._draw(on_tensors, image, *draw))
    assert torch.equal(on_tensors.draw(on_a_gpu, 7, range(8)), together), "jittered in one batch"


def test_features_of_tensors_do_not_tell_how_the_work_was_cut(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = tmp_path_factory.mktemp("world")
    worlds.glyphs(world)
    worlds.backbone(world)
    drawn = {**worlds.block_spec()["view"], "pixels": "tensor"}

    def rows(**cut: Any) -> list[bytes]:
        cache = extract_view(world, tmp_path_factory.mktemp("view"), view=drawn, **cut)
        return [cache.read_all("embedding", epoch).tobytes() for epoch in range(3)]

    whole = rows()
    assert rows(workers=1, block_samples=70, block_epochs=2) == whole
    monkeypatch.setattr(decoding, "drawn_on", lambda view, device: SimpleNamespace(type="cuda"))
    assert rows(workers=1) == whole, "drawn by this process, of what workers decoded"


def test_pillow_is_the_default_and_its_spec_is_what_it_was() -> None:
    assert view_spec(Features(), "train") == Augmented()
    spec = {"kind": "augmented", "pixels": "tensor"}
    assert view_spec(Features(pixels="tensor"), "train") == Augmented.model_validate(spec)
    assert "pixels" not in worlds.BlockSpec.model_validate(worlds.block_spec()).plain()["view"]
