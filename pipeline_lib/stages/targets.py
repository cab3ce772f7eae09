"""What a run makes when nothing else is asked for."""

from __future__ import annotations

from pipeline_lib.config import kinds
from pipeline_lib.config.config import Config
from pipeline_lib.core.jobs import Ref


def targets(config: Config) -> list[Ref]:
    """Return the artefacts that a config's tables, figures, cards and checkpoints are, with their provenance."""
    cards = dict.fromkeys(entry.dataset for entry in config.evaluation_sets)
    return [
        Ref.to("metrics"),
        *(Ref.to("table", name=name) for name in kinds.wanted("tables", config)),
        *(Ref.to("figure", name=name) for name in kinds.wanted("figures", config)),
        Ref.to("projection_page"),
        *(Ref.to("dataset_card", dataset=dataset) for dataset in cards),
        *(
            Ref.to("export", backbone=backbone, variant=variant)
            for backbone in config.backbones
            for variant in config.variants
        ),
        Ref.to("provenance"),
        Ref.to("report"),
    ]
