"""Methods on timm's families of architectures: those whose representation is wider than their features, and others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import zarr

from pipeline_lib.backbones.artefact import open_backbone
from pipeline_lib.config import kinds
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.methods.base import Method
from tests import jobs
from tests.unit import worlds
from tests.unit.test_method_training import make_spec

pytestmark = pytest.mark.usefixtures("one_thread")

# Architecture -> width of the representation; in the first ones a layer after pooling makes it wider.
WIDTHS = {
    "mobilenetv3_small_050": 1024,
    "mobilenetv4_conv_small_035": 1280,
    "lcnet_035": 1280,
    "ghostnet_050": 1280,
    "hardcorenas_a": 1280,
    "vgg11": 4096,
    "test_mambaout": 256,
    "test_convnext": 64,
}
# Architecture -> what it has for a classifier.
WITHOUT_LINEAR = {
    "deit_tiny_distilled_patch16_224": "tuple",
    "levit_128s": "tuple",
    "efficientformerv2_s0": "tuple",
    "resnetv2_18": "Conv2d",
    "repvit_m0_9": "RepVitClassifier",
}


def build(kind: str, architecture: str) -> Method:
    """Return a model without memory for its weights: what is tested are shapes."""
    method = kinds.load("methods", kind)
    with torch.device("meta"):
        return method.Model(method.Options(kind=kind), timm.create_model(architecture, num_classes=5), 5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cross_entropy", "ensemble"])
@pytest.mark.parametrize("architecture", WIDTHS)
def test_a_model_knows_the_width_of_its_representation(architecture: str, kind: str) -> None:
    model = build(kind, architecture)
    images = torch.zeros(2, 3, 64, 64, device="meta")
    assert model.dim == WIDTHS[architecture]
    prediction = model.eval()(images)
    assert [tuple(part.shape) for part in prediction] == [(2, 5), (2,), (2, model.dim)]
    assert model.train().loss(images, torch.zeros(2, dtype=torch.int64, device="meta")).shape == ()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["elk", "ensemble"])
@pytest.mark.parametrize("architecture", WITHOUT_LINEAR)
def test_an_architecture_without_a_linear_classifier_is_refused_in_one_line(architecture: str, kind: str) -> None:
    told = f"'{architecture}' has no linear classifier .it has {WITHOUT_LINEAR[architecture]}.; train another"
    with pytest.raises(PipelineError, match=told) as refused:
        build(kind, architecture)
    assert "\n" not in str(refused.value)


def test_a_representation_wider_than_the_features_is_trained_evaluated_and_cached(tmp_path: Path) -> None:
    """ELK also compares it with the rows of the classifier."""
    images = worlds.glyphs(tmp_path, per_class={"train": 1, "test": 1})
    jobs.run("method", make_spec("elk", "test_mambaout", epochs=1, warmup_epochs=0), tmp_path / "model", dataset=images)
    epochs = [json.loads(line) for line in (tmp_path / "model/curve.jsonl").read_text().splitlines()]
    assert np.isfinite([epochs[1]["loss"], epochs[1]["r1"]]).all()
    assert open_backbone(tmp_path / "model").dim == 256
    spec = worlds.block_spec(split="test", view={"kind": "eval"}, samples=[0, 10], epochs=[0, 1])
    jobs.run("features", spec, tmp_path / "block", dataset=images, backbone=tmp_path / "model")
    cached = zarr.open_group(tmp_path / "block" / "arrays.zarr", mode="r")
    assert cached["embedding"].shape == (1, 10, 256)
