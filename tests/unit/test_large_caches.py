"""Caches larger than memory: statistics, audit and scores, chunk by chunk, on every scheduler the same."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
import zarr
from threadpoolctl import threadpool_limits

from pipeline_lib.__main__ import main
from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.core.jobs import Settings
from pipeline_lib.features import audit as audit_module
from pipeline_lib.features import dask_cache, statistics, store
from pipeline_lib.features.audit import audit
from pipeline_lib.features.cache import BLOCK_STAGE, CACHE_STAGE, FeatureCache
from pipeline_lib.features.dask_cache import computing, feature_array
from pipeline_lib.features.statistics import effective_dimensions, norm_quantiles, sums_of
from pipeline_lib.heads import score_features as score_features_module
from pipeline_lib.heads.checkpoint import TrainedHead
from pipeline_lib.heads.score_features import score_features
from tests.jobs import run
from tests.unit.heads_world import stored
from tests.unit.worlds import block_name, stored_view

BLAS_THREADS = {"OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
ROWS, DIM, EPOCHS = 1000, 12, 2
SPEC = {"backbone": "mine", "dataset": "latin", "split": "train", "view": "train"}


@pytest.fixture(scope="module")
def embedding() -> np.ndarray:
    """Correlated representations with some zeros, float16 [epochs, rows, dim]."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=(EPOCHS, ROWS, DIM)) @ generator.normal(size=(DIM, DIM)) + 0.5
    values[:, ::10, 3] = 0
    return values.astype(np.float16)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory, embedding: np.ndarray) -> Path:
    return stored_view(tmp_path_factory.mktemp("results") / "view", embedding)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a dask.distributed scheduler with a worker in a process of its own, whose BLAS has two threads."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None, env=BLAS_THREADS) as local:
        yield local.scheduler_address


