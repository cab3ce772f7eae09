"""Heads for a network of one's own in one call: the command and the function, equal to what a config gives."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from pipeline_lib import fitting
from pipeline_lib.__main__ import main
from pipeline_lib.checkpoints.in_memory import last_linear
from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Ref
from pipeline_lib.fitting import Recipe, config_of, fit_heads
from pipeline_lib.pretrained import fit, load
from pipeline_lib.stages.graph import Graph
from tests.jobs import make

CLASSES = ("cat", "dog", "emu")
SMALL: dict[str, Any] = {"seeds": (1, 2), "epochs": 2, "steps": 20, "workers": 0, "threads": 1}
OPTIONS = ["--seeds", "1", "2", "--epochs", "2", "--steps", "20", "--workers", "0", "--threads", "1"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "my photos"
    rng = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for image in range(20):
            pixels = rng.normal(60 + 60 * number, 40, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{image}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    save_file(network().state_dict(), path)
    return path


def network(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=classes)


def section(weights: Path) -> dict[str, Any]:
    return {"kind": "timm", "model": "test_resnet", "checkpoint": str(weights), "num_classes": 3, "image_size": 32}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def command(photos: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of the command."""
    out = tmp_path_factory.mktemp("command") / "c"
    arguments = ["--model", "test_resnet", "--weights", str(weights), "--num-classes", "3", "--image-size", "32"]
    assert main(["fit", str(photos), *arguments, "--out", str(out), *OPTIONS]) == 0
    assert [path.name for path in out.parent.iterdir()] == ["c"]
    return out


@pytest.mark.slow
def test_the_checkpoint_is_that_of_a_run_with_the_same_config(
    photos: Path, weights: Path, command: Path, tmp_path: Path
) -> None:
    dataset = {"kind": "folder", "path": str(photos), "skip_unreadable": 0, "split_by": {"train": 0.8, "test": 0.2}}
    config = config_of("test_resnet", section(weights), "my_photos", dataset, Recipe(**SMALL), 48, "cross_entropy")
    graph = Graph(config, tmp_path / "results", tmp_path)
    export = Ref.to("export", backbone="test_resnet", variant="default")
    make(graph, export)
    assert files_of(graph.folder(export)) == files_of(command)


@pytest.mark.parametrize("workers", [0, 3])
def test_images_are_decoded_by_the_processes_that_were_asked_for(workers: int, tmp_path: Path) -> None:
    dataset, recipe = {"kind": "folder", "path": str(tmp_path)}, Recipe(**SMALL | {"workers": workers})
    config = config_of("net", {"kind": "timm", "model": "test_resnet"}, "mine", dataset, recipe, 48, "probe")
    assert Graph(config, tmp_path, tmp_path).job(Ref.to("dataset", dataset="mine")).settings.workers == workers


@pytest.mark.slow
def test_load_and_score_take_it(photos: Path, command: Path, tmp_path: Path) -> None:
    model = load(command)
    representation, uncertainty = model(torch.zeros(2, 3, 32, 32))
    assert model.seeds == (1, 2) and len(representation) == len(uncertainty) == 2
    assert "my_photos" in (command / "README.md").read_text()
    scores = ["score", str(photos), "--checkpoint", str(command), "--out", str(tmp_path / "s.parquet")]
    assert main([*scores, "--workers", "0", "--atlas", str(tmp_path / "a.html")]) == 0


@pytest.mark.slow
def test_a_network_in_memory_gives_the_same_heads_and_does_not_change(
    photos: Path, command: Path, tmp_path: Path
) -> None:
    given = network().train()
    before = {name: value.clone() for name, value in given.state_dict().items()}
    model = fit(given, photos, tmp_path / "c", image_size=32, **SMALL)
    assert given.training and all(torch.equal(value, before[name]) for name, value in given.state_dict().items())
    images = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(model(images), load(command)(images))
    torch.testing.assert_close(load(tmp_path / "c")(images), model(images))  # timm builds it by its name


