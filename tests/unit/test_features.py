"""Extraction: the cached arrays are right, and how the work was cut leaves no trace in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from pipeline_lib.backbones.artefact import open_backbone
from pipeline_lib.config.deteriorations import Deteriorations, draws
from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import MANIFEST
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.core.jobs import Job, Settings
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.views import make_view
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.features.rows import digest_of_rows
from pipeline_lib.features.spec import BlockSpec
from pipeline_lib.features.store import BlockArrays
from pipeline_lib.stages import features
from tests.jobs import run
from tests.unit import worlds
from tests.unit.worlds import block_name, extract_view

CUTMIX = {**worlds.block_spec()["view"], "policy": {"kind": "cutmix", "probability": 0.5, "alpha": 1.0}}
MIXUP = {**worlds.block_spec()["view"], "policy": {"kind": "mixup", "probability": 0.5, "alpha": 1.0}}
DETERIORATIONS = {"kind": "deteriorations", "seed": 0, "draws": [draw.model_dump() for draw in draws(Deteriorations())]}
TEST = {"split": "test", "samples": [0, 62]}
ARRAYS = ("embedding", "task_loss", "class_entropy", "label_rank", "label", "sample_id")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("world")
    worlds.glyphs(directory)
    worlds.backbone(directory)
    return directory


def extract_block(spec: dict, dataset: Path, backbone: Path, directory: Path) -> None:
    run("features", spec, directory, dataset=dataset, backbone=backbone)


def content(cache: FeatureCache) -> dict[str, np.ndarray]:
    """Return every array of a cache, [epochs, rows, ...]."""
    return {
        name: np.stack([cache.read_all(name, epoch) for epoch in range(cache.epochs)])
        for name in cache.arrays
        if name != "epoch"
    }


@pytest.fixture(scope="module")
def whole(world: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """The view in one block."""
    return extract_view(world, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def reference(whole: FeatureCache) -> dict[str, np.ndarray]:
    return content(whole)


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
    run("backbone", {"name": "mine", "options": options}, tmp_path / "mine")
    extract_block(worlds.block_spec(), world / "latin", tmp_path / "mine", tmp_path / "block")
    label, label_rank = np.empty(124, np.int64), np.empty((1, 124), np.int32)
    arrays = BlockArrays(tmp_path / "block")
    arrays.read_into("label", (slice(0, 124),), label)
    arrays.read_into("label_rank", (0, slice(0, 124)), label_rank[0])
    assert label_rank[0].tolist() == label.tolist()


@pytest.mark.slow
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
    world: Path, whole: FeatureCache, reference: dict[str, np.ndarray], tmp_path: Path, cut: dict
) -> None:
    cache = extract_view(world, tmp_path, **cut)
    found = content(cache)
    for name in ARRAYS:
        assert found[name].dtype == reference[name].dtype
        assert found[name].tobytes() == reference[name].tobytes(), name
    assert (cache.manifest.content, cache.spec) == (whole.manifest.content, whole.spec)
    assert cache.manifest.derivation == whole.manifest.derivation


def arrays_of_rows(rows: slice, epochs: slice) -> dict[str, np.ndarray]:
    """Return arrays as a block of some of 30 samples and 4 epochs holds them."""
    generator = np.random.default_rng(0)
    arrays = {
        "embedding": generator.normal(size=(4, 30, 5)).astype(np.float16)[epochs, rows],
        "task_loss": generator.random((4, 30), np.float32)[epochs, rows],
        "label_rank": generator.integers(0, 9, (4, 30), np.int32)[epochs, rows],
        "label": generator.integers(0, 9, 30)[rows],
        "sample_id": np.arange(100, 130)[rows],
        "epoch": np.arange(4)[epochs],
    }
    return {name: values.copy() for name, values in arrays.items()}


def test_the_digest_of_rows_is_that_of_any_blocks_of_them() -> None:
    whole = digest_of_rows(arrays_of_rows(slice(30), slice(4)))
    cuts = [(slice(a, b), slice(c, d)) for a, b in ((0, 7), (7, 8), (8, 30)) for c, d in ((0, 3), (3, 4))]
    assert sum(digest_of_rows(arrays_of_rows(*cut)) for cut in cuts) % 2**128 == whole
    assert digest_of_rows(arrays_of_rows(slice(0), slice(4))) == 0
    assert digest_of_rows(arrays_of_rows(slice(29), slice(4))) != whole


@pytest.mark.parametrize("name", arrays_of_rows(slice(1), slice(1)))
def test_any_other_bit_gives_another_digest(name: str) -> None:
    arrays = arrays_of_rows(slice(30), slice(4))
    whole = digest_of_rows(arrays)
    data = arrays[name].reshape(-1).view(np.uint8)
    for position in (0, len(data) // 2, len(data) - 1):
        data[position] ^= 1
        assert digest_of_rows(arrays) != whole
        data[position] ^= 1
    assert digest_of_rows(arrays) == whole
    if arrays[name].ndim > 1:
        arrays[name][0, [3, 4]] = arrays[name][0, [4, 3]]
        assert digest_of_rows(arrays) != whole, "of other images"


def test_a_block_of_one_image_gives_the_same_row(world: Path, reference: dict[str, np.ndarray], tmp_path: Path) -> None:
    extract_block(worlds.block_spec(samples=[57, 58]), world / "latin", world / "mine", tmp_path / "block")
    row = np.empty((1, reference["embedding"].shape[2]), np.float16)
    BlockArrays(tmp_path / "block").read_into("embedding", (2, slice(0, 1)), row)
    assert row.tobytes() == reference["embedding"][2, 57].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "classifier"), [("test_vit", "head"), ("test_convnext", "head.fc")])
def test_other_architectures_give_the_same_bytes_for_any_block_size(
    tmp_path: Path, architecture: str, classifier: str
) -> None:
    worlds.backbone(tmp_path, architecture=architecture, classifier=classifier)
    worlds.glyphs(tmp_path)
    whole = content(extract_view(tmp_path, tmp_path / "whole", **TEST))
    cut = content(extract_view(tmp_path, tmp_path / "cut", block_samples=35, block_epochs=1, **TEST))
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
        content(cache)
    assert str(largest) in str(caught.value)


def test_a_block_of_another_run_is_refused(world: Path, tmp_path: Path) -> None:
    extract_view(world, tmp_path / "a", block_samples=100)
    block = tmp_path / "a" / "blocks" / block_name((0, 100), (0, 3))
    other = worlds.block_spec(samples=[0, 100])
    other["view"] = other["view"] | {"seed": 5}
    extract_block(other, world / "latin", world / "mine", block)
    with pytest.raises(ArtefactError, match=r"is not the block that .* recorded"):
        FeatureCache(tmp_path / "a").read("embedding", 0, 0, 1)
    with pytest.raises(ArtefactError, match="'view' is"):
        record(world, tmp_path / "a", block, block.with_name(block_name((100, 124), (0, 3))))


def record(world: Path, view_dir: Path, *blocks: Path, **made_from: Path) -> None:
    spec = worlds.cache_spec(worlds.block_spec())
    inputs = {"dataset": world / "latin", "backbone": world / "mine"} | made_from
    run("cache", spec, view_dir / "cache", **inputs, blocks=blocks)


def test_blocks_that_miss_or_repeat_images_are_refused(world: Path, tmp_path: Path) -> None:
    extract_view(world, tmp_path, block_samples=100, block_epochs=2)
    before = artefacts.read(tmp_path / "cache").content
    first, *others = sorted((tmp_path / "blocks").iterdir())
    with pytest.raises(ArtefactError, match=r"must hold the samples of epochs 0 to 2 from 0 to 124 .* are 100 to 124"):
        record(world, tmp_path, *others)
    with pytest.raises(ArtefactError, match=r"samples of epochs 0 to 2 .* there are 0 to 100, 0 to 100, 100 to 124"):
        record(world, tmp_path, first, first, *others)
    with pytest.raises(ArtefactError, match="must hold the epochs from 0 to 3 once each, but there are 0 to 2;"):
        record(world, tmp_path, *(block for block in (first, *others) if "0000-0002" in block.name))
    with pytest.raises(ArtefactError, match="lies outside of"):
        record(world, tmp_path / "elsewhere", first, *others)
    record(world, tmp_path, *others, first)
    assert artefacts.read(tmp_path / "cache").content == before


def test_blocks_of_another_dataset_or_backbone_are_refused(world: Path, tmp_path: Path) -> None:
    extract_view(world, tmp_path / "view")
    (block,) = (tmp_path / "view" / "blocks").iterdir()
    other = {"backbone": worlds.backbone(tmp_path, architecture="test_vit", classifier="head")}
    other["dataset"] = worlds.glyphs(tmp_path, seed=1)
    for name, path in other.items():
        with pytest.raises(ArtefactError, match=f"was made from another {name} than {path}"):
            record(world, tmp_path / "view", block, **{name: path})


def test_representations_that_are_not_finite_stop_the_job_and_name_the_image(world: Path, tmp_path: Path) -> None:
    options = worlds.custom_options(tmp_path)
    state = load_file(options["checkpoint"])
    state["module.fc.weight"].fill_(float("nan"))  # the last layer: representations stay finite, losses do not
    save_file(state, options["checkpoint"])
    run("backbone", {"name": "mine", "options": options}, tmp_path / "mine")
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


@pytest.mark.slow
@pytest.mark.parametrize("view_spec", [CUTMIX, MIXUP], ids=["cutmix", "mixup"])
def test_a_mixed_image_has_the_mixed_loss(world: Path, tmp_path: Path, view_spec: dict) -> None:
    """Every row against PyTorch's cross-entropy with the mixed label as a distribution over the classes."""
    changes = {"view": view_spec, "dtype": "float32", **TEST}
    found = content(extract_view(world, tmp_path / "mixed", **changes))
    images, model = ImageDataset(world / "latin", "test"), open_backbone(world / "mine")
    view = make_view(view_spec, model.data_config, images)
    assert found["partner_label"].dtype == found["label_weight"].dtype == np.float32
    assert 0.3 < (found["label_weight"] == 1).mean() < 0.7
    for epoch in range(3):
        for row in range(0, 60, 6):
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
    cut = content(extract_view(world, tmp_path / "cut", 25, 2, workers=1, **changes))
    for name in found:
        assert cut[name].tobytes() == found[name].tobytes(), name


