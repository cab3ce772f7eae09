"""Kind `glyphs`: letters and digits rendered from fonts, ambiguous to very different degrees.

Nothing is stored: an image is rendered when it is opened. Its location is `split/number/character`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from pipeline_lib.datasets.base import ImageOpener, Index
from pipeline_lib.datasets.characters import CharacterOptions, fingerprint, random_stream
from pipeline_lib.datasets.scripts import CHARACTERS

if TYPE_CHECKING:
    from PIL.Image import Image


class Options(CharacterOptions):
    """Characters of a script as classes."""

    kind: Literal["glyphs"] = Field(description="Characters rendered from fonts; needs no files.")


@dataclass(frozen=True)
class GlyphOpener:
    """Renders the image of a location `split/number/character`, RGB."""

    image_size: int
    seed: int
    difficulty: tuple[float, float]

    def __call__(self, location: str) -> Image:
        from pipeline_lib.datasets.glyph_renderer import render

        split, number, character = location.split("/")
        random = random_stream("glyphs", self.seed, split, int(number), character)
        return render({character: 1.0}, random.uniform(*self.difficulty), self.image_size, random)


def open_images(options: Options, data_dir: Path) -> ImageOpener:
    """Return the renderer."""
    return GlyphOpener(options.image_size, options.seed, options.difficulty)


def build_index(options: Options, data_dir: Path) -> Index:
    """List the images: splits by name, then numbers, then classes, so that any prefix of a split is balanced."""
    characters = CHARACTERS[options.script]
    split, label, location = [], [], []
    for name, count in sorted(options.per_class.items()):
        for number in range(count):
            split += [name] * len(characters)
            label.append(np.arange(len(characters)))
            location += [f"{name}/{number}/{character}" for character in characters]
    samples = location[: len(characters)]
    return Index(
        classes=list(characters),
        split=split,
        label=np.concatenate(label),
        location=location,
        fingerprint=fingerprint(options, open_images(options, data_dir), samples),
    )
