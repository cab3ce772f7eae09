"""The atlas: one self-contained page with a thumbnail of every scored image, sorted by uncertainty.

It loads nothing from anywhere, so it can be mailed, archived, and opened without a server.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline_lib.core.artefacts import writing_file
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.figures.projection_page import fill, json_for_script

if TYPE_CHECKING:
    from PIL.Image import Image

# With thumbnails of at most 8 kB, base64 and all else, so many stay below 60 MB.
ATLAS_IMAGES = 5_000
THUMBNAIL_BYTES = 8_192
_HERE = Path(__file__).parent
# Side in pixels and WebP quality, the first that is small enough; noise compresses worst.
_ENCODINGS = ((128, 80), (128, 50), (128, 20), (64, 20))
_UNREADABLE_SHOWN = 1_000


def write_atlas(
    scores: pd.DataFrame,
    open_image: Callable[[int], Image],
    title: str,
    subtitle: str,
    path: Path,
    max_images: int = ATLAS_IMAGES,
    workers: int = 1,
    on_images: Callable[[int], None] = lambda count: None,
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
        How many images have a thumbnail. Of more, some are shown, evenly spread over the ranks; what a threshold
        rejects is still counted among all.
    on_images
        Told the number of thumbnails after each.

    Raises `PipelineError` when no image has a score.
    """
    ranked = scores[scores["error"].isna()].sort_values("rank")
    if ranked.empty:
        raise PipelineError(f"{path}: an atlas needs images with a score, but there are none")
    shown = ranked.iloc[_spread(len(ranked), max_images)]
    labels = sorted(shown["label"].dropna().unique())
    thumbnails = []
    with ThreadPoolExecutor(workers) as threads:
        for encoded in threads.map(lambda row: thumbnail(open_image(row)), shown.index.tolist()):
            thumbnails.append(encoded)
            on_images(1)
    unreadable = scores[scores["error"].notna()]
    facts = {
        # Of all images and in rising order: an image's uncertainty is found here by its rank.
        "uncertainties": base64.b64encode(ranked["uncertainty"].to_numpy("<f8").tobytes()).decode(),
        "labels": labels,
        "path": shown["path"].tolist(),
        "label": pd.Index(labels).get_indexer(shown["label"]).tolist(),
        "rank": shown["rank"].astype(int).tolist(),
        "unreadable": unreadable[["path", "error"]].head(_UNREADABLE_SHOWN).to_numpy().tolist(),
        "unreadableCount": len(unreadable),
    }
    page = fill(
        (_HERE / "atlas.html").read_text(encoding="utf-8"),
        {
            "style": (_HERE / "atlas.css").read_text(encoding="utf-8"),
            "script": (_HERE / "atlas.js").read_text(encoding="utf-8"),
            "title": html.escape(title),
            "subtitle": html.escape(subtitle),
            "facts": json_for_script(facts),
            "thumbnails": json_for_script(thumbnails),
        },
    )
    with writing_file(path) as file:
        file.write(page)


def thumbnail(image: Image) -> str:
    """Return an image as base64 WebP, at most 128 pixels a side and 8 kB; a small image keeps its pixels."""
    for side, quality in _ENCODINGS:
        small = image.convert("RGB")
        small.thumbnail((side, side))
        stream = io.BytesIO()
        small.save(stream, "webp", quality=quality, method=2)
        if stream.tell() <= THUMBNAIL_BYTES:
            break
    return base64.b64encode(stream.getvalue()).decode()


def _spread(count: int, wanted: int) -> np.ndarray:
    """Return positions of at most `wanted` of `count`, evenly spread, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(np.int64))