def test_mixed_labels_are_stored_without_a_task_loss(world: Path, tmp_path: Path) -> None:
    extract_block(
        worlds.block_spec(view=CUTMIX, with_task_loss=False, samples=[0, 5]),
        world / "latin",
        world / "mine",
        tmp_path / "block",
    )
    names = {path.name for path in (tmp_path / "block/arrays.zarr").iterdir() if path.is_dir()}
    assert names == {"embedding", "class_entropy", "partner_label", "label_weight", "sample_id", "label", "epoch"}


def several(world: Path, directory: Path, workers: int = 0) -> dict[str, Job[BlockSpec]]:
    """Return the jobs of blocks of several views of the same images."""
    specs = {
        "train": {},
        "cutmix": {"view": CUTMIX, "epochs": [1, 3]},
        "eval": {"view": {"kind": "eval"}, "epochs": [0, 1]},
        "deteriorations": {"view": DETERIORATIONS, "epochs": [3, 17]},
    }
    inputs = {"dataset": (world / "latin",), "backbone": (world / "mine",)}
    return {
        name: Job(
            "features",
            BlockSpec.model_validate(worlds.block_spec(samples=[30, 71], **changes)),
            inputs,
            directory / name,
            settings=Settings(workers=workers),
        )
        for name, changes in specs.items()
    }


