"""Every figure of `pipeline_lib.figures`, drawn from made-up numbers, and what must hold of any figure."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from pipeline_lib.evaluation.metric_rows import COLUMNS
from pipeline_lib.evaluation.spec import SIGNALS
from pipeline_lib.figures import (
    benchmark,
    classes,
    densities,
    deteriorations,
    examples,
    human_ambiguity,
    joint_training,
    projection,
    recall_vs_auroc,
    risk_coverage,
    safe_retrieval_curves,
    safe_retrieval_surface,
    training_curves,
    worst_queries,
    zero_shot,
)
from pipeline_lib.metrics.within_classes import class_table
from pipeline_lib.tables.benchmark import OWN, Entry
from pipeline_lib.tables.safe_retrieval import LABELS
from pipeline_lib.tables.summary import EvaluationSet

UPSTREAM = EvaluationSet("latin", "test")
DOWNSTREAM = [EvaluationSet(name, "test") for name in ("greek", "cyrillic", "digits")]
BACKBONES = ["resnet", "vit"]
SEEDS = (1, 2, 3)
KINDS = ["blur", "box", "zoom", "noise"]
STEPS = list(itertools.product(KINDS, range(1, 6)))
METHODS = ["ce", "loss_prediction", "hib", "mc_infonce"]

Sets = Sequence[EvaluationSet]
Draw = Callable[[Sets, Sequence[str], Sequence[int]], Figure]


def auroc(backbone: str, evaluation_set: EvaluationSet, seed: int, variant: str = "default") -> float:
    text = f"{backbone}/{evaluation_set.dataset}/{seed}/{variant}".encode()
    return 0.45 + int(hashlib.sha256(text).hexdigest()[:6], 16) / 16**6 * 0.4


def rows_to_metrics(rows: list[list[object]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64", "n": "Int64"})


def make_metrics(
    downstream: Sets, backbones: Sequence[str], seeds: Sequence[int], variants: Sequence[str] = ("default",)
) -> pd.DataFrame:
    rows: list[list[object]] = []
    for backbone in backbones:
        for shown in [UPSTREAM, *downstream]:
            rows.append([backbone, "representation", "", None, *shown, "r1", 0.5, 700])
            rows.append([backbone, "class_entropy", "", None, *shown, "auroc_correct", 0.61, 700])
            for variant, seed in itertools.product(variants, seeds):
                value = auroc(backbone, shown, seed, variant)
                for metric in ("auroc_correct", "auroc_ood"):
                    rows.append([backbone, "head", variant, seed, *shown, metric, value, 700])
    return rows_to_metrics(rows)


def draw_zero_shot(downstream: Sets, backbones: Sequence[str], seeds: Sequence[int]) -> Figure:
    metrics = make_metrics(downstream, backbones, seeds)
    return zero_shot.draw(metrics, None, UPSTREAM, downstream, backbones, "default", 6.75, 3.0)


def draw_densities(downstream: Sets, backbones: Sequence[str], seeds: Sequence[int]) -> Figure:
    metrics = make_metrics(downstream, backbones, seeds)
    random = np.random.default_rng(0)
    scores = {(name, shown): random.gamma(2.0, size=300) for name in backbones for shown in [UPSTREAM, *downstream]}
    return densities.draw(metrics, scores, UPSTREAM, downstream, backbones, "default", 6.75, 3.4)


def draw_recall(downstream: Sets, backbones: Sequence[str], seeds: Sequence[int]) -> Figure:
    metrics = make_metrics(downstream, backbones, seeds, ("default", "other"))
    return recall_vs_auroc.draw(metrics, None, downstream, backbones, ["default", "other"], 4.5, 3.4)


def make_training_curves(backbones: Sequence[str], seeds: Sequence[int]) -> dict[tuple[str, str, int], pd.DataFrame]:
    episodes = np.arange(1, 6)
    return {
        (backbone, "default", seed): pd.DataFrame(
            {"images": episodes * 1000, "loss": seed / episodes, "order_accuracy": 0.5 + 0.01 * seed * episodes}
        )
        for backbone in backbones
        for seed in seeds
    }


def draw_training_curves(downstream: Sets, backbones: Sequence[str], seeds: Sequence[int]) -> Figure:
    curves = make_training_curves(backbones, seeds)
    return training_curves.draw(curves, "latin", backbones, ["default"], 6.75, 3.0)


def make_scores(n: int) -> pd.DataFrame:
    """Return scores of images n - 1 .. 0 (not in the images' order), whose u is rising in the sample_id."""
    sample_id = np.arange(n)[::-1]
    return pd.DataFrame(
        {"sample_id": sample_id, "uncertainty_seed1": sample_id / n, "uncertainty_seed2": 2 * sample_id / n}
    )


def make_images(n: int) -> SimpleNamespace:
    """Return images whose grey value is their sample_id."""
    return SimpleNamespace(
        sample_id=np.arange(n), image=lambda position: Image.new("RGB", (40, 30), (position, position, position))
    )


def draw_examples(downstream: Sets, backbones: Sequence[str], seeds: Sequence[int]) -> Figure:
    shown = [examples.extremes(make_scores(20), make_images(20), row.dataset, 2) for row in [UPSTREAM, *downstream]]
    return examples.draw(shown, backbones[0], "default", len(seeds), 6.75, 7.5)


def draw_worst_queries(downstream: Sets, backbones: Sequence[str], seeds: Sequence[int]) -> Figure:
    neighbours = {"neighbour_sample_id": (np.arange(20) + 1) % 20, "correct": np.arange(20) % 3 > 0}
    baselines = make_scores(20)[["sample_id"]].assign(**neighbours)
    shown = [
        worst_queries.wrong_queries(make_scores(20), baselines, make_images(20), row.dataset, 2)
        for row in [UPSTREAM, *downstream]
    ]
    return worst_queries.draw(shown, backbones[0], "default", len(seeds), 6.75, 7.5)


def draw_classes(downstream: Sets, backbones: Sequence[str], seeds: Sequence[int]) -> Figure:
    uncertainty = make_scores(20).filter(like="uncertainty").mean(axis=1).to_numpy()
    table = class_table(uncertainty, np.arange(20) % 3 == 0, np.arange(20) % 4)
    spec = classes.Spec(
        upstream=UPSTREAM, downstream=downstream, backbone=backbones[0], variant="default", seeds=tuple(seeds)
    )
    tables = dict.fromkeys(spec.sets, table)
    return classes.draw(make_metrics(downstream, backbones, seeds), tables, spec, 6.75, 4.2)


def make_rises(sets: Sets, seeds: Sequence[int] = SEEDS) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return rows_to_metrics(
        [
            ["resnet", "head", "default", seed, *shown, f"rises_{kind}_{severity}", random.random(), 100 * number]
            for number, shown in enumerate(sets, start=1)
            for seed in seeds
            for kind, severity in STEPS
        ]
    )


def make_deteriorated(n: int = 300) -> dict[tuple[str, int], np.ndarray]:
    random = np.random.default_rng(0)
    clean = {deteriorations.CLEAN: random.gamma(2.0, size=n)}
    return clean | {(kind, severity): random.gamma(2.0 + severity / 3, size=n) for kind, severity in STEPS}


def draw_deteriorations(downstream: Sets, backbones: Sequence[str], seeds: Sequence[int]) -> Figure:
    rising = deteriorations.shares_rising(make_rises(downstream, seeds))
    uncertainty = make_deteriorated()
    return deteriorations.draw(uncertainty, rising, downstream, backbones[0], "default", len(seeds), 6.75, 3.0)


def make_not_dirac(sets: Sets, seeds: Sequence[int] = SEEDS, backbone: str = "resnet") -> pd.DataFrame:
    return rows_to_metrics(
        [
            [backbone, "head", "default", seed, *shown, "auroc_not_dirac", 0.6 + seed / 100, 90]
            for shown in sets
            for seed in seeds
        ]
    )


def make_votes(random: np.random.Generator, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Return u, and vote entropies of which 40 % are 0 and the first five are missing."""
    entropy = np.where(random.random(n) < 0.4, 0.0, random.random(n))
    entropy[:5] = np.nan
    return random.gamma(2.0, size=n) + np.nan_to_num(entropy), entropy


def draw_ambiguity(downstream: Sets, backbones: Sequence[str], seeds: Sequence[int]) -> Figure:
    random = np.random.default_rng(0)
    scores = {shown: make_votes(random) for shown in downstream}
    metrics = make_not_dirac(downstream, seeds, backbones[0])
    return human_ambiguity.draw(metrics, scores, backbones[0], "default", len(seeds), 6.75, 3.0)


def make_coordinates(classes: int = 6, n: int = 120) -> pd.DataFrame:
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(n, 4)), columns=["tsne_x", "tsne_y", "umap_x", "umap_y"])
    table.insert(0, "sample_id", np.arange(n))
    table.insert(1, "label", np.arange(n) % classes)
    table.insert(2, "class_name", [f"class number {label}" for label in table["label"]])
    return table


def draw_projection(downstream: Sets, backbones: Sequence[str], seeds: Sequence[int]) -> Figure:
    table = make_coordinates(classes=12 if len(downstream) > 5 else 6)
    uncertainty = np.random.default_rng(1).gamma(2.0, size=len(table))
    dataset = downstream[0].dataset
    return projection.draw(table, uncertainty, dataset, backbones[0], "default", len(seeds), 6.75, 3.8)


def make_selection(random: np.random.Generator, n: int = 250, seeds: Sequence[int] = SEEDS) -> risk_coverage.Selection:
    wrong = random.random(n) < 0.3
    return risk_coverage.Selection(
        wrong,
        {seed: wrong * seed / 2 + random.random(n) for seed in seeds},
        {
            "class_entropy": random.random(n),
            "embedding_norm": random.integers(0, 3, n).astype(float),
            "knn_distance": random.random(n),
        },
    )


def draw_risk(downstream: Sets, backbones: Sequence[str], seeds: Sequence[int]) -> Figure:
    random = np.random.default_rng(0)
    selections = {shown: make_selection(random, seeds=seeds) for shown in downstream}
    return risk_coverage.draw(selections, backbones[0], "default", 6.75, 3.0)


def make_curves(sets: Sets, seeds: Sequence[int]) -> dict[EvaluationSet, pd.DataFrame]:
    shares = np.arange(11) / 20
    rows = [
        {
            "seed": seed,
            "kind": kind,
            "signal": signal,
            "share": share,
            "clean_queries": 0.4 - 0.3 * share + 0.01 * seed * share,
            "clean_database": 0.4 + 0.05 * share * number,
            "clean_both": 0.4 - 0.5 * share + 0.02 * number * share + (kind == "per_class"),
            "n_queries": 700 - int(700 * share),
        }
        for seed in seeds
        for kind in LABELS
        for number, signal in enumerate(SIGNALS)
        for share in shares
    ]
    return {shown: pd.DataFrame(rows) for shown in sets}


def make_surfaces(sets: Sets, seeds: Sequence[int]) -> dict[EvaluationSet, pd.DataFrame]:
    shares = np.arange(11) / 20
    rows = [
        {"seed": seed, "query_share": q, "database_share": d, "error": 0.4 - 0.4 * q + 0.1 * d * seed, "n": 700}
        for seed in seeds
        for q in shares
        for d in shares
    ]
    return {shown: pd.DataFrame(rows) for shown in sets}


def draw_safe_curves(downstream: Sets, backbones: Sequence[str], seeds: Sequence[int]) -> Figure:
    sets = [UPSTREAM, *downstream[:6]]
    height = 3.4 if len(sets) < 5 else 7.5
    return safe_retrieval_curves.draw(make_curves(sets, seeds), UPSTREAM, backbones[0], "default", 6.75, height)


def draw_safe_surface(downstream: Sets, backbones: Sequence[str], seeds: Sequence[int]) -> Figure:
    sets = [UPSTREAM, *downstream[:6]]
    height = 3.4 if len(sets) < 5 else 7.5
    return safe_retrieval_surface.draw(make_surfaces(sets, seeds), UPSTREAM, backbones[0], "default", 6.75, height)


def make_joint_curves(seeds: Sequence[int] = SEEDS, epochs: int = 4) -> dict[tuple[bool, int], pd.DataFrame]:
    random = np.random.default_rng(0)
    metrics = ("top1", "auroc_classification", "auroc_correct")
    return {
        (mode, seed): pd.DataFrame({"epoch": range(epochs + 1)} | {name: random.random(epochs + 1) for name in metrics})
        for mode in (True, False)
        for seed in seeds
    }


def draw_joint_training(downstream: Sets, backbones: Sequence[str], seeds: Sequence[int]) -> Figure:
    curves = make_joint_curves(seeds, epochs=1 if len(seeds) == 1 else 32)
    dataset = downstream[0].dataset
    return joint_training.draw(curves, backbones[0], dataset, 1240, "squared_error", 1.0, 6.75, 3.6)


def draw_benchmark(downstream: Sets, backbones: Sequence[str], seeds: Sequence[int]) -> Figure:
    entries, rows = [], []
    for architecture, method in itertools.product(backbones, METHODS):
        models = {seed: f"{architecture}_{method}_seed{seed}" for seed in seeds}
        entries.append(Entry(architecture, method, models))
        for (seed, model), shown in itertools.product(models.items(), downstream):
            rows.append([model, "representation", "", None, *shown, "r1", 0.4 + seed / 100, 700])
            rows.append([model, OWN, "", None, *shown, "auroc_correct", auroc(model, shown, seed), 700])
    return benchmark.draw(rows_to_metrics(rows), entries, downstream, 6.75, 3.6)


DRAWINGS: dict[str, Draw] = {
    "benchmark": draw_benchmark,
    "classes": draw_classes,
    "densities": draw_densities,
    "deteriorations": draw_deteriorations,
    "examples": draw_examples,
    "human_ambiguity": draw_ambiguity,
    "joint_training": draw_joint_training,
    "projection": draw_projection,
    "recall_vs_auroc": draw_recall,
    "risk_coverage": draw_risk,
    "safe_retrieval_curves": draw_safe_curves,
    "safe_retrieval_surface": draw_safe_surface,
    "training_curves": draw_training_curves,
    "worst_queries": draw_worst_queries,
    "zero_shot": draw_zero_shot,
}
SIZES: dict[str, tuple[Sets, Sequence[str], Sequence[int]]] = {
    "smallest": (DOWNSTREAM[:1], ["resnet"], (1,)),
    "usual": (DOWNSTREAM, BACKBONES, SEEDS),
    "largest": (
        [EvaluationSet(f"dataset_with_a_very_long_name_{number:02d}", "test") for number in range(13)],
        [f"backbone_with_a_long_name_{number}" for number in range(4)],
        (1, 2, 3, 4, 5),
    ),
}


@functools.cache
def drawn(name: str, size: str = "usual") -> Figure:
    """Return a figure, laid out; tests that only look at it share it."""
    figure = DRAWINGS[name](*SIZES[size])
    figure.draw_without_rendering()
    return figure


def all_text(figure: Figure) -> str:
    """Return all text of a figure in one line."""
    return "\n".join(text.get_text() for text in figure.findobj(Text)).replace("\n", " ")


def assert_readable(figure: Figure, are_panels_apart: bool = True) -> None:
    """Everything is inside the figure and below its title, large enough to read, and nothing covers anything.

    are_panels_apart: whether the panels' bounding boxes with all that is beside them are, not only their titles.
    """
    assert all(text.get_fontsize() >= 7 for text in figure.findobj(Text))
    title, subtitle, *others = (text.get_window_extent() for text in figure.texts)
    axes = [panel.get_tightbbox() for panel in figure.axes if panel.get_visible()]
    legends = [legend.get_window_extent() for legend in figure.legends]
    for box in [title, subtitle, *others, *axes, *legends]:
        assert box.x0 >= figure.bbox.x0 - 2 and box.x1 <= figure.bbox.x1 + 2
        assert box.y0 >= figure.bbox.y0 - 2 and box.y1 <= figure.bbox.y1 + 2
    for box in [*others, *axes, *legends]:
        assert box.y1 <= subtitle.y0 + 1
    for box in axes:
        assert box.height > 0.3 * figure.dpi
        assert not any(box.overlaps(legend) for legend in legends)
    titles = [panel.title.get_window_extent() for panel in figure.axes if panel.get_visible() and panel.get_title()]
    for boxes in (titles, axes if are_panels_apart else []):
        for number, box in enumerate(boxes):
            # Neighbours may share the line between them, no more.
            assert not any(box.padded(-1).overlaps(other.padded(-1)) for other in boxes[:number])
