"""The atlas: one self-contained page with a thumbnail of every scored image, sorted by uncertainty.

It loads nothing from anywhere, so it can be mailed, archived, and opened without a server. An image that is a file of
its own can be opened from it, as long as file and page lie where they did to each other.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd

from pipeline_lib.core.artefacts import writing_file
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.ownership import require_replaceable_file

if TYPE_CHECKING:
    from PIL.Image import Image

# A page with so many thumbnails of so many pixels a side, each of at most so many bytes (more in base64), stays below
# 60 MB.
ATLAS_IMAGES = 5_000
THUMBNAIL_SIDE = 128
THUMBNAIL_BYTES = 8_192
# In the head of a page, by which an earlier one is known.
_MARK = "pretrained_visual_uncertainties: atlas"
_HEAD_BYTES = 1_000
# Share of the side and WebP quality; the first that is small enough is used. Noise compresses worst.
_ENCODINGS = ((1.0, 80), (1.0, 50), (1.0, 20), (0.5, 20))
_UNREADABLE_SHOWN = 1_000
_PAGE = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
_PAGE.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}


def write_atlas(
    scores: pd.DataFrame,
    open_image: Callable[[int], Image],
    title: str,
    subtitle: str,
    path: Path,
    max_images: int = ATLAS_IMAGES,
    workers: int = 1,
    on_images: Callable[[int], None] = lambda count: None,
    file_of: Callable[[int], Path | None] = lambda row: None,
    side: int = THUMBNAIL_SIDE,
) -> None:
    """Write the page.

    Parameters
    ----------
    scores
        Rows of the table of scores: `path`, `label`, `uncertainty`, `rank`, `error`.
    open_image
        Decodes the image of a row, called in `workers` threads.
    title, subtitle
        Plain text.
    path
        The `.html` file to write.
    max_images
        How many images have a thumbnail. Where there are more, those shown are spread evenly over the ranks; what a
        threshold rejects is still counted among all.
    workers
        Threads that decode images.
    on_images
        Called with the number of thumbnails that were just made.
    file_of
        The file of a row's image, which the page links to; None where it has none of its own.
    side
        Pixels of a thumbnail's longer side: what a page shows of an image that it can't open.

    Raises
    ------
    PipelineError
        When no image has a score.
    """
    ranked = scores[scores["error"].isna()].sort_values("rank")
    if ranked.empty:
        raise PipelineError(f"{path}: an atlas needs images with a score, but there are none")
    shown = ranked.iloc[_spread(len(ranked), max_images)]
    labels = sorted(ranked["label"].dropna().unique())
    thumbnails = []
    with ThreadPoolExecutor(workers) as threads:
        for encoded in threads.map(lambda row: thumbnail(open_image(row), side), shown.index.tolist()):
            thumbnails.append(encoded)
            on_images(1)
    unreadable = scores[scores["error"].notna()]
    facts = {
        # Of all images in rising order, in which the page finds that of an image by its rank.
        "uncertainties": base64.b64encode(ranked["uncertainty"].to_numpy("<f8").tobytes()).decode(),
        "labelOfRank": base64.b64encode(pd.Index(labels).get_indexer(ranked["label"]).astype("<i4").tobytes()).decode(),
        "labels": labels,
        "path": shown["path"].tolist(),
        "label": pd.Index(labels).get_indexer(shown["label"]).tolist(),
        "file": [_link(file_of(row), path) for row in shown.index.tolist()],
        "rank": shown["rank"].astype(int).tolist(),
        "unreadable": unreadable[["path", "error"]].head(_UNREADABLE_SHOWN).to_numpy().tolist(),
        "unreadableCount": len(unreadable),
    }
    template = _PAGE.get_template("atlas.html")
    with writing_file(path) as file:
        file.write(template.render(mark=_MARK, title=title, subtitle=subtitle, facts=facts, thumbnails=thumbnails))


def require_replaceable_atlas(path: Path) -> None:
    """Raise `PipelineError` if a file is there that is no earlier atlas."""

    def is_ours(path: Path) -> bool:
        with open(path, "rb") as file:
            return _MARK.encode() in file.read(_HEAD_BYTES)

    require_replaceable_file(path, "an earlier atlas", is_ours)


def thumbnail(image: Image, side: int = THUMBNAIL_SIDE) -> str:
    """Return an image as base64 WebP of at most `side` pixels a side and 8 kB per 128 x 128; a smaller one stays so."""
    for share, quality in _ENCODINGS:
        small = image.convert("RGB")
        small.thumbnail((round(share * side), round(share * side)))
        stream = io.BytesIO()
        small.save(stream, "webp", quality=quality, method=2)
        if stream.tell() <= THUMBNAIL_BYTES * (side / THUMBNAIL_SIDE) ** 2:
            break
    return base64.b64encode(stream.getvalue()).decode()


def _link(file: Path | None, page: Path) -> str | None:
    """Return the address of a file, relative to a page."""
    if file is None:
        return None
    return quote(Path(os.path.relpath(file.absolute(), page.absolute().parent)).as_posix())


def _spread(count: int, wanted: int) -> np.ndarray:
    """Return at most `wanted` positions, evenly spread over `count`, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(np.int64))
