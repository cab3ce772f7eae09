"""The model card of a checkpoint, in the Hugging Face format: metadata as YAML, then Markdown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pandas as pd
from huggingface_hub import EvalResult, ModelCardData

from pipeline_lib.checkpoints.checkpoint import BackboneConfig, HeadsConfig
from pipeline_lib.tables.render import count, number
from pipeline_lib.tables.summary import MEAN, EvaluationSet, Summary, names

COST_HEADING = "## What a head costs"
_TASK = "image-feature-extraction"
_METRICS = {"auroc_correct": "R-AUROC of the uncertainty", "r1": "Recall@1 of the representation"}


def model_card(
    backbone: BackboneConfig,
    heads: HeadsConfig,
    metrics: pd.DataFrame | None,
    sets: Sequence[EvaluationSet],
) -> str:
    """Return the card of a checkpoint.

    metrics: rows as `summary.read_metrics` gives them; None = nothing was measured. sets: those of the table, the
    upstream evaluation set first; the mean over the others ends it.
    """
    find = None if metrics is None else Summary(metrics)
    data = ModelCardData(
        library_name="pretrained-visual-uncertainties",
        pipeline_tag=_TASK,
        tags=["uncertainty-estimation", "pretrained-visual-uncertainties", *_library(backbone)],
        base_model=_base_model(backbone),
        model_name=f"{backbone.name}, {heads.variant}",
        eval_results=_results(find, sets, backbone, heads) if find else None,
    )
    sections = [f"---\n{data.to_yaml()}\n---\n", _introduction(backbone, heads)]
    if find:
        sections.append(_table(find, sets, backbone, heads))
    sections += [_cost(backbone, heads), _limits(heads)]
    return "\n".join(sections)


def _library(backbone: BackboneConfig) -> list[str]:
    """Return the tag of the library that the network comes from; a network of the user's own code has none."""
    return [] if backbone.options.get("kind") == "custom" else ["timm"]


def _base_model(backbone: BackboneConfig) -> str | None:
    """Return the repository of timm that the backbone comes from, where its name says which weights these are."""
    model = backbone.options.get("model")
    return f"timm/{model}" if backbone.is_on_hub and "." in model and ":" not in model else None


def _results(
    find: Summary, sets: Sequence[EvaluationSet], backbone: BackboneConfig, heads: HeadsConfig
) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=_TASK,
            dataset_type=each.dataset,
            dataset_name=each.dataset,
            dataset_split=each.split,
            metric_type=metric,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for each in sets
        for metric, name in _METRICS.items()
        if not math.isnan(value := _value(find, metric, each, backbone, heads))
    ]


def _value(
    find: Summary,
    metric: str,
    each: EvaluationSet,
    backbone: BackboneConfig,
    heads: HeadsConfig,
    statistic: str = "median",
) -> float:
    """Return a metric of the heads, or of the representation, which has no variant."""
    of_heads = ("head", heads.variant)
    method, variant = ("representation", "") if metric == "r1" else of_heads
    return find(metric, each, backbone.name, method, variant, statistic)


def _introduction(backbone: BackboneConfig, heads: HeadsConfig) -> str:
    _, height, width = backbone.data_config.input_size
    finds_backbone = backbone.included or backbone.is_on_hub
    needed = "" if finds_backbone and backbone.options.get("kind") != "custom" else ", backbone=..."
    seeds = ", ".join(map(str, heads.seeds))
    several = (
        f"Its {len(heads.seeds)} heads (seeds {seeds}) are averaged by rank; `load(..., seeds=[{heads.seeds[0]}])`\n"
        "gives one head's own uncertainty."
        if len(heads.seeds) > 1
        else f"It has one head (seed {seeds}), whose own uncertainty it gives."
    )
    weights = "in this checkpoint" if backbone.included else "not in this checkpoint"
    return f"""
# Pretrained visual uncertainties: {backbone.name}, {heads.variant}

Images in, representations and uncertainties out. The uncertainty says how likely a representation is off, also for
images of datasets that the model has never seen. Larger is less certain.

```python
from PIL import Image
from pipeline_lib.pretrained import load

model = load("path/to/this/folder"{needed})  # or its id on the Hub
images = model.transform(Image.open("image.png")).unsqueeze(0)
representation, uncertainty = model(images)  # [1, {backbone.dim}], [1]
```

{several}

The backbone is `{_architecture(backbone)}`: {backbone.parameters:,} parameters, images of {height} x {width} px.
Its weights are {weights}.
The heads were trained on those with the SHA-256 `{backbone.weights_sha256}`.
"""