def write_statistics(view: Path, directory: Path, scheduler: str | None = "threads") -> None:
    run("feature_statistics", SPEC, directory, Settings(scheduler=scheduler), features=view / "cache")


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("storage", ["zarr", "hdf5"])
def test_a_dask_array_has_the_rows_of_the_cache_chunk_by_chunk(
    tmp_path: Path, embedding: np.ndarray, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    monkeypatch.setattr(dask_cache, "CHUNK_ROWS", 400)
    cache = FeatureCache(stored_view(tmp_path / "view", embedding, storage))
    array = feature_array(cache, "embedding", 1)
    assert array.chunks == ((400, 400, 200), (DIM,))
    assert array.dtype == np.float16
    with computing("threads"):
        np.testing.assert_array_equal(array.compute(), embedding[1])
        np.testing.assert_array_equal(array[250:450, 2].compute(), embedding[1, 250:450, 2])
        np.testing.assert_array_equal(feature_array(cache, "sample_id", 1).compute(), np.arange(ROWS) * 2)


def test_the_example_of_the_documentation_runs(
    view: Path, embedding: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs/large_caches.md").read_text()
    example = text.split("```python\n")[1].split("```")[0]
    exec(example.replace("results/features/resnet/latin/train/train", str(view)), {})
    assert str(embedding[0].mean(axis=0, dtype="float64")[0])[:8] in capsys.readouterr().out


def test_statistics_are_those_of_all_rows_at_once(tmp_path: Path, view: Path, embedding: np.ndarray) -> None:
    write_statistics(view, tmp_path / "out")
    facts = json.loads((tmp_path / "out/statistics.json").read_text())
    rows = embedding.reshape(-1, DIM).astype(np.float64)
    dimensions = pd.read_parquet(tmp_path / "out/dimensions.parquet")
    np.testing.assert_allclose(dimensions["mean"], rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(dimensions["std"], rows.std(axis=0), rtol=1e-9)
    np.testing.assert_allclose(dimensions["share_of_zeros"], (rows == 0).mean(axis=0))
    eigenvalues = np.linalg.eigvalsh(np.cov(rows.T, bias=True))[::-1]
    found = pd.read_parquet(tmp_path / "out/eigenvalues.parquet")["eigenvalue"]
    np.testing.assert_allclose(found, eigenvalues, rtol=1e-8)
    norms = np.linalg.norm(rows, axis=1)
    for share, value in facts["norm_quantiles"].items():
        expected = np.quantile(norms, float(share), method="inverted_cdf")
        assert value == pytest.approx(expected, rel=facts["norm_relative_error"])
    assert facts["effective_dimension"]["participation_ratio"] == pytest.approx(
        eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    )
    classes = pd.read_parquet(tmp_path / "out/classes.parquet")
    assert classes["images"].tolist() == np.bincount(np.arange(ROWS) % 7).tolist()
    assert (facts["rows"], facts["nans"], facts["classes"]) == (EPOCHS * ROWS, 0, 7)


def test_rows_with_nan_or_infinity_are_counted_and_kept_out_of_the_sums(tmp_path: Path, embedding: np.ndarray) -> None:
    broken = embedding.copy()
    broken[0, 17, [2, 5]] = np.nan
    broken[1, 500, 0] = np.inf
    write_statistics(stored_view(tmp_path / "view", broken), tmp_path / "out")
    facts = json.loads((tmp_path / "out/statistics.json").read_text())
    assert (facts["nans"], facts["infinities"], facts["rows_with_nan_or_infinity"]) == (2, 1, 2)
    rows = broken.reshape(-1, DIM).astype(np.float64)
    mean = rows[np.isfinite(rows).all(axis=1)].mean(axis=0)
    np.testing.assert_allclose(pd.read_parquet(tmp_path / "out/dimensions.parquet")["mean"], mean, rtol=1e-12)


def test_effective_dimension_is_the_number_of_equal_directions() -> None:
    flat = effective_dimensions(np.array([2.0, 2.0, 2.0, 0.0]))
    assert flat == {"participation_ratio": pytest.approx(3), "entropy": pytest.approx(3)}
    assert effective_dimensions(np.array([5.0, 0.0])) == {"participation_ratio": 1.0, "entropy": 1.0}
    assert effective_dimensions(np.zeros(3)) == {"participation_ratio": 0.0, "entropy": 0.0}


def test_norms_of_zero_are_zero() -> None:
    bins = np.zeros(1 << 16, np.int64)
    bins[0] = 3
    assert set(norm_quantiles(bins).values()) == {0.0}


def head(directory: Path, dim: int = DIM) -> Path:
    generator = np.random.default_rng(1)
    shapes = {"layers.0": (8, dim), "layers.1": (8, 8), "layers.2": (1, 8)}
    weights = {f"{name}.weight": generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights |= {f"{name}.bias": generator.normal(size=shape[0]).astype(np.float32) for name, shape in shapes.items()}
    return stored(directory, TrainedHead(3, weights, ({"loss": 1.0},)))


def uncertainty(weights: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Return the head's output, written out: linear, leaky ReLU, linear, leaky ReLU, linear, softplus."""
    for layer in (0, 1, 2):
        rows = rows @ weights[f"layers.{layer}.weight"].T.astype(np.float64) + weights[f"layers.{layer}.bias"]
        if layer < 2:
            rows = np.where(rows > 0, rows, 0.01 * rows)
    return np.logaddexp(0, rows[:, 0])


def test_scores_are_those_of_every_row_in_order(tmp_path: Path, view: Path, embedding: np.ndarray) -> None:
    from safetensors.numpy import load_file

    path = head(tmp_path / "head")
    assert main(["score_features", *map(str, ["--features", view, "--head", path, "--output", tmp_path / "out"])]) == 0
    table = pd.read_parquet(tmp_path / "out/scores.parquet")
    assert table["sample_id"].tolist() == [2 * row for row in range(ROWS)] * EPOCHS
    assert table["epoch"].tolist() == [0] * ROWS + [1] * ROWS
    expected = uncertainty(load_file(path / "head.safetensors"), embedding.reshape(-1, DIM).astype(np.float64))
    np.testing.assert_allclose(table["uncertainty"], expected, rtol=1e-4)


def test_a_head_for_another_backbone_is_refused(tmp_path: Path, view: Path) -> None:
    with pytest.raises(PipelineError, match=r"head is a head for 5 dimensions, but .*view has 12"):
        score_features(view, head(tmp_path / "head", dim=5), tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["threads", "processes", "cluster"])
def test_tasks_side_by_side_all_compute_products_in_one_thread_each(
    cluster: str, monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    for name, value in (BLAS_THREADS | {"DASK_NUM_WORKERS": "2"}).items():
        monkeypatch.setenv(name, value)

    def blas_threads(seconds: float = 0.0) -> int:
        from threadpoolctl import ThreadpoolController

        sums_of(np.ones((3, 2), np.float16))
        time.sleep(seconds)  # others begin and end meanwhile
        # NumPy's own. faiss, which another test may have loaded, brings one on OpenMP: its limit is each thread's own.
        libraries = ThreadpoolController().select(user_api="blas").lib_controllers
        return max(library.num_threads for library in libraries if library.threading_layer != "openmp")

    with threadpool_limits(2):
        with computing(cluster if scheduler == "cluster" else scheduler) as running:
            tasks = [dask.delayed(blas_threads)(seconds) for seconds in (0.05, 0.2, 0.3, 0.0, 0.1)]
            assert list(running.in_order(tasks)) == [1] * 5
        assert blas_threads() == 2, "afterwards this process has as many as before"


@pytest.mark.slow
def test_every_scheduler_gives_the_same_bytes(tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of products that are large enough for BLAS to cut them up among threads."""
    for name, value in (BLAS_THREADS | {"DASK_NUM_WORKERS": "2"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dask_cache, "CHUNK_ROWS", 400)
    embedding = np.random.default_rng(0).normal(size=(EPOCHS, ROWS, 256)).astype(np.float16)
    view = stored_view(tmp_path / "view", embedding, block_rows=600, chunk_rows=400)
    path = head(tmp_path / "head", dim=256)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster)  # what None stands for

    def computed(name: str, scheduler: str | None) -> tuple[dict[str, bytes], ...]:
        write_statistics(view, tmp_path / name / "statistics", scheduler)
        score_features(view, path, tmp_path / name / "scores", scheduler)
        assert {found.fault for found in audit(view, values=True, scheduler=scheduler).values()} == {None}
        return files_of(tmp_path / name / "statistics"), files_of(tmp_path / name / "scores")

    expected = computed("threads", "threads")
    assert computed("cluster", cluster) == computed("variable", None) == expected
    with computing("processes") as running:
        # The same processes for all: starting them is what takes long.
        for module in (statistics, score_features_module, audit_module):
            monkeypatch.setattr(module, "computing", lambda scheduler: nullcontext(running))
        assert computed("processes", "processes") == expected


@pytest.mark.slow
def test_how_a_cache_is_cut_and_stored_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cache, "CHUNK_ROWS", 400)
    embedding = np.random.default_rng(0).normal(size=(EPOCHS, ROWS, 256)).astype(np.float16)
    path, found = head(tmp_path / "head", dim=256), []
    for name, cut in {"one": {}, "other": {"storage": "hdf5", "block_rows": 170, "chunk_rows": 33}}.items():
        view = stored_view(tmp_path / name / "view", embedding, **cut)
        write_statistics(view, tmp_path / name / "statistics")
        score_features(view, path, tmp_path / name / "scores", "threads")
        found.append([files_of(tmp_path / name / "statistics"), files_of(tmp_path / name / "scores")])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [("gpu", "allowed: threads, processes, or an address"), ("tcp://127.0.0.1:9", "no dask scheduler answers at tcp")],
)
def test_a_scheduler_that_is_not_there_is_named(
    view: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str, message: str
) -> None:
    monkeypatch.setattr(dask_cache, "_ANSWER_SECONDS", 1)
    with pytest.raises(PipelineError, match=message):
        write_statistics(view, tmp_path / "out", scheduler)


def test_a_damaged_chunk_is_named_by_statistics_and_by_the_audit(tmp_path: Path, embedding: np.ndarray) -> None:
    view_dir = stored_view(tmp_path / "view", embedding)
    path = max((view_dir / "blocks").glob("*/arrays.zarr/embedding/c/0/1/0"))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtefactError, match="damaged"):
        write_statistics(view_dir, tmp_path / "out")
    faults = {folder: found.fault for folder, found in audit(tmp_path, False, "threads").items() if found.fault}
    assert len(faults) == 2  # the block, and the record that lists it
    assert all(str(path) in fault for fault in faults.values())


def test_a_block_that_could_not_be_read_does_not_make_its_record_a_damaged_one(
    tmp_path: Path, embedding: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    view_dir = stored_view(tmp_path / "view", embedding)
    block = min((view_dir / "blocks").iterdir())
    read = artefacts.read

    def fail(folder: Path, *arguments: object, **options: object) -> artefacts.Manifest:
        if folder == block:
            raise OSError(5, "Input/output error", str(folder / "manifest.json"))
        return read(folder, *arguments, **options)

    monkeypatch.setattr(artefacts, "read", fail)
    found = {folder: finding for folder, finding in audit(view_dir, False, "threads").items() if finding.fault}
    assert found.keys() == {block, view_dir / "cache"}
    assert all(finding.unread and "Input/output error" in finding.fault for finding in found.values())


def test_statistics_of_no_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = SimpleNamespace(rows=0, view_dir=tmp_path / "view")
    monkeypatch.setattr("pipeline_lib.features.statistics.FeatureCache", lambda path: nothing)
    with pytest.raises(PipelineError, match="view: holds no images"):
        write_statistics(stored_view(tmp_path / "view", np.ones((1, 5, 3), np.float16)), tmp_path / "out")


@pytest.mark.parametrize("storage", ["zarr", "hdf5"])
def test_no_rows_have_the_type_and_width_of_some(tmp_path: Path, storage: str) -> None:
    cache = FeatureCache(stored_view(tmp_path / "view", np.ones((1, 40, 3), np.float16), storage))
    for array in set(cache.arrays) - {"epoch"}:
        some, none = cache.read(array, 0, 0, 1), cache.read(array, 0, 40, 40)
        assert (none.dtype, none.shape[1:], len(none)) == (some.dtype, some.shape[1:], 0), array


@pytest.mark.parametrize("storage", ["zarr", "hdf5"])
def test_a_bit_flipped_anywhere_in_a_block_is_named_by_whoever_reads_all_of_it(tmp_path: Path, storage: str) -> None:
    view_dir = stored_view(tmp_path / "view", np.ones((1, 40, 3), np.float16), storage, 40, 16)
    (block,) = (view_dir / "blocks").iterdir()
    # Which arrays and epochs there are stands in the manifests.
    unread = {block / "arrays.zarr" / name for name in ("zarr.json", "epoch/zarr.json", "epoch/c/0")}
    for path in sorted(path for path in block.rglob("*") if path.is_file() and path not in unread):
        data = path.read_bytes()
        for position in range(0, len(data), max(1, len(data) // 20)):
            path.write_bytes(data[:position] + bytes([data[position] ^ 16]) + data[position + 1 :])
            with pytest.raises(ArtefactError, match=f"{path}: .*delete {block} and {view_dir / 'cache'} and run"):
                cache = FeatureCache(view_dir)
                for array in set(cache.arrays) - {"epoch"}:
                    cache.read_all(array)
        path.write_bytes(data)


@pytest.mark.parametrize(("before", "after"), [(b'"stage"', b'"stagf"'), (b'"rows": 300', b'"rows": 308')])
def test_a_damaged_manifest_is_named_by_the_audit_which_goes_on(
    tmp_path: Path, embedding: np.ndarray, before: bytes, after: bytes
) -> None:
    view_dir = stored_view(tmp_path / "view", embedding)
    block, *others = sorted((view_dir / "blocks").iterdir())
    data = (block / artefacts.MANIFEST).read_bytes()
    assert before in data
    (block / artefacts.MANIFEST).write_bytes(data.replace(before, after, 1))
    faults = {folder: found.fault for folder, found in audit(view_dir, False, "threads").items()}
    assert faults.keys() == {view_dir / "cache", block, *others}
    assert f"{block / artefacts.MANIFEST}: damaged" in faults.pop(block)
    assert "lists a damaged block" in faults.pop(view_dir / "cache")
    assert set(faults.values()) == {None}


def values_of(block: Path) -> dict[str, np.ndarray]:
    """Return all arrays of a block in Zarr, as zarr reads them."""
    return {name: array[...] for name, array in zarr.open_group(block / store.FILE_NAMES["zarr"], mode="r").arrays()}


def rewrite(view_dir: Path, name: str, **changed: np.ndarray) -> None:
    """Replace arrays of a block and make its manifest and the record of the view agree: only the values are wrong."""
    directory = view_dir / "blocks" / name
    manifest = artefacts.read(directory, BLOCK_STAGE)
    values = values_of(directory)
    with artefacts.writing(directory, BLOCK_STAGE, manifest.spec, manifest.inputs) as draft:
        store.write_arrays(draft.path, "zarr", values | changed, 128)
        draft.facts.update(manifest.facts)
    record = artefacts.read(view_dir / "cache", CACHE_STAGE)
    facts = json.loads(json.dumps(dict(record.facts)))
    for block in facts["blocks"]:
        block["content"] = artefacts.read(view_dir / "blocks" / block["name"]).content
    with artefacts.writing(view_dir / "cache", CACHE_STAGE, record.spec, record.inputs) as draft:
        draft.facts.update(facts)
        draft.content = record.content


@pytest.mark.slow
@pytest.mark.parametrize(
    ("array", "change", "message"),
    [
        ("class_entropy", lambda values: np.where(np.arange(300) == 41, np.nan, values), "not finite in row 41"),
        ("sample_id", lambda values: values[::-1].copy(), "'sample_id' is not strictly increasing"),
        ("sample_id", lambda values: values - 2, "which an earlier block has passed"),
        ("sample_id", lambda values: values + np.eye(1, 300, 299, dtype=np.int64)[0], "has other images than the same"),
    ],
    ids=["NaN", "order", "overlap", "other images"],
)
def test_values_that_a_block_can_not_have_are_found_though_its_checksums_are_right(
    tmp_path: Path, embedding: np.ndarray, array: str, change: Any, message: str
) -> None:
    view_dir = stored_view(tmp_path / "view", embedding)
    name = block_name((300, 600), (1, 2))
    values = values_of(view_dir / "blocks" / name)[array]
    rewrite(view_dir, name, **{array: np.asarray(change(values)).astype(values.dtype).reshape(values.shape)})
    assert {found.fault for found in audit(view_dir, False, "threads").values()} == {None}
    faults = [found.fault for found in audit(view_dir, True, "threads").values() if found.fault]
    assert faults
    assert any(message in fault and name in fault for fault in faults)


PEAK = r"""
import re, sys
from pathlib import Path
from pipeline_lib.features.audit import audit
from pipeline_lib.heads.score_features import score_features
from tests.jobs import run
view, head, out = map(Path, sys.argv[1:])
names = {name: "" for name in ("backbone", "dataset", "split", "view")}
run("feature_statistics", names, out / "statistics", features=view / "cache")
score_features(view, head, out / "scores", "threads")
assert {found.fault for found in audit(view, values=True, scheduler="threads").values()} == {None}
# Not getrusage: a child starts with its parent's peak there.
print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six times the rows, and at the peak at most a quarter of what the cache has grown by.

    How much more depends on which of the two threads' blocks happen to be in memory together: up to 10 MB were seen.
    """
    monkeypatch.setenv("DASK_NUM_WORKERS", "2")
    path = head(tmp_path / "head", dim=256)
    peaks = {}
    for rows in (25_000, 150_000):
        embedding = np.random.default_rng(0).standard_normal((1, rows, 256), np.float32).astype(np.float16)
        view_dir = stored_view(tmp_path / f"view{rows}", embedding, block_rows=12_500, chunk_rows=4096)
        command = [sys.executable, "-c", PEAK, str(view_dir), str(path), str(tmp_path / f"out{rows}")]
        peaks[rows] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    grown = (150_000 - 25_000) * 256 * 2 // 1000  # kB of float16
    assert peaks[150_000] - peaks[25_000] < grown / 4
