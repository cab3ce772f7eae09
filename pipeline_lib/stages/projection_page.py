"""Write the maps of one set as a web page with thumbnails, one self-contained HTML file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.tables.spec import HeadsSpec, refs
from pipeline_lib.tables.summary import EvaluationSet

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (
    Input("dataset", "the dataset"),
    Input("projection", "the maps of its set"),
    Input("scores", "the heads' evaluation of the set"),
    Input("baselines", "the baselines' evaluation of the set"),
)
OUTPUT = "records/projection_page"
FILES = ("plots/projection.html",)


class Spec(HeadsSpec):
    """What is shown."""

    projected: EvaluationSet


def inputs(config: Config) -> Refs:
    """Return the artefacts that the job reads."""
    spec = Spec.of(config)
    sets = [spec.projected]
    return {
        "dataset": Ref.to("dataset", dataset=spec.projected.dataset),
        "projection": refs("projection", sets, backbone=spec.backbone),
        "scores": refs("evaluate_heads", sets, **spec.heads),
        "baselines": refs("baselines", sets, backbone=spec.backbone),
    }


def plugins(config: Config) -> list[str]:
    """Return the component that decodes the images."""
    return [f"datasets.{config.datasets[Spec.of(config).projected.dataset].kind}"]


def run(job: Job[Spec]) -> None:
    """Write the page."""
    import pandas as pd

    from pipeline_lib.core.artefacts import file_of
    from pipeline_lib.datasets.images import ImageDataset
    from pipeline_lib.figures import style
    from pipeline_lib.figures.projection_page import page

    spec = job.spec
    dataset, split = spec.projected
    expected = {"backbone": spec.backbone, "dataset": dataset, "split": split}
    coordinates = pd.read_parquet(file_of(job.input("projection"), "coordinates.parquet", **expected))
    heads = pd.read_parquet(file_of(job.input("scores"), "scores.parquet", variant=spec.variant, **expected))
    baselines = pd.read_parquet(file_of(job.input("baselines"), "scores.parquet", **expected))
    seeds = len(spec.seeds)
    description = {
        "title": f"Uncertainty on maps of {dataset}",
        "subtitle": f"{style.plural(len(coordinates), 'image')} of {dataset}/{split}; backbone {spec.backbone}, "
        f"variant {spec.variant}, " + ("1 seed." if seeds == 1 else f"u is the mean over {seeds} seeds."),
    }
    columns = [f"uncertainty_seed{seed}" for seed in spec.seeds]
    uncertainty = heads.set_index("sample_id")[columns].mean(axis=1)
    correct = baselines.set_index("sample_id")["correct"]
    text = page(coordinates, uncertainty, correct, ImageDataset(job.input("dataset"), split), description)
    with job.writing() as draft:
        (draft.path / "projection.html").write_text(text, encoding="utf-8")
