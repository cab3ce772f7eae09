"""What the kinds of rendered characters share: their options and their random streams.

An image is a pure function of the options, its split, its number and its character. More images per class,
or another split, change no image that was there before.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field, field_validator

from pipeline_lib.config.section import Name, Seed
from pipeline_lib.datasets.base import ImageOpener
from pipeline_lib.datasets.scripts import Script
from pipeline_lib.datasets.spec import DatasetOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

ImagesPerClass = dict[Name, Annotated[int, Field(ge=1)]]


class CharacterOptions(DatasetOptions):
    """Options of every kind that renders characters."""

    script: Script = Field("latin", description="Whose characters are the classes; latin = letters and digits.")
    image_size: int = Field(64, ge=8, le=1024, description="Width and height of the images in pixels.")
    per_class: ImagesPerClass = Field(
        {"train": 200, "test": 40}, min_length=1, description="Images of each class, per split."
    )
    seed: Seed = Field(0, description="Another seed gives other images.")
    difficulty: tuple[float, float] = Field(
        (0.0, 1.0), description="Range of the deterioration that each image draws; 0 = crisp, 1 = hardly legible."
    )

    @field_validator("difficulty")
    @classmethod
    def _range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] <= value[1] <= 1:
            raise ValueError("must be a lower and an upper bound between 0 and 1")
        return value


def random_stream(kind: str, seed: int, split: str, number: int, character: str) -> np.random.Generator:
    """Return the random stream of one image, the same in every process.

    Philox is a counter-based generator: distinct keys (here the BLAKE2 digest of what names the image) give independent
    streams, so those of different splits never overlap.
    """
    image = "/".join((kind, str(seed), split, str(number), character))
    key = int.from_bytes(hashlib.blake2b(image.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def fingerprint(options: CharacterOptions, open_image: ImageOpener, samples: Iterable[str]) -> str:
    """Return text that changes with the options or with the look of the sample images.

    The images depend on the fonts and on FreeType, Pillow and NumPy: their pixels say more than versions do.
    """
    pixels = hashlib.sha256()
    for location in samples:
        pixels.update(open_image(location).tobytes())
    return f"{options.model_dump_json()} {pixels.hexdigest()}"
