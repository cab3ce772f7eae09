"""Load or train a backbone: writes weights.safetensors and manifest.json."""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "name, options (the backbone's config section), train_split where it is trained")
    add_path(parser, "--upstream", "dataset artefact to train on (kind `trained`)", required=False)
    add_path(parser, "--output", "folder of the backbone artefact")


def run(arguments: argparse.Namespace) -> None:
    """Write the backbone artefact."""
    from pipeline_lib.backbones.artefact import write_backbone

    write_backbone(arguments.spec, arguments.upstream, arguments.output)
