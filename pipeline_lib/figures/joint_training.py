"""Figure 3 of the paper: classifier and uncertainty head trained together from a pretrained, unfrozen backbone.

(a) without and (b) with a stop-gradient between the representation and the head: do they harm each other?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

from pipeline_lib.core.jobs import Ref
from pipeline_lib.core.spec import Spec as BaseSpec
from pipeline_lib.figures import style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline_lib.config.config import Config
    from pipeline_lib.core.jobs import Job, Refs

CATEGORY, LABEL, PAPER = "Training", "joint training with and without stop-gradient", "Figure 3"
SIZE = (6.75, 3.6)
# In the order of the paper: first the conflict, then its solution.
MODES = {False: "no_stop_gradient", True: "stop_gradient"}
TITLES = {False: "(a) without stop-gradient", True: "(b) with stop-gradient"}
ACCURACY = {"top1": "top-1 accuracy"}
UNCERTAINTY = {"auroc_classification": "AUROC (classification)", "auroc_correct": "R-AUROC (1-NN)"}
LOOKS = {
    quantity: style.series(k).marked_line | {"markersize": 3.5} for k, quantity in enumerate(ACCURACY | UNCERTAINTY)
}
_DOTS: style.Look = {"color": "0.3", "linewidth": 0.8, "linestyle": (0, (1, 2))}


class Spec(BaseSpec):
    """What is shown: the trainings of the config, and of their recipe what the subtitle says."""

    backbone: str
    dataset: str
    seeds: tuple[int, ...]
    loss: str
    loss_weight: float

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return the spec."""
        joint = config.joint_training
        assert joint is not None, "a config without joint training doesn't want the figure"
        return cls(
            backbone=joint.backbone,
            dataset=config.upstream.dataset,
            seeds=joint.seeds,
            loss=joint.options.loss.kind,
            loss_weight=joint.options.loss_weight,
        )


def wanted(config: Config) -> bool:
    """Return whether a config has the figure."""
    return config.joint_training is not None


def inputs(config: Config) -> Refs:
    """Return what the figure is drawn from: each seed without stop-gradient, then each with."""
    spec = Spec.of(config)
    return {
        "joint_training": [
            Ref.to("joint_training", backbone=spec.backbone, mode=mode, seed=seed)
            for mode in MODES.values()
            for seed in spec.seeds
        ]
    }


def figure_of(job: Job[Spec], width: float, height: float) -> Figure:
    """Read and draw."""
    import pandas as pd

    from pipeline_lib.core import artefacts

    spec = job.spec
    shown = [(stop_gradient, seed) for stop_gradient in MODES for seed in spec.seeds]
    curves = {}
    for (stop_gradient, seed), folder in zip(shown, job.all_inputs("joint_training"), strict=True):
        trained = artefacts.read(folder, "joint_training", {"stop_gradient": stop_gradient, "seed": seed})
        curves[stop_gradient, seed] = pd.read_json(folder / "curve.jsonl", lines=True)
    images = trained.facts["eval_images"]
    return draw(curves, spec.backbone, spec.dataset, images, spec.loss, spec.loss_weight, width, height)


@style.styled
def draw(
    curves: Mapping[tuple[bool, int], pd.DataFrame],
    backbone: str,
    dataset: str,
    eval_images: int,
    loss: str,
    loss_weight: float,
    width: float,
    height: float,
) -> Figure:
    """Return accuracy (above) and quality of u (below) by epoch, without and with stop-gradient (left and right).

    Lines are medians over seeds, bands reach from the smallest to the largest seed; epoch 0 is the pretrained backbone
    with a fresh head, and the dots continue its accuracy.

    curves: by stop-gradient and seed, one row per epoch with `epoch`, `top1`, `auroc_classification`,
    `auroc_correct` (NaN where undefined). eval_images: images behind each value. loss: name of the head's loss.
    loss_weight: lambda. width, height: inches.
    """
    from matplotlib.ticker import MaxNLocator

    seeds = len({seed for _, seed in curves})
    subtitle = (
        f"Unfrozen {style.shorten(backbone)}, trained on {style.shorten(dataset)}; task loss + λ · "
        f"{loss.replace('_', '-')} loss, λ = {loss_weight:g}; {style.plural(eval_images, 'held-out image')}, "
        f"{style.plural(seeds, 'seed')}"
        + (" (line: median, band: smallest to largest)." if seeds > 1 else ".")
        + " Epoch 0: pretrained, fresh head. Higher is better; AUROC 0.5: chance."
    )
    figure, _ = style.new_figure(width, height, "Classifier and uncertainty head trained together", subtitle)
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    for column, (stop_gradient, title) in enumerate(TITLES.items()):
        shown = [curve for key, curve in sorted(curves.items()) if key[0] == stop_gradient]
        above, below = panels[:, column]
        above.set_title(title)
        for quantity in (*ACCURACY, *UNCERTAINTY):
            _curve(above if quantity in ACCURACY else below, shown, quantity)
        above.axhline(_by_epoch(shown, "top1").median(axis=1).iloc[0], **_DOTS)
        below.set_xlabel("epoch")
    panels[0, 0].set_ylabel("accuracy")
    panels[1, 0].set_ylabel("AUROC of u")
    for panel in panels.ravel():
        panel.grid(**style.GRID)
        panel.margins(x=0.03)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        panel.yaxis.set_major_locator(MaxNLocator(nbins=5))
    figure.align_ylabels()
    style.legend(figure, _handles(), width)
    return figure


def _curve(axes: Axes, curves: Sequence[pd.DataFrame], quantity: str) -> None:
    values, look = _by_epoch(curves, quantity), LOOKS[quantity]
    if values.shape[1] > 1:
        ends = values.min(axis=1), values.max(axis=1)
        axes.fill_between(values.index, *ends, color=look["color"], alpha=0.22, linewidth=0)
    axes.plot(values.index, values.median(axis=1), gid=quantity, **look)


def _by_epoch(curves: Sequence[pd.DataFrame], quantity: str) -> pd.DataFrame:
    """Return one column per seed, by epoch."""
    import pandas as pd

    return pd.concat([curve.set_index("epoch")[quantity].astype(float) for curve in curves], axis=1)


def _handles() -> list[Artist]:
    handles: list[Artist] = [
        style.handle(label, **LOOKS[quantity]) for quantity, label in (ACCURACY | UNCERTAINTY).items()
    ]
    return [*handles, style.handle("accuracy at epoch 0", **_DOTS)]
