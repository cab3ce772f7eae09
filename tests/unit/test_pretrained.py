"""Checkpoints: what is exported loads as a model that says what the pipeline cached and scored."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.numpy import load_file, save_file
from torch import nn

from pipeline_lib.backbones.artefact import open_backbone
from pipeline_lib.backbones.custom import import_factory
from pipeline_lib.checkpoints.card import model_card
from pipeline_lib.checkpoints.checkpoint import CONFIG, FILES, WEIGHTS, read_config
from pipeline_lib.checkpoints.model import rank
from pipeline_lib.config.config import Config
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.core.jobs import Ref
from pipeline_lib.heads import rank_mean
from pipeline_lib.pretrained import load
from pipeline_lib.stages import export
from pipeline_lib.stages.checkpoint_arguments import load_with_backbone
from tests.unit import pretrained_world
from tests.unit.pretrained_world import HIDDEN, R_AUROC, SEEDS, World

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., World]:
    """Makes a world at the first call with its arguments."""

    @functools.cache
    def make(kind: str, architecture: str = "test_resnet", dtype: str = "float32") -> World:
        return pretrained_world.world(tmp_path_factory.mktemp(kind), architecture, kind, dtype)

    return make


@pytest.fixture(scope="module")
def small(world_of: Callable[..., World]) -> World:
    return world_of("timm")


@pytest.fixture(scope="module")
def checkpoint(small: World) -> Path:
    return small.export()


def custom_network(world: World, kind: str) -> Callable[..., nn.Module] | None:
    """Return the function of a custom backbone, which its checkpoint asks for."""
    return import_factory("my_networks:build", str(world.root)) if kind in ("custom", "headless") else None


def pictures(world: World) -> list[Image.Image]:
    return [world.images.image(position) for position in range(len(world.images))]


@pytest.mark.parametrize(
    ("architecture", "kind", "dtype", "tolerance"),
    [
        ("test_resnet", "timm", "float32", 1e-5),
        ("test_vit", "timm", "float16", 2e-3),
        pytest.param("test_resnet", "custom", "float32", 1e-5, marks=pytest.mark.slow),
        pytest.param("test_resnet", "headless", "float32", 1e-5, marks=pytest.mark.slow),
        pytest.param("test_resnet", "ensemble", "float32", 1e-5, marks=pytest.mark.slow),
        pytest.param("test_vit", "sngp", "float32", 1e-5, marks=pytest.mark.slow),
    ],
)
def test_the_model_says_what_the_pipeline_cached_and_scored(
    world_of: Callable[..., World], architecture: str, kind: str, dtype: str, tolerance: float
) -> None:
    """In a world's own float type, of which float16 keeps three digits; whatever the batch."""
    world = world_of(kind, architecture, dtype)
    made = world.export("exported")
    for seed in SEEDS:
        model = load(made, seeds=[seed], backbone=custom_network(world, kind))
        images = torch.stack([model.transform(image) for image in pictures(world)])
        found = [model(batch) for batch in images.split(50)]
        representation, uncertainty = (torch.cat(parts) for parts in zip(*found, strict=True))
        assert representation.shape == (124, world.dim)
        scale = np.abs(world.embedding).max()
        np.testing.assert_allclose(representation, world.embedding.astype(np.float32), rtol=0, atol=tolerance * scale)
        np.testing.assert_allclose(uncertainty, world.uncertainty[seed], rtol=tolerance)


def test_cached_representations_are_scored_as_the_pipeline_scores_them(small: World, checkpoint: Path) -> None:
    model = load(checkpoint, seeds=[SEEDS[0]])
    found = model.uncertainty_of(torch.from_numpy(small.embedding))
    np.testing.assert_allclose(found, small.uncertainty[SEEDS[0]], rtol=1e-6)


