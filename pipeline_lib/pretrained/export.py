"""From artefacts to a checkpoint: the heads of a variant, their backbone, their model card. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import Manifest
from pipeline_lib.core.errors import ArtefactError
from pipeline_lib.evaluation.scores import read_scores
from pipeline_lib.heads.checkpoint import TrainedHead, read_head
from pipeline_lib.pretrained.card import model_card
from pipeline_lib.pretrained.checkpoint import (
    BACKBONE_PREFIX,
    FIXED_REPRESENTATION,
    BackboneConfig,
    HeadsConfig,
    head_prefix,
    quantiles_name,
    quantiles_of,
    write_checkpoint,
)
from pipeline_lib.tables.summary import EvaluationSet, read_metrics

STAGE = "export"
_BACKBONE_STAGE, _BACKBONE_WEIGHTS = "backbone", "weights.safetensors"
# Options of backbones that name a place on the machine where they were made.
_PATHS = ("checkpoint", "code_dir")


def export_checkpoint(
    spec: Mapping[str, Any],
    backbone_dir: Path,
    head_dirs: Mapping[int, Path],
    upstream_dir: Path,
    metrics: Path,
    directory: Path,
) -> None:
    """Write the checkpoint of a backbone's variant.

    Parameters
    ----------
    spec
        `backbone`, `variant`, `seeds`, `include_backbone`, and `sets`: those of the card's table, the upstream
        evaluation set first, each with `dataset` and `split`.
    backbone_dir
        The backbone's artefact.
    head_dirs
        A head's folder per seed.
    upstream_dir
        The heads' evaluation of the upstream set, whose uncertainties become the quantiles of each head.
    metrics
        `results/metrics.csv`, for the card.
    directory
        Where the checkpoint goes.

    Raises `ArtefactError` naming an artefact that is missing, damaged, or of another backbone or variant.
    """
    same = {"backbone": spec["backbone"], "variant": spec["variant"]}
    made = artefacts.read(backbone_dir, _BACKBONE_STAGE, {"name": spec["backbone"]})
    heads: dict[int, TrainedHead] = {}
    inputs: dict[str, Manifest] = {"backbone": made}
    training = None
    for seed in spec["seeds"]:
        heads[seed], manifest = read_head(head_dirs[seed], {**same, "seed": seed})
        inputs[f"head_seed{seed}"], training = manifest, manifest.spec["training"]
    upstream = read_scores(upstream_dir, {**same, "is_upstream": True})
    inputs["upstream"] = upstream.manifest
    arrays = head_arrays(heads) | {
        quantiles_name(seed): quantiles_of(upstream[f"uncertainty_seed{seed}"]) for seed in heads
    }
    arrays[FIXED_REPRESENTATION] = np.load(Path(backbone_dir) / f"{FIXED_REPRESENTATION}.npy")
    if spec["include_backbone"]:
        arrays |= _backbone_arrays(backbone_dir)
    facts = made.facts
    backbone = BackboneConfig(
        name=spec["backbone"],
        options=_portable(made.spec["options"]),
        **{key: facts[key] for key in ("dim", "num_classes", "parameters", "data_config", "weights_sha256")},
        included=spec["include_backbone"],
    )
    sets = [EvaluationSet(**each) for each in spec["sets"]]
    described = HeadsConfig(
        variant=spec["variant"],
        hidden=next(iter(heads.values())).hidden,
        seeds=tuple(heads),
        training=training,
        quantiles_of="/".join(sets[0]),
    )
    with artefacts.writing(directory, STAGE, spec) as draft:
        for name, manifest in inputs.items():
            draft.add_input(name, manifest)
        card = model_card(backbone, described, read_metrics(metrics), sets)
        write_checkpoint(draft.path, backbone, described, arrays, card)


def head_arrays(heads: Mapping[int, TrainedHead]) -> dict[str, np.ndarray]:
    """Return the weights of heads under their names in a checkpoint."""
    return {
        f"{head_prefix(seed)}{name}": values for seed, head in heads.items() for name, values in head.weights.items()
    }


def _backbone_arrays(directory: Path) -> dict[str, np.ndarray]:
    path = Path(directory) / _BACKBONE_WEIGHTS
    try:
        weights = load_file(path)
    except KeyError as dtype:  # NumPy has no bfloat16
        raise ArtefactError(
            f"{path}: holds weights of type {dtype}, which can't be exported; save the backbone's checkpoint in "
            "float32, or set export.backbone: false"
        ) from None
    return {f"{BACKBONE_PREFIX}{name}": values for name, values in weights.items()}


def _portable(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a backbone's options with the folders of this machine left out."""
    shortened = {key: PurePath(options[key]).name for key in _PATHS if options.get(key)}
    return {**options, **shortened}
