"""`python -m pipeline_lib score`: any images in, their uncertainties out, whatever happens on the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image

from pipeline_lib.__main__ import main
from pipeline_lib.pretrained import load
from pipeline_lib.scoring import run
from pipeline_lib.scoring.unfinished import Unfinished
from tests.unit.scoring_world import SEEDS, write_images, write_random_checkpoint, zipped

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoints") / "small")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos", 11)
    return tmp_path / "photos"


def arguments(checkpoint: Path, sources: Iterable[Path], out: Path, *more: object) -> list[str]:
    fixed = ["--checkpoint", checkpoint, "--out", out, "--batch-size", 4, "--workers", 0, "--device", "cpu"]
    return ["score", *map(str, [*sources, *fixed, *more])]


def score(checkpoint: Path, sources: Iterable[Path], out: Path, *more: object) -> pd.DataFrame:
    assert main(arguments(checkpoint, sources, out, *more)) == 0
    return pd.read_parquet(out)


def test_scores_are_those_of_the_loaded_model_image_by_image(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    table = score(checkpoint, [photos], tmp_path / "s.parquet", "--representations", tmp_path / "r.npy")
    representations = np.load(tmp_path / "r.npy")
    models = {f"uncertainty_seed{seed}": load(checkpoint, seeds=[seed]) for seed in SEEDS}
    models["uncertainty"] = load(checkpoint)
    assert list(table) == ["path", "label", *models, "rank", "error"]
    for row, path in enumerate(table["path"]):
        image = models["uncertainty"].transform(Image.open(path))[None]
        for name, model in models.items():
            with torch.inference_mode():
                representation, uncertainty = model(image)
            assert table[name][row] == pytest.approx(uncertainty.item(), rel=1e-4)
            np.testing.assert_allclose(representations[row], representation[0], rtol=1e-3, atol=1e-5)
    assert table["rank"].tolist() == table["uncertainty"].rank().tolist()
    assert table["label"].tolist() == [Path(path).parent.name for path in table["path"]]
    assert table["error"].isna().all() and len(table) == 11


def test_folder_zip_tar_and_single_files_give_the_same_scores(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    zipped(photos, tmp_path / "photos.zip")
    with tarfile.open(tmp_path / "photos.tar", "w") as file:
        file.add(photos, ".")
    expected = score(checkpoint, [photos], tmp_path / "s.parquet")
    for source in ("photos.zip", "photos.tar"):
        found = score(checkpoint, [tmp_path / source], tmp_path / "s.parquet")
        assert found["path"].str.removeprefix(f"{tmp_path}/{source}/").tolist() == [
            Path(path).relative_to(photos).as_posix() for path in expected["path"]
        ]
        columns = ["label", "uncertainty", "uncertainty_seed0", "rank"]
        pd.testing.assert_frame_equal(found[columns], expected[columns])
    single = score(checkpoint, map(Path, expected["path"]), tmp_path / "s.parquet")
    assert single["uncertainty"].tolist() == expected["uncertainty"].tolist()
    assert single["label"].isna().all()


def test_unreadable_images_keep_their_row_and_change_no_other(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = score(checkpoint, [photos], tmp_path / "s.parquet").set_index("path")
    (photos / "cat" / "0001_torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    (photos / "dog" / "empty.png").touch()
    (photos / "dog" / "link.png").symlink_to("nowhere.png")
    capsys.readouterr()
    after = score(checkpoint, [photos], tmp_path / "s.parquet", "--representations", tmp_path / "r.npy")
    error = capsys.readouterr().err
    reasons = {"torn": "can't be decoded", "empty": "is an empty file", "link": "no such image file"}
    torn = after["error"].notna()
    assert [Path(path).name for path in after["path"][torn]] == ["0001_torn.jpg", "empty.png", "link.png"]
    assert np.isnan(np.load(tmp_path / "r.npy")).any(axis=1).tolist() == torn.tolist()
    for path, reason in after.loc[torn, ["path", "error"]].to_numpy():
        assert path in reason and reason in error
        (expected,) = [text for name, text in reasons.items() if name in path]
        assert expected in reason
    assert after.loc[torn, ["uncertainty", "uncertainty_seed3", "rank"]].isna().all(axis=None)
    pd.testing.assert_series_equal(after[~torn].set_index("path")["uncertainty"], before["uncertainty"])


def test_a_killed_run_goes_on_and_writes_the_same_bytes(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "photos", 199)
    (tmp_path / "photos" / "cat" / "torn.png").touch()

    def options(folder: str) -> list[object]:
        names = {"--representations": "r.npy", "--atlas": "a.html"}
        return [option for name, file in names.items() for option in (name, tmp_path / folder / file)]

    def command(folder: str, workers: int) -> list[str]:
        given = arguments(checkpoint, [tmp_path / "photos"], tmp_path / folder / "s.parquet", *options(folder))
        given[given.index("--workers") + 1] = str(workers)
        return given

    (tmp_path / "killed").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline_lib", *command("killed", 1)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        # The bytes are the same for the same number of threads; other tests may have set that of this process.
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    first_chunk = tmp_path / "killed" / ".s.parquet.unfinished" / "000000.parquet"
    while not first_chunk.exists():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "s.parquet").exists()

    decoded: list[range] = []
    original = run.decoded_groups
    monkeypatch.setattr(
        run, "decoded_groups", lambda images, chunks, *rest: decoded.extend(chunks) or original(images, chunks, *rest)
    )
    assert main(command("killed", 0)) == 0
    assert 64 <= decoded[0].start < decoded[-1].stop == 200, "what was done is not done again"
    assert main(command("whole", 0)) == 0
    assert decoded[-4].start == 0
    files = {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir()}
    assert sorted(files) == ["a.html", "r.npy", "s.parquet"], "nothing is left over"
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}


@pytest.mark.parametrize("change", ["an image", "a setting", "nothing"])
def test_an_unfinished_run_is_continued_only_with_the_same_images_and_settings(
    change: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = write_images(tmp_path / "photos", 70)
    given = [[tmp_path / "photos"], tmp_path / "s.parquet", "--representations", tmp_path / "r.npy"]
    with monkeypatch.context() as patch:
        patch.setattr("pipeline_lib.scoring.table.write_scores", interrupted)
        assert main(arguments(checkpoint, *given)) == 1
    if change == "an image":
        shutil.copy(tmp_path / "photos" / names[1], tmp_path / "photos" / names[0])
    starts: list[int] = []
    original = run.decoded_groups
    monkeypatch.setattr(
        run,
        "decoded_groups",
        lambda images, chunks, *rest: (
            starts.append(chunks[0].start if chunks else len(images)) or original(images, chunks, *rest)
        ),
    )
    found = score(checkpoint, *given, *(["--seeds", 3] if change == "a setting" else []))
    assert starts == [70 if change == "nothing" else 0]
    assert (found["uncertainty"][0] == found["uncertainty"][1]) == (change == "an image")


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_two_runs_do_not_write_to_the_same_place(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline_lib.scoring.unfinished import Unfinished\n"
        "with Unfinished(Path(sys.argv[1]), {}, None): print('writing', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "s.parquet")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "writing\n"
        assert main(arguments(checkpoint, [photos], tmp_path / "s.parquet")) == 1
        other.stdin.close()
    assert "another run is writing there" in capsys.readouterr().err
    assert len(score(checkpoint, [photos], tmp_path / "s.parquet")) == 11


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda folder: folder / "nowhere", "nowhere: no such folder, archive or image"),
        (lambda folder: folder, "holds no images"),
        (lambda folder: write(folder / "p.tar.gz", b"x"), "compressed tar"),
        (lambda folder: write(folder / "p.zip", b"x"), "p.zip: broken or cut short"),
        (lambda folder: write(folder / "p.jpg", b"x"), "none of the 1 images can be read"),
    ],
)
def test_sources_that_hold_nothing_are_named(
    make, expected: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    assert main(arguments(checkpoint, [make(tmp_path / "in")], tmp_path / "s.parquet")) == 1
    assert expected in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("archived", [False, True])
def test_files_that_are_no_images_by_name_are_counted(
    archived: bool, checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        write(photos / "cat" / f"{number}.heic", b"x")
    zipped(photos, tmp_path / "photos.zip")
    source = tmp_path / "photos.zip" if archived else photos
    assert len(score(checkpoint, [source], tmp_path / "s.parquet")) == 11
    assert f"{source}: 5 files are no images by name (.heic: 5)\n" in capsys.readouterr().err


def test_a_table_of_another_format_is_refused(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(checkpoint, [photos], tmp_path / "s.csv")) == 1
    assert "s.csv: the table is written as Parquet; choose a name that ends in .parquet" in capsys.readouterr().err
    assert not (tmp_path / "s.csv").exists()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("one", "other"), [("--out", "--atlas"), ("--representations", "--atlas")])
def test_two_outputs_in_one_file_are_refused_before_anything_is_scored(
    one: str, other: str, checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = [one, tmp_path / "s.parquet", other, tmp_path / "." / "s.parquet"]
    out = tmp_path / ("s.parquet" if one == "--out" else "t.parquet")
    assert main(arguments(checkpoint, [photos], out, *both)) == 1
    assert f"s.parquet: is what both {one} and {other} are to be written to; name two files" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_what_systems_put_beside_pictures_is_no_image_in_archives_either(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    for folder in ("cat/@eaDir/1.jpg", "#recycle", ".trash", "__MACOSX/cat"):
        (photos / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(photos / folder / "thumbnail.jpg")
    zipped(photos, tmp_path / "photos.zip")
    found = score(checkpoint, [photos, tmp_path / "photos.zip"], tmp_path / "s.parquet")
    assert len(found) == 22 and not found["path"].str.contains("thumbnail").any()


def test_a_broken_member_gives_the_same_bytes_each_time(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    write(photos / "cat/torn.jpg", b"torn")
    zipped(photos, tmp_path / "photos.zip")
    for name in ("one", "two"):
        found = score(checkpoint, [tmp_path / "photos.zip"], tmp_path / f"{name}.parquet")
    assert "begins as none of JPEG, JPEG2000, PNG" in found["error"].dropna().item()
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_a_file_of_another_kind_is_not_overwritten(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pd.DataFrame({"path": ["mine"]}).to_parquet(tmp_path / "s.parquet")
    assert main(arguments(checkpoint, [photos], tmp_path / "s.parquet")) == 1
    assert "is not known to be a table of scores" in capsys.readouterr().err
    assert pd.read_parquet(tmp_path / "s.parquet")["path"].tolist() == ["mine"]


def test_a_backbone_of_your_own_code_is_found_by_its_function(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_scored_network.py").write_text(
        "import timm\n\n\ndef build():\n    return timm.create_model('test_resnet', num_classes=5)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    expected = score(checkpoint, [photos], tmp_path / "s.parquet")
    found = score(checkpoint, [photos], tmp_path / "s.parquet", "--backbone", "my_scored_network:build")
    np.testing.assert_allclose(found["uncertainty"], expected["uncertainty"], rtol=1e-5)


def test_representations_are_not_gathered_in_memory(tmp_path: Path) -> None:
    rows, dim, chunks = 256, 1024, 24
    whole = rows * dim * 4 * chunks
    table = pa.table({"uncertainty": np.zeros(rows, np.float32)})
    tracemalloc.start()
    with Unfinished(tmp_path / "s.parquet", {}, tmp_path / "r.npy") as unfinished:
        for chunk in range(chunks):
            values = np.full((rows, dim), chunk, np.float32)
            unfinished.keep(table, range(chunk * rows, (chunk + 1) * rows), values, rows * chunks)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        unfinished.finish()
    assert peak < whole / 6
    assert (np.load(tmp_path / "r.npy")[::rows, 0] == np.arange(chunks)).all()
    assert os.listdir(tmp_path) == ["r.npy"]  # noqa: PTH208