def test_pixels_give_the_same_as_normalised_images(small: World, checkpoint: Path) -> None:
    model = load(checkpoint)
    some = pictures(small)[:5]
    of_images = model(torch.stack([model.transform(image) for image in some]))
    pixels = torch.stack([model.transform.pixels(image) for image in some])
    assert pixels.dtype == torch.uint8
    for found, expected in zip(model.from_pixels(pixels), of_images, strict=True):
        torch.testing.assert_close(found, expected)


def test_pixels_are_left_alone_and_are_not_taken_for_images_nor_images_for_pixels(
    small: World, checkpoint: Path
) -> None:
    model = load(checkpoint)
    pixels = torch.stack([model.transform.pixels(image) for image in pictures(small)[:2]])
    before = pixels.clone()
    model.from_pixels(pixels)
    assert torch.equal(pixels, before)
    with pytest.raises(PipelineError, match=r"normalised images, but these are torch\.uint8"):
        model(pixels)
    with pytest.raises(PipelineError, match=r"pixels are torch\.uint8, but these are torch\.float32"):
        model.from_pixels(model.transform(pictures(small)[0])[None])


def test_several_heads_are_averaged_by_their_rank_among_upstream_images(small: World, checkpoint: Path) -> None:
    model = load(checkpoint)
    found = model.uncertainty_of(torch.from_numpy(small.embedding)).numpy()
    u = np.stack([small.uncertainty[seed] for seed in SEEDS])
    share_below = (u[:, :, None] > u[:, None, :]).mean(axis=2).mean(axis=0)
    np.testing.assert_allclose(found, share_below, atol=0.01)


def test_an_images_score_does_not_depend_on_its_batch(small: World, checkpoint: Path) -> None:
    model = load(checkpoint)
    images = torch.stack([model.transform(image) for image in pictures(small)[:6]])
    together = model(images)[1]
    alone = torch.cat([model(image[None])[1] for image in images])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-6)


def test_ranks_keep_the_order_of_all_uncertainties_also_beyond_the_known_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    known = torch.rand(500, generator=generator)
    quantiles = torch.quantile(known, torch.linspace(0, 1, 1001))
    u = torch.cat([torch.rand(5000, generator=generator) * 3, torch.tensor([1e-30, 1e-6, 50.0, 1e6])])
    found = rank(u, quantiles)
    order = u.argsort()
    assert (found[order].diff() > 0)[u[order].diff() > 0].all(), "no two that differ tie"
    assert ((found > 0) & (found < 1)).all()
    np.testing.assert_allclose(rank_mean.rank(u.numpy(), quantiles.numpy()), found.numpy(), rtol=1e-14)
    torch.testing.assert_close(rank(known.median()[None], quantiles), torch.tensor([0.5]).double(), atol=0.01, rtol=0)


def test_ranks_bear_repeated_quantiles() -> None:
    quantiles = torch.tensor([0.0, 0.0, 0.5, 0.5, 0.5, 2.0, 2.0])
    found = rank(torch.tensor([0.0, 0.25, 0.5, 1.0, 2.0, 3.0]), quantiles)
    assert torch.isfinite(found).all()
    np.testing.assert_allclose(rank_mean.rank(np.float32([0, 0.25, 0.5, 1, 2, 3]), quantiles.numpy()), found.numpy())
    assert (found.diff() > 0).all()


def test_images_of_any_mode_are_read_as_the_datasets_read_them(checkpoint: Path) -> None:
    transform = load(checkpoint).transform
    grey = np.linspace(0, 255, 1024).reshape(32, 32)
    eight = transform.pixels(Image.fromarray(grey.astype(np.uint8)))
    sixteen = transform.pixels(Image.fromarray((grey * 257).astype(np.uint16)))
    assert eight.shape == (3, 32, 32)
    assert (eight.int() - sixteen.int()).abs().max() <= 1


