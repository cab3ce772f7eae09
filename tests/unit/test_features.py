"""Extraction: the cached arrays are right, and how the work was cut leaves no trace in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from pipeline_lib.__main__ import main
from pipeline_lib.backbones.artefact import open_backbone, write_backbone
from pipeline_lib.config.deteriorations import Deteriorations, draws
from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import MANIFEST, canonical_json
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.views import make_view
from pipeline_lib.features.blocks import block_name, block_ranges
from pipeline_lib.features.cache import FeatureCache, write_cache
from pipeline_lib.features.extract import extract_block, extract_blocks
from pipeline_lib.features.store import BlockArrays
from tests.unit import worlds

CUTMIX = {**worlds.block_spec()["view"], "policy": {"kind": "cutmix", "probability": 0.5, "alpha": 1.0}}
MIXUP = {**worlds.block_spec()["view"], "policy": {"kind": "mixup", "probability": 0.5, "alpha": 1.0}}
DETERIORATIONS = {"kind": "deteriorations", "seed": 0, "draws": draws(Deteriorations())}
ARRAYS = ("embedding", "task_loss", "class_entropy", "label_rank", "label", "sample_id")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("world")
    worlds.glyphs(directory)
    worlds.backbone(directory)
    return directory


def extract_view(
    world: Path, view_dir: Path, block_samples: int = 124, block_epochs: int = 3, workers: int = 0, **changes
) -> FeatureCache:
    """Extract a view in blocks of the given size and open it."""
    base = worlds.block_spec(**changes)
    samples, epochs = base.pop("samples")[1], base.pop("epochs")[1]
    for epoch_range in block_ranges(epochs, block_epochs):
        for sample_range in block_ranges(samples, block_samples):
            spec = {**base, "samples": list(sample_range), "epochs": list(epoch_range)}
            directory = view_dir / "blocks" / block_name(sample_range, epoch_range)
            extract_block(spec, world / spec["dataset"], world / spec["backbone"], directory, workers)
    record = {"block": base, "epochs": epochs, "block_samples": block_samples, "block_epochs": block_epochs}
    write_cache(record, world / base["dataset"], view_dir)
    return FeatureCache(view_dir)


def content(cache: FeatureCache) -> dict[str, np.ndarray]:
    """Return every array of a cache, [epochs, rows, ...]."""
    return {
        name: np.stack([cache.read_all(name, epoch) for epoch in range(cache.epochs)])
        for name in cache.arrays
        if name != "epoch"
    }


@pytest.fixture(scope="module")
def reference(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return content(extract_view(world, tmp_path_factory.mktemp("reference")))


def test_arrays_are_what_their_definitions_say(world: Path, reference: dict[str, np.ndarray]) -> None:
    """Every row, computed here one image at a time from the definitions."""
    images, model = ImageDataset(world / "latin", "train"), open_backbone(world / "mine")
    view = make_view(worlds.block_spec()["view"], model.data_config)
    assert reference["embedding"].shape == (3, 124, model.dim)
    assert reference["embedding"].dtype == np.float16
    assert reference["sample_id"][0].tolist() == images.sample_id.tolist()
    mean, std = (torch.tensor(model.data_config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    for epoch in range(3):
        for row in (0, 57, 123):
            pixels, _ = view(images.image(row), int(images.sample_id[row]), epoch)
            with torch.inference_mode():
                embedding, logits = model((pixels[None].float() / 255 - mean) / std)
            probability = logits.softmax(1)[0].double()
            label = int(images.label[row])
            assert reference["label"][epoch, row] == label
            np.testing.assert_allclose(reference["embedding"][epoch, row], embedding[0].numpy(), rtol=2e-3, atol=1e-3)
            assert reference["task_loss"][epoch, row] == pytest.approx(
                F.cross_entropy(logits, torch.tensor([label])).item(), rel=1e-4
            )
            entropy = -(probability * probability.log()).sum().item()
            assert reference["class_entropy"][epoch, row] == pytest.approx(entropy, rel=1e-4)
            assert reference["label_rank"][epoch, row] == int((logits[0] > logits[0, label]).sum())


def test_classes_with_equal_logits_rank_by_their_number_as_in_argmax(world: Path, tmp_path: Path) -> None:
    """A classifier that says the same for every class is right once in as many images as there are classes."""
    options = worlds.custom_options(tmp_path)
    weights = load_file(options["checkpoint"])
    equal = {name: value * ("fc." not in name) for name, value in weights.items()}
    save_file(equal, options["checkpoint"])
    write_backbone({"name": "mine", "options": options}, None, tmp_path / "mine")
    extract_block(worlds.block_spec(), world / "latin", tmp_path / "mine", tmp_path / "block")
    label, label_rank = np.empty(124, np.int64), np.empty((1, 124), np.int32)
    arrays = BlockArrays(tmp_path / "block")
    arrays.read_into("label", (slice(0, 124),), label)
    arrays.read_into("label_rank", (0, slice(0, 124)), label_rank[0])
    assert label_rank[0].tolist() == label.tolist()


@pytest.mark.parametrize(
    "cut",
    [
        {"block_samples": 100},
        {"block_samples": 70, "block_epochs": 2},
        {"workers": 1},
        {"workers": 4, "block_samples": 70},
        {"format": "hdf5", "block_samples": 100},
        {"chunk_rows": 7},
    ],
    ids=str,
)
def test_no_trace_of_how_the_work_was_cut(
    world: Path, reference: dict[str, np.ndarray], tmp_path: Path, cut: dict
) -> None:
    found = content(extract_view(world, tmp_path, **cut))
    for name in ARRAYS:
        assert found[name].dtype == reference[name].dtype
        assert found[name].tobytes() == reference[name].tobytes(), name


def test_a_block_of_one_image_gives_the_same_row(world: Path, reference: dict[str, np.ndarray], tmp_path: Path) -> None:
    extract_block(worlds.block_spec(samples=[57, 58]), world / "latin", world / "mine", tmp_path / "block")
    row = np.empty((1, reference["embedding"].shape[2]), np.float16)
    BlockArrays(tmp_path / "block").read_into("embedding", (2, slice(0, 1)), row)
    assert row.tobytes() == reference["embedding"][2, 57].tobytes()


@pytest.mark.parametrize(("architecture", "classifier"), [("test_vit", "head"), ("test_convnext", "head.fc")])
def test_other_architectures_give_the_same_bytes_for_any_block_size(
    tmp_path: Path, architecture: str, classifier: str
) -> None:
    worlds.backbone(tmp_path, architecture=architecture, classifier=classifier)
    worlds.glyphs(tmp_path)
    whole = content(extract_view(tmp_path, tmp_path / "whole"))
    cut = content(extract_view(tmp_path, tmp_path / "cut", block_samples=70, block_epochs=1))
    for name in ARRAYS:
        assert cut[name].tobytes() == whole[name].tobytes(), name


def test_more_epochs_only_add_rows(world: Path, reference: dict[str, np.ndarray], tmp_path: Path) -> None:
    more = content(extract_view(world, tmp_path, block_epochs=2, epochs=[0, 4]))
    assert more["embedding"][:3].tobytes() == reference["embedding"].tobytes()
    assert more["embedding"][3].tobytes() != reference["embedding"][2].tobytes()


def test_augmentations_differ_between_epochs_and_images_and_seeds(
    world: Path, reference: dict[str, np.ndarray]
) -> None:
    images = ImageDataset(world / "latin", "train")
    config = open_backbone(world / "mine").data_config
    view = make_view(worlds.block_spec()["view"], config)
    other = make_view(worlds.block_spec()["view"] | {"seed": 1}, config)
    image = images.image(0)
    draws = [view(image, 0, 0), view(image, 0, 1), view(image, 1, 0), other(image, 0, 0)]
    assert len({pixels.numpy().tobytes() for pixels, _ in draws}) == 4
    assert view(image, 0, 0)[0].equal(draws[0][0])


def test_reading_rows_across_block_borders(world: Path, reference: dict[str, np.ndarray], tmp_path: Path) -> None:
    cache = extract_view(world, tmp_path, block_samples=50)
    for start, stop in [(0, 124), (49, 51), (40, 110), (100, 124), (7, 7)]:
        assert cache.read("embedding", 1, start, stop).tobytes() == reference["embedding"][1, start:stop].tobytes()
        assert cache.read("label", 1, start, stop).tolist() == reference["label"][1, start:stop].tolist()
    for epoch, start, stop in [(3, 0, 1), (0, 0, 125), (0, -1, 1)]:
        with pytest.raises(PipelineError, match="3 epochs of 124 rows"):
            cache.read("embedding", epoch, start, stop)
    with pytest.raises(PipelineError, match="no array 'embeding'"):
        cache.read("embeding", 0, 0, 1)


@pytest.mark.parametrize("format", ["zarr", "hdf5"])
def test_a_flipped_byte_is_named_and_not_read(world: Path, tmp_path: Path, format: str) -> None:
    cache = extract_view(world, tmp_path, block_samples=100, format=format)
    block = tmp_path / "blocks" / block_name((100, 124), (0, 3))
    largest = max((path for path in block.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    cache.read("embedding", 0, 0, 100)  # the other block is whole
    with pytest.raises(ArtefactError, match="damaged") as caught:
        cache.read("embedding", 0, 0, 101)
    assert str(largest) in str(caught.value)


def test_a_block_of_another_run_is_refused(world: Path, tmp_path: Path) -> None:
    extract_view(world, tmp_path / "a", block_samples=100)
    block = tmp_path / "a" / "blocks" / block_name((0, 100), (0, 3))
    other = worlds.block_spec(samples=[0, 100])
    other["view"] = other["view"] | {"seed": 5}
    extract_block(other, world / "latin", world / "mine", block)
    with pytest.raises(ArtefactError, match=r"is not the block that .* recorded"):
        FeatureCache(tmp_path / "a").read("embedding", 0, 0, 1)
    base = worlds.block_spec()
    record = {"epochs": 3, "block_samples": 100, "block_epochs": 3}
    record["block"] = {key: value for key, value in base.items() if key not in ("samples", "epochs")}
    with pytest.raises(ArtefactError, match="'view' is"):
        write_cache(record, world / "latin", tmp_path / "a")


def test_a_classifier_of_other_classes_is_refused(world: Path, tmp_path: Path) -> None:
    worlds.backbone(tmp_path, num_classes=10)
    with pytest.raises(PipelineError, match="classifies 10 classes, but the upstream dataset 'latin' has 62"):
        extract_block(worlds.block_spec(), world / "latin", tmp_path / "mine", tmp_path / "block")


def test_representations_that_are_not_finite_stop_the_job_and_name_the_image(world: Path, tmp_path: Path) -> None:
    options = worlds.custom_options(tmp_path)
    state = load_file(options["checkpoint"])
    state["module.fc.weight"].fill_(float("nan"))  # the last layer: representations stay finite, losses do not
    save_file(state, options["checkpoint"])
    write_backbone({"name": "mine", "options": options}, None, tmp_path / "mine")
    with pytest.raises(PipelineError, match=r"'class_entropy' of backbone 'mine' is not finite .* image train/0/"):
        extract_block(worlds.block_spec(), world / "latin", tmp_path / "mine", tmp_path / "out" / "block")
    assert not (tmp_path / "out").exists()


def test_the_backbone_never_changes(world: Path) -> None:
    model = open_backbone(world / "mine")
    before = {name: value.clone() for name, value in model.encoder.network.state_dict().items()}
    model.train()
    with torch.no_grad():
        model.from_pixels(torch.randint(0, 255, (8, 3, 32, 32), dtype=torch.uint8))
    after = model.encoder.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in model.encoder.network.parameters())
    assert any("running_mean" in name for name in before), "the test needs a network with BatchNorm"


def test_centre_crop_keeps_the_drawn_share_of_the_side(world: Path) -> None:
    from PIL import Image

    config = open_backbone(world / "mine").data_config
    view = make_view({"kind": "centre_crop", "minimum": 0.1, "maximum": 0.75, "seed": 0}, config)
    # A picture whose grey value is the distance from the centre: the largest value left tells the crop.
    side = 201
    axis = np.abs(np.arange(side) - side // 2)
    distance = np.maximum(axis[:, None], axis[None, :]).astype(np.uint8)
    image = Image.fromarray(np.repeat(distance[:, :, None], 3, axis=2))
    fractions = []
    for sample_id in range(40):
        pixels, (fraction,) = view(image, sample_id, 0)
        assert 0.1 <= fraction <= 0.75
        assert pixels.max().item() == pytest.approx(fraction * side / 2, abs=4)
        fractions.append(fraction)
    assert max(fractions) - min(fractions) > 0.4
    assert view(image, 3, 0)[1] == (fractions[3],)


def test_manifests_tell_backbone_and_dataset(world: Path, tmp_path: Path) -> None:
    cache = extract_view(world, tmp_path)
    assert cache.manifest.facts["backbone"] == artefacts.file_digest(world / "mine" / MANIFEST)
    assert cache.manifest.facts["dataset"] == artefacts.file_digest(world / "latin" / MANIFEST)


@pytest.mark.parametrize("view_spec", [CUTMIX, MIXUP], ids=["cutmix", "mixup"])
def test_a_mixed_image_has_the_mixed_loss(world: Path, tmp_path: Path, view_spec: dict) -> None:
    """Every row against PyTorch's cross-entropy with the mixed label as a distribution over the classes."""
    found = content(extract_view(world, tmp_path / "mixed", view=view_spec, dtype="float32"))
    images, model = ImageDataset(world / "latin", "train"), open_backbone(world / "mine")
    view = make_view(view_spec, model.data_config, images)
    assert found["partner_label"].dtype == found["label_weight"].dtype == np.float32
    assert 0.3 < (found["label_weight"] == 1).mean() < 0.7
    for epoch in range(3):
        for row in range(0, 124, 8):
            pixels, (partner, weight) = view(images.image(row), int(images.sample_id[row]), epoch)
            assert found["partner_label"][epoch, row] == partner
            assert found["label_weight"][epoch, row] == np.float32(weight)
            with torch.inference_mode():
                _, logits = model.from_pixels(pixels[None])
            label = int(images.label[row])
            target = torch.zeros(1, 62)
            target[0, label] += weight
            target[0, int(partner)] += 1 - weight
            assert found["task_loss"][epoch, row] == pytest.approx(F.cross_entropy(logits, target).item(), rel=1e-4)
            assert found["label_rank"][epoch, row] == int((logits[0] > logits[0, label]).sum())
            if weight == 1:
                assert partner == label
    cut = content(extract_view(world, tmp_path / "cut", 50, 2, workers=1, view=view_spec, dtype="float32"))
    for name in found:
        assert cut[name].tobytes() == found[name].tobytes(), name


