"""How heads learn: loss and order accuracy over the images they have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from pipeline_lib.plots import style

QUANTITIES = {"loss": "training loss", "order_accuracy": "order accuracy"}


@style.styled
def draw(
    curves: Mapping[tuple[str, str, int], pd.DataFrame],
    upstream: str,
    backbones: Sequence[str],
    variants: Sequence[str],
    width: float,
    height: float,
) -> Figure:
    """Return two panels, loss and order accuracy; colour tells the backbone, line style the variant.

    Thin lines are seeds, the thick line is their mean over the episodes that all of them have.

    curves: by backbone, variant and seed, one row per episode with `images` (seen at its end), `loss` and
    `order_accuracy`. width, height: inches.
    """
    seeds = len({seed for _, _, seed in curves})
    images = max(int(curve["images"].max()) for curve in curves.values())
    subtitle = (
        f"Heads on frozen backbones, trained on {style.shorten(upstream)}; {style.plural(images, 'image')} seen in "
        f"all, one value per episode. {style.plural(seeds, 'seed')}"
        + (": thin lines, thick line: mean." if seeds > 1 else ".")
        + (f" Variant {style.shorten(variants[0])}." if len(variants) == 1 else "")
        + " Order accuracy: share of pairs whose order of task loss u predicts (0.5: chance)."
    )
    figure, _ = style.new_figure(width, height, "Training of the uncertainty heads", subtitle)
    panels = figure.subplots(1, 2)
    for panel, (quantity, label) in zip(panels, QUANTITIES.items(), strict=True):
        for place, backbone in enumerate(backbones):
            for number, variant in enumerate(variants):
                mine = [curve for key, curve in sorted(curves.items()) if key[:2] == (backbone, variant)]
                look = _look(place, number, backbones, variants)
                for curve in mine:
                    panel.plot(curve["images"], curve[quantity], linewidth=0.5, alpha=0.6, **look)
                if mine:
                    mean = pd.concat([curve.set_index("images")[quantity] for curve in mine], axis=1, join="inner")
                    mean = mean.mean(axis=1)
                    panel.plot(mean.index, mean, linewidth=1.3, gid=f"{backbone}/{variant}", **look)
        panel.set_xlabel("images seen")
        panel.set_ylabel(label)
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.grid(color="0.88", linewidth=0.5)
        panel.margins(x=0.02)
    style.legend(figure, _handles(backbones, variants), width)
    return figure


def _look(place: int, number: int, backbones: Sequence[str], variants: Sequence[str]) -> dict[str, Any]:
    """Return colour and line style of the backbone at `place` with the variant at `number`.

    Colour tells the backbone and line style the variant; where there is one of either, both tell the other.
    """
    colour = number if len(backbones) == 1 else place
    line = place if len(variants) == 1 else number
    return {"color": style.series(colour).colour, "linestyle": style.series(line).line}


def _handles(backbones: Sequence[str], variants: Sequence[str]) -> list[Artist]:
    if len(variants) == 1:
        looks = {name: _look(place, 0, backbones, variants) for place, name in enumerate(backbones)}
    elif len(backbones) == 1:
        looks = {name: _look(0, number, backbones, variants) for number, name in enumerate(variants)}
    else:
        looks = {name: {"color": style.series(place).colour} for place, name in enumerate(backbones)}
        looks |= {name: {"color": "black", "linestyle": style.series(k).line} for k, name in enumerate(variants)}
    return [Line2D([], [], label=style.shorten(name), **look) for name, look in looks.items()]
