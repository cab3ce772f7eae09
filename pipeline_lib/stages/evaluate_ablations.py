"""Evaluate the heads of several variants, all seeds, on one set, as stage `evaluate_heads` does for one.

What needs the upstream set (OOD detection, the mix) is left out: ablations are not evaluated there.
"""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "evaluations: the spec of each evaluation; they differ in variant only")
    add_path(parser, "--features", "folder of the split's views, which holds eval/ and centre_crop/")
    add_path(parser, "--baselines", "the baselines' evaluation of the same set")
    add_path(parser, "--heads", "folder of the backbone's heads, which holds <variant>/seed<k>/")
    add_path(parser, "--output", "folder of the backbone's evaluations; writes <variant>/<dataset>/<split>/")


def run(arguments: argparse.Namespace) -> None:
    """Evaluate and write."""
    from pipeline_lib.evaluation.heads import evaluate_heads
    from pipeline_lib.features.cache import FeatureCache

    eval_cache, crop_cache = (FeatureCache(arguments.features / view) for view in ("eval", "centre_crop"))
    for spec in arguments.spec["evaluations"]:
        evaluate_heads(
            spec,
            eval_cache,
            crop_cache,
            arguments.baselines,
            {seed: arguments.heads / spec["variant"] / f"seed{seed}" for seed in spec["seeds"]},
            None,
            None,
            arguments.output / spec["variant"] / spec["dataset"] / spec["split"],
        )
