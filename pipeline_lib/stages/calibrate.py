"""Map uncertainties to the probability of a wrong nearest neighbour, and find thresholds that control the error.

Some images of a set are labelled: they fit the map (calibration_seed<k>.json) and the thresholds (thresholds.csv). The
others tell how good both are: scores.csv, reliability.csv, and its figure reliability.png and .pdf.
"""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(
        parser,
        "backbone, variant, seeds, dataset, split, is_upstream, images, seed, kind, folds, bins, alpha, confidence, "
        "draws, size",
    )
    add_path(parser, "--baselines", "the baselines' evaluation of the set, which says whose neighbour is wrong")
    add_path(parser, "--scores", "the heads' evaluation of the same set")
    add_path(parser, "--output", "folder of the calibration")


def run(arguments: argparse.Namespace) -> None:
    """Calibrate, draw and write."""
    from pipeline_lib.calibration.evaluate import STAGE, calibrate_heads, write_calibration
    from pipeline_lib.core import artefacts
    from pipeline_lib.evaluation.scores import read_scores
    from pipeline_lib.figures import reliability, style

    spec, size = arguments.spec, arguments.spec["size"]
    same_set = {key: spec[key] for key in ("backbone", "dataset", "split")}
    baselines = read_scores(arguments.baselines, same_set)
    scores = read_scores(arguments.scores, {**same_set, "variant": spec["variant"]})
    heads = calibrate_heads(spec, baselines, scores)
    bins = {seed: head.reliability for seed, head in heads.items()}
    named = f"{style.shorten(spec['backbone'])}, variant {style.shorten(spec['variant'])}, {spec['dataset']}"
    figure = reliability.draw(bins, named, spec["images"], size["width"], size["height"])
    with artefacts.writing(arguments.output, STAGE, spec) as draft:
        write_calibration(draft, heads)
        style.save(figure, draft.path / "reliability.png", draft.path / "reliability.pdf", size["dpi"])
        draft.add_input("baselines", baselines.manifest)
        draft.add_input("scores", scores.manifest)
        draft.facts.update(software=artefacts.software_versions("scikit-learn"))
