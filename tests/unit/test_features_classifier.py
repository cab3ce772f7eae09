"""Any classifier on any labels: which of its outputs the upstream classes are, and what is kept where none is."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline_lib.backbones.artefact import open_backbone
from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.plain_views import EvaluationView
from pipeline_lib.features.classifier import check_order
from pipeline_lib.features.store import BlockArrays
from tests.jobs import run
from tests.unit import worlds


def test_a_classifier_of_other_classes_is_refused_where_heads_learn_from_it_and_else_keeps_its_entropy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latin = worlds.glyphs(tmp_path)
    worlds.backbone(tmp_path, num_classes=10)
    spec, made_from = (
        worlds.block_spec(samples=[0, 8], epochs=[0, 1]),
        {"dataset": latin, "backbone": tmp_path / "mine"},
    )
    with pytest.raises(PipelineError) as error:
        run("features", spec | {"needs_task_loss": True}, tmp_path / "block", **made_from)
    for words in (
        "classifies 10 classes, but the upstream dataset 'latin' has 62",
        "datasets.latin.outputs: imagenet1k, imagenet21k or a file",
        "training.task_loss: knn, probe or contrastive",
        "classifier: false",
    ):
        assert words in str(error.value)
    run("features", spec, tmp_path / "block", **made_from)
    made = artefacts.read(tmp_path / "block", "features")
    assert made.facts["arrays"] == ["class_entropy", "embedding", "epoch", "label", "sample_id"]
    assert "of the classifier the entropy alone is kept" in capsys.readouterr().out


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three classes, of which a list says which of the 62 outputs of a classifier they are."""
    root = tmp_path_factory.mktemp("named")
    for number, name in enumerate(["b", "a", "c"] * 4):
        (root / "images" / name).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(root / "images" / name / f"{number:02d}.png")
    names = [f"other {number}" for number in range(62)]
    names[7], names[40], names[3] = "a", "b", "c"
    (root / "names.txt").write_text("\n".join(names) + "\n")
    options = {"kind": "folder", "path": "images", "split": "train", "outputs": ["names.txt", "imagenet.txt"]}
    (root / "imagenet.txt").write_text("a\nb\nc\nd\n")
    run("dataset", {"name": "latin", "options": options, "data_dir": str(root)}, root / "latin")
    worlds.backbone(root)
    return root


@pytest.mark.parametrize("loss_over", [None, "classes"])
def test_a_dataset_says_which_outputs_its_classes_are(named: Path, tmp_path: Path, loss_over: str | None) -> None:
    facts = artefacts.read(named / "latin", "dataset").facts
    assert facts["classes"] == ["a", "b", "c"] and facts["outputs"] == {"62": [7, 40, 3], "4": [0, 1, 2]}
    spec = worlds.block_spec(samples=[0, 12], epochs=[0, 1], view={"kind": "eval"}, needs_task_loss=True)
    inputs = {name: named / folder for name, folder in (("dataset", "latin"), ("backbone", "mine"))}
    if loss_over:
        spec, inputs["upstream"] = spec | {"loss_over": loss_over}, named / "latin"
    run("features", spec, tmp_path / "block", **inputs)
    read = {name: np.empty((1, 12), np.float32) for name in ("task_loss", "class_entropy")}
    for name, values in read.items():
        BlockArrays(tmp_path / "block").read_into(name, (0, slice(0, 12)), values[0])
    images, backbone = ImageDataset(named / "latin", "train"), open_backbone(named / "mine")
    view = EvaluationView(backbone.data_config)
    pixels = torch.stack([view(images.image(i), i, 0)[0] for i in range(12)])
    with torch.inference_mode():
        logits = backbone.from_pixels(pixels)[1]
    outputs = torch.tensor([7, 40, 3])
    counted = logits[:, outputs] if loss_over else logits
    target = torch.from_numpy(images.label) if loss_over else outputs[torch.from_numpy(images.label)]
    expected = torch.nn.functional.cross_entropy(counted, target, reduction="none")
    np.testing.assert_allclose(read["task_loss"][0], expected.numpy(), rtol=1e-4)
    entropy = torch.distributions.Categorical(logits=counted).entropy()
    np.testing.assert_allclose(read["class_entropy"][0], entropy.numpy(), rtol=1e-4)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ("imagenet1k", r"datasets\.latin\.outputs: class 'a' is not among the 1,000 names of imagenet1k \(3 of 3"),
        ("imagenet.txt", None),
        (["imagenet.txt", "other.txt"], "must differ in length, .* but two have 4 names"),
        ("twice.txt", "twice.txt: 'b' stands there 2 times"),
        ("nowhere.txt", "no such list of outputs; give a file, or one of imagenet1k, imagenet12k"),
    ],
)
def test_outputs_that_can_not_be_are_refused(
    named: Path, tmp_path: Path, outputs: str | list[str], message: str | None
) -> None:
    (named / "other.txt").write_text("c\nb\na\ne\n")
    (named / "twice.txt").write_text("a\nb\nb\nc\n")
    options = {"kind": "folder", "path": "images", "split": "train", "outputs": outputs}
    spec = {"name": "latin", "options": options, "data_dir": str(named)}
    with pytest.raises(PipelineError, match=message) if message else contextlib.nullcontext():
        run("dataset", spec, tmp_path / "out")


def test_classes_in_another_order_than_the_outputs_are_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    """Twelve classes 0 to 11, sorted as text, of a classifier that is always right: top-1 would be 2 of 12."""
    rng = np.random.default_rng(0)
    predicted = rng.integers(0, 12, 600)
    as_text = np.argsort([sorted(map(str, range(12))).index(str(number)) for number in range(12)])
    wrong_label = np.argsort(as_text)[predicted]
    with pytest.raises(PipelineError, match=r"right on 1\d\.\d% of the images, but on 100\.0% if classes are numbered"):
        check_order(predicted, wrong_label, 12, "backbone 'mine' on 'latin'")
    check_order(predicted, predicted, 12, "right")
    check_order(rng.integers(0, 12, 600), np.where(predicted < 6, predicted, rng.integers(0, 12, 600)), 12, "poor")
    assert "WARNING: backbone" not in capsys.readouterr().out
    check_order(rng.integers(0, 50, 600), rng.integers(0, 50, 600), 50, "backbone 'mine'")
    assert "WARNING: backbone 'mine': the classifier is right on" in capsys.readouterr().out
