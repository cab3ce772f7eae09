"""Queries whose nearest neighbour is wrong: those with the lowest uncertainty (left) and with the highest (right).

Each query stands left of its nearest neighbour, with its u, the mean over seeds. To the left is what the uncertainty
misses, wrong labels and twins in two classes among it; to the right what it finds. They are the extremes, not a choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline_lib.figures import examples
from pipeline_lib.figures.examples import Extremes
from pipeline_lib.tables.reading import mean_uncertainty, read_sets
from pipeline_lib.tables.summary import names

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from pipeline_lib.config.config import Config
    from pipeline_lib.core.jobs import Job, Refs
    from pipeline_lib.datasets.images import ImageDataset

CATEGORY, LABEL, PAPER = "Retrieval", "wrong neighbours, missed and found", ""
SIZE = (6.75, 7.5)
_PAIRS_A_SIDE = 4
_SIDE_PIXELS = 128
_PAIR_PIXELS = 2 * _SIDE_PIXELS + _SIDE_PIXELS // 16  # wide, with the gap


class Spec(examples.Spec):
    """What is shown: the first variant on the first backbone."""


def inputs(config: Config) -> Refs:
    """Return what the figure is drawn from: `datasets`, `scores`, `baselines` of each set, the upstream one first."""
    spec = Spec.of(config)
    return {**examples.inputs(config), **spec.per_image(spec.sets)}


def plugins(config: Config) -> list[str]:
    """Return the components that decode the images."""
    return examples.plugins(config)


def figure_of(job: Job[Spec], width: float, height: float) -> Figure:
    """Read and draw."""
    from pipeline_lib.datasets.images import ImageDataset

    spec, label = job.spec, names(job.spec.sets)
    scores = read_sets(job.all_inputs("scores"), spec.sets, backbone=spec.backbone, variant=spec.variant)
    baselines = read_sets(job.all_inputs("baselines"), spec.sets, backbone=spec.backbone)
    shown = [
        wrong_queries(scores[pair], baselines[pair], ImageDataset(folder, pair.split), label[pair], _PAIRS_A_SIDE)
        for pair, folder in zip(spec.sets, job.all_inputs("datasets"), strict=True)
    ]
    return draw(shown, spec.backbone, spec.variant, len(spec.seeds), width, height)


def wrong_queries(
    scores: pd.DataFrame, baselines: pd.DataFrame, images: ImageDataset, name: str, count: int
) -> Extremes:
    """Decode the `count` least and most uncertain queries whose neighbour is wrong, each beside this neighbour.

    scores, baselines: per-sample scores of the same images in the same order. images: the same split, any order.
    """
    import pandas as pd

    from pipeline_lib.metrics.within_classes import worst_queries

    uncertainty = mean_uncertainty(scores)
    certain, uncertain = worst_queries(uncertainty, ~baselines["correct"].to_numpy(bool), count)
    index = pd.Index(images.sample_id)
    query, neighbour = (
        index.get_indexer(baselines[column]).tolist() for column in ("sample_id", "neighbour_sample_id")
    )

    def pairs(rows: Sequence[int]) -> list[tuple[Image, float]]:
        return [
            (_side_by_side(images.image(query[row]), images.image(neighbour[row])), float(uncertainty[row]))
            for row in rows
        ]

    return Extremes(name, len(uncertainty), pairs(certain.tolist()), pairs(uncertain.tolist()[::-1]))


def draw(shown: Sequence[Extremes], backbone: str, variant: str, seeds: int, width: float, height: float) -> Figure:
    """Return the grid: one row per dataset, what u misses to the left and what it finds to the right.

    width, height: inches; the figure gets lower where few sets leave room.
    """
    title = "Wrong nearest neighbours that the uncertainty misses and finds"
    subtitle = f"{examples.about(backbone, variant, seeds)}; left the query, right its neighbour; n: images."
    sides = ("wrong, lowest u", "wrong, highest u")
    return examples.grid(shown, title, subtitle, sides, width, height, _PAIR_PIXELS / _SIDE_PIXELS)


def _side_by_side(query: Image, neighbour: Image) -> Image:
    """Return both in squares of equal size, on white."""
    from PIL import Image, ImageOps

    pair = Image.new("RGB", (_PAIR_PIXELS, _SIDE_PIXELS), "white")
    for left, image in ((0, query), (pair.width - _SIDE_PIXELS, neighbour)):
        pair.paste(ImageOps.pad(image.convert("RGB"), (_SIDE_PIXELS, _SIDE_PIXELS), color="white"), (left, 0))
    return pair