def test_the_model_never_changes(checkpoint: Path, small: World) -> None:
    model = load(checkpoint).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.stack([model.transform(image) for image in pictures(small)[:4]]))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_bfloat16_backbones_have_float32_heads(checkpoint: Path, small: World) -> None:
    images = torch.stack([load(checkpoint).transform(image) for image in pictures(small)[:8]])
    exact = load(checkpoint, seeds=[1])(images)
    fast = load(checkpoint, seeds=[1], precision="bfloat16")(images)
    assert (fast[0].dtype, fast[1].dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(fast[1], exact[1], rtol=0.02, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["custom", "headless", "mc_dropout", "infonce"])
def test_bfloat16_backbones_say_what_the_pipeline_says_of_them(world_of: Callable[..., World], kind: str) -> None:
    world = world_of(kind)
    model = load(world.export(), seeds=[1], backbone=custom_network(world, kind), precision="bfloat16")
    pixels = torch.stack([model.transform.pixels(image) for image in pictures(world)[:8]])
    with torch.inference_mode():
        expected = open_backbone(world.root / "mine", precision="bfloat16").from_pixels(pixels)[0]
        found, uncertainty = model.from_pixels(pixels)
    assert found.dtype == expected.dtype
    # Where an image is normalised in another order, a bfloat16 rounds another way.
    assert (found.float() - expected.float()).norm() < 0.01 * expected.float().norm()
    np.testing.assert_allclose(uncertainty, world.uncertainty[1][:8], rtol=0.02)


def test_heads_alone_are_small_and_take_the_backbone_that_they_are_given(small: World, checkpoint: Path) -> None:
    alone = small.export("alone", include_backbone=False)
    assert (alone / WEIGHTS).stat().st_size < 50_000 < (checkpoint / WEIGHTS).stat().st_size
    network = network_of(small)
    images = torch.stack([load(checkpoint).transform(image) for image in pictures(small)[:4]])
    for given in (network, lambda: network):
        for found, expected in zip(load(alone, backbone=given)(images), load(checkpoint)(images), strict=True):
            torch.testing.assert_close(found, expected)


def test_heads_alone_find_their_backbone_on_timms_hub_by_itself(
    small: World, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's answer is a network made here; what is asked of it is what counts."""
    alone = small.export("from_hub", include_backbone=False)
    config = json.loads((alone / CONFIG).read_text())
    config["backbone"]["options"] |= {"model": "test_resnet.r160_in1k", "checkpoint": None}
    (alone / CONFIG).write_text(json.dumps(config))
    (alone / "manifest.json").unlink()
    create, asked, weights = timm.create_model, [], load_file(small.root / "mine" / "weights.safetensors")

    def answer(model: str, pretrained: bool, **arguments: Any) -> nn.Module:
        asked.append((model, pretrained))
        network = create("test_resnet", **arguments)
        network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        return network

    monkeypatch.setattr(timm, "create_model", answer)
    images = torch.stack([load(checkpoint).transform(image) for image in pictures(small)[:4]])
    asked.clear()
    found = load(alone)(images)
    assert asked == [("test_resnet.r160_in1k", True)]
    torch.testing.assert_close(found, load(checkpoint)(images))
    weights["layer4.0.downsample.1.weight"] *= 1.5
    with pytest.raises(PipelineError, match="of a fixed image is"):
        load(alone)  # the hub has other weights by now


class WithoutClassifier(nn.Module):
    """A network in another layout: the layers have other names, and its output is the representation itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        network.reset_classifier(0)
        self.inner = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.inner(images)


class Flattened(nn.Module):
    """A network that returns vectors by itself: the first `dim` pixels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, : self.dim]


def network_of(world: World) -> nn.Module:
    """Return the backbone of a world of kind `timm` as a network of one's own."""
    network = timm.create_model("test_resnet", num_classes=62)
    network.load_state_dict({k: torch.from_numpy(v) for k, v in load_file(world.root / "weights.safetensors").items()})
    return network


def test_heads_know_their_backbone_in_another_layout_or_precision(small: World, checkpoint: Path) -> None:
    alone = small.export("alone2", include_backbone=False)
    images = torch.rand(3, 3, 32, 32)
    expected = load(checkpoint)(images)
    other_layout = load(alone, backbone=WithoutClassifier(network_of(small)).train())
    torch.testing.assert_close(other_layout(images), expected)
    for dtype in (torch.float16, torch.bfloat16):
        representation, _ = load(alone, backbone=network_of(small).to(dtype))(images)
        assert (representation - expected[0]).norm() < 0.02 * expected[0].norm()


def test_heads_refuse_a_backbone_that_they_were_not_trained_on(small: World, checkpoint: Path) -> None:
    alone = small.export("alone4", include_backbone=False)
    with pytest.raises(
        PipelineError, match=rf"gives \(1, 5\) for one image, but .* width {small.dim}; choose .*'mine'"
    ):
        load(alone, backbone=Flattened(5))
    fine_tuned, linear_end = network_of(small), network_of(small)
    with torch.no_grad():
        fine_tuned.layer4[0].downsample[1].weight *= 1.5
    linear_end.layer4[0].act2 = nn.Identity()
    for other in (timm.create_model("test_resnet"), fine_tuned, Flattened(small.dim), linear_end):
        with pytest.raises(
            PipelineError, match=r"of a fixed image is \d+% away .* 'mine' .*\(SHA-256 [0-9a-f]{16}\."
        ) as e:
            load(alone, backbone=other)
        assert "\n" not in str(e.value)
    # Also where the checkpoint gives the weights: another network may have the same names.
    with pytest.raises(PipelineError, match="of a fixed image is"):
        load(checkpoint, backbone=linear_end)
    with pytest.raises(PipelineError, match="returned int, not a torch"):
        load(alone, backbone=lambda: 3)
    with pytest.raises(PipelineError, match=r"holds heads alone, and their backbone 'mine' is on no hub .* backbone="):
        load(alone)


def test_no_path_of_the_machine_is_in_a_checkpoint(checkpoint: Path, small: World) -> None:
    for file in (CONFIG, "README.md"):
        assert str(small.root) not in (checkpoint / file).read_text()
    assert json.loads((checkpoint / CONFIG).read_text())["backbone"]["options"]["checkpoint"] == "weights.safetensors"


def test_the_card_is_a_hugging_face_card_whose_numbers_are_those_of_metrics_csv(checkpoint: Path) -> None:
    card = ModelCard.load(checkpoint / "README.md")
    results = {(result.dataset_name, result.metric_type): result.metric_value for result in card.data.eval_results}
    assert results == {
        ("latin", "auroc_correct"): 0.75,
        ("latin", "r1"): 0.75,
        ("greek", "auroc_correct"): 0.625,
        ("greek", "r1"): 0.5,
    }
    for dataset, values in R_AUROC.items():
        spread = (max(values) - min(values)) / 2
        assert re.search(
            rf"^\| {dataset}.* \| 124 \| {np.median(values):.3f} ± {spread:.3f} \|", card.text, re.MULTILINE
        )
    assert card.data.pipeline_tag == "image-feature-extraction"
    assert load(checkpoint).card.content == card.content


def test_the_card_says_what_the_head_costs(checkpoint: Path, small: World) -> None:
    head = load(checkpoint).heads[0]
    parameters = sum(parameter.numel() for parameter in head.parameters())
    products = sum(layer.in_features * layer.out_features for layer in head.layers)
    text = (checkpoint / "README.md").read_text()
    assert f"A head has {parameters:,} parameters" in text
    assert f"{products:,} multiplications per image" in text


def test_the_card_asks_for_a_backbone_only_where_load_does(
    small: World, checkpoint: Path, world_of: Callable[..., World]
) -> None:
    with_function = world_of("custom").export()
    with pytest.raises(PipelineError, match=r"from the function 'my_networks:build' .* pass that function"):
        load(with_function)  # a name in a checkpoint never decides which code runs
    alone = small.export("alone3", include_backbone=False)
    asking = {path for path in (checkpoint, alone, with_function) if "backbone=..." in (path / "README.md").read_text()}
    assert asking == {alone, with_function}


def test_the_function_of_a_custom_backbone_gets_its_arguments_if_it_takes_them(world_of: Callable[..., World]) -> None:
    made, asked = world_of("custom").export(), []

    def build(architecture: str, num_classes: int, width: int = 1) -> nn.Module:
        asked.append((architecture, num_classes, width))
        return timm.create_model(architecture, num_classes=num_classes)

    images = torch.rand(2, 3, 32, 32)
    expected = load(made, backbone=build)(images)
    assert asked == [("test_resnet", 62, 1)]
    torch.testing.assert_close(load(made, backbone=lambda: build("test_resnet", 62))(images), expected)
    for wrong in (lambda architecture: None, 3):
        with pytest.raises(PipelineError, match=r"takes the arguments of the checkpoint, \{'architecture': ") as error:
            load(made, backbone=wrong)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("task_loss", "said", "unsaid"),
    [
        ("cross_entropy", "mistakes of the upstream", "without a classifier"),
        (None, "mistakes of the upstream", "without a classifier"),
        ("knn", "neighbours have another label, without a classifier", "mistakes"),
        ("contrastive", "without a classifier or labels", "mistakes"),
    ],
)
def test_the_card_says_what_the_uncertainty_was_learnt_from(
    checkpoint: Path, task_loss: str | None, said: str, unsaid: str
) -> None:
    config = read_config(checkpoint)
    heads = config.heads.model_copy(update={"training": {**config.heads.training, "task_loss": task_loss}})
    text = ModelCard(model_card(config.backbone, heads, None, [])).text
    assert said in text and unsaid not in text