def _architecture(backbone: BackboneConfig) -> str:
    options = backbone.options
    return next((options[key] for key in ("model", "architecture", "factory") if options.get(key)), backbone.name)


def _table(find: Summary, sets: Sequence[EvaluationSet], backbone: BackboneConfig, heads: HeadsConfig) -> str:
    label = names(sets)
    lines = []
    for each in [*sets, MEAN]:
        name = "mean of downstream" if each == MEAN else label[each] + (" (upstream)" if each == sets[0] else "")
        r_auroc, spread, seeds, images = (
            _value(find, "auroc_correct", each, backbone, heads, statistic)
            for statistic in ("median", "spread", "seeds", "n")
        )
        shown = f"{number(r_auroc)} ± {number(spread)}" if seeds > 1 and not math.isnan(r_auroc) else number(r_auroc)
        images = math.nan if each == MEAN else images
        recall = _value(find, "r1", each, backbone, heads)
        lines.append(f"| {name} | {count(images)} | {shown} | {number(recall)} |")
    return "\n".join(
        [
            "## Results",
            "",
            "R-AUROC: how well the uncertainty predicts that an image's nearest neighbour has another label (chance is "
            "0.5); median over",
            "seeds of single heads ± the larger distance to minimum or maximum. All sets but the first were never seen "
            "in training.",
            "",
            "| set | images | R-AUROC | Recall@1 |",
            "|:--|--:|--:|--:|",
            *lines,
            "",
        ]
    )


def head_parameters(dim: int, hidden: Sequence[int]) -> tuple[int, int]:
    """Return the number of parameters of a head, and of multiplications per image."""
    widths = (dim, *hidden, 1)
    products = sum(inputs * outputs for inputs, outputs in itertools.pairwise(widths))
    return products + sum(widths[1:]), products


def _cost(backbone: BackboneConfig, heads: HeadsConfig) -> str:
    parameters, products = head_parameters(backbone.dim, heads.hidden)
    share = 100 * parameters / backbone.parameters
    return f"""{COST_HEADING}

A head has {parameters:,} parameters ({share:.2g} % of the backbone's {backbone.parameters:,}):
{4 * parameters / 1e6:.2f} MB in float32, {products:,} multiplications per image.
"""


# Checkpoints of the reference code don't say what they learnt from; it knows the classifier's loss alone.
_LEARNT_FROM = {
    "cross_entropy": "It was learnt from the mistakes of the upstream\n"
    "classifier: it knows blur, occlusion and ambiguity better than a category that looks crisp and is new.",
    "knn": "It was learnt from upstream images whose\n"
    "neighbours have another label, without a classifier; a category that looks crisp and is new may seem certain.",
    "contrastive": "It was learnt from upstream images whose\n"
    "augmentations are hard to tell from other images, without a classifier or labels: it knows nothing of categories.",
}


def _limits(heads: HeadsConfig) -> str:
    learnt_from = _LEARNT_FROM[heads.training.get("task_loss") or "cross_entropy"]
    return f"""## What it is not

An uncertainty orders images; it is no probability and has no unit. {learnt_from}

*Pretrained Visual Uncertainties*, Kirchhof et al. 2024.
"""
