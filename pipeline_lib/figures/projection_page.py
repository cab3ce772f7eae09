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

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipeline_lib.datasets.images import ImageDataset

_TEMPLATE = Path(__file__).with_name("projection_page.html")
_LARGEST_PIXELS = 64
_ENCODINGS: dict[str, dict[str, Any]] = {"png": {"optimize": True}, "jpeg": {"quality": 80}}


def page(
    coordinates: pd.DataFrame,
    uncertainty: pd.Series[float],
    correct: pd.Series[bool],
    images: ImageDataset,
    description: Mapping[str, str],
) -> str:
    """Return the page: self-contained HTML, which loads nothing from anywhere.

    Parameters
    ----------
    coordinates
        Rows of `coordinates.parquet`.
    uncertainty, correct
        u of each image, and whether its nearest neighbour has its label, by sample_id.
    images
        The same split.
    description
        `title` and `subtitle`, plain text.
    """
    sample = coordinates["sample_id"]
    position = pd.Index(images.sample_id).get_indexer(sample)
    classes = list(dict.fromkeys(coordinates.sort_values("label")["class_name"]))
    points = {
        "sample": sample.tolist(),
        "class": pd.Index(classes).get_indexer(pd.Index(coordinates["class_name"])).tolist(),
        "u": _rounded(uncertainty.loc[sample].to_numpy(np.float64)),
        "correct": correct.loc[sample].astype(int).tolist(),
        "thumbnail": [thumbnail(images.image(index)) for index in position.tolist()],
        **{key: _rounded(_unit_range(coordinates[key])) for key in ("tsne_x", "tsne_y", "umap_x", "umap_y")},
    }
    return fill(
        _TEMPLATE.read_text(encoding="utf-8"),
        {
            **{name: html.escape(text) for name, text in description.items()},
            "data": json_for_script({"classes": classes, "points": points}),
        },
    )


def thumbnail(image: Image) -> str:
    """Return an image as a data URI, at most 64 pixels a side; as PNG or JPEG, whichever is smaller."""
    image = image.convert("RGB")
    image.thumbnail((_LARGEST_PIXELS, _LARGEST_PIXELS))
    encoded = {}
    for kind, options in _ENCODINGS.items():
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


def _unit_range(values: pd.Series[float]) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    return (values.to_numpy(np.float64) - low) / ((high - low) or 1.0)


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