@pytest.mark.parametrize(
    ("options", "tagged", "base_model", "asks"),
    [
        ({"kind": "timm", "model": "resnet50"}, True, None, False),
        ({"kind": "timm", "model": "resnet50.a1_in1k"}, True, "timm/resnet50.a1_in1k", False),
        ({"kind": "timm", "model": "hf-hub:me/net.v1"}, True, None, False),
        ({"kind": "timm", "model": "resnet50.a1_in1k", "checkpoint": "mine.pth"}, True, None, True),
        ({"kind": "trained", "architecture": "test_resnet"}, True, None, True),
        ({"kind": "custom", "factory": "mine:build", "checkpoint": "mine.pth"}, False, None, True),
    ],
)
def test_the_card_of_heads_alone_says_where_their_backbone_comes_from(
    checkpoint: Path, options: dict[str, Any], tagged: bool, base_model: str | None, asks: bool
) -> None:
    """A hub's model needs no tag for `load` to find it, only for the card to name its repository."""
    config = read_config(checkpoint)
    backbone = config.backbone.model_copy(update={"options": options, "included": False})
    card = ModelCard(model_card(backbone, config.heads, None, []))
    assert ("timm" in card.data.tags) == tagged
    assert card.data.base_model == base_model
    assert ("backbone=..." in card.text) == asks


