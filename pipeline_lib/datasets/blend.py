"""Kind `blend`: two characters over each other in a known ratio, so that the ambiguity of a label is known.

An image shows character a with share r and character b with 1 - r. Its votes are 100 r for a and 100 (1 - r) for
b, so their entropy is -r ln r - (1 - r) ln(1 - r) nats. The deteriorations are mild, so that the ratio dominates.
Nothing is stored: an image is rendered when it is opened. Its location is `split/number/a/b/r`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, field_validator

from pipeline_lib.datasets.base import ImageOpener, Index
from pipeline_lib.datasets.characters import CharacterOptions, ImagesPerClass, fingerprint, random_stream
from pipeline_lib.datasets.scripts import CHARACTERS

if TYPE_CHECKING:
    from PIL.Image import Image


class Options(CharacterOptions):
    """Pairs of characters of a script; the classes are the characters."""

    kind: Literal["blend"] = Field(description="Two characters mixed in a known ratio; needs no files.")
    per_class: ImagesPerClass = Field(
        {"test": 40}, min_length=1, description="Images of each class as the first character of the pair, per split."
    )
    difficulty: tuple[float, float] = Field(
        (0.0, 0.2), description="Range of the deterioration that each image draws; small, so that the ratio dominates."
    )
    ratios: tuple[float, ...] = Field(
        (1.0, 0.9, 0.8, 0.7, 0.6, 0.5),
        min_length=1,
        description="Shares of the first character, from 0.5 to 1 (pure); each image draws one.",
    )

    @field_validator("ratios")
    @classmethod
    def _shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if min(value) < 0.5 or max(value) > 1:
            raise ValueError("must lie between 0.5 and 1")
        return value

    @property
    def has_votes(self) -> bool:
        """Whether images carry votes."""
        return True


@dataclass(frozen=True)
class BlendOpener:
    """Renders the image of a location `split/number/a/b/r`, RGB."""

    image_size: int
    seed: int
    difficulty: tuple[float, float]

    def __call__(self, location: str) -> Image:
        from pipeline_lib.datasets.glyph_renderer import render

        split, number, first, second, ratio = location.split("/")
        random = random_stream("blend", self.seed, split, int(number), first + second)
        shares = {first: float(ratio), second: 1 - float(ratio)}
        return render(shares, random.uniform(*self.difficulty), self.image_size, random)


def open_images(options: Options, data_dir: Path) -> ImageOpener:
    """Return the renderer."""
    return BlendOpener(options.image_size, options.seed, options.difficulty)


def build_index(options: Options, data_dir: Path) -> Index:
    """List the images: splits by name, then numbers, then first characters.

    The label is the character with the larger share; of two equal ones the first class, as for any votes.
    """
    characters = CHARACTERS[options.script]
    split, label, location, votes = [], [], [], []
    for name, count in sorted(options.per_class.items()):
        for number in range(count):
            for first, character in enumerate(characters):
                random = random_stream("blend pair", options.seed, name, number, character)
                ratio = options.ratios[random.integers(len(options.ratios))]
                second = (first + 1 + int(random.integers(len(characters) - 1))) % len(characters)
                counts = {first: 100 * ratio, second: 100 - 100 * ratio}
                split.append(name)
                label.append(min(first, second) if ratio == 0.5 else first)
                location.append(f"{name}/{number}/{character}/{characters[second]}/{ratio}")
                votes.append({position: count for position, count in counts.items() if count > 0})
    samples = location[: len(characters)]
    return Index(
        classes=list(characters),
        split=split,
        label=np.array(label, np.int64),
        location=location,
        fingerprint=fingerprint(options, open_images(options, data_dir), samples),
        label_counts=votes,
    )
