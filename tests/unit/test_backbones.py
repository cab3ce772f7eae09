"""Backbones: e(x) and c are what they should be, weights fit or say why not, training learns and repeats itself."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pipeline_lib.backbones import custom
from pipeline_lib.backbones.architectures import check_architecture, timm_names
from pipeline_lib.backbones.artefact import open_backbone
from pipeline_lib.backbones.base import HeadlessEncoder, HookedEncoder, TimmEncoder
from pipeline_lib.backbones.timm import Options as TimmOptions
from pipeline_lib.backbones.weights import load_into, read_state_dict
from pipeline_lib.config import kinds
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.training.trainer import Record, Trainer
from tests import jobs
from tests.unit import worlds

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def build(architecture: str) -> nn.Module:
    torch.manual_seed(0)
    size = {"img_size": 32} if "vit" in architecture else {}
    return timm.create_model(architecture, num_classes=7, **size).eval()


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_the_embedding_is_what_the_classifier_sees_and_the_logits_are_the_networks(architecture: str) -> None:
    network = build(architecture)
    seen = {}
    network.get_classifier().register_forward_hook(lambda layer, inputs, output: seen.update(x=inputs[0]))
    with torch.inference_mode():
        expected = network(IMAGES)
        embedding, logits = TimmEncoder(network)(IMAGES)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(embedding, seen["x"])
    assert embedding.shape == (4, network.num_features)


def test_a_hooked_network_gives_the_same_as_timms_own_way() -> None:
    network = build("test_resnet")
    with torch.inference_mode():
        expected = TimmEncoder(network)(IMAGES)
        found = HookedEncoder(network, "fc")(IMAGES)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_classifier_layer_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(PipelineError, match=r"no layer 'linear' .* linear layers: fc"):
        HookedEncoder(build("test_resnet"), "linear")


@pytest.mark.parametrize("model", ["test_vit", "test_resnet"])
def test_a_timm_backbone_whose_classifier_is_left_out_gives_the_same_embedding(model: str, tmp_path: Path) -> None:
    network = build(model)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    options = {"kind": "timm", "model": model, "checkpoint": str(tmp_path / "w.safetensors"), "classifier": False}
    jobs.run("backbone", {"name": "headless", "options": options | {"image_size": 32}}, tmp_path / "headless")
    backbone = open_backbone(tmp_path / "headless")
    with torch.inference_mode():
        embedding, logits = backbone(IMAGES)
        torch.testing.assert_close(embedding, TimmEncoder(network)(IMAGES)[0])
    assert backbone.num_classes == 0 and logits.shape == (4, 0) and logits.dtype == torch.float32


@pytest.mark.parametrize(
    ("num_classes", "classifier", "width", "said", "warned"),
    [
        (
            0,
            False,
            96,
            "2 keys are of a classifier or decoder that is not used, and left out: fc.bias, fc.weight",
            None,
        ),
        (10, False, 10, "10 wide; its last layer is 'fc' (Linear)", "looks like a classifier of 10 classes"),
        (7, False, 7, "7 wide; its last layer is 'fc' (Linear)", "(classifier: fc)"),  # 7 is an argument of the factory
        (10, "fc", 96, None, None),
    ],
)
def test_a_custom_network_without_a_classifier_says_what_its_representation_is(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    num_classes: int,
    classifier: str | bool,
    width: int,
    said: str | None,
    warned: str | None,
) -> None:
    options = worlds.custom_options(tmp_path, num_classes=num_classes or 10, classifier=classifier)
    options["arguments"]["num_classes"] = num_classes
    jobs.run("backbone", {"name": "mine", "options": options}, tmp_path / "mine")
    assert open_backbone(tmp_path / "mine").dim == width
    output = capsys.readouterr()
    assert said is None or said in output.out
    assert (warned in output.err) if warned else "WARNING" not in output.err


def test_a_checkpoint_of_another_network_is_no_unused_classifier(tmp_path: Path) -> None:
    options = worlds.custom_options(tmp_path, num_classes=10, classifier=False)
    options["arguments"] = {"architecture": "test_vit", "num_classes": 0}
    with pytest.raises(PipelineError, match=r"doesn't fit the network: .* keys of the network are missing"):
        jobs.run("backbone", {"name": "mine", "options": options}, tmp_path / "mine")


@pytest.mark.parametrize("word", [None, True, "", 0])
def test_there_is_one_word_for_no_classifier(word: object, tmp_path: Path) -> None:
    options = worlds.custom_options(tmp_path) | {"classifier": word}
    with pytest.raises(ValueError, match="must be the name of a layer, or false where the network has no classifier"):
        kinds.validated("backbones", options, "backbones.mine")


def test_a_timm_model_without_a_classifier_is_refused_with_what_to_do() -> None:
    with pytest.raises(PipelineError, match="or set classifier: false"):
        TimmEncoder(timm.create_model("test_vit", num_classes=0))


def test_a_network_without_a_classifier_must_give_one_vector_per_image() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1))
    with pytest.raises(PipelineError, match=r"one vector per image, \[n, d\], but its output is \(4, 5, 1, 1\)"):
        HeadlessEncoder(network)(IMAGES)
    embedding, logits = HeadlessEncoder(nn.Sequential(network, nn.Flatten()))(IMAGES)
    assert embedding.shape == (4, 5) and logits.shape == (4, 0)


def test_a_layer_that_sees_no_vectors_is_refused() -> None:
    with pytest.raises(PipelineError, match="one vector per image"), torch.inference_mode():
        HookedEncoder(build("test_resnet"), "layer1.0.conv1")(IMAGES)


def test_a_timm_backbone_from_a_local_checkpoint(tmp_path: Path) -> None:
    network = build("test_vit")
    save_file({f"model.{name}": value for name, value in network.state_dict().items()}, tmp_path / "w.safetensors")
    options = {"kind": "timm", "model": "test_vit", "checkpoint": str(tmp_path / "w.safetensors"), "num_classes": 7}
    options |= {"key_prefix": "model.", "image_size": 32}
    jobs.run("backbone", {"name": "vit", "options": options}, tmp_path / "vit")
    model = open_backbone(tmp_path / "vit")
    assert model.data_config["input_size"] in ([3, 32, 32], (3, 32, 32))
    assert (model.dim, model.num_classes) == (64, 7)
    with torch.inference_mode():
        torch.testing.assert_close(model(IMAGES)[1], network(IMAGES))
    assert model.manifest.facts["weights_sha256"]
    assert "timm" in model.manifest.software


def test_no_network_and_no_checkpoint_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    options = {"kind": "timm", "model": "test_vit.r160_in1k"}
    with pytest.raises(
        PipelineError, match=r"timm can't create 'test_vit\.r160_in1k': .*set checkpoint to a local file"
    ) as error:
        jobs.run("backbone", {"name": "vit", "options": options}, tmp_path / "vit")
    assert "\n" not in str(error.value)


def test_pixels_are_normalised_like_timm_does(tmp_path: Path) -> None:
    model = open_backbone(worlds.backbone(tmp_path))
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(model.data_config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        expected = model((pixels / 255 - mean) / std)
        found = model.from_pixels(pixels)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)


def test_bfloat16_keeps_logits_in_float32(tmp_path: Path) -> None:
    directory = worlds.backbone(tmp_path)
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        embedding, logits = open_backbone(directory, precision="bfloat16").from_pixels(pixels)
        exact, exact_logits = open_backbone(directory).from_pixels(pixels)
    assert embedding.dtype == torch.bfloat16
    assert logits.dtype == torch.float32
    torch.testing.assert_close(embedding.float(), exact, rtol=0.1, atol=0.05)
    torch.testing.assert_close(logits, exact_logits, rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    "nested", [{}, {"state_dict": None}, {"model": None, "epoch": 3}], ids=["plain", "lightning", "timm"]
)
def test_torch_checkpoints_are_read_wherever_the_weights_are(tmp_path: Path, nested: dict[str, Any]) -> None:
    state = {"module.a": torch.ones(2), "module.b": torch.zeros(3), "optimizer.c": torch.ones(1)}
    content: Any = {key: state if value is None else value for key, value in nested.items()} or state
    torch.save(content, tmp_path / "w.pt")
    found = read_state_dict(tmp_path / "w.pt", "module.")
    assert sorted(found) == ["a", "b"]
    with pytest.raises(PipelineError, match=r"no key starts with the key_prefix 'net\.'"):
        read_state_dict(tmp_path / "w.pt", "net.")


def test_checkpoints_from_before_batchnorm_counted_its_batches_fit() -> None:
    network = build("test_resnet")
    state = {name: value + 1 for name, value in network.state_dict().items() if "num_batches_tracked" not in name}
    load_into(network, state, Path("old.th"))
    assert all(torch.equal(network.state_dict()[name], value) for name, value in state.items())
    del state["bn1.running_mean"]
    with pytest.raises(PipelineError, match=r"old\.th doesn't fit .* such as 'bn1\.running_mean'"):
        load_into(network, state, Path("old.th"))


def test_a_classifier_that_does_not_fit_is_told_apart_from_another_network() -> None:
    network = build("test_resnet")
    state = dict(network.state_dict())
    state |= {"fc.weight": torch.ones(10, 512), "fc.bias": torch.ones(10)}
    with pytest.raises(PipelineError, match=r"set num_classes: 10 \(of fit, --num-classes 10\)"):
        load_into(network, state, Path("w.pth"))
    del state["fc.weight"], state["fc.bias"]
    with pytest.raises(PipelineError, match=r"set classifier: false \(of fit, --classifier none\)"):
        load_into(network, state, Path("w.pth"))


def test_a_checkpoint_without_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "w.pt")
    with pytest.raises(PipelineError, match=r"holds no state dict \(a mapping from names to tensors\)$"):
        read_state_dict(tmp_path / "w.pt")
    torch.save({"epoch": 1, "weights": {"a": torch.ones(1)}}, tmp_path / "w.pt")
    with pytest.raises(PipelineError, match=r"holds no state dict .*; it has epoch, weights$"):
        read_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"factory": "no_such_module:build"}, "No module named 'no_such_module'"),
        ({"factory": "my_networks:bild"}, "my_networks has no 'bild'"),
        ({"factory": "my_networks:not_a_network", "arguments": {}}, "returned int, not a torch.nn.Module"),
        ({"arguments": {"depth": 3}}, "unexpected keyword argument 'depth'"),
    ],
)
def test_faults_of_a_custom_factory_are_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    options = custom.Options.model_validate(worlds.custom_options(tmp_path) | change)
    with pytest.raises(PipelineError, match="factory '") as error:
        custom.build(options, None)
    assert expected in str(error.value)


def test_the_users_code_and_checkpoint_are_watched(tmp_path: Path) -> None:
    options = custom.Options.model_validate(worlds.custom_options(tmp_path))
    assert custom.watched_files(options) == [tmp_path / "test_resnet.safetensors", tmp_path / "my_networks.py"]


def test_modules_that_the_users_code_imports_are_watched_too(tmp_path: Path) -> None:
    options = custom.Options.model_validate(worlds.custom_options(tmp_path) | {"factory": "nets.main:build"})
    for name, text in {
        "nets/__init__.py": "",
        "nets/main.py": "import timm\nfrom . import blocks\nfrom ..nets.heads import head\ndef build(): import late",
        "nets/blocks.py": "from nets.deep import (\n    layers,\n)",
        "nets/deep/__init__.py": "from .. import main",
        "nets/deep/layers.py": "",
        "nets/heads.py": "",
        "nets/unused.py": "",
        "late.py": "this is no Python",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    found = {path.relative_to(tmp_path).as_posix() for path in custom.watched_files(options)[1:]}
    assert found == {
        *("nets/__init__.py", "nets/main.py", "nets/blocks.py", "nets/deep/__init__.py", "nets/deep/layers.py"),
        *("nets/heads.py", "late.py"),
    }


def test_every_architecture_that_timm_creates_is_known() -> None:
    assert set(timm.list_models()) <= timm_names()[0]


def test_the_weights_of_timm_are_known_without_importing_it() -> None:
    for name in timm.list_pretrained():
        assert check_architecture(name) == name
    assert len(timm_names()[1]) > 0.95 * len(timm.list_pretrained())
    assert TimmOptions.model_validate({"kind": "timm", "model": "hf-hub:owner/anything"})


@pytest.fixture(scope="module")
def training_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return worlds.glyphs(tmp_path_factory.mktemp("glyphs"), per_class={"train": 1})


def train(images: Path, output: Path, **changes: Any) -> dict[str, bytes]:
    """Train a backbone, and return the bytes of every file of the artefact."""
    options = {"kind": "trained", "architecture": "test_resnet", "image_size": 32, "epochs": 4, "batch_size": 32}
    options |= {"scale": [0.8, 1.0], "horizontal_flip": 0.0, "color_jitter": 0.0, "learning_rate": 0.005}
    spec = {"name": "small", "options": options | changes, "train_split": "train"}
    jobs.run("backbone", spec, output, upstream=images)
    return {path.name: path.read_bytes() for path in output.iterdir()}


@pytest.mark.slow
def test_training_learns(tmp_path: Path) -> None:
    images = worlds.glyphs(tmp_path, per_class={"train": 12}, difficulty=[0.0, 0.1])
    curve = [json.loads(line) for line in train(images, tmp_path / "model")["curve.jsonl"].splitlines()]
    assert [record["epoch"] for record in curve] == [0, 1, 2, 3]
    chance = math.log(62)
    assert curve[0]["loss"] > chance - 0.2, "it starts at chance"
    assert curve[-1]["loss"] < chance - 0.4
    assert curve[-1]["accuracy"] > 3 / 62


@pytest.mark.slow
def test_training_repeats_itself_also_where_it_goes_on_after_a_kill(
    training_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, trained = train(training_images, tmp_path / "whole", epochs=2), []
    train_epoch = Trainer.train_epoch

    def interrupted(self: Trainer, epoch: int, *arguments: Any) -> Record:
        trained.append(epoch)
        if trained == [0, 1]:
            raise KeyboardInterrupt
        return train_epoch(self, epoch, *arguments)

    monkeypatch.setattr(Trainer, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(training_images, tmp_path / "killed", epochs=2)
    assert train(training_images, tmp_path / "killed", epochs=2) == whole
    assert trained == [0, 1, 1] and not (tmp_path / "killed.resume").exists()


def test_a_training_that_diverges_says_so(training_images: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"training small: the loss is not finite in epoch 1, step \d; lower"):
        train(training_images, tmp_path / "model", learning_rate=1e18)


def test_damaged_weights_of_an_artefact_are_named(tmp_path: Path) -> None:
    directory = worlds.backbone(tmp_path)
    weights = directory / "weights.safetensors"
    state = load_file(weights)
    save_file({name: value + 1 for name, value in state.items()}, weights)
    with pytest.raises(ArtefactError, match=r"weights\.safetensors: damaged"):
        open_backbone(directory)
