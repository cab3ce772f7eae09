"""Tiny datasets in their genuine formats, and the way every test opens them: write the artefact, read it back."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline_lib.config import kinds
from pipeline_lib.datasets.images import ImageDataset
from tests.jobs import run


def write_artefact(data_dir: Path, options: Mapping[str, Any]) -> Path:
    """Index a dataset whose raw files are below `data_dir`; return the artefact's folder."""
    directory = data_dir.parent / f"{data_dir.name}-artefact"
    return run("dataset", {"name": "tiny", "options": options, "data_dir": str(data_dir)}, directory)


def open_split(data_dir: Path, options: Mapping[str, Any], split: str = "test") -> ImageDataset:
    """Index a dataset and open one split of it."""
    return ImageDataset(write_artefact(data_dir, options), split)


def content_digest(data_dir: Path, options: Mapping[str, Any]) -> str:
    """Return the digest of the source that the manifest of a dataset records."""
    kind = kinds.load("datasets", options["kind"])
    return kind.build_index(kind.Options.model_validate(options), data_dir).fingerprint


def png(grey: int, size: int = 4) -> bytes:
    """Return a PNG of one grey value: the value tells images apart."""
    return encoded(Image.new("RGB", (size, size), (grey, grey, grey)), "PNG")


def encoded(image: Image.Image, file_format: str) -> bytes:
    """Return an image as a file's bytes."""
    stream = io.BytesIO()
    image.save(stream, file_format)
    return stream.getvalue()


def truncated_jpeg() -> bytes:
    """Return the first half of a JPEG of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(pixels), "JPEG")
    return whole[: len(whole) // 2]


def grey_value(image: Image.Image) -> int:
    """Return the value that `png` put into an image."""
    assert image.mode == "RGB"
    return image.getpixel((0, 0))[0]


def make_folder(root: Path, files: Mapping[str, bytes]) -> None:
    """Write files by relative name; a name that ends in / makes an empty folder."""
    for name, content in files.items():
        if name.endswith("/"):
            (root / name).mkdir(parents=True)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)


def make_zip(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a zip with these members; a name that ends in / makes a folder entry."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def make_tar(path: Path, files: Mapping[str, bytes], extra: Iterable[tarfile.TarInfo] = ()) -> None:
    """Write a tar with these members, then members without content."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra:
            archive.addfile(info)