def test_mixed_labels_are_stored_without_a_task_loss(world: Path, tmp_path: Path) -> None:
    extract_block(
        worlds.block_spec(view=CUTMIX, with_task_loss=False, samples=[0, 5]),
        world / "latin",
        world / "mine",
        tmp_path / "block",
    )
    names = set(BlockArrays(tmp_path / "block").names)
    assert names == {"embedding", "class_entropy", "partner_label", "label_weight", "sample_id", "label", "epoch"}


def several(directory: Path) -> dict[Path, dict]:
    """Return blocks of several views of the same images."""
    shared = {"samples": [30, 71]}
    return {
        directory / "train": worlds.block_spec(**shared),
        directory / "cutmix": worlds.block_spec(**shared, view=CUTMIX, epochs=[1, 3]),
        directory / "eval": worlds.block_spec(**shared, view={"kind": "eval"}, epochs=[0, 1]),
        directory / "deteriorations": worlds.block_spec(**shared, view=DETERIORATIONS, epochs=[3, 17]),
    }


@pytest.mark.parametrize("workers", [0, 1])
def test_views_extracted_together_are_the_ones_extracted_alone(world: Path, tmp_path: Path, workers: int) -> None:
    together, alone = several(tmp_path / "together"), several(tmp_path / "alone")
    counted: list[int] = []
    extract_blocks(together, world / "latin", world / "mine", workers, counted.append)
    assert sum(counted) == 41 * (3 + 2 + 1 + 14)
    for directory, (other, spec) in zip(together, alone.items(), strict=True):
        extract_block(spec, world / "latin", world / "mine", other)
        # The manifest holds the checksum of every file.
        assert (directory / MANIFEST).read_bytes() == (other / MANIFEST).read_bytes()


