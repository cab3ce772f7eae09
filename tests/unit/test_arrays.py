"""Anybody's arrays: every format reads alike, faults are named, neighbours are exact, numbers match plain ones."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from PIL import Image
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score, roc_curve

from pipeline_lib.arrays.evaluation import REJECTED, evaluate, rejection_curve
from pipeline_lib.arrays.figures import draw_figures, roc_points
from pipeline_lib.arrays.inputs import Inputs, nearest_neighbours, read_inputs
from pipeline_lib.arrays.page import build_page
from pipeline_lib.arrays.read import Array, read_array
from pipeline_lib.arrays.tables import build_tables
from pipeline_lib.config.evaluation import Neighbours
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.retrieval import cosine
from pipeline_lib.retrieval.search import nearest_neighbours as torch_neighbours
from pipeline_lib.retrieval.signals import combine
from pipeline_lib.tables.render import to_markdown, to_tex

KINDS = ("uncertainty", "names", "features", "labels", "neighbours", "correct", "votes", "vote_entropy", "images")


def plain_neighbours(features: np.ndarray) -> np.ndarray:
    """Return exact neighbours, one query at a time."""
    wide = features.astype(np.float64)
    norm = np.sqrt((wide * wide).sum(axis=1))
    found = []
    for row in range(len(wide)):
        norms = norm * norm[row]
        similarity = (wide * wide[row]).sum(axis=1) / np.where(norms > 0, norms, 1.0)
        similarity[row] = -np.inf
        found.append(int(np.argmax(similarity)))
    return np.array(found)


def found_neighbours(features: np.ndarray, block_rows: int = 4096) -> np.ndarray:
    return nearest_neighbours(Array("features", Path("features.npy"), features, None), block_rows)[0]


def read(**sources) -> Inputs:
    sources = {key: str(value) if isinstance(value, Path) else value for key, value in sources.items()}
    if isinstance(sources.get("uncertainty"), str):
        sources["uncertainty"] = [sources["uncertainty"]]
    return read_inputs(**(dict.fromkeys(KINDS) | sources))


def inputs_of(n: int = 400, methods: int = 2, seed: int = 0, votes: bool = True) -> Inputs:
    random = np.random.default_rng(seed)
    correct = random.random(n) < 0.7
    uncertainties = {f"u{k}": np.round(random.normal(size=n) - (k + 0.5) * correct, 1) for k in range(methods)}
    entropy = np.where(random.random(n) < 0.4, 0.0, random.random(n))
    entropy[:20] = np.nan
    return Inputs(uncertainties, correct, None, entropy if votes else None, {}, {})


@pytest.fixture
def files(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    np.save(tmp_path / "f.npy", random.normal(size=(40, 5)).astype(np.float32))
    np.save(tmp_path / "y.npy", random.integers(0, 4, 40))
    np.save(tmp_path / "u.npy", random.random(40))
    np.save(tmp_path / "ok.npy", random.random(40) < 0.5)
    return tmp_path


# Reading


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, np.bool_])
def test_every_format_gives_the_same_values(tmp_path: Path, dtype) -> None:
    values = np.random.default_rng(0).normal(size=(7, 2)) * 3
    values = values.astype(dtype)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "one.npz", scores=values)
    np.savez(tmp_path / "two.npz", scores=values, other=np.zeros(3))
    table = pd.DataFrame(values, columns=["head", "max, entropy"])
    table.to_csv(tmp_path / "a.csv", index=False)
    table.assign(extra="text").to_parquet(tmp_path / "a.parquet")
    for source in ("a.npy", "one.npz", "two.npz:scores", "a.csv"):
        np.testing.assert_array_equal(read_array(str(tmp_path / source)).values.astype(dtype), values)
    np.testing.assert_array_equal(read_array(f"{tmp_path / 'a.parquet'}:max, entropy").values, values[:, 1])
    assert read_array(str(tmp_path / "a.csv")).names == ("head", "max, entropy")


def test_columns_come_in_the_order_asked_for(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": [1, 2], "b": [3, 4], "c": [5, 6]})
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        array = read_array(f"{tmp_path / name}:c,a")
        assert array.names == ("c", "a")
        assert array.values.tolist() == [[5, 1], [6, 2]]


def test_a_csv_of_bare_numbers_has_no_header(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "t.csv", [[1.5, 2], [3, 4]], delimiter=",")
    array = read_array(str(tmp_path / "t.csv"))
    assert array.names is None
    assert array.values.tolist() == [[1.5, 2], [3, 4]]


@pytest.mark.parametrize("values", [[[0.5, 0.0], [0.0, 2.5]], [[True, False], [False, True]], [[1, 2.5], [3, 0.5]]])
def test_the_column_numbers_that_pandas_writes_are_no_image(tmp_path: Path, values: list) -> None:
    pd.DataFrame(values).to_csv(tmp_path / "t.csv", index=False)
    assert (tmp_path / "t.csv").read_text().startswith("0,1\n")
    array = read_array(str(tmp_path / "t.csv"))
    assert array.names is None
    assert array.values.tolist() == values


def test_column_numbers_above_whole_numbers_are_a_row_that_is_asked_about(tmp_path: Path) -> None:
    (tmp_path / "votes.csv").write_text("0,1\n1,0\n")
    assert read_array(str(tmp_path / "votes.csv")).values.tolist() == [[0, 1], [1, 0]]
    pd.DataFrame([2, 1, 2]).to_csv(tmp_path / "y.csv", index=False)
    np.save(tmp_path / "u.npy", np.arange(3.0))
    with pytest.raises(PipelineError, match=r"y\.csv has 4 rows, but .*u\.npy has 3; .* a header\?"):
        read(uncertainty=tmp_path / "u.npy", labels=tmp_path / "y.csv", correct=tmp_path / "u.npy")


def test_equal_numbers_in_the_first_line_are_a_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("0.0,0.0,1.5\n1.0,2.0,3.0\n")
    assert read_array(str(tmp_path / "t.csv")).values.tolist() == [[0, 0, 1.5], [1, 2, 3]]


def test_the_index_that_pandas_writes_is_no_column(tmp_path: Path) -> None:
    pd.DataFrame({"head": [1.5, 2.5]}).to_csv(tmp_path / "t.csv")
    with pytest.raises(PipelineError, match=r"column 0 has no name, as the index .*index=False"):
        read_array(str(tmp_path / "t.csv"))
    assert read_array(f"{tmp_path}/t.csv:head").values.tolist() == [1.5, 2.5]


def test_caches_of_the_reference_code_are_read(tmp_path: Path) -> None:
    embed = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)
    label = np.arange(30)[:, None] % 3
    with h5py.File(tmp_path / "cub.hdf5", "w") as file:
        file["embed"], file["label"], file["name"] = embed, label, [f"class {value}" for value in label[:, 0]]
    np.save(tmp_path / "u.npy", np.arange(30.0))
    sources = {"uncertainty": tmp_path / "u.npy", "features": f"{tmp_path}/cub.hdf5:embed"}
    inputs = read(**sources, labels=f"{tmp_path}/cub.hdf5:label")
    neighbour = plain_neighbours(embed)
    assert inputs.neighbour.tolist() == neighbour.tolist()
    assert inputs.correct.tolist() == (label[neighbour, 0] == label[:, 0]).tolist()
    assert read(**sources, labels=f"{tmp_path}/cub.hdf5:name").correct.tolist() == inputs.correct.tolist()
    with h5py.File(tmp_path / "cub.hdf5", "r+") as file:
        file["embed"][20:] = 0
    with pytest.raises(PipelineError, match=r"row 20 is all zero \(10 such rows, the last ones: .* interrupted"):
        read(**sources, labels=f"{tmp_path}/cub.hdf5:label")


def test_arrays_in_groups_of_hdf5_are_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(5, 2))
    for name in ("a.h5", "a.hdf5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["test/embed"], file["test/label"], file["train/embed"] = values, np.arange(5), np.zeros((3, 2))
        for key in ("test/embed", "/test/embed"):
            np.testing.assert_array_equal(read_array(f"{tmp_path / name}:{key}").values, values)
        with pytest.raises(PipelineError, match=r"holds 3 arrays \(test/embed, test/label, train/embed\); choose one"):
            read_array(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.tsv", "head\tclass\n0.5\ta, b\n1.5\tc\n"),
        ("t.csv", 'head,class\n0.5,"a, b"\n1.5,c\n'),
        ("t.csv", '\ufeffhead,class\r\n0.5,"a, b"\r\n1.5,c\r\n\r\n'),
        ("t.csv", "head;class\n0.5;a, b\n1.5;c\n"),
        ("t.csv", "head;class\n0,5;a, b\n1,5;c\n"),
    ],
)
def test_tables_of_all_countries_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_array(f"{tmp_path / name}:head").values.tolist() == [0.5, 1.5]
    assert read_array(f"{tmp_path / name}:class", as_text=True).values.tolist() == ["a, b", "c"]


def test_bare_numbers_with_semicolons_have_no_header(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("0,5;1\n1,5;2\n")
    array = read_array(str(tmp_path / "t.csv"))
    assert (array.values.tolist(), array.names) == ([[0.5, 1], [1.5, 2]], None)


def test_an_unquoted_comma_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "y.csv").write_text('label\ncat\n"a\nb"\ntit, blue\n')
    with pytest.raises(PipelineError, match=r"y\.csv: line 5 has 2 fields, but the first line has 1; put .* quotes"):
        read_array(f"{tmp_path}/y.csv:label", as_text=True)
    (tmp_path / "y.csv").write_text("label\ncat\n\ndog\n")
    with pytest.raises(PipelineError, match=r"y\.csv: line 3 is empty, but lines follow"):
        read_array(f"{tmp_path}/y.csv:label", as_text=True)


def test_an_index_in_parquet_is_no_column(tmp_path: Path) -> None:
    table = pd.DataFrame({"head": [1.0, 2.0]}, index=pd.Index([7, 3], name="image"))
    table.to_parquet(tmp_path / "t.parquet")
    table.rename_axis(None).to_parquet(tmp_path / "u.parquet")
    for name in ("t", "u"):
        array = read_array(str(tmp_path / f"{name}.parquet"))
        assert (array.names, array.values.tolist()) == (("head",), [1.0, 2.0])
    assert read_array(f"{tmp_path}/t.parquet:image").values.tolist() == [7, 3]


@pytest.mark.parametrize("dtype", [">i4", ">f8", ">U3"])
def test_labels_of_other_machines_are_read(files: Path, dtype: str) -> None:
    label = np.load(files / "y.npy")
    np.save(files / "big.npy", label.astype(dtype))
    found = read(uncertainty=files / "u.npy", labels=files / "big.npy", features=files / "f.npy")
    np.testing.assert_array_equal(found.correct, label[found.neighbour] == label)


def test_labels_are_trimmed(files: Path) -> None:
    np.save(files / "text.npy", np.array(["cat", " cat", "dog ", "dog"] * 10))
    inputs = read(uncertainty=files / "u.npy", labels=files / "text.npy", features=files / "f.npy")
    assert inputs.facts["classes"] == 2 and list(inputs.classes) == ["cat", "dog"]


def test_lists_in_parquet_are_features(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [[1.0, 2.0], [3.0, 4.0]], "y": [0, 1]}), tmp_path / "t.parquet")
    assert read_array(f"{tmp_path / 't.parquet'}:x").values.tolist() == [[1, 2], [3, 4]]
    pq.write_table(pa.table({"x": [[1.0, 2.0], [3.0]]}), tmp_path / "t.parquet")
    with pytest.raises(PipelineError, match="'x' must all have the same length"):
        read_array(f"{tmp_path / 't.parquet'}:x")


def test_labels_called_na_or_001_are_text(tmp_path: Path) -> None:
    (tmp_path / "y.csv").write_text("label\nNA\n001\n1\nNA\n")
    np.save(tmp_path / "u.npy", np.arange(4.0))
    np.save(tmp_path / "nn.npy", [3, 2, 1, 0])
    inputs = read(uncertainty=tmp_path / "u.npy", labels=f"{tmp_path}/y.csv:label", neighbours=tmp_path / "nn.npy")
    assert inputs.correct.tolist() == [True, False, False, True]
    assert inputs.facts == {"classes": 3, "lone_class_images": 2}


def test_npy_is_mapped_and_pickles_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    assert isinstance(read_array(str(tmp_path / "a.npy")).values, np.memmap)
    np.save(tmp_path / "o.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "o.npz", np.array([{}, []], dtype=object))
    for name in ("o.npy", "o.npz"):
        with pytest.raises(PipelineError, match=rf"{name}: can't be read .*it holds Python objects"):
            read_array(str(tmp_path / name))


def test_an_array_under_the_other_suffix_of_numpy_is_told_its_own(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones(3))
    np.savez(tmp_path / "many.npz", np.ones(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    with pytest.raises(PipelineError, match=r"one\.npz: holds one array, as a \.npy does; rename it"):
        read_array(str(tmp_path / "one.npz"))
    with pytest.raises(PipelineError, match=r"many\.npy: holds several arrays, as a \.npz does; rename it"):
        read_array(str(tmp_path / "many.npy"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.npy", None, "no.npy: no such file"),
        ("a.txt", b"1", "can't read '.txt' files; use one of .npy"),
        ("a.npy", b"", "a.npy: is an empty file"),
        ("a.npy", b"no", "a.npy: can't be read as .npy"),
        ("a.npz", b"PK nonsense", "a.npz: can't be read as .npz"),
        ("a.csv", b"", "a.csv: is an empty file"),
        ("a.csv", b"u\n", r"a.csv: is empty \(shape \[0\]\)"),
        ("a.csv", b"u\n1\nx\n", "column 'u' must hold numbers, but row 1 is 'x'"),
        ("a.csv", b"u;v\n528,17;1\n2.345,67;1\n", "column 'u' must hold numbers, but row 1 is '2.345,67'"),
        ("a.csv", b"sep=;\nu;v\n1;2\n", "begins with 'sep=;', a line for Excel alone; delete it"),
        ("a.csv", b"0,512\n0,044\n", "decimal commas, with commas between them"),
        ("a.csv", "größe\n1\n".encode("latin-1"), "can't be read as .csv: .*save it as UTF-8"),
        ("a.hdf5", b"no", "a.hdf5: not a readable HDF5 file"),
        ("a.parquet", b"PAR1", "a.parquet: can't be read as .parquet"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PipelineError, match=message):
        read_array(str(tmp_path / name))


def test_missing_keys_and_columns_are_named_with_what_there_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", features=np.zeros(3), labels=np.zeros(3))
    pd.DataFrame({"head": [1.0]}).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(PipelineError, match=r"a.npz: holds 2 arrays \(features, labels\); choose one: .*a.npz:KEY"):
        read_array(str(tmp_path / "a.npz"))
    with pytest.raises(PipelineError, match=r"holds no array 'feature'.* did you mean 'features'"):
        read_array(f"{tmp_path / 'a.npz'}:feature")
    with pytest.raises(PipelineError, match="has no column 'heat'; it has head; did you mean 'head'"):
        read_array(f"{tmp_path / 'a.csv'}:heat")


# Checking


def test_the_needed_combination_is_said(files: Path) -> None:
    for sources, found in (({}, "--uncertainty"), ({"features": files / "f.npy"}, "--features"),
                         ({"labels": files / "y.npy"}, "--labels")):  # fmt: skip
        with pytest.raises(PipelineError, match=f"--features and --labels .* or --correct .*; there is only {found}"):
            read(uncertainty=files / "u.npy", **sources)


def test_lengths_that_differ_name_both_files_and_both_lengths(files: Path) -> None:
    np.save(files / "short.npy", np.zeros(39))
    for key in ("features", "labels", "correct", "votes"):
        sources = {"correct": files / "ok.npy"} | {key: files / "short.npy"}
        with pytest.raises(PipelineError, match=r"short.npy has 39 rows, but .*u.npy has 40"):
            read(uncertainty=files / "u.npy", **sources)
    with pytest.raises(PipelineError, match=r"short.npy has 39 rows, but .*u.npy has 40"):
        read(uncertainty=[str(files / "u.npy"), str(files / "short.npy")], correct=files / "ok.npy")


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("uncertainty", [1, np.nan, 2], "x.npy: row 1 is nan; an uncertainty must be finite"),
        ("uncertainty", [[1, 2], [3, 4], [5, np.inf]], "x.npy: row 2, column 1 is inf"),
        ("uncertainty", ["a", "b", "c"], "x.npy: holds text .'a' comes first."),
        ("features", [[1, 2], [np.nan, 3], [5, 6]], "x.npy: row 1 holds NaN"),
        ("features", [1, 2, 3], r"x.npy: has shape \[3\]; features must be"),
        ("labels", [0.5, 1, 2], "x.npy: row 0 is 0.5; a label must be"),
        ("labels", [[1, 0], [0, 1], [0, 1]], r"x.npy: has shape \[3, 2\]; labels must be"),
        ("neighbours", [1, 3, 0], "x.npy: row 1 is 3; a neighbour is a row number, 0 to 2"),
        ("neighbours", [1, 1, 0], r"x.npy: row 1 is its own neighbour \(1 of 3 rows are\)"),
        ("neighbours", [1.5, 2, 0], "x.npy: row 0 is 1.5"),
        ("correct", [0, 1, 2], "x.npy: row 2 is 2; correct must be 1"),
        ("votes", [[1, 2], [3, -1], [0, 0]], "x.npy: row 1: '-1' for class 1 is no number of votes"),
        ("votes", [[1, 2], [3, np.nan], [1, 0]], "x.npy: row 1: 'nan' for class 1 is no number of votes"),
        ("votes", [[1, 2], [3, 1], [0, 0]], "x.npy: row 2: has no votes at all; leave the image out, or make .* NaN"),
        ("votes", [[1], [3], [1]], r"x.npy: has shape \[3\]; votes must be"),
        ("votes", [[np.nan, np.nan]] * 3, "x.npy: is NaN throughout, so nobody was asked"),
        ("vote_entropy", [0.1, -0.1, np.nan], "x.npy: row 1 is -0.1; an entropy is a number of 0 or more"),
        ("features", [[1, 2], [0, 0], [1, 2]], r"row 1 is all zero \(1 such rows\); a zero vector has no direction"),
        ("features", [[1, 2], [0, 0], [0, 0]], r"row 1 is all zero \(2 such rows, the last ones: was writing"),
        ("features", [[1, 2], [1e-200, 0], [3, 4]], "row 1 holds values too small to square"),
        ("labels", ["a", "", "b"], "x.npy: row 1: has no label; fill it in or delete the row"),
        ("labels", ["a", "  ", "b"], "x.npy: row 1: has no label"),
        ("images", [1, 2, 3], "x.npy: holds numbers, but images must be paths"),
        ("votes", [1, 2, 3], r"x.npy: has shape \[3\]; votes must be"),
    ],
)
def test_impossible_values_are_named(tmp_path: Path, key: str, values: list, message: str) -> None:
    good = {"uncertainty": np.arange(3.0), "features": np.eye(3), "labels": [0, 0, 1]}
    if key in ("neighbours", "correct"):
        good.pop("features")
    sources = {}
    for name, value in (good | {key: values}).items():
        path = tmp_path / ("x.npy" if name == key else f"{name}.npy")
        np.save(path, np.array(value))
        sources[name] = path
    with pytest.raises(PipelineError, match=message):
        read(**sources)


def test_uncertainties_are_named_by_file_column_or_option(files: Path) -> None:
    np.save(files / "m.npy", np.zeros((40, 2)))
    pd.DataFrame({"head": np.zeros(40), "norm": np.ones(40)}).to_csv(files / "t.csv", index=False)
    sources = [str(files / name) for name in ("u.npy", "m.npy", "t.csv")]
    assert list(read(uncertainty=sources, correct=files / "ok.npy").uncertainties) == [
        "u", "m_0", "m_1", "head", "norm",
    ]  # fmt: skip
    named = read(uncertainty=sources, names=["a", " b", "c", "d", "e"], correct=files / "ok.npy").uncertainties
    assert list(named) == ["a", "b", "c", "d", "e"]
    assert (named["e"] == 1).all()
    with pytest.raises(PipelineError, match=r"--names: 1 names \(a\) for 5 uncertainties"):
        read(uncertainty=sources, names=["a"], correct=files / "ok.npy")
    with pytest.raises(PipelineError, match="two uncertainties are called 'u'"):
        read(uncertainty=[sources[0], sources[0]], correct=files / "ok.npy")


def test_votes_have_a_column_for_each_class(files: Path) -> None:
    sources = {"uncertainty": files / "u.npy", "labels": files / "y.npy", "features": files / "f.npy"}
    np.save(files / "v.npy", np.ones((40, 3)))
    with pytest.raises(PipelineError, match=r"v\.npy: has votes for 3 classes, but the labels have 4"):
        read(**sources, votes=files / "v.npy")
    np.save(files / "v.npy", np.ones((40, 5)))  # a class without images
    assert read(**sources, votes=files / "v.npy").vote_entropy is not None


def test_votes_or_their_entropy_are_enough_for_the_agreement(files: Path) -> None:
    votes = np.random.default_rng(0).multinomial(9, [0.6, 0.3, 0.1], 40)
    share = np.sort(votes, axis=1) / 9
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(axis=1)
    np.save(files / "v.npy", votes)
    np.save(files / "h.npy", entropy)
    uncertainty = np.load(files / "u.npy")
    for known in ({"votes": files / "v.npy"}, {"vote_entropy": files / "h.npy"}):
        inputs = read(uncertainty=files / "u.npy", **known)
        report = evaluate(inputs, "demo")
        assert report.value("u", "rcorr_entropy") == pytest.approx(spearmanr(uncertainty, entropy).statistic, abs=1e-9)
        nested = json.loads(json.dumps(report.nested(), allow_nan=False))
        assert nested["uncertainties"]["u"]["voted_images"] == 40 and nested["representation"] == {}
        tables = build_tables(report)
        assert list(tables) == ["votes", "distribution"]
        page = build_page(report, tables, draw_figures(inputs.uncertainties, None, "demo"), "", {}, {})
        assert "human disagreement" in page and "Recall@1 (" not in page
        assert set(report.rows()["method"]) == {"u"}


def test_the_distance_and_each_uncertainty_with_it_stand_beside_what_was_given(files: Path) -> None:
    inputs = read(uncertainty=files / "u.npy", labels=files / "y.npy", features=files / "f.npy")
    assert list(inputs.uncertainties) == ["u", "1-NN distance", "u + distance"]
    wide = np.load(files / "f.npy").astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    distance = 1 - (wide @ wide.T - 3 * np.eye(40)).max(axis=1)
    np.testing.assert_allclose(inputs.uncertainties["1-NN distance"], distance, atol=1e-12)
    np.testing.assert_allclose(inputs.uncertainties["u + distance"], combine(distance, inputs.uncertainties["u"]))
    named = {"uncertainty": files / "u.npy", "names": ["1-NN distance"]}
    own = read(**named, labels=files / "y.npy", features=files / "f.npy").uncertainties
    np.testing.assert_array_equal(own["1-NN distance"], np.load(files / "u.npy"))
    assert list(read(uncertainty=files / "u.npy", correct=files / "ok.npy").uncertainties) == ["u"]


def test_the_worst_queries_are_shown_with_their_images(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "pictures").mkdir()
    for row in range(40):
        Image.new("RGB", (90, 60), (row, 0, 0)).save(files / "pictures" / f"{row}.png")
    pd.DataFrame({"path": [f"pictures/{row}.png" for row in range(40)]}).to_csv(files / "images.csv", index=False)
    given = {"labels": files / "y.npy", "features": files / "f.npy", "images": files / "images.csv"}
    inputs = read(uncertainty=files / "u.npy", **given)
    report = evaluate(inputs, "demo")
    uncertainty, wrong = np.load(files / "u.npy"), np.flatnonzero(~inputs.correct)
    ordered = wrong[np.argsort(uncertainty[wrong])]
    for kind, rows in (("certain", ordered), ("uncertain", ordered[::-1])):
        queries = report.worst[kind]
        assert [query.row for query in queries] == rows[:12].tolist()
        assert all(query.neighbour == inputs.neighbour[query.row] for query in queries)
        assert all(query.label != query.neighbour_label for query in queries)
        assert all(len(query.pictures) == 2 and query.pictures[0].startswith("data:image/") for query in queries)
    page = build_page(report, build_tables(report), {}, "", {}, {})
    assert report.worst["certain"][0].pictures[0] in page
    (files / "pictures" / f"{ordered[0]}.png").unlink()
    report = evaluate(inputs, "demo")
    said = f"pictures/{ordered[0]}.png: no such image file; the report shows the query without it"
    assert said in capsys.readouterr().err
    assert report.worst["certain"][0].pictures[0] == ""
    assert "(can't be read)" in build_page(report, build_tables(report), {}, "", {}, {})


def test_intervals_resample_classes_where_there_are_ten_and_say_so(files: Path) -> None:
    sources = {"uncertainty": files / "u.npy", "features": files / "f.npy"}
    np.save(files / "many.npy", np.arange(40) % 10)
    for labels, said in (("many.npy", "whole classes (10)"), ("y.npy", "images")):
        report = evaluate(read(**sources, labels=files / labels), "demo")
        assert report.resampled == said
        tables = build_tables(report)
        assert all(f"over {said}" in tables[name].caption or f"of {said}" in tables[name].caption
                   for name in ("summary", "differences"))  # fmt: skip
        assert f"resamples of {said}" in build_page(report, tables, {}, "", {}, {})
        assert tables["classes"].values["uncertainty"].nunique() == 3


def test_zeros_at_the_end_of_an_uncertainty_are_noted() -> None:
    inputs = inputs_of(methods=1)
    cut = np.abs(inputs.uncertainties["u0"]) + 1
    cut[390:] = 0
    report = evaluate(Inputs({"u": cut}, inputs.correct, None, None, {}, {}), "demo")
    assert any("u is 0 for the last 10 images and for no other: was writing it interrupted" in n for n in report.notes)


def test_vote_entropy_is_that_of_each_row(files: Path) -> None:
    random = np.random.default_rng(0)
    votes = random.integers(0, 5, (40, 3))
    votes[votes.sum(axis=1) == 0] = 1
    votes = votes.astype(float)
    votes[3], votes[4], votes[5] = np.nan, [7, 0, 0], [0, 0, 2]
    np.save(files / "v.npy", votes)
    entropy = read(uncertainty=files / "u.npy", correct=files / "ok.npy", votes=files / "v.npy").vote_entropy
    for row, value in zip(votes, entropy, strict=True):
        expected = -sum(share * np.log(share) for share in row / row.sum() if share != 0)
        assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert entropy[4] == entropy[5] == 0.0 and not np.signbit(entropy[4])


# Neighbours


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(2, 60),
    dimension=st.integers(1, 5),
    levels=st.integers(1, 4),
    scale=st.sampled_from([1.0, 1e-20, 1e18]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64, np.int8]),
    seed=st.integers(0, 999),
)
def test_neighbours_are_exact_with_ties_duplicates_and_zero_vectors(
    rows, dimension, levels, scale, dtype, seed
) -> None:
    values = np.random.default_rng(seed).integers(-levels, levels + 1, (rows, dimension)).astype(np.float64)
    features = (values * (scale if dtype in (np.float32, np.float64) else 1)).astype(dtype)
    np.testing.assert_array_equal(found_neighbours(features), plain_neighbours(features))


@pytest.mark.parametrize("block", [3, 7, 64])
def test_block_sizes_do_not_matter(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    random = np.random.default_rng(0)
    features = np.concatenate([random.normal(size=(60, 4)), np.ones((9, 4)), np.zeros((5, 4)), 2 * np.ones((3, 4))])
    features = features[random.permutation(len(features))].astype(np.float32)
    monkeypatch.setattr(cosine, "_PIECE_VALUES", 8)
    np.testing.assert_array_equal(found_neighbours(features, block), plain_neighbours(features))


@pytest.mark.parametrize("save", [np.save, lambda path, values: np.savetxt(path, values, "%.9g", ",")])
def test_the_order_of_values_in_memory_does_not_matter(tmp_path: Path, save) -> None:
    features = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    np.save(tmp_path / "u.npy", np.arange(40.0))
    np.save(tmp_path / "y.npy", np.arange(40) % 4)
    path = tmp_path / ("f.npy" if save is np.save else "f.csv")
    save(path, np.asfortranarray(features))
    inputs = read(uncertainty=tmp_path / "u.npy", features=path, labels=tmp_path / "y.npy")
    assert inputs.neighbour.tolist() == plain_neighbours(features).tolist()


def test_close_ties_beyond_float32_are_told_apart() -> None:
    random = np.random.default_rng(0)
    features = 1 + 1e-9 * random.normal(size=(300, 16))  # all cosines are 1 in float32
    np.testing.assert_array_equal(found_neighbours(features), plain_neighbours(features))


def test_neighbours_are_those_of_the_pipeline() -> None:
    features = np.random.default_rng(0).normal(size=(500, 24)).astype(np.float16)
    features[100:120] = features[7]
    expected = torch_neighbours(lambda start, stop: features[start:stop], 500, Neighbours(device="cpu", block_rows=200))
    np.testing.assert_array_equal(found_neighbours(features), expected.index)


def test_ten_thousand_equal_vectors_take_no_time() -> None:
    neighbour = found_neighbours(np.ones((10_000, 8)))
    assert neighbour[0] == 1 and (neighbour[1:] == 0).all()


# Numbers


@pytest.mark.filterwarnings("ignore")
def test_metrics_match_plain_computations() -> None:
    inputs = inputs_of()
    report = evaluate(inputs, "demo").nested()
    wrong = ~inputs.correct
    assert report["representation"]["r1"] == pytest.approx(inputs.correct.mean())
    for name, u in inputs.uncertainties.items():
        metrics = report["uncertainties"][name]
        assert metrics["auroc_correct"] == pytest.approx(roc_auc_score(wrong, u), abs=1e-12)
        assert metrics["auroc_correct_ci_low"] < metrics["auroc_correct"] < metrics["auroc_correct_ci_high"]
        voted = ~np.isnan(inputs.vote_entropy)
        assert metrics["voted_images"] == 380
        entropy = inputs.vote_entropy[voted]
        assert metrics["rcorr_entropy"] == pytest.approx(spearmanr(u[voted], entropy)[0], abs=1e-12)
        assert metrics["auroc_not_dirac"] == pytest.approx(roc_auc_score(entropy > 0, u[voted]), abs=1e-12)
        thresholds = [np.mean(u <= t) for t in np.unique(u) if inputs.correct[u <= t].mean() >= 0.9]
        assert metrics["coverage_at_r1_0.9"] == pytest.approx(max(thresholds, default=0.0))
        assert metrics["distribution"]["unc_q50"] == pytest.approx(np.median(u))
    (difference,) = report["differences"]
    expected = [roc_auc_score(wrong, u) for u in inputs.uncertainties.values()]
    assert difference["difference"] == pytest.approx(expected[0] - expected[1])


def test_differences_are_paired() -> None:
    inputs = inputs_of(methods=1)
    u = inputs.uncertainties["u0"]
    twins = Inputs({"u": u, "same order": np.exp(u)}, inputs.correct, None, None, {}, {})
    (difference,) = evaluate(twins, "demo").differences()
    assert (difference["difference"], difference["ci_low"], difference["ci_high"]) == (0, 0, 0)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 60), seed=st.integers(0, 999))
def test_rejection_curve_is_the_error_of_what_is_left(n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    u, wrong = random.permutation(n).astype(float), random.random(n) < 0.5
    curve = rejection_curve(u, wrong)
    for percent, error in zip(range(0, 51, 5), curve, strict=True):
        kept = np.argsort(u)[: n - (percent * n) // 100]
        assert error == pytest.approx(wrong[kept].mean())


def test_roc_points_are_those_of_scikit_learn() -> None:
    inputs = inputs_of()
    for u in inputs.uncertainties.values():
        flagged, found = roc_points(u, ~inputs.correct)
        expected = roc_curve(~inputs.correct, u, drop_intermediate=False)
        np.testing.assert_allclose(flagged, expected[0])
        np.testing.assert_allclose(found, expected[1])


@pytest.mark.parametrize("right", [True, False])
def test_one_sided_correctness_becomes_null_and_a_note(right: bool) -> None:
    inputs = Inputs({"u": np.arange(50.0), "v": np.ones(50)}, np.full(50, right), None, np.zeros(50), {}, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = evaluate(inputs, "demo")
    nested = json.loads(json.dumps(report.nested(), allow_nan=False))
    assert nested["uncertainties"]["u"]["auroc_correct"] is None
    assert any("no R-AUROC" in note for note in nested["notes"])
    assert any("v is the same for every image" in note for note in nested["notes"])
    tables = build_tables(report)
    figures = draw_figures(inputs.uncertainties, inputs.correct, "demo")
    assert "roc" not in figures
    assert "<html" in build_page(report, tables, figures, "command", {}, {})


def test_a_confidence_given_as_uncertainty_is_noted() -> None:
    inputs = inputs_of(methods=1)
    reverse = Inputs({"confidence": -inputs.uncertainties["u0"]}, inputs.correct, None, None, {}, {})
    assert any("Then give its negative" in note for note in evaluate(reverse, "demo").notes)
    assert not any("negative" in note for note in evaluate(inputs, "demo").notes)


def test_tidy_rows_hold_every_number_once() -> None:
    report = evaluate(inputs_of(methods=3), "demo")
    nested, rows = report.nested(), report.rows()
    assert not rows.duplicated(["method", "metric"]).any()
    value = rows.set_index(["method", "metric"])["value"]
    assert value["u1", "e_aurc"] == nested["uncertainties"]["u1"]["e_aurc"]
    assert value["u0", "auroc_correct_minus_u2"] == nested["differences"][1]["difference"]
    assert value["representation", "r1"] == nested["representation"]["r1"]
    assert value["u2", "r1_error_rejecting_0.5"] == nested["uncertainties"]["u2"]["rejection"]["0.5"]
    assert set(rows.loc[rows["metric"] == "rcorr_entropy", "n"]) == {380}


# Tables, figures, page


def test_best_values_are_bold() -> None:
    report = evaluate(inputs_of(methods=3), "demo")
    table = build_tables(report)["summary"]
    for heading, key, best in (("R-AUROC", "auroc_correct", np.argmax), ("AURC", "aurc", np.argmin)):
        values = [report.value(name, key) for name in report.uncertainties]
        assert np.flatnonzero(table.bold[heading]).tolist() == [best(values)]
    assert not {"Uncertainty", "95 % interval"} & set(table.bold.columns)
    for table in build_tables(report).values():
        assert "nan" not in to_markdown(table) + to_tex(table)


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        1 + 1e-16 * np.arange(400) * 2,
        1e6 + 1e-9 * np.arange(400),
        1e300 * (np.arange(400.0) - 200),
        np.append(np.zeros(399), 1.7e308),
        np.append(np.full(399, -1.7e308), 1.7e308),
        1e-300 * np.arange(400.0),
        np.ones(400),
    ],
)
def test_nearly_constant_and_huge_uncertainties_are_measured_and_drawn(values: np.ndarray) -> None:
    inputs = inputs_of(methods=1, votes=False)
    given = Inputs({"u": values, "other": inputs.uncertainties["u0"]}, inputs.correct, None, None, {}, {})
    report = evaluate(given, "demo")
    if np.ptp(np.argsort(values)) and len(np.unique(values)) > 1:
        expected = roc_auc_score(~inputs.correct, np.unique(values, return_inverse=True)[1])
        assert report.value("u", "auroc_correct") == pytest.approx(expected)
    for figure in draw_figures(given.uncertainties, given.correct, "demo").values():
        figure.draw_without_rendering()


@pytest.mark.slow
@pytest.mark.parametrize("methods", [1, 2, 12])
def test_figures_fit_and_can_be_read(methods: int) -> None:
    inputs = inputs_of(methods=methods)
    named = {f"a rather long name of method {key}": u for key, u in inputs.uncertainties.items()}
    figures = draw_figures(named, inputs.correct, "a model with quite a long name on some dataset")
    assert list(figures) == ["rejection", "risk_coverage", "roc", "densities"]
    for figure in figures.values():
        figure.draw_without_rendering()
        assert all(text.get_fontsize() >= 7 for text in figure.findobj(Text))
        subtitle = figure.texts[1].get_window_extent()
        axes = [each.get_tightbbox() for each in figure.axes if each.get_visible()]
        legends = [each.get_window_extent() for each in figure.legends]
        for box in [*axes, *legends]:
            assert box.x0 >= figure.bbox.x0 - 2 and box.x1 <= figure.bbox.x1 + 2
            assert box.y0 >= figure.bbox.y0 - 2 and box.y1 <= subtitle.y0 + 1
        for box in axes:
            assert box.height > 0.4 * figure.dpi
            assert not any(box.overlaps(legend) for legend in legends)
        text = " ".join(text.get_text() for text in figure.texts)
        assert "400" in text
        assert ("first 6 of 12" in text.replace("\n", " ")) == (methods == 12)


def test_lines_show_the_numbers() -> None:
    inputs = inputs_of()
    figures = draw_figures(inputs.uncertainties, inputs.correct, "demo")
    line = next(line for line in figures["rejection"].axes[0].lines if line.get_gid() == "u1")
    np.testing.assert_allclose(line.get_xdata(), 100 * np.array(REJECTED))
    curve = rejection_curve(inputs.uncertainties["u1"], ~inputs.correct)
    np.testing.assert_allclose(line.get_ydata(), 100 * np.array(curve))


def test_names_in_a_page_are_text() -> None:
    inputs = inputs_of(methods=1)
    nasty = Inputs({"<script>alert(1)</script> $x": inputs.uncertainties["u0"]}, inputs.correct, None, None, {}, {})
    report = evaluate(nasty, "</title><b>$name")
    figures = draw_figures(nasty.uncertainties, nasty.correct, report.name)
    page = build_page(report, build_tables(report), figures, "evaluate --name '<b>'", {}, {})
    assert "<script" not in page and "<b>$name" not in page and "--name '<b>'" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; $x" in page