class Mine(nn.Module):
    """A network that only this process knows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.last = nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.body(images))


@pytest.mark.slow
def test_any_network_with_images_without_labels(photos: Path, tmp_path: Path) -> None:
    """Loose files in an archive: contrastive, since nothing says what is right."""
    with zipfile.ZipFile(tmp_path / "loose.zip", "w") as archive:
        for path in sorted(photos.rglob("*.png")):
            archive.write(path, f"{path.parent.name}-{path.name}")
    given = Mine()
    assert last_linear(given, (3, 32, 32)) == "last"
    assert last_linear(given.body, (3, 32, 32)) is False
    model = fit(given, tmp_path / "loose.zip", tmp_path / "c", image_size=32, **SMALL)
    assert model.config.backbone.dim == 8 and model.config.heads.training["task_loss"] == "contrastive"
    images = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(model(images)[0], given.eval().body(images))
    torch.testing.assert_close(load(tmp_path / "c", backbone=Mine())(images), model(images))
    with pytest.raises(PipelineError, match="load\\(\\.\\.\\., backbone=\\.\\.\\.\\)"):
        load(tmp_path / "c")


@pytest.mark.slow
def test_a_call_that_was_stopped_goes_on_and_gives_the_same(
    photos: Path, weights: Path, command: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def stop_at_the_second_head(ref: Ref, left: int) -> None:
        done.append(ref.stage)
        if done.count("head") == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "_say", stop_at_the_second_head)
    with pytest.raises(KeyboardInterrupt), fitting.work_folder(tmp_path / "c", None) as folder:
        fit_heads(section(weights), photos, tmp_path / "c", Recipe(**SMALL), folder)
    assert not (tmp_path / "c").exists() and (tmp_path / ".c.fit").is_dir()
    done.clear()
    monkeypatch.setattr(fitting, "_say", lambda ref, left: done.append(ref.stage))
    with fitting.work_folder(tmp_path / "c", None) as folder:
        fit_heads(section(weights), photos, tmp_path / "c", Recipe(**SMALL), folder)
    assert done[0] == "head" and not {"dataset", "backbone", "task_loss"} & set(done)
    assert files_of(tmp_path / "c") == files_of(command)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.slow
def test_what_teaches_heads_follows_from_labels_and_classifier(
    photos: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two").mkdir()
    for name in CLASSES[:2]:
        (tmp_path / "two" / name).symlink_to(photos / name)
    rows = [f"{name}/{number}.png,{name}" for name in CLASSES for number in range(20)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    for name in CLASSES:
        (tmp_path / name).symlink_to(photos / name)
    for images, said in (("two", "2 classes; .*task loss: knn"), ("list.csv", "3 classes; .*loss: cross_entropy")):
        with fitting.work_folder(tmp_path / "c", tmp_path / "work") as folder:
            fit_heads(section(weights), tmp_path / images, tmp_path / "c", Recipe(**SMALL | {"epochs": 1}), folder)
        assert re.search(said, capsys.readouterr().out)


def test_what_lies_in_a_folder_or_archive_says_what_its_images_are(photos: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "splits").mkdir(exist_ok=True)
        (tmp_path / "splits" / split).symlink_to(photos)
    with zipfile.ZipFile(tmp_path / "classes.zip", "w") as archive:
        archive.write(photos / "cat/0.png", "cat/0.png")
    found = {
        "splits": fitting._dataset(tmp_path / "splits", Recipe(), tmp_path),
        "classes.zip": fitting._dataset(tmp_path / "classes.zip", Recipe(outputs="imagenet1k"), tmp_path),
        "loose": fitting._dataset(photos / "cat", Recipe(), tmp_path),
        "no classes": fitting._dataset(photos, Recipe(unlabelled=True), tmp_path),
    }
    assert {name: (section["kind"], labelled) for name, (section, labelled) in found.items()} == {
        "splits": ("folder", True),
        "classes.zip": ("archive", True),
        "loose": ("table", False),
        "no classes": ("table", False),
    }
    assert found["splits"][0]["splits"] == {"train": "train", "test": "val"}
    assert found["classes.zip"][0]["split_by"] == {"train": 0.8, "test": 0.2}
    assert found["classes.zip"][0]["outputs"] == "imagenet1k"
    assert len((tmp_path / "images.csv").read_text().splitlines()) == 61


def test_images_beside_train_and_test_are_said_to_be_left_out_and_thumbnails_are_none(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "test", "val"):
        shutil.copytree(photos, tmp_path / "photos" / split)
        shutil.copytree(photos / "cat", tmp_path / "photos" / split / "cat/@eaDir")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in (tmp_path / "photos").rglob("*.png"):
            archive.write(path, path.relative_to(tmp_path / "photos"))
    for source in (tmp_path / "photos", tmp_path / "photos.zip"):
        section, _ = fitting._dataset(source, Recipe(), tmp_path)
        assert section["splits"] == {"train": "train", "test": "test"}
        said = capsys.readouterr().err
        assert "those in 'test' held out; the other 60 are left out (the first: val/cat/0.png)" in said
        assert not any("@eaDir" in name for name in fitting._image_names(source))


def test_what_can_not_be_is_refused_in_one_line(
    photos: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("dear")
    (tmp_path / "few/cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "few/cat/1.png")
    shutil.copytree(photos, tmp_path / "bad")
    (tmp_path / "bad/cat/1.png").write_bytes(b"torn")
    (tmp_path / "t.csv").write_text("path,species\nbad/cat/2.png,cat\n")
    timm_model = ["--model", "test_resnet", "--weights", str(weights), "--num-classes", "3", "--image-size", "32"]
    new = ["--out", str(tmp_path / "c")]
    cases: list[tuple[list[str], str]] = [
        ([str(photos), *timm_model, "--out", str(tmp_path / "mine")], "holds files but no manifest.json of ours"),
        ([str(photos), *timm_model, "--out", str(tmp_path / "c"), "--work", str(photos)], "is no folder of results"),
        ([str(tmp_path / "few"), *timm_model, *new], "the largest has 1 images"),
        ([str(tmp_path / "nothing"), *timm_model, *new], "nothing: no such folder, archive or table of images"),
        ([str(photos), *timm_model, *new, "--classifier", "fc"], "with --model it can only be none"),
        ([str(tmp_path / "bad"), *timm_model, *new], "(of fit, --skip-unreadable N)"),
        ([str(tmp_path / "t.csv"), *timm_model, *new], "has no column 'label'; it has path, species"),
        ([str(photos), "--model", "test_resnt", *new], "did you mean 'test_resnet'?"),
        ([str(photos), "--factory", "a:b", *new], "--factory: needs --weights, --classifier, --image-size too"),
        ([str(photos), *timm_model, *new, "--task-loss", "kn"], "kn"),
        ([str(photos), *timm_model, *new, "--seeds", "1", "1"], "distinct"),
        ([str(photos), *timm_model, *new, "--epochs", "0"], "epochs"),
        ([str(photos), *timm_model, *new, "--steps", "0"], "steps"),
        ([str(photos), *timm_model, *new, "--test-share", "1.5"], "share"),
    ]
    for arguments, message in cases:
        assert main(["fit", *arguments]) == 1, arguments
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("fit: error: ") and message in said, said
    assert (tmp_path / "mine/thesis.tex").read_text() == "dear"
    assert artefacts.MANIFEST not in {path.name for path in tmp_path.iterdir()}
