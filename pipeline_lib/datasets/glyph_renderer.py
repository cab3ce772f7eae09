"""Draws characters, from crisp to hardly legible.

The faces are the DejaVu fonts that matplotlib ships, so nothing is downloaded. `difficulty` scales every
deterioration: small and tilted glyphs, low contrast, uneven backgrounds, strokes over the glyph, blur, noise.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from pipeline_lib.core.errors import PipelineError

FACES = (
    "DejaVuSans",
    "DejaVuSans-Oblique",
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSerif",
    "DejaVuSerif-Italic",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "DejaVuSansMono",
    "DejaVuSansMono-Oblique",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
)
# The background is this many random colour cells a side, smoothly enlarged: plain, gradient, coarse, fine texture.
_BACKGROUND_CELLS = (1, 2, 5, 16)
_MAX_STROKES = 4


@functools.cache
def font_folder() -> Path:
    """Return the folder of matplotlib's fonts; matplotlib itself, which is slow to import, is not imported."""
    package = importlib.util.find_spec("matplotlib")
    if package is None or package.origin is None:
        raise PipelineError("rendered characters need the fonts of matplotlib, which is not installed")
    return Path(package.origin).parent / "mpl-data" / "fonts" / "ttf"


@functools.lru_cache(maxsize=256)
def _font(face: str, pixels: int) -> ImageFont.FreeTypeFont:
    # The basic layout draws single characters alike whether or not Pillow was built with Raqm.
    return ImageFont.truetype(font_folder() / f"{face}.ttf", pixels, layout_engine=ImageFont.Layout.BASIC)


def render(shares: Mapping[str, float], difficulty: float, image_size: int, random: np.random.Generator) -> Image.Image:
    """Draw one RGB image of `image_size` x `image_size` pixels.

    Parameters
    ----------
    shares : mapping from str to float
        Opacity of each character, summing to 1. Several lie over each other in the same face, size and position, so
        that the image is the pixel-wise mean of the single characters' images, weighted by their shares.
    difficulty : float
        In [0, 1]; the image draws every deterioration between 40 % and 100 % of it.
    image_size : int
        Width and height in pixels.
    random : numpy.random.Generator
        The image's own stream; it decides everything else.
    """
    size, tilt, contrast, unevenness, cover, blur, noise = (difficulty * random.uniform(0.4, 1.0, 7)).tolist()
    background, ink_colour = _colours(random, contrast)
    ink = _ink(shares, image_size, random, size, tilt)
    pixels = _background(background, image_size, random, unevenness)
    pixels += (ink_colour - pixels) * ink[:, :, np.newaxis]
    image = Image.fromarray(_to_bytes(pixels))
    _cover(image, background, random, cover)
    radius = 0.05 * image_size * blur**1.5
    if radius > 0.25:  # less can't be seen, and costs as much
        image = image.filter(ImageFilter.GaussianBlur(radius))
    # Uniform noise is four times as fast to draw as Gaussian noise, and looks alike.
    grain = random.random((image_size, image_size, 3), np.float32) - np.float32(0.5)
    return Image.fromarray(_to_bytes(np.asarray(image) + np.float32(6 + 230 * noise**1.5) * grain))


def _colours(random: np.random.Generator, contrast: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the colours of background and glyph, float32 [3] in 0..255: one light, the other dark."""
    dark = random.uniform(0, 90, 3)
    light = random.uniform(165, 255, 3)
    background, ink = (light, dark) if random.random() < 0.5 else (dark, light)
    ink = background + (ink - background) * (1 - 0.82 * contrast)
    return background.astype(np.float32), ink.astype(np.float32)


def _ink(
    shares: Mapping[str, float], image_size: int, random: np.random.Generator, size: float, tilt: float
) -> np.ndarray:
    """Return the opacity of the glyph, float32 [image_size, image_size] in 0..1."""
    face = FACES[random.integers(len(FACES))]
    height = image_size * random.uniform(0.76, 0.82) * (1 - 0.65 * size)
    angle = math.radians(random.uniform(-1, 1) * (4 + 40 * tilt))
    # Smaller glyphs have more room to move; the line is 1.2 times as high as the font size.
    room = max(image_size - 1.2 * height, 0.0) / 2
    shift_x, shift_y = random.uniform(-1, 1, 2) * room
    centre = image_size / 2
    font = _font(face, max(round(height), 4))
    opacity = np.zeros((image_size, image_size), np.float32)
    for character, share in shares.items():
        mask = Image.new("L", (image_size, image_size))
        ImageDraw.Draw(mask).text((centre, centre), character, fill=255, font=font, anchor="mm")
        opacity += np.float32(share / 255) * np.asarray(_moved(mask, angle, shift_x, shift_y), np.float32)
    return opacity


def _moved(mask: Image.Image, angle: float, shift_x: float, shift_y: float) -> Image.Image:
    """Turn a mask about its centre and shift it, in pixels, with one interpolation."""
    centre = mask.width / 2
    cosine, sine = math.cos(angle), math.sin(angle)
    x, y = -centre - shift_x, -centre - shift_y
    backward = (cosine, sine, centre + cosine * x + sine * y, -sine, cosine, centre - sine * x + cosine * y)
    return mask.transform(mask.size, Image.Transform.AFFINE, backward, Image.Resampling.BICUBIC)


def _background(colour: np.ndarray, image_size: int, random: np.random.Generator, unevenness: float) -> np.ndarray:
    """Return the background, float32 [image_size, image_size, 3] in 0..255."""
    cells = _BACKGROUND_CELLS[random.integers(len(_BACKGROUND_CELLS))]
    amplitude = 18 + 70 * unevenness
    # A plain background keeps its colour: there the cell's own offset would only change the contrast.
    offsets = amplitude * random.uniform(-1, 1, (cells, cells, 3)) * (cells > 1)
    small = Image.fromarray(_to_bytes(colour + offsets))
    return np.array(small.resize((image_size, image_size), Image.Resampling.BICUBIC), np.float32)


def _cover(image: Image.Image, background: np.ndarray, random: np.random.Generator, cover: float) -> None:
    """Draw strokes in about the background's colour across the middle: parts of the glyph vanish."""
    strokes = round(_MAX_STROKES * cover * random.random())
    draw = ImageDraw.Draw(image)
    for _ in range(strokes):
        x, y = random.uniform(0.25, 0.75, 2) * image.width
        angle = random.uniform(0, math.pi)
        reach = image.width * random.uniform(0.2, 0.6)
        across, down = reach * math.cos(angle), reach * math.sin(angle)
        colour = tuple(int(value) for value in _to_bytes(background + random.uniform(-25, 25, 3)))
        width = max(round(image.width * 0.16 * cover * random.uniform(0.5, 1.0)), 1)
        draw.line((x - across, y - down, x + across, y + down), fill=colour, width=width)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)