def test_a_job_reads_its_backbone_each_seeds_head_the_upstream_evaluation_and_the_metrics() -> None:
    config = Config.model_validate(yaml.safe_load((ROOT / "config.yaml").read_text()))
    refs = export.inputs(config, "resnet", "default")
    model = {"backbone": "resnet", "variant": "default"}
    assert refs["backbone"] == Ref.to("backbone", backbone="resnet")
    assert refs["heads"] == [Ref.to("head", **model, seed=seed) for seed in (1, 2, 3)]
    assert refs["upstream"] == Ref.to("evaluate_heads", **model, dataset="latin", split="test")
    assert refs["metrics"] == Ref.to("metrics")
    assert refs.keys() == {entry.name for entry in export.INPUTS}
    sets = [f"{entry.dataset}/{entry.split}" for entry in export.Spec.of(config, **model).sets]
    assert sets[:2] == ["latin/test", "greek/test"] and len(sets) == 1 + len(config.downstream)


def test_equal_exports_are_equal_files(small: World, checkpoint: Path) -> None:
    again = small.export("again")
    for path in checkpoint.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_a_head_of_another_backbone_is_not_exported(small: World) -> None:
    with pytest.raises(ArtefactError, match="is the backbone 'mine', but 'other' was asked for"):
        small.export("wrong", backbone="other")
    with pytest.raises(ArtefactError, match='\'variant\' is "default", but "small" was asked for'):
        small.export("wrong", variant="small")


