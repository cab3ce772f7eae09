"""The plan: what it counts is what a run makes, and it says which numbers are assumed."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline_lib.__main__ import main
from pipeline_lib.backbones import timm
from pipeline_lib.config.config import Config
from pipeline_lib.config.load import load_config, parse_config
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.spec import DatasetSpec
from pipeline_lib.features.spec import BlockSpec
from pipeline_lib.planning.extractions import Extraction, block_bytes, extractions
from pipeline_lib.planning.plan import Times, job_times, make_plan
from pipeline_lib.planning.published_sizes import published_size
from pipeline_lib.planning.split_sizes import split_sizes
from pipeline_lib.planning.widths import built_width, known_width
from pipeline_lib.stages.plan import processes
from tests.jobs import run
from tests.unit.worlds import backbone, custom_options, glyphs

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIGS = Path(__file__).parents[2] / "workflow/configs"


def world(tmp_path: Path, **features: Any) -> dict[str, Any]:
    """Return the config of 992 training images, 62 to test on, and one custom backbone."""
    characters = {"kind": "glyphs", "image_size": 32}
    return {
        "results_dir": str(tmp_path / "results"),
        "data_dir": str(tmp_path / "data"),
        "upstream": {"dataset": "latin"},
        "downstream": ["greek"],
        "datasets": {
            "latin": {**characters, "script": "latin", "per_class": {"train": 16, "test": 1}},
            "greek": {**characters, "script": "greek", "per_class": {"test": 1}},
        },
        "backbones": {"mine": custom_options(tmp_path, "test_efficientnet", classifier="classifier")},
        "variants": {"default": {}},
        "seeds": [1],
        "features": {
            "block_samples": 700,
            "block_epochs": 2,
            "chunk_rows": 500,
            "views": {"train": {"epochs": 3}, "mixup": {"epochs": 1, "policy": {"kind": "mixup"}}},
            **features,
        },
    }


def extracted(config: Config) -> list[Extraction]:
    """Return the extractions that a config needs."""
    caches = [ref for process in processes(config) for ref in process if ref.stage == "cache"]
    return extractions(config, caches, split_sizes(config, {}))


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["zarr", "hdf5"])
def test_the_planned_bytes_are_those_of_written_blocks(tmp_path: Path, storage: str) -> None:
    content = world(tmp_path, format=storage)
    content["variants"]["mixed"] = {"view": "mixup"}
    config = parse_config(content)
    latin = glyphs(tmp_path, per_class={"train": 16, "test": 1})
    mine = backbone(tmp_path, architecture="test_efficientnet", classifier="classifier")
    found = [extraction for extraction in extracted(config) if extraction.views == ("mixup",)]
    assert [extraction.samples for extraction in found] == [(700, 292)]
    planned = block_bytes(config, found[0], dim=256, extras={"mixup": 2})

    for start, stop in ((0, 700), (700, 992)):
        spec = BlockSpec.of(config, "mine", "latin", "train", "mixup", start, stop, 0, 1)
        run("features", spec.plain(), tmp_path / f"block{start}", dataset=latin, backbone=mine)
    written = sum(path.stat().st_size for path in tmp_path.glob("block*/**/*") if path.is_file())
    assert planned == pytest.approx(written, rel=0.05)


@pytest.mark.slow
def test_a_plan_measures_every_backbone_and_estimates_hours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(world(tmp_path)))
    assert main(["plan", "--config", str(path), "--seconds", "0.2", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    rows = {(row["stage"], row["backbone"]): row for row in plan["rows"]}
    train = rows["training_features", "mine"]
    assert (train["jobs"], train["images"], train["draws"]) == (2 * 2, 2 * 992, 3 * 992)
    evaluation = rows["evaluation_features", "mine"]
    assert (evaluation["jobs"], evaluation["images"], evaluation["draws"]) == (2, 62 + 48, 2 * (62 + 48))
    speed = plan["speeds"]["mine"]
    assert speed["images_per_second"] > 0
    assert speed["dim"] == 256
    assert train["hours"] > 3 * 992 / speed["images_per_second"] / 3600
    assert plan["total"]["bytes"] == train["bytes"] + evaluation["bytes"]
    assert plan["sizes"]["latin/train"] == {"images": 992, "classes": 62, "source": "drawn"}


def test_a_plan_without_hours_imports_no_torch_and_takes_little_memory() -> None:
    """What is to be known of networks is known without building them."""
    configs = [str(CONFIGS / f"{name}.yaml") for name in ("paper", "url_benchmark", "photographs", "tiny")]
    code = (
        "import sys; from pathlib import Path; from pipeline_lib.__main__ import main\n"
        "for config in sys.argv[1:]: assert main(['plan', '--config', config]) == 0\n"
        "assert not {'torch', 'timm'} & set(sys.modules), config\n"
        # Not getrusage, which begins with the peak of the process that started this one.
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code, *configs], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stderr) < 300 * 1024


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["test_resnet", "vit_tiny_patch16_224", "resnet50", "mobilenetv3_small_050"])
def test_the_widths_of_architectures_are_those_that_timm_builds(architecture: str) -> None:
    assert known_width(timm.Options(kind="timm", model=architecture)) == built_width(architecture)


def test_backbones_of_the_same_shape_are_measured_once(tmp_path: Path) -> None:
    content = world(tmp_path)
    trained = {"kind": "trained", "architecture": "test_resnet", "image_size": 32}
    content["backbones"] = {f"resnet{seed}": {**trained, "seed": seed} for seed in (1, 2)}
    config = parse_config(content)
    speeds = make_plan(config, processes(config), {}, seconds=0.1).speeds
    assert speeds["resnet1"] is speeds["resnet2"]


def test_a_size_that_nobody_knows_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = world(tmp_path)
    content["datasets"]["birds"] = {"kind": "folder", "path": "birds"}
    content["downstream"].append("birds")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    assert main(["plan", "--config", str(path), "--seconds", "0"]) == 0
    without = capsys.readouterr().out
    assert "NOT COUNTED, size unknown: the extraction of birds/test" in without

    assert main(["plan", "--config", str(path), "--seconds", "0", "--images", "birds/test=1500", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["sizes"]["birds/test"]["source"] == "given"
    evaluation = next(row for row in plan["rows"] if row["stage"] == "evaluation_features")
    assert evaluation["jobs"] == 2 + 3  # 1,500 images in blocks of 700
    assert evaluation["images"] == 62 + 48 + 1500


def test_the_list_of_an_earlier_run_counts_if_it_was_made_from_the_same_options(tmp_path: Path) -> None:
    content = world(tmp_path)
    (tmp_path / "data/birds/owl").mkdir(parents=True)
    for number in range(3):
        (tmp_path / f"data/birds/owl/{number}.png").write_bytes(b"listed, not opened")
    content["datasets"]["birds"] = {"kind": "folder", "path": "birds"}
    content["downstream"].append("birds")
    config = parse_config(content)
    assert split_sizes(config, {})["birds", "test"].source == "unknown"
    directory = tmp_path / "results/datasets/birds"
    run("dataset", DatasetSpec.of(config, "birds").plain(), directory)
    assert split_sizes(config, {})["birds", "test"].images == 3
    edited = copy.deepcopy(content)
    edited["datasets"]["birds"]["skip_unreadable"] = 1
    assert split_sizes(parse_config(edited), {})["birds", "test"].source == "unknown"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("greek/tset=3", "--images greek/tset: no job of this config reads it"),
        ("greek=3", "--images greek=3: expected NAME/SPLIT=N"),
        ("greek/test=many", "--images greek/test=many: expected NAME/SPLIT=N"),
    ],
)
def test_a_wrong_size_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], images: str, message: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(world(tmp_path)))
    assert main(["plan", "--config", str(path), "--seconds", "0", "--images", images]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("workers", "device", "hours", "device_hours", "bound"),
    [
        (0, "cpu", 3.0, 5.0, "backbone"),  # one hour of preparing, then two of the backbone on two threads
        (0, "cuda", 3.0, 3.0, "backbone"),
        (1, "cuda", 2.0, 2.0, "backbone"),  # both at once
        (1, "cpu", 2.5, 5.0, "backbone"),  # five core-hours on two cores
    ],
)
def test_hours_of_jobs(workers: int, device: str, hours: float, device_hours: float, bound: str) -> None:
    found = job_times(preparing=3600, encoding=7200, workers=workers, threads=2, cores=2, device=device)
    assert found == (hours, device_hours, bound)


def test_decoding_bounds_a_fast_backbone_until_there_are_enough_workers() -> None:
    def times(workers: int) -> Times:
        return job_times(preparing=36_000, encoding=3600, workers=workers, threads=1, cores=16, device="cuda")

    assert times(5) == (2.0, 2.0, "decoding and augmentation")
    assert times(12) == (1.0, 1.0, "backbone")
    assert times(100) == times(16)  # there are only 16 cores


def test_published_sizes_follow_the_splits_of_the_config() -> None:
    config = load_config(CONFIGS / "paper.yaml")
    sizes = {
        (dataset, split): published_size(config.datasets[dataset], split)
        for dataset, split in [("pets", "train"), ("pets", "validation"), ("resisc45", "test"), ("resisc45", "train")]
    }
    # 80 % of 3,680, the rest, the last fifth of 31,500, the first three fifths.
    assert list(sizes.values()) == [2944, 736, 6300, 18_900]
    assert published_size(config.datasets["cub"], "test") == 5924
    upstream = config.datasets["imagenet21k"]
    assert published_size(upstream, "train") + published_size(upstream, "test") == 13_151_276
    assert published_size(config.datasets["treeversity"], "nowhere") is None


def test_the_papers_world_is_cut_into_whole_chunks_and_jobs_of_minutes() -> None:
    """Seven epochs of ImageNet-21k for four backbones: 134 jobs each, of which only the last ends within a chunk."""
    config = load_config(CONFIGS / "paper.yaml")
    train = [found for found in extracted(config) if (found.dataset, found.views) == ("imagenet21k", ("train",))]
    assert [extraction.backbone for extraction in train] == list(config.backbones)
    for extraction in train:
        assert extraction.jobs == 134
        assert sum(extraction.samples) == extraction.images
        assert all(samples % config.features.chunk_rows == 0 for samples in extraction.samples[:-1])
        bare = extraction.images * 7 * (768 * 2 + 12)
        assert block_bytes(config, extraction, 768, {"train": 0}) < 1.01 * bare


def test_a_split_that_a_dataset_lacks_is_refused(tmp_path: Path) -> None:
    content = world(tmp_path)
    content["downstream"] = [{"dataset": "greek", "split": "validation"}]
    with pytest.raises(PipelineError, match="dataset 'greek' has no split 'validation'; it has test"):
        split_sizes(parse_config(content), {})
