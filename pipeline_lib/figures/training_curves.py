"""Training of the uncertainty heads on cached representations of the upstream dataset.

Training loss and order accuracy (the share of pairs of images whose task losses are ordered as their uncertainties are;
chance is 0.5), one value per episode. Thin lines are seeds, the thick line is their mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from pipeline_lib.core.artefacts import file_of
from pipeline_lib.core.jobs import Ref
from pipeline_lib.figures import style
from pipeline_lib.tables.spec import ViewSpec

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

    from pipeline_lib.config.config import Config
    from pipeline_lib.core.jobs import Job, Refs

CATEGORY, LABEL, PAPER = "Training", "training of the heads", ""
SIZE = (6.75, 3.0)
QUANTITIES = {"loss": "training loss", "order_accuracy": "order accuracy"}


class Spec(ViewSpec):
    """What is shown: every head of the config, and what they learned from."""

    dataset: str
    backbones: tuple[str, ...]
    variants: tuple[str, ...]
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return the spec."""
        return cls.with_common(config, dataset=config.upstream.dataset)

    @property
    def heads(self) -> list[tuple[str, str, int]]:
        """Backbone, variant and seed of each head, in the order in which they are read."""
        return list(itertools.product(self.backbones, self.variants, self.seeds))


def inputs(config: Config) -> Refs:
    """Return what the figure is drawn from: the heads."""
    heads = Spec.of(config).heads
    return {"heads": [Ref.to("head", backbone=name, variant=variant, seed=seed) for name, variant, seed in heads]}


def figure_of(job: Job[Spec], width: float, height: float) -> Figure:
    """Read and draw."""
    import pandas as pd

    spec = job.spec
    curves = {}
    for head, folder in zip(spec.heads, job.all_inputs("heads"), strict=True):
        expected = dict(zip(("backbone", "variant", "seed"), head, strict=True))
        curves[head] = pd.read_json(file_of(folder, "curve.jsonl", **expected), lines=True)
    return draw(curves, spec.dataset, spec.backbones, spec.variants, width, height)


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
    import pandas as pd
    from matplotlib.ticker import EngFormatter

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
    for panel, (quantity, label) in zip(figure.subplots(1, 2), QUANTITIES.items(), strict=True):
        for backbone, variant in itertools.product(backbones, variants):
            look = _look(backbones.index(backbone), variants.index(variant), backbones, variants)
            shown = [curve for key, curve in sorted(curves.items()) if key[:2] == (backbone, variant)]
            for curve in shown:
                panel.plot(curve["images"], curve[quantity], linewidth=0.5, alpha=0.6, **look)
            if shown:
                by_images = [curve.set_index("images")[quantity] for curve in shown]
                mean = pd.concat(by_images, axis=1, join="inner").mean(axis=1)
                panel.plot(mean.index, mean, linewidth=1.3, gid=f"{backbone}/{variant}", **look)
        panel.set_xlabel("images seen")
        panel.set_ylabel(label)
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.grid(**style.GRID)
        panel.margins(x=0.02)
    style.legend(figure, _handles(backbones, variants), width)
    return figure


def _look(backbone: int, variant: int, backbones: Sequence[str], variants: Sequence[str]) -> dict[str, Any]:
    """Return colour and line style of a backbone with a variant, both by their positions.

    Colour tells the backbone and line style the variant; where there is one of either, both tell the other.
    """
    colour = variant if len(backbones) == 1 else backbone
    line = backbone if len(variants) == 1 else variant
    return {"color": style.series(colour).colour, "linestyle": style.series(line).line}


def _handles(backbones: Sequence[str], variants: Sequence[str]) -> list[Artist]:
    if len(variants) == 1:
        looks = {name: _look(k, 0, backbones, variants) for k, name in enumerate(backbones)}
    elif len(backbones) == 1:
        looks = {name: _look(0, k, backbones, variants) for k, name in enumerate(variants)}
    else:
        looks = {name: {"color": style.series(k).colour} for k, name in enumerate(backbones)}
        looks |= {name: {"color": "black", "linestyle": style.series(k).line} for k, name in enumerate(variants)}
    return [style.handle(style.shorten(name), **look) for name, look in looks.items()]
