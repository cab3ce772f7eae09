"""A checkpoint from anywhere: nothing of it is believed, nothing it names is run, and each refusal is one line."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pipeline_lib.checkpoints.checkpoint import CARD, CONFIG, FILES, FIXED_REPRESENTATION, WEIGHTS, quantiles_name
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.pretrained import load
from tests.unit.pretrained_world import World, world
from tests.unit.scoring_world import SEEDS, write_random_checkpoint


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small: World = world(tmp_path_factory.mktemp("world"))
    return small.export()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("made") / "c")


def copied(checkpoint: Path, target: Path) -> Path:
    return Path(shutil.copytree(checkpoint, target))


def refused(checkpoint: Path, match: str) -> None:
    with pytest.raises(PipelineError, match=match) as error:
        load(checkpoint)
    assert "\n" not in str(error.value)


def set_at(config: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        config = config[section]
    config[last] = value


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("backbone.options.model", "hf-hub:someone/model", "none of timm's own architectures"),
        ("backbone.options.model", "local-dir:/home", "none of timm's own architectures"),
        ("backbone.options.model", "resnet5O", "timm has no architecture 'resnet5O'"),
        ("backbone.options.model", "vit_giant_patch14_224", "has [0-9,]+ parameters, but model.safetensors holds"),
        ("backbone.options.kind", "../artefact", "of backbones is unknown"),
        ("backbone.num_classes", 10**9, "num_classes: 1000000000 is not allowed"),
        ("backbone.num_classes", 10**6, "has [0-9,]+ parameters, but model.safetensors holds"),
        ("backbone.dim", 10**7, "dim: 10000000 is not allowed"),
        ("backbone.dim", 10**5, "'layers.0.weight' has shape"),
        ("heads.hidden", [10**5, 10**5], "'layers.0.weight' has shape"),
        ("heads.hidden", [8] * 1000, "heads.hidden"),
        ("backbone.data_config.input_size", [3, 10**6, 10**6], "input_size"),
        ("backbone.data_config.input_size", [1, 32, 32], "input_size"),
        ("backbone.data_config.std", [0, 1, 1], "std"),
        ("backbone.data_config.crop_pct", 0, "crop_pct"),
        ("backbone.data_config.interpolation", "random", "interpolation"),
        ("backbone.data_config.crop_mode", "fancy", "crop_mode"),
    ],
)
def test_a_config_that_asks_for_too_much_or_for_others_files_is_refused(
    tmp_path: Path, made: Path, key: str, value: Any, match: str
) -> None:
    checkpoint = copied(made, tmp_path / "c")
    config = json.loads((checkpoint / CONFIG).read_text())
    set_at(config, key, value)
    (checkpoint / CONFIG).write_text(json.dumps(config))
    refused(checkpoint, match)


def test_a_config_that_was_changed_by_a_bit_is_noticed_by_its_manifest(tmp_path: Path, exported: Path) -> None:
    checkpoint = copied(exported, tmp_path / "c")
    text = (checkpoint / CONFIG).read_text()
    assert "32" in text
    (checkpoint / CONFIG).write_text(text.replace("32", "22"))
    refused(checkpoint, r"config\.json: .*(damaged or edited|is not allowed)")
    (checkpoint / CONFIG).write_text(text)
    load(checkpoint)
    manifest = (checkpoint / "manifest.json").read_bytes()
    (checkpoint / "manifest.json").write_bytes(manifest.replace(b'"export"', b'"exporu"'))
    refused(checkpoint, r"manifest\.json: damaged")
    (checkpoint / "manifest.json").unlink()
    load(checkpoint)


@pytest.mark.parametrize(
    ("card", "match"),
    [
        (b"\xff\xfe\x00", r"README\.md: is no model card"),
        (b"---\nlicense: [\n---\n# A card\n", r"README\.md: is no model card"),
        (b"---\n- a list\n---\n", r"README\.md: is no model card"),
    ],
    ids=["bytes", "YAML", "list"],
)
def test_a_damaged_card_is_named(tmp_path: Path, made: Path, card: bytes, match: str) -> None:
    checkpoint = copied(made, tmp_path / "c")
    (checkpoint / CARD).write_bytes(card)
    refused(checkpoint, match)


@pytest.mark.parametrize("name", [FIXED_REPRESENTATION, quantiles_name(SEEDS[0])])
@pytest.mark.parametrize(
    "change", [lambda values: None, lambda values: values[:3], lambda values: values * np.nan], ids=["no", "cut", "NaN"]
)
def test_arrays_that_are_missing_cut_or_not_finite_are_named(
    tmp_path: Path, exported: Path, made: Path, name: str, change: Callable[[np.ndarray], np.ndarray | None]
) -> None:
    checkpoint = copied(made, tmp_path / "c")
    arrays = load_file(checkpoint / WEIGHTS)
    changed = change(arrays.pop(name))
    save_file(arrays if changed is None else arrays | {name: changed}, checkpoint / WEIGHTS)
    config = json.loads((checkpoint / CONFIG).read_text())
    config["weights_sha256"] = hashlib.sha256((checkpoint / WEIGHTS).read_bytes()).hexdigest()
    (checkpoint / CONFIG).write_text(json.dumps(config))
    if name == FIXED_REPRESENTATION:  # needed where a backbone comes from elsewhere
        with pytest.raises(PipelineError, match=f"'{name}' must be"):
            load(checkpoint, backbone=load(made).backbone.network)
    else:
        refused(checkpoint, f"'{name}' must be")


def test_a_pointer_in_place_of_the_weights_is_named(tmp_path: Path, made: Path) -> None:
    checkpoint = copied(made, tmp_path / "c")
    (checkpoint / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n")
    refused(checkpoint, r"model\.safetensors: is a pointer of Git LFS, not the file itself; run `git lfs pull`")
    assert {path.name for path in made.iterdir()} == set(FILES)