def test_a_single_seed_needs_no_list(small: World, checkpoint: Path) -> None:
    assert load(checkpoint, seeds=1).seeds == (1,)


def test_a_device_that_torch_does_not_know_is_named(checkpoint: Path) -> None:
    with pytest.raises(PipelineError, match="device 'gpu' is unknown to torch; allowed: auto, cpu"):
        load(checkpoint, device="gpu")


@pytest.mark.parametrize("seeds", [[7], [], [1, 1]])
def test_seeds_that_a_checkpoint_does_not_have_are_named(checkpoint: Path, seeds: list[int]) -> None:
    with pytest.raises(PipelineError, match=rf"seeds {re.escape(str(seeds))} were asked for, but it has \[3, 1\]"):
        load(checkpoint, seeds=seeds)


def damaged(checkpoint: Path, target: Path, file: str, change: Any) -> Path:
    """Copy the three files that a checkpoint needs, one of them changed."""
    target.mkdir()
    for path in (checkpoint / name for name in FILES):
        content = path.read_bytes()
        (target / path.name).write_bytes(change(content) if path.name == file else content)
    return target


def test_the_command_line_finds_a_custom_backbone_in_its_folder(world_of: Callable[..., World]) -> None:
    custom = world_of("custom")
    checkpoint = str(custom.export())
    found = load_with_backbone(checkpoint, "my_networks:build", str(custom.root))
    expected = load(checkpoint, backbone=custom_network(custom, "custom"))
    images = torch.ones(1, 3, 32, 32)
    torch.testing.assert_close(found(images), expected(images))
    with pytest.raises(PipelineError, match="--backbone MODULE:FUNCTION --code-dir FOLDER"):
        load_with_backbone(checkpoint, None, ".")


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        (WEIGHTS, lambda content: content[:-9] + b"x" * 9, r"model\.safetensors: damaged .*SHA-256"),
        (CONFIG, lambda content: content[:-9], r"config\.json: damaged \(not JSON"),
        (CONFIG, lambda content: b"{}", r"config\.json: format: this key is required"),
        (CONFIG, lambda content: content.replace(b"uncertainties/1", b"uncertainties/9"), r"config\.json: format: "),
        (CONFIG, lambda content: content.replace(b'"hidden"', b'"hiden"', 1), "hiden: unknown key|hidden: this key"),
        (CONFIG, lambda content: content.replace(b'"timm"', b'"timn"'), "kind 'timn' of backbones is unknown"),
    ],
)
def test_a_damaged_checkpoint_is_named(tmp_path: Path, checkpoint: Path, file: str, change: Any, expected: str) -> None:
    with pytest.raises(PipelineError, match=expected) as error:
        load(damaged(checkpoint, tmp_path / "damaged", file, change))
    assert "\n" not in str(error.value)


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"is no checkpoint, it has no config\.json; name a folder"):
        load(tmp_path)
    with pytest.raises(PipelineError, match="no such folder, and not the id of a repository"):
        load(tmp_path / "nothing")


def test_heads_that_do_not_fit_their_config_are_named(tmp_path: Path, checkpoint: Path) -> None:
    arrays = load_file(checkpoint / WEIGHTS)
    arrays["heads.seed3.layers.1.bias"] = np.zeros(5, np.float32)
    copy = damaged(checkpoint, tmp_path / "copy", "nothing", None)
    save_file(arrays, copy / WEIGHTS)
    config = json.loads((copy / CONFIG).read_text())
    config["weights_sha256"] = hashlib.sha256((copy / WEIGHTS).read_bytes()).hexdigest()
    (copy / CONFIG).write_text(json.dumps(config))
    with pytest.raises(PipelineError, match=rf"'layers\.1\.bias' has shape \(5,\), the network needs \({HIDDEN[1]},\)"):
        load(copy)
