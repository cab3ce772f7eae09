"""Bad input ends in one line that names the culprit, and leaves nothing half-made."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from pipeline_lib.__main__ import main
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.features.audit import audit
from pipeline_lib.features.cache import FeatureCache
from tests.jobs import run
from tests.namespace import in_namespace
from tests.unit import worlds
from tests.unit.worlds import block_name

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it said on stderr."""

    returncode: int
    stderr: str


def stage(name: str, *arguments: object, spec: dict[str, Any] | None = None) -> Result:
    """Run the command of a stage in this process."""
    command = [name, *map(str, arguments), *([] if spec is None else ["--spec", json.dumps(spec)])]
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        try:
            code = main(command)
        except SystemExit as error:
            code = int(str(error.code))
    return Result(code, stderr.getvalue())


def assert_one_line(result: Result | subprocess.CompletedProcess[str], *expected: str) -> None:
    """The stage failed with a single line of its own that holds all of this."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if ": error: " in line]
    for part in expected:
        assert part in line


def write_images(folder: Path, classes: int = 2, images: int = 3) -> None:
    generator = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(images):
            pixels = generator.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{number}.jpg")


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def folder_spec(data_dir: Path, **options: Any) -> dict[str, Any]:
    return {"name": "photos", "data_dir": str(data_dir), "options": {"kind": "folder", "path": "photos", **options}}


def eval_block(samples: int = 6) -> dict[str, Any]:
    return worlds.block_spec(
        dataset="photos", split="test", view={"kind": "eval"}, with_task_loss=False, samples=[0, samples], epochs=[0, 1]
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos")
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return worlds.backbone(tmp_path_factory.mktemp("model"))


def test_a_truncated_jpeg_stops_the_job_with_its_name(photos: Path, model: Path) -> None:
    truncate(photos / "photos/class1/1.jpg")
    run("dataset", folder_spec(photos), photos / "index")
    output = photos / "out" / "block"
    arguments = ("--dataset", photos / "index", "--backbone", model, "--output", output)
    result = stage("features", *arguments, spec=eval_block())
    assert_one_line(result, "class1/1.jpg", "can't be decoded", "datasets.photos.skip_unreadable")
    assert not list(photos.glob("out/*"))


@pytest.mark.parametrize("format", ["zarr", "hdf5"])
def test_a_block_without_any_readable_image_is_no_fault_when_that_is_allowed(
    photos: Path, model: Path, format: str
) -> None:
    truncate(photos / "photos/class1/2.jpg")  # the last image
    run("dataset", folder_spec(photos, skip_unreadable=1), photos / "index")
    view = photos / "view"
    spec = eval_block() | {"format": format}
    made_from = {"dataset": photos / "index", "backbone": model}
    blocks = [
        run("features", spec | {"samples": samples}, view / "blocks" / block_name(samples, (0, 1)), **made_from)
        for samples in ((0, 5), (5, 6))
    ]
    run("cache", worlds.cache_spec(spec), view / "cache", **made_from, blocks=blocks)
    assert FeatureCache(view).read_all("sample_id").tolist() == [0, 1, 2, 3, 4]
    assert FeatureCache(view).read_all("embedding").shape[0] == 5
    assert {found.fault for found in audit(view, values=True, scheduler="threads").values()} == {None}


def test_allowed_skips_are_listed_and_counted_over_all_blocks(photos: Path, model: Path) -> None:
    truncate(photos / "photos/class0/0.jpg")
    truncate(photos / "photos/class1/1.jpg")
    view = photos / "view"
    for allowed in (1, 2):
        run("dataset", folder_spec(photos, skip_unreadable=allowed), photos / "index")
        made_from = ("--dataset", photos / "index", "--backbone", model)
        blocks = [view / "blocks" / block_name(samples, (0, 1)) for samples in ((0, 3), (3, 6))]
        for samples, block in zip(((0, 3), (3, 6)), blocks, strict=True):
            spec = eval_block() | {"samples": samples}
            assert stage("features", *made_from, "--output", block, spec=spec).returncode == 0
        record = worlds.cache_spec(eval_block())
        result = stage("cache", *made_from, "--blocks", *blocks, "--output", view / "cache", spec=record)
        if allowed == 1:
            assert_one_line(result, "2 images of dataset 'photos' are unreadable", "allows 1", "class0/0.jpg")
    cache = FeatureCache(view)
    assert cache.rows == 4
    assert [entry["sample_id"] for entry in cache.manifest.facts["skipped"]] == [0, 4]
    assert cache.read_all("sample_id").tolist() == [1, 2, 3, 5]
    assert np.isfinite(cache.read_all("embedding")).all()


def test_grey_palette_transparent_and_deep_images_are_read_as_rgb(photos: Path) -> None:
    folder = photos / "photos" / "class0"
    rgb = Image.open(folder / "0.jpg").convert("RGB")
    rgb.convert("L").save(folder / "grey.png")
    rgb.convert("P").save(folder / "palette.png")
    rgb.convert("RGBA").save(folder / "transparent.png")
    rgb.convert("CMYK").save(folder / "print.jpg")
    deep = (np.asarray(rgb.convert("L")).astype(np.uint16) * 257).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    run("dataset", folder_spec(photos), photos / "index")
    images = ImageDataset(photos / "index", "test")
    read = {Path(images.location(i)).stem: images.image(i) for i in range(len(images))}
    assert {image.mode for image in read.values()} == {"RGB"}
    assert np.array_equal(np.asarray(read["grey"])[..., 0], np.asarray(rgb.convert("L")))
    assert np.array_equal(np.asarray(read["deep"])[..., 1], np.asarray(rgb.convert("L")))
    assert np.array_equal(np.asarray(read["transparent"]), np.asarray(rgb))


def test_an_empty_class_folder_is_named(photos: Path) -> None:
    (photos / "photos" / "class2").mkdir()
    result = stage("dataset", "--output", photos / "out" / "index", spec=folder_spec(photos))
    assert_one_line(result, "class2", "no images")
    assert not (photos / "out").exists()


def test_a_checkpoint_that_does_not_fit_is_named(tmp_path: Path) -> None:
    options = worlds.custom_options(tmp_path)
    options["arguments"]["num_classes"] = 10
    result = stage("backbone", "--output", tmp_path / "out" / "mine", spec={"name": "mine", "options": options})
    assert_one_line(result, options["checkpoint"], "fc.weight", "(62, 96)", "(10, 96)")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "can't be read"),
        (lambda path: path.unlink(), "no such file"),
    ],
    ids=["truncated", "missing"],
)
def test_a_broken_checkpoint_is_named(tmp_path: Path, damage: Any, expected: str) -> None:
    options = worlds.custom_options(tmp_path)
    damage(Path(options["checkpoint"]))
    result = stage("backbone", "--output", tmp_path / "out" / "mine", spec={"name": "mine", "options": options})
    assert_one_line(result, options["checkpoint"], expected)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    import pickle

    class Malicious:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (Path.touch, (tmp_path / "executed",))

    options = worlds.custom_options(tmp_path)
    checkpoint = tmp_path / "evil.th"
    checkpoint.write_bytes(pickle.dumps(Malicious()))
    options["checkpoint"] = str(checkpoint)
    result = stage("backbone", "--output", tmp_path / "out", spec={"name": "mine", "options": options})
    assert_one_line(result, "evil.th")
    assert not (tmp_path / "executed").exists()


def test_features_that_are_not_finite_name_the_image(photos: Path, tmp_path: Path) -> None:
    options = worlds.custom_options(tmp_path)
    state = load_file(options["checkpoint"])
    state["module.fc.weight"].fill_(float("inf"))
    save_file(state, options["checkpoint"])
    run("backbone", {"name": "mine", "options": options}, tmp_path / "mine")
    run("dataset", folder_spec(photos), photos / "index")
    arguments = ("--dataset", photos / "index", "--backbone", tmp_path / "mine", "--output", photos / "out" / "block")
    assert_one_line(stage("features", *arguments, spec=eval_block()), "not finite", "class0/0.jpg", "'mine'")
    assert not list(photos.glob("out/*"))


def test_a_full_disk_is_said_and_leaves_nothing(photos: Path, model: Path) -> None:
    """On a real file system of 256 kB, mounted in a namespace of its own."""
    run("dataset", folder_spec(photos), photos / "index")
    small = photos / "small"
    small.mkdir()
    spec = json.dumps(eval_block() | {"view": worlds.block_spec()["view"], "epochs": [0, 300]})
    script = (
        'mount -t tmpfs -o size=256k tmpfs "$1" || exit 77\n'
        '"$2" -m pipeline_lib features --spec "$3" --dataset "$4" --backbone "$5" --output "$1/view/block"\n'
        'code=$?; echo "left: $(find "$1" -type f | wc -l)"; exit $code\n'
    )
    result = in_namespace(script, small, sys.executable, spec, photos / "index", model, cwd=ROOT)
    assert_one_line(result, "the disk is full", "give the command again")
    assert "left: 0" in result.stdout


def test_a_read_only_results_folder_is_said(photos: Path) -> None:
    read_only = photos / "read_only"
    read_only.mkdir()
    script = 'mount --bind -o ro "$1" "$1" || exit 77; "$2" -m pipeline_lib dataset --spec "$3" --output "$1/index"'
    result = in_namespace(script, read_only, sys.executable, json.dumps(folder_spec(photos)), cwd=ROOT)
    assert_one_line(result, "Read-only file system", "read_only")


def test_a_wrong_spec_is_a_usage_error_without_a_traceback(tmp_path: Path) -> None:
    result = stage("dataset", "--output", tmp_path / "out", "--spec", "not json")
    assert result.returncode == 2
    assert "neither JSON nor a file" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_vote_table_names_the_row_whose_image_is_missing(photos: Path) -> None:
    rows = io.StringIO("path,cat,dog\nclass0/0.jpg,3,1\nclass0/none.jpg,1,1\n")
    (photos / "votes.csv").write_text(rows.read())
    options = {"kind": "table", "path": "votes.csv", "images": "photos"}
    spec = {"name": "votes", "data_dir": str(photos), "options": options}
    assert_one_line(stage("dataset", "--output", photos / "out" / "index", spec=spec), "none.jpg", "row")
    assert not (photos / "out").exists()
    shutil.rmtree(photos / "photos" / "class1")
