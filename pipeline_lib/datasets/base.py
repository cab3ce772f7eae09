"""What every dataset kind shares: its index, its way to open an image, names and labels.

A kind is a module here that defines

- `Options`, its config section, a subclass of `spec.DatasetOptions`;
- `build_index(options, data_dir) -> Index`, which lists every image of every split;
- `open_images(options, data_dir) -> ImageOpener`, which turns a location of that index into a picture;
- where it reads the user's files, `watched_files(options, data_dir) -> list[Path | Tree]`: what makes the index stale
  when it changes. A file counts by size and time (a small one by its bytes), a folder by what comes or goes in it, a
  `files.Tree` by every image below.

Everything heavy is imported inside functions: the config reads only `Options`.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from pipeline_lib.core.errors import PipelineError, one_line
from pipeline_lib.core.recognise import START_BYTES, misnamed, misnamed_start

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL.Image import Image

# Opens one image, RGB or RGBA, by its location. It is sent to worker processes, so it must be picklable.
ImageOpener = Callable[[str], "Image"]

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".webp", ".avif"),
    *(".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"),
)
# Pillow's decoders of these. Left to itself it would try all of its own, whatever a file's name: PostScript among them,
# for which it starts Ghostscript.
_FORMATS = ("JPEG", "JPEG2000", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")
_SUFFIXES_SHOWN = 5
_WHOLE_NUMBER = re.compile(r"-?\d+")
_ORIENTATION = 0x0112  # EXIF's tag
_BITS_PER_SAMPLE = 258  # TIFF's tag
# What systems put beside pictures: macOS in archives, Synology (thumbnails of every picture), Windows, QNAP, Linux.
_OF_THE_SYSTEM = frozenset(
    {"__macosx", "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"}
    | {"$recycle.bin", "system volume information", "lost+found", "thumbs.db", "desktop.ini"}
)
# A picture a hundred times as long as wide is none, and would be resized to gigabytes.
_MOST_ELONGATED = 100


class UnreadableImageError(PipelineError):
    """An image that can't be decoded, or can't be found."""


@dataclass(frozen=True)
class Index:
    """Every image of a dataset, in source order; an image's position here is its `sample_id`.

    Attributes
    ----------
    classes : list of str [k]
        Names of the classes.
    split, location : list of str [n], or Arrow's strings
        The split of each image, and where its kind finds it. As Python's strings 13 million take 2 GB.
    label : int64 [n]
        Positions in `classes`.
    fingerprint : str
        Text that changes when the content of the source changes (sizes, checksums, seeds).
    label_counts : list of dict [n], optional
        Number of votes of each image by class, without classes that have none; None = the dataset has no votes.
    """

    classes: list[str]
    split: list[str] | pa.ChunkedArray
    label: np.ndarray
    location: list[str] | pa.ChunkedArray
    fingerprint: str
    label_counts: list[dict[int, float]] | None = None


def numbered(values: Iterable[int | str]) -> tuple[list[str], np.ndarray]:
    """Return the distinct values as class names, in order, and each value's position among them, int64 [n]."""
    names = [str(value) for value in values]
    found = in_order(names)
    return found, positions(names, found)


def in_order(names: Iterable[str]) -> list[str]:
    """Return distinct names in the order of classes: whole numbers by value (2 before 10), others as text."""
    found = sorted(set(names))
    return sorted(found, key=int) if all(map(_WHOLE_NUMBER.fullmatch, found)) else found


def positions(values: Iterable[int | str], classes: Iterable[int | str]) -> np.ndarray:
    """Return each value's position among the classes, int64 [n]."""
    position = {name: number for number, name in enumerate(classes)}
    return np.array([position[value] for value in values], np.int64)


def most_votes(counts: Mapping[int, float]) -> int:
    """Return the class with the most votes, the first of several."""
    return min(counts, key=lambda label: (-counts[label], label))


def resolve(data_dir: Path, path: str) -> Path:
    """Return an absolute path as it is, a relative one below `data_dir`."""
    return Path(data_dir) / Path(path).expanduser()


def safe_name(name: str, source: str) -> str:
    """Return a member's name without `./`; raises `PipelineError` for one that leads out of its archive or folder."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or parts[0].endswith(":"):
        raise PipelineError(
            f"{source}: the name '{name}' is refused: it must be relative, with '/' between its parts and without '..'"
        )
    if "." in parts or "" in parts:
        return "/".join(part for part in parts if part not in ("", "."))
    return name


def is_ignored(name: str) -> bool:
    """Return whether a file's or folder's name, without the folders above, is hidden or one of the system's own."""
    return name.startswith(".") or name.lower() in _OF_THE_SYSTEM


def has_ignored_part(name: str) -> bool:
    """Return whether a path of an archive's member, or a folder that it lies in, is ignored."""
    return any(map(is_ignored, name.split("/")))


