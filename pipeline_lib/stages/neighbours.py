"""Find each image's exact nearest neighbour by cosine similarity among the other images of its split."""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "backbone, dataset, split, backend, device, threads, block_rows")
    add_path(parser, "--features", "the eval view of the split, which holds blocks/ and cache/")
    add_path(parser, "--output", "folder of the neighbours")


def run(arguments: argparse.Namespace) -> None:
    """Search and write."""
    import torch

    from pipeline_lib.features.cache import FeatureCache
    from pipeline_lib.progress import Progress
    from pipeline_lib.retrieval.neighbours import nearest_neighbours
    from pipeline_lib.retrieval.store import write_neighbours

    spec = arguments.spec
    torch.set_num_threads(spec["threads"])
    cache = FeatureCache(arguments.features)
    with Progress(cache.rows, "images", f"neighbours of {spec['backbone']} on {spec['dataset']}") as progress:
        found = nearest_neighbours(
            lambda start, stop: cache.read("embedding", 0, start, stop),
            cache.rows,
            backend=spec["backend"],
            device=spec["device"],
            block_rows=spec["block_rows"],
            progress=progress.advance,
        )
    write_neighbours(arguments.output, spec, found, cache)
