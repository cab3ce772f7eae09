"""The maps of Figure 9 as one web page, on which every point can be looked at."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline_lib.core.artefacts import writing_file

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipeline_lib.datasets.images import ImageDataset

_TEMPLATE = Path(__file__).with_name("projection_page.html")
_LARGEST_PIXELS = 64
_JPEG_QUALITY = 80


def write_page(
    coordinates: pd.DataFrame,
    scores: pd.DataFrame,
    correct: pd.Series,
    images: ImageDataset,
    description: Mapping[str, str],
    path: Path,
) -> None:
    """Write the page: one self-contained HTML file, which loads nothing from anywhere.

    u is the mean over the `uncertainty_seed<k>` columns.

    coordinates: rows of `coordinates.parquet`. scores: per-sample scores of the heads, with `sample_id`.
    correct: whether the nearest neighbour of an image has its label, bool by sample_id.
    images: the same split. description: `title` and `subtitle`, plain text.
    """
    seeds = [column for column in scores.columns if column.startswith("uncertainty_seed")]
    uncertainty = scores.set_index("sample_id")[seeds].mean(axis=1).loc[coordinates["sample_id"]].to_numpy(np.float64)
    position = pd.Index(images.sample_id).get_indexer(coordinates["sample_id"])
    classes = list(dict.fromkeys(coordinates.sort_values("label")["class_name"]))
    points = {
        "sample": coordinates["sample_id"].tolist(),
        "class": pd.Index(classes).get_indexer(coordinates["class_name"]).tolist(),
        "u": _rounded(uncertainty),
        "correct": correct.loc[coordinates["sample_id"]].astype(int).tolist(),
        "thumbnail": [thumbnail(images.image(int(each))) for each in position],
        **{key: _rounded(_unit_range(coordinates[key])) for key in ("tsne_x", "tsne_y", "umap_x", "umap_y")},
    }
    page = fill(
        _TEMPLATE.read_text(encoding="utf-8"),
        {
            **{name: html.escape(text) for name, text in description.items()},
            "data": json_for_script({"classes": classes, "points": points}),
        },
    )
    with writing_file(path) as file:
        file.write(page)


def thumbnail(image: Image) -> str:
    """Return an image as a data URI, at most 64 pixels a side; as PNG or JPEG, whichever is smaller."""
    image = image.convert("RGB")
    image.thumbnail((_LARGEST_PIXELS, _LARGEST_PIXELS))
    encoded = {}
    for kind, options in {"png": {"optimize": True}, "jpeg": {"quality": _JPEG_QUALITY}}.items():
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        encoded[kind] = stream.getvalue()
    kind = min(encoded, key=lambda name: len(encoded[name]))
    return f"data:image/{kind};base64,{base64.b64encode(encoded[kind]).decode()}"


def json_for_script(value: Any) -> str:
    """Return JSON that can stand inside a `<script>` element: no character in it can end the element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace each `{{name}}` of a template; braces inside the values stay as they are."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def _unit_range(values: pd.Series) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    return (values.to_numpy(np.float64) - low) / ((high - low) or 1.0)


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