def is_image_name(name: str) -> bool:
    """Return whether a file name looks like an image's and not like a hidden file's."""
    base = name.rsplit("/", 1)[-1]
    return base.lower().endswith(IMAGE_SUFFIXES) and not is_ignored(base)


def report_no_images(source: str, names: Iterable[str]) -> None:
    """Print how many files of a source are left out because they are no images by name; ignored ones don't count."""
    bases = (name.rsplit("/", 1)[-1] for name in names)
    others = [PurePosixPath(base).suffix.lower() for base in bases if not is_ignored(base) and not is_image_name(base)]
    if others:
        counts = Counter(suffix or "no suffix" for suffix in others).most_common()
        shown = [f"{suffix}: {count:,}" for suffix, count in counts[:_SUFFIXES_SHOWN]]
        shown += ["..."] if len(counts) > _SUFFIXES_SHOWN else []
        files = "1 file is no image" if len(others) == 1 else f"{len(others):,} files are no images"
        print(f"{source}: {files} by name ({', '.join(shown)})", file=sys.stderr)


def read_json(path: Path, option: str) -> Any:
    """Return the content of a JSON file; raises `PipelineError` naming it, and the option that led to it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PipelineError(f"{path}: no such file; check '{option}' and data_dir") from None
    except (OSError, ValueError) as error:
        raise PipelineError(f"{path}: can't be read as JSON ({error}); get it again") from None


def decode(stream: IO[bytes] | str, where: str) -> Image:
    """Decode a file or stream into an image, RGB, or RGBA where it is transparent somewhere; see `upright`.

    Raises
    ------
    UnreadableImageError
        Naming `where`.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        if isinstance(stream, str) and not stat.S_ISREG(os.stat(stream).st_mode):  # noqa: PTH116 (a Path costs more)
            raise UnreadableImageError(f"{where}: no plain file")
        with Image.open(stream, formats=_FORMATS) as image:
            return upright(image, where)
    except FileNotFoundError:
        raise UnreadableImageError(f"{where}: no such image file") from None
    except (PipelineError, MemoryError):
        raise
    except Exception as error:  # a decoder of torn bytes can raise any of a dozen types
        reason = one_line(error)
        if isinstance(error, UnidentifiedImageError):  # whose text may hold an address in memory
            known = misnamed(stream) if isinstance(stream, str) else misnamed_start(_start_of(stream))
            if known is not None:
                raise UnreadableImageError(f"{where}: {known}") from None
            reason = f"it begins as none of {', '.join(_FORMATS)} does"
        raise UnreadableImageError(f"{where}: can't be decoded as an image ({reason})") from None


def _start_of(stream: IO[bytes]) -> bytes:
    stream.seek(0)
    return stream.read(START_BYTES)


def to_rgb(image: Image, where: str) -> Image:
    """Return an image as RGB, upright and on white; raises `UnreadableImageError` that names `where`."""
    return opaque(upright(image, where))


def opaque(image: Image, background: str = "white") -> Image:
    """Return an image as RGB; what is transparent of it shows the background, as viewers do."""
    from PIL import Image

    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, background), image).convert("RGB")


def upright(image: Image, where: str) -> Image:
    """Return an image as RGB, or RGBA where it is transparent somewhere, turned as its EXIF orientation says.

    Grey, palette and CMYK images become RGB, 16-bit values are scaled to 8 bits. Raises `UnreadableImageError` that
    names `where`.
    """
    from PIL import Image, ImageOps

    width, height = image.size
    if max(width, height) > _MOST_ELONGATED * min(width, height):
        raise UnreadableImageError(
            f"{where}: is {width} x {height} pixels, more than {_MOST_ELONGATED} times as long as wide; crop it"
        )
    orientation = _orientation(image)
    if image.mode == "I" and 32 in getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, ()):
        raise UnreadableImageError(f"{where}: holds 32-bit numbers, whose range is not known; save it as 8 or 16 bit")
    if image.mode.startswith("I"):  # Pillow would clip 16-bit grey values at 255 instead of scaling them
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if image.mode == "F":
        raise UnreadableImageError(f"{where}: holds real numbers, whose range is not known; save it as 8 or 16 bit")
    pixels = image.convert("RGBA") if image.has_transparency_data else None
    if pixels is None or pixels.getchannel("A").getextrema() == (255, 255):
        pixels = image.convert("RGB")
    if orientation == 1:
        return pixels
    # Pillow writes the remaining metadata anew when it turns an image, which fails where that is damaged.
    pixels.info.clear()
    pixels.getexif()[_ORIENTATION] = orientation
    return ImageOps.exif_transpose(pixels)


def _orientation(image: Image) -> int:
    """Return the orientation (1 to 8) that an image's metadata asks for; 1 = as it is."""
    image.load()  # Pillow turns a TIFF by itself when it is loaded, and forgets the orientation then
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata can raise anything, and says nothing about the picture
        return 1
