"""What the jobs that make backbones are made from, by the config alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.backbones.spec import BackboneSpec, components, read_manifest
from pipeline_lib.config.load import parse_config
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.core.jobs import Ref
from pipeline_lib.stages import backbone, joint_training, method
from tests import jobs
from tests.unit import worlds

CUSTOM = {"kind": "custom", "factory": "networks:build", "checkpoint": "w.pt", "classifier": False, "image_size": 32}
GP = {"kind": "sngp", "spectral_norm_bound": None, "discount": None}
METHOD = {"kind": "method", "architecture": "test_vit", "checkpoint": "start.pt", "method": GP}
WORLD: dict[str, Any] = {
    "upstream": {"dataset": "latin", "train_split": "train", "eval_split": "test"},
    "downstream": ["greek"],
    "datasets": {name: {"kind": "glyphs", "script": name, "per_class": {"test": 1}} for name in ("latin", "greek")},
    "backbones": {
        "local": CUSTOM,
        "hub": {"kind": "timm", "model": "test_vit.r160_in1k"},
        "small": {"kind": "trained", "architecture": "test_resnet"},
        "gp": METHOD,
    },
    "joint_training": {"backbone": "gp", "options": {"loss": "order"}},
    "variants": {"default": {}},
    "seeds": [1],
}
CONFIG = parse_config(WORLD)


@pytest.mark.parametrize("name", CONFIG.backbones)
def test_a_spec_comes_back_from_its_json(name: str) -> None:
    """A section's null that is not the default (no classifier, no bound) must not come back as the default."""
    spec = BackboneSpec.of(CONFIG, name)
    assert BackboneSpec.model_validate(spec.plain()) == spec
    splits = {"small": ("train", None), "gp": ("train", "test")}.get(name, (None, None))
    assert (spec.train_split, spec.eval_split) == splits


def test_null_is_left_out_of_a_spec_where_it_is_the_default() -> None:
    plain = BackboneSpec.of(CONFIG, "gp").plain()
    assert plain["options"]["method"]["spectral_norm_bound"] is None
    assert "discount" not in plain["options"]["method"] and "clip_norm" not in plain["options"]["training"]


def test_a_backbone_is_made_by_the_stage_of_its_kind_from_its_own_files_and_code() -> None:
    assert backbone.resolve(CONFIG, "gp") == Ref.to("method", backbone="gp")
    assert backbone.resolve(CONFIG, "hub") == Ref.to("backbone", backbone="hub")
    latin = Ref.to("dataset", dataset="latin")
    assert [backbone.inputs(CONFIG, name)["upstream"] for name in ("hub", "small")] == [None, latin]
    assert method.inputs(CONFIG, "gp") == {"dataset": latin}
    assert backbone.plugins(CONFIG, "hub") == ["backbones.timm"]
    assert backbone.plugins(CONFIG, "small") == ["backbones.trained", "training.classifier", "datasets.glyphs"]
    assert method.plugins(CONFIG, "gp") == ["backbones.method", "methods.sngp", "datasets.glyphs"]
    assert components(CONFIG.backbone("gp")) == ["backbones.method", "methods.sngp"]
    assert method.sources(method.Spec.of(CONFIG, "gp")) == [Path("start.pt")]
    assert backbone.sources(backbone.Spec.of(CONFIG, "local")) == [Path("w.pt")]


def test_a_joint_training_is_of_a_mode_and_a_seed() -> None:
    spec = joint_training.Spec.of(CONFIG, backbone="gp", mode="stop_gradient", seed="3")
    assert (spec.stop_gradient, spec.seed, spec.options.loss.kind) == (True, 3, "order")
    assert not joint_training.Spec.of(CONFIG, backbone="gp", mode="no_stop_gradient", seed="3").stop_gradient
    assert joint_training.Spec.model_validate(spec.plain()) == spec
    job = (CONFIG, "gp", "stop_gradient", "3")
    assert joint_training.inputs(*job)["backbone"] == Ref.to("backbone", backbone="gp")
    code = ["datasets.glyphs", "backbones.method", "methods.sngp", "heads.losses.order"]
    assert joint_training.plugins(*job) == code


def test_a_kind_that_a_stage_does_not_make_and_an_artefact_of_another_stage_are_refused(tmp_path: Path) -> None:
    spec = BackboneSpec.of(CONFIG, "small").plain() | {"eval_split": "test"}
    with pytest.raises(PipelineError, match=r"spec of method: options"):
        jobs.run("method", spec, tmp_path / "out", dataset=tmp_path)
    with pytest.raises(ArtefactError, match="made by stage 'dataset', but a backbone was asked for"):
        read_manifest(worlds.glyphs(tmp_path))
