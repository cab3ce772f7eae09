"""The model card of a checkpoint, in the Hugging Face format: metadata as YAML, then Markdown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jinja2
import pandas as pd
from huggingface_hub import EvalResult, ModelCardData

from pipeline_lib.checkpoints.checkpoint import BackboneConfig, HeadsConfig
from pipeline_lib.config import kinds
from pipeline_lib.config.task_losses import CROSS_ENTROPY
from pipeline_lib.tables.render import count, number
from pipeline_lib.tables.summary import MEAN, EvaluationSet, Summary, names

COST_HEADING = "## What a head costs"
_TASK = "image-feature-extraction"
# A string here and not a file beside this one, so that an edit counts as one of the code.
_CARD = """\
---
{{ metadata }}
---


# Pretrained visual uncertainties: {{ backbone.name }}, {{ heads.variant }}

Images in, representations and uncertainties out. The uncertainty says how likely a representation is off, also for
images of datasets that the model has never seen. Larger is less certain.

```python
from PIL import Image
from pipeline_lib.pretrained import load

model = load("path/to/this/folder"{{ "" if finds_backbone else ", backbone=..." }})  # or its id on the Hub
images = model.transform(Image.open("image.png")).unsqueeze(0)
representation, uncertainty = model(images)  # [1, {{ backbone.dim }}], [1]
```

{% if heads.seeds | length > 1 %}
Its {{ heads.seeds | length }} heads (seeds {{ heads.seeds | join(", ") }}) are averaged by rank; `load(..., seeds=[{{ heads.seeds[0] }}])`
gives one head's own uncertainty.
{% else %}
It has one head (seed {{ heads.seeds[0] }}), whose own uncertainty it gives.
{% endif %}

The backbone is `{{ architecture }}`: {{ "{:,}".format(backbone.parameters) }} parameters, images of {{ height }} x {{ width }} px.
Its weights are {{ "in this checkpoint" if backbone.included else "not in this checkpoint" }}.
The heads were trained on those with the SHA-256 `{{ backbone.weights_sha256 }}`.

{% if rows %}
## Results

R-AUROC: how well the uncertainty predicts that an image's nearest neighbour has another label (chance is 0.5); median over
seeds of single heads ± the larger distance to minimum or maximum. All sets but the first were never seen in training.

| set | images | R-AUROC | Recall@1 |
|:--|--:|--:|--:|
{% for row in rows %}
| {{ row | join(" | ") }} |
{% endfor %}

{% endif %}
{{ cost_heading }}

A head has {{ "{:,}".format(parameters) }} parameters ({{ "%.2g" | format(100 * parameters / backbone.parameters) }} % of the backbone's {{ "{:,}".format(backbone.parameters) }}):
{{ "%.2f" | format(4 * parameters / 1e6) }} MB in float32, {{ "{:,}".format(products) }} multiplications per image.

## What it is not

An uncertainty orders images; it is no probability and has no unit. {{ learnt_from }}

*Pretrained Visual Uncertainties*, Kirchhof et al. 2024.
"""  # noqa: E501 (paragraphs of Markdown)


def model_card(
    backbone: BackboneConfig, heads: HeadsConfig, metrics: pd.DataFrame | None, sets: Sequence[EvaluationSet]
) -> str:
    """Return the card of a checkpoint.

    Parameters
    ----------
    backbone, heads
        What the checkpoint holds.
    metrics
        Rows as `tables.summary.read_metrics` gives them; None = nothing was measured.
    sets
        Those of the table of results, the upstream evaluation set first; the mean over the others ends it.
    """
    find = None if metrics is None else Summary(metrics)
    metadata = ModelCardData(
        library_name="pretrained-visual-uncertainties",
        pipeline_tag=_TASK,
        # A network of the user's own code comes from no library.
        tags=["uncertainty-estimation", "pretrained-visual-uncertainties"] + ["timm"] * (not backbone.is_custom),
        base_model=_base_model(backbone),
        model_name=f"{backbone.name}, {heads.variant}",
        eval_results=_results(find, sets, backbone.name, heads.variant) if find else None,
    )
    _, height, width = backbone.data_config.input_size
    parameters, products = head_size(backbone.dim, heads.hidden)
    options = backbone.options
    named = (options.get(key) for key in ("model", "architecture", "factory"))
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(_CARD).render(
        metadata=metadata.to_yaml(),
        backbone=backbone,
        heads=heads,
        architecture=next(filter(None, named), backbone.name),
        finds_backbone=(backbone.included or backbone.is_on_hub) and not backbone.is_custom,
        height=height,
        width=width,
        rows=_rows(find, sets, backbone.name, heads.variant) if find else [],
        cost_heading=COST_HEADING,
        parameters=parameters,
        products=products,
        learnt_from=_learnt_from(heads),
    )


def head_size(dim: int, hidden: Sequence[int]) -> tuple[int, int]:
    """Return the number of parameters of a head, and of multiplications per image."""
    widths = (dim, *hidden, 1)
    products = sum(inputs * outputs for inputs, outputs in itertools.pairwise(widths))
    return products + sum(widths[1:]), products


def _learnt_from(heads: HeadsConfig) -> str:
    # Checkpoints of the reference code don't name a task loss; it knows the classifier's alone.
    task_loss = heads.training.get("task_loss") or CROSS_ENTROPY
    if task_loss != CROSS_ENTROPY:
        return kinds.load("task_losses", task_loss).LEARNT_FROM
    return (
        "It was learnt from the mistakes of the upstream\n"
        "classifier: it knows blur, occlusion and ambiguity better than a category that looks crisp and is new."
    )


def _base_model(backbone: BackboneConfig) -> str | None:
    """Return the repository of timm that the backbone comes from, where its name says which weights these are."""
    model = str(backbone.options.get("model"))
    return f"timm/{model}" if backbone.is_on_hub and "." in model and ":" not in model else None


def _results(find: Summary, sets: Sequence[EvaluationSet], backbone: str, variant: str) -> list[EvalResult]:
    """Return what was measured, as metadata."""
    values = {
        (entry, metric, name): value
        for entry in sets
        for metric, name, value in (
            ("auroc_correct", "R-AUROC of the uncertainty", find("auroc_correct", entry, backbone, "head", variant)),
            ("r1", "Recall@1 of the representation", find("r1", entry, backbone, "representation")),
        )
    }
    return [
        EvalResult(
            task_type=_TASK,
            dataset_type=entry.dataset,
            dataset_name=entry.dataset,
            dataset_split=entry.split,
            metric_type=metric,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for (entry, metric, name), value in values.items()
        if not math.isnan(value)
    ]


def _rows(find: Summary, sets: Sequence[EvaluationSet], backbone: str, variant: str) -> list[tuple[str, ...]]:
    """Return the rows of the table of results: set, images, R-AUROC, Recall@1, as text."""
    labels = names(sets) | ({MEAN: "mean of downstream"} if len(sets) > 1 else {})
    labels[sets[0]] += " (upstream)"
    rows: list[tuple[str, ...]] = []
    for entry, label in labels.items():
        median, spread, seeds, images = (
            find("auroc_correct", entry, backbone, "head", variant, statistic)
            for statistic in ("median", "spread", "seeds", "n")
        )
        shown = f"{number(median)} ± {number(spread)}" if seeds > 1 and not math.isnan(median) else number(median)
        recall = find("r1", entry, backbone, "representation")
        rows.append((label, count(math.nan if entry == MEAN else images), shown, number(recall)))
    return rows
