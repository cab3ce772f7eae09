"""Find each image's exact nearest neighbour by cosine similarity among the other images of its split.

With the upstream evaluation images at hand also in a mix of equally many of both sets.
"""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "backbone, dataset, split, backend, device, threads, block_rows, mix")
    add_path(parser, "--features", "the eval view of the split, which holds blocks/ and cache/")
    add_path(
        parser,
        "--upstream-features",
        "the eval view of the upstream evaluation split, to mix with (for any other set)",
        required=False,
    )
    add_path(parser, "--output", "folder of the neighbours")


def run(arguments: argparse.Namespace) -> None:
    """Search and write."""
    import torch

    from pipeline_lib.core.progress import Progress
    from pipeline_lib.features.cache import FeatureCache, naming_images
    from pipeline_lib.retrieval.mixed import mixed_neighbours, mixed_rows
    from pipeline_lib.retrieval.neighbours import nearest_neighbours
    from pipeline_lib.retrieval.store import write_neighbours

    spec = arguments.spec
    torch.set_num_threads(spec["threads"])
    cache, search = FeatureCache(arguments.features), {key: spec[key] for key in ("backend", "device", "block_rows")}
    title = f"neighbours of {spec['backbone']} on {spec['dataset']}"
    with naming_images(arguments.features), Progress(cache.rows, "images", title) as progress:
        found = nearest_neighbours(
            lambda start, stop: cache.read("embedding", 0, start, stop),
            cache.rows,
            **search,
            progress=progress.advance,
        )
    upstream, mixed = None, None
    if arguments.upstream_features is not None and spec["mix"] is not None:
        upstream = FeatureCache(arguments.upstream_features)
        rows = mixed_rows(upstream.rows, cache.rows, spec["mix"]["images"])
        with Progress(rows, "images", f"{title} mixed with upstream") as progress:
            mixed = mixed_neighbours(upstream, cache, spec["mix"], **search, progress=progress.advance)
    write_neighbours(arguments.output, spec, found, cache, mixed, upstream)