def test_views_extracted_together_decode_each_image_once(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    image = ImageDataset.image
    monkeypatch.setattr(ImageDataset, "image", lambda self, position: decoded.append(position) or image(self, position))
    specs = several(tmp_path)
    del specs[tmp_path / "cutmix"]  # decodes partners too
    extract_blocks(specs, world / "latin", world / "mine")
    assert decoded == list(range(30, 71))


def test_blocks_of_other_images_cannot_be_extracted_together(world: Path, tmp_path: Path) -> None:
    specs = several(tmp_path)
    specs[tmp_path / "eval"] = worlds.block_spec(samples=[30, 72])
    with pytest.raises(PipelineError, match=r"'samples' is \[30, 71\] in one and \[30, 72\] in another"):
        extract_blocks(specs, world / "latin", world / "mine")


def test_the_stage_takes_a_spec_for_each_output(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = several(tmp_path)
    base = ["features", "--dataset", str(world / "latin"), "--backbone", str(world / "mine")]
    texts = [canonical_json(spec) for spec in specs.values()]
    outputs = [str(directory) for directory in specs]
    assert main([*base, "--spec", *texts, "--output", *outputs[:-1]]) == 1
    assert "there are 4 specs and 3 outputs; give one --output for each --spec" in capsys.readouterr().err
    assert main([*base, "--spec", *texts[:2], "--output", outputs[0], outputs[0]]) == 1
    assert "--output names a folder twice" in capsys.readouterr().err
    assert main([*base, "--spec", *texts, "--output", *outputs]) == 0
    assert "820 of 820 images" in capsys.readouterr().err
    for directory, spec in specs.items():
        assert artefacts.read(directory, "features").spec == spec
