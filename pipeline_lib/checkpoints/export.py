"""From artefacts to the parts of a checkpoint: the backbone, the heads of a variant. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from pipeline_lib.backbones.spec import BackboneSpec, read_manifest
from pipeline_lib.checkpoints.checkpoint import (
    BACKBONE_PREFIX,
    FIXED_REPRESENTATION,
    BackboneConfig,
    HeadsConfig,
    head_prefix,
    quantiles_name,
)
from pipeline_lib.config.section import Section
from pipeline_lib.core.artefacts import canonical_json
from pipeline_lib.core.errors import ArtefactError
from pipeline_lib.evaluation.scores import read_scores
from pipeline_lib.heads.checkpoint import read_head
from pipeline_lib.heads.rank_mean import quantiles_of
from pipeline_lib.tables.summary import EvaluationSet

# Options of backbones that are paths on the machine where they were made.
_PATHS = ("checkpoint", "code_dir")


def exported_backbone(name: str, directory: Path, included: bool) -> tuple[BackboneConfig, dict[str, np.ndarray]]:
    """Return what a checkpoint says of its backbone, and the arrays that it keeps of it.

    Parameters
    ----------
    name
        The name that the backbone must have.
    directory
        Its artefact.
    included
        Whether its weights are among the arrays.

    Raises
    ------
    ArtefactError
        When the artefact is missing, damaged, or another backbone's, or its weights are of a type that NumPy lacks.
    """
    manifest = read_manifest(directory)
    spec, facts = BackboneSpec.model_validate(manifest.spec), manifest.facts
    if spec.name != name:
        raise ArtefactError(f"{directory}: is the backbone '{spec.name}', but '{name}' was asked for")
    config = BackboneConfig(
        name=name,
        options=_portable(spec.options),
        **{key: facts[key] for key in ("dim", "num_classes", "parameters", "data_config", "weights_sha256")},
        included=included,
    )
    arrays = {FIXED_REPRESENTATION: np.load(directory / f"{FIXED_REPRESENTATION}.npy")}
    return config, arrays | (_weights(directory / "weights.safetensors") if included else {})


def exported_heads(
    backbone: str, variant: str, directories: Mapping[int, Path], upstream: Path, upstream_set: EvaluationSet
) -> tuple[HeadsConfig, dict[str, np.ndarray]]:
    """Return what a checkpoint says of its heads, and their arrays: weights, and quantiles of the uncertainty.

    Parameters
    ----------
    backbone, variant
        Whose heads they must be.
    directories
        The artefact of each seed's head.
    upstream
        Their evaluation of the upstream set, from whose uncertainties the quantiles are taken.
    upstream_set
        That set.

    Raises
    ------
    ArtefactError
        When an artefact is missing, damaged, or of another backbone or variant.
    """
    expected = {"backbone": backbone, "variant": variant}
    scores = read_scores(upstream, {**expected, "is_upstream": True})
    arrays: dict[str, np.ndarray] = {}
    for seed, directory in directories.items():
        head, _ = read_head(directory, {**expected, "seed": seed})
        arrays |= {f"{head_prefix(seed)}{name}": values for name, values in head.weights.items()}
        arrays[quantiles_name(seed)] = quantiles_of(scores[f"uncertainty_seed{seed}"])
    # The seeds of a variant differ in nothing else.
    recipe = json.loads((directory / "head.json").read_text(encoding="utf-8"))["training"]
    config = HeadsConfig(
        variant=variant,
        hidden=head.hidden,
        seeds=tuple(directories),
        training=recipe,
        quantiles_of="/".join(upstream_set),
    )
    return config, arrays


def _weights(path: Path) -> dict[str, np.ndarray]:
    try:
        weights = load_file(path)
    except KeyError as dtype:  # NumPy has no bfloat16
        raise ArtefactError(
            f"{path}: holds weights of type {dtype}, which can't be exported; save the backbone's checkpoint in "
            "float32, or set export.backbone: false"
        ) from None
    return {f"{BACKBONE_PREFIX}{name}": values for name, values in weights.items()}


def _portable(options: Section) -> dict[str, Any]:
    """Return a backbone's options, sorted, with the folders of this machine left out."""
    plain = json.loads(canonical_json(options.model_dump(mode="json")))
    return plain | {key: PurePath(plain[key]).name for key in _PATHS if plain.get(key)}
