"""Records of how results were made move with the results, whatever Snakemake kept before."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from snakemake.persistence.file import FilePersistence

RULES = Path(__file__).parents[2] / "workflow" / "rules"


@pytest.fixture(scope="module")
def records() -> ModuleType:
    description = importlib.util.spec_from_file_location("records", RULES / "records.py")
    module = importlib.util.module_from_spec(description)
    sys.modules["records"] = module
    description.loader.exec_module(module)
    return module


def own_name(folder: Path, output: str) -> Path:
    """Return where Snakemake itself keeps the record of an output."""
    folder.mkdir(parents=True, exist_ok=True)
    persistence = object.__new__(FilePersistence)
    persistence._max_len = None
    return Path(persistence._record_path(str(folder), output))


def record(folder: Path, output: str) -> None:
    path = own_name(folder, output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"params": [output]}))


def outputs(records: ModuleType, folder: Path) -> set[str]:
    return {str(output) for _, output in records._recorded(folder)}


@pytest.mark.parametrize("length", [5, 190, 191, 400, 900])
def test_records_have_the_names_that_snakemake_gives_them(records: ModuleType, tmp_path: Path, length: int) -> None:
    output = "results/" + "ü" + "x" * length
    path = records._record_path(tmp_path, output)
    assert path == own_name(tmp_path, output)
    assert records.named_output(path.relative_to(tmp_path)) == Path(output)


def test_what_snakemake_kept_in_its_own_folder_is_taken_over(records: ModuleType, tmp_path: Path) -> None:
    kept = tmp_path / ".snakemake/metadata"
    record(kept, "results/a.csv")
    record(kept, "results/" + "long" * 100)
    (tmp_path / "results").mkdir()
    assert records.link_records(tmp_path, tmp_path / "results") == 0
    assert kept.is_symlink()
    assert outputs(records, tmp_path / "results/records") == {"results/a.csv", "results/" + "long" * 100}


def test_another_world_in_the_same_folder_keeps_its_records_to_itself(
    records: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = Path("results"), Path("others")
    record(tmp_path / ".snakemake/metadata", "results/a.csv")
    record(tmp_path / ".snakemake/metadata", "others/b.csv")
    for results in (first, second, first):
        records.link_records(tmp_path, results)
    assert outputs(records, second / "records") == {"others/b.csv"}
    assert "results/a.csv" in outputs(records, tmp_path / ".snakemake/metadata")


def test_a_world_within_the_results_of_another_keeps_its_records_to_itself(
    records: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the ready configs, which write into results/<world>."""
    monkeypatch.chdir(tmp_path)
    outer, inner = Path("results"), Path("results/own_images")
    for name in ("metrics.csv", "own_images/metrics.csv", "own_images/tables/a.md", "own_images/logs/a.log"):
        path = outer / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for world in (outer, inner):
        (world / ".running.lock").touch()
        record(world / "records", f"{world}/metrics.csv")
    record(inner / "records", "results/own_images/tables/a.md")
    for world in (outer, inner, outer):
        assert records.link_records(tmp_path, world) == 0
    assert outputs(records, outer / "records") == {"results/metrics.csv"}
    assert outputs(records, inner / "records") == {"results/own_images/metrics.csv", "results/own_images/tables/a.md"}


def test_outputs_without_a_record_are_marked_but_not_logs_nor_the_arrays_of_an_artefact(
    records: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = ["metrics.csv", "tables/a.md", "heads/vit/manifest.json", "heads/vit/head.safetensors"]
    other = ["README.md", "logs/a.log", "benchmarks/a.tsv", "heads/vit/arrays.zarr/0", ".running.lock"]
    for name in made + other:
        path = Path("results", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    assert records.link_records(tmp_path, Path("results")) == len(made)
    assert outputs(records, Path("results/records")) == {f"results/{name}" for name in made}
    assert records.link_records(tmp_path, Path("results")) == 0