@pytest.fixture(scope="module")
def alone(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks of several views, extracted one by one."""
    directory = tmp_path_factory.mktemp("alone")
    for job in several(world, directory).values():
        features.run(job)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_views_extracted_together_are_the_ones_extracted_alone(
    world: Path, alone: Path, tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = several(world, tmp_path, workers)
    assert len({features.together(job.spec) for job in jobs.values()}) == 1
    features.run_together([*jobs.values()])
    assert "820 of 820 images" in capsys.readouterr().err
    for name in jobs:
        # The manifest holds the checksum of every file.
        assert (tmp_path / name / MANIFEST).read_bytes() == (alone / name / MANIFEST).read_bytes()


def test_views_extracted_together_decode_each_image_once(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    image, images = ImageDataset.image, ImageDataset(world / "latin", "train")
    monkeypatch.setattr(
        ImageDataset, "image", lambda self, position: decoded.append(self.location(position)) or image(self, position)
    )
    jobs = several(world, tmp_path)
    del jobs["cutmix"]  # decodes partners too
    features.run_together([*jobs.values()])
    assert decoded == [images.location(position) for position in range(30, 71)]


def test_blocks_of_other_images_cannot_be_extracted_together(world: Path, tmp_path: Path) -> None:
    jobs = several(world, tmp_path)
    train, others = jobs["train"], jobs["eval"]
    of_others = replace(others, spec=others.spec.model_copy(update={"samples": (30, 72)}))
    assert features.together(train.spec) != features.together(of_others.spec)
    with pytest.raises(PipelineError, match=r"'samples' is \(30, 71\) in one and \(30, 72\) in another"):
        features.run_together([train, of_others])
    with pytest.raises(PipelineError, match=r"must be of one dataset and backbone: .*train and .*eval are not"):
        features.run_together([train, replace(others, inputs=others.inputs | {"backbone": (tmp_path,)})])
