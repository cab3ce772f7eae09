"""What a dataset card measures of images: whether they can be read, their size, hashes of their pixels and their looks.

Images are decoded one by one; both hashes, the size and the position of each stay in memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import ArtefactError
from pipeline_lib.core.progress import Progress
from pipeline_lib.datasets.base import UnreadableImageError
from pipeline_lib.datasets.images import STAGE, ImageDataset
from pipeline_lib.datasets.looks import LOOK_BYTES, look_of

if TYPE_CHECKING:
    from PIL.Image import Image

CARD_STAGE = "dataset_card"
CARD = "card.json"
PIXELS = "pixels.parquet"

# The splits of one dataset, by name.
Splits = Mapping[str, ImageDataset]


@dataclass(frozen=True)
class Measured:
    """The images of a split that were decoded.

    Attributes
    ----------
    images : ImageDataset
        The split.
    tried : int
        How many of its images were to be decoded.
    position : int64 [m]
        The position in `images` of each that could be, ascending.
    digest : bytes [m] of 16 each
        From `pixel_hash`.
    look : uint8 [m, 32]
        From `look_of`.
    size : int32 [m, 2]
        Width and height in pixels.
    unreadable : list of dict
        Location and reason of each image that couldn't be decoded.
    """

    images: ImageDataset
    tried: int
    position: np.ndarray
    digest: np.ndarray
    look: np.ndarray
    size: np.ndarray
    unreadable: list[dict[str, str]]

    def class_of(self, row: int) -> str:
        """Return the name of the class of a decoded image."""
        return self.images.classes[int(self.images.label[self.position[row]])]

    def location(self, row: int) -> str:
        """Return where a decoded image is."""
        return self.images.location(int(self.position[row]))

    def describe(self, row: int) -> dict[str, str]:
        """Return location and class of a decoded image."""
        return {"image": self.location(row), "class": self.class_of(row)}


MeasuredSplits = Mapping[str, Measured]


def open_splits(directory: Path) -> Splits:
    """Open every split of a dataset artefact; raises `PipelineError` for anything else."""
    manifest = artefacts.read(directory, STAGE)
    return {split: ImageDataset(directory, split) for split in sorted(manifest.facts["splits"])}


def identity(splits: Splits) -> tuple[str, str]:
    """Return the name of a dataset and the digest of its content."""
    images = next(iter(splits.values()))
    return images.name, images.manifest.content


def measure_splits(splits: Splits, max_images: int | None = None, seed: int = 0) -> MeasuredSplits:
    """Decode the images of every split, or `max_images` of each."""
    return {split: measure(images, max_images, seed) for split, images in splits.items()}


def measure(images: ImageDataset, max_images: int | None = None, seed: int = 0) -> Measured:
    """Decode the images of a split, or `max_images` of them drawn by `seed`."""
    chosen = np.arange(len(images))
    if max_images is not None and max_images < len(images):
        chosen = np.sort(generator(images, seed).choice(len(images), max_images, replace=False))
    digest = np.zeros(len(chosen), "S16")
    look = np.zeros((len(chosen), LOOK_BYTES), np.uint8)
    size = np.zeros((len(chosen), 2), np.int32)
    readable = np.zeros(len(chosen), bool)
    unreadable = []
    with Progress(len(chosen), description=f"{images.name}/{images.split}") as progress:
        for row, position in enumerate(chosen.tolist()):
            try:
                image = images.image(position)
            except UnreadableImageError as error:
                location = images.location(position)
                unreadable.append({"image": location, "reason": _reason(str(error), location)})
            else:
                digest[row], size[row], readable[row] = pixel_hash(image), image.size, True
                look[row] = np.frombuffer(look_of(image), np.uint8)
            progress.advance(1)
    return Measured(images, len(chosen), chosen[readable], digest[readable], look[readable], size[readable], unreadable)


def generator(images: ImageDataset, seed: int) -> np.random.Generator:
    """Return a generator that differs between splits: two of the same size don't show the same positions."""
    return np.random.default_rng([seed, *f"{images.name}/{images.split}".encode()])


def pixel_hash(image: Image) -> bytes:
    """Return the XXH3-128 hash of an image's size and RGB pixels: the file format and its metadata don't matter."""
    digest = xxhash.xxh3_128(f"{image.width}x{image.height}:".encode())
    digest.update(image.tobytes())
    return digest.digest()


def write_pixels(datasets: Iterable[MeasuredSplits], path: Path) -> None:
    """Write position, hash and size of every image that was decoded."""
    splits = [measured for dataset in datasets for measured in dataset.values()]
    counts = [len(measured.position) for measured in splits]
    size = np.concatenate([measured.size for measured in splits])
    columns = {
        "dataset": np.repeat([measured.images.name for measured in splits], counts),
        "split": np.repeat([measured.images.split for measured in splits], counts),
        "position": np.concatenate([measured.position for measured in splits]),
        "digest": pa.array([digest for measured in splits for digest in measured.digest.tolist()], pa.binary()),
        "look": pa.array([row.tobytes() for measured in splits for row in measured.look], pa.binary()),
        "width": size[:, 0],
        "height": size[:, 1],
    }
    pq.write_table(pa.table(columns), path)


def read_pixels(card: Path, splits: Splits, max_images: int | None, seed: int) -> MeasuredSplits | None:
    """Return what an earlier card measured of a dataset; None unless it is of the same content and images."""
    try:
        manifest = artefacts.read(card, CARD_STAGE, {"max_images": max_images, "seed": seed})
    except ArtefactError:
        return None
    datasets = json.loads((card / CARD).read_text(encoding="utf-8"))["datasets"]
    contents = [record["content"] for record in manifest.inputs["dataset"]]
    for dataset, content in zip(datasets, contents, strict=True):
        if (dataset["name"], content) == identity(splits):
            break
    else:
        return None
    pixels = pq.read_table(card / PIXELS, filters=[("dataset", "==", dataset["name"])])
    measured = {}
    for split, images in splits.items():
        facts, rows = dataset["splits"][split], pixels.filter(pc.equal(pixels["split"], split))
        measured[split] = Measured(
            images=images,
            tried=facts["decoded"],
            position=rows["position"].to_numpy(),
            digest=np.array(rows["digest"].to_pylist(), "S16"),
            look=np.frombuffer(b"".join(rows["look"].to_pylist()), np.uint8).reshape(-1, LOOK_BYTES),
            size=np.stack([rows["width"].to_numpy(), rows["height"].to_numpy()], axis=1),
            unreadable=facts["unreadable"],
        )
    return measured


def _reason(message: str, location: str) -> str:
    """Return why an image can't be read, without what differs between two runs: folders and memory addresses."""
    folder, found, reason = message.partition(f"{location}: ")
    if found:
        message = reason.replace(folder, "") if folder else reason
    return re.sub(r" at 0x[0-9a-f]+", "", message)
