"""Write the maps of one set as a web page with thumbnails, one self-contained HTML file."""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "backbone, variant, seeds, dataset, split")
    add_path(parser, "--dataset", "dataset artefact")
    add_path(parser, "--projection", "projection artefact of the set")
    add_path(parser, "--scores", "the heads' evaluation of the set")
    add_path(parser, "--baselines", "the baselines' evaluation of the set")
    add_path(parser, "--output", "the .html file to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the page."""
    import pandas as pd

    from pipeline_lib.core import artefacts
    from pipeline_lib.datasets.images import ImageDataset
    from pipeline_lib.evaluation.projection import COORDINATES, STAGE
    from pipeline_lib.evaluation.scores import read_scores
    from pipeline_lib.plots import style
    from pipeline_lib.plots.projection_page import write_page

    spec = arguments.spec
    same_set = {key: spec[key] for key in ("backbone", "dataset", "split")}
    artefacts.read(arguments.projection, STAGE, same_set)
    coordinates = pd.read_parquet(arguments.projection / COORDINATES)
    heads = read_scores(arguments.scores, {**same_set, "variant": spec["variant"]})
    columns = {"sample_id": heads["sample_id"]}
    columns |= {f"uncertainty_seed{seed}": heads[f"uncertainty_seed{seed}"] for seed in spec["seeds"]}
    baselines = read_scores(arguments.baselines, same_set)
    seeds = len(spec["seeds"])
    write_page(
        coordinates,
        pd.DataFrame(columns),
        pd.Series(baselines["correct"], index=baselines["sample_id"]),
        ImageDataset(arguments.dataset, spec["split"]),
        {
            "title": f"Uncertainty on maps of {spec['dataset']}",
            "subtitle": (
                f"{style.plural(len(coordinates), 'image')} of {spec['dataset']}/{spec['split']}; backbone "
                f"{spec['backbone']}, variant {spec['variant']}, "
                + ("1 seed." if seeds == 1 else f"u is the mean over {seeds} seeds.")
            ),
        },
        arguments.output,
    )
