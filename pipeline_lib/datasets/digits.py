"""Kind `digits`: the 1,797 scanned handwritten digits that ship with scikit-learn, enlarged from 8 x 8 pixels.

The location of an image is its record number.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from pipeline_lib.config.section import Name
from pipeline_lib.datasets.base import ImageOpener, Index
from pipeline_lib.datasets.spec import DatasetOptions

if TYPE_CHECKING:
    from PIL.Image import Image

_LARGEST_VALUE = 16


class Options(DatasetOptions):
    """Ten classes of handwritten digits."""

    kind: Literal["digits"] = Field(description="scikit-learn's handwritten digits; needs no files.")
    split: Name = Field("test", description="Name of the only split.")
    image_size: int = Field(64, ge=8, le=1024, description="Width and height in pixels after enlarging.")


@functools.cache
def _records() -> tuple[np.ndarray, np.ndarray]:
    """Return grey values, uint8 [1797, 8, 8] in 0..255, and digits, int64 [1797]."""
    from sklearn.datasets import load_digits  # slow to import, and the config must not wait for it

    bunch = load_digits()
    values = np.round(bunch.images * (255 / _LARGEST_VALUE)).astype(np.uint8)
    return values, bunch.target.astype(np.int64)


@dataclass(frozen=True)
class DigitOpener:
    """Returns the digit of a record number, white on black, RGB."""

    image_size: int

    def __call__(self, location: str) -> Image:
        from PIL import Image

        values, _ = _records()
        grey = Image.fromarray(values[int(location)])
        return grey.resize((self.image_size, self.image_size), Image.Resampling.BICUBIC).convert("RGB")


def open_images(options: Options, data_dir: Path) -> ImageOpener:
    """Return the opener of the digits."""
    return DigitOpener(options.image_size)


def build_index(options: Options, data_dir: Path) -> Index:
    """List the digits in scikit-learn's order."""
    values, label = _records()
    return Index(
        classes=[str(digit) for digit in range(10)],
        split=[options.split] * len(label),
        label=label,
        location=[str(record) for record in range(len(label))],
        fingerprint=f"{options.image_size} {hashlib.sha256(values.tobytes() + label.tobytes()).hexdigest()}",
    )
