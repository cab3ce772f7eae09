from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import datasets as library
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets import huggingface
from pipeline_lib.datasets.images import ImageDataset
from tests.unit.dataset_worlds import (
    content_digest,
    grey_value,
    make_folder,
    open_split,
    png,
    truncated_jpeg,
    write_artefact,
)

OPTIONS = {"kind": "huggingface", "name": "pets"}
COMMIT, OTHER_COMMIT = "a" * 40, "b" * 40
PETS = library.ClassLabel(names=["dog", "cat", "eel"])


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    library.disable_progress_bars()


def rows(greys, labels, label_feature=PETS, **more):
    """Return a dataset of PNGs of one grey value each; `more` are further columns with their feature."""
    features = {"image": library.Image(), "label": label_feature} | {
        name: feature for name, (_, feature) in more.items()
    }
    columns = {"image": [{"bytes": grey if isinstance(grey, bytes) else png(grey), "path": None} for grey in greys]}
    columns |= {"label": labels} | {name: values for name, (values, _) in more.items()}
    return library.Dataset.from_dict(columns, features=library.Features(features))


def two_splits():
    return library.DatasetDict(train=rows([0, 1, 2, 3, 4], [0, 1, 0, 1, 0]), test=rows([100, 101, 102], [2, 0, 2]))


def save(data_dir, data, **options):
    data.save_to_disk(str(data_dir / "pets"), **options)
    return data_dir / "pets"


def save_parquet(data_dir, data=None, name="pets"):
    (data_dir / name / "data").mkdir(parents=True)
    for split, dataset in (data or two_splits()).items():
        dataset.to_parquet(str(data_dir / name / "data" / f"{split}-00000-of-00001.parquet"))
    return data_dir / name


def fill_hub_cache(data_dir, commit=COMMIT):
    """Write what the library leaves in its cache after it downloaded the dataset `owner/tiny` at a commit."""
    with tempfile.TemporaryDirectory() as folder:
        save_parquet(Path(folder), name="tiny")
        loaded = library.load_dataset(f"{folder}/tiny", cache_dir=f"{folder}/cache")
        made = Path(loaded["test"].cache_files[0]["filename"]).parent
        shutil.copytree(made, data_dir / "huggingface/owner___tiny/default/0.0.0" / commit)


def refused(data_dir, options=OPTIONS):
    with pytest.raises(PipelineError) as caught:
        open_split(data_dir, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def seen(dataset):
    return [grey_value(dataset.image(position)) for position in range(len(dataset))]


def check_both_splits(artefact):
    train, test = ImageDataset(artefact, "train"), ImageDataset(artefact, "test")
    assert seen(train) == [0, 1, 2, 3, 4]
    assert seen(test) == [100, 101, 102]
    assert train.classes == ["dog", "cat", "eel"]
    assert train.label.tolist() == [0, 1, 0, 1, 0]
    assert test.label.tolist() == [2, 0, 2]
    return train, test


def test_saved_splits_are_read_from_all_their_files(tmp_path):
    save(tmp_path, two_splits(), num_shards={"train": 2, "test": 1})
    train, _ = check_both_splits(write_artefact(tmp_path, OPTIONS))
    assert train.location(2) == "train/data-00000-of-00002.arrow:2:image"
    assert train.location(3) == "train/data-00001-of-00002.arrow:0:image"
    assert not (tmp_path / "huggingface").exists()


def test_dataset_saved_alone_is_the_split_train(tmp_path):
    save(tmp_path, rows([7, 8], [1, 2]))
    assert seen(open_split(tmp_path, OPTIONS | {"splits": {"test": "train[1:]"}})) == [8]


def test_saved_selection_keeps_its_order(tmp_path):
    save(tmp_path, library.DatasetDict(test=two_splits()["train"].select([4, 1, 3])))
    dataset = open_split(tmp_path, OPTIONS)
    assert seen(dataset) == [4, 1, 3]
    assert dataset.label.tolist() == [0, 1, 1]


def test_parquet_files_are_converted_once_and_at_the_same_place_on_every_machine(tmp_path):
    save_parquet(tmp_path / "one")
    train, _ = check_both_splits(write_artefact(tmp_path / "one", OPTIONS))
    (converted,) = (tmp_path / "one/huggingface").glob("pets-*/default/pets-train.arrow")
    before = converted.stat().st_mtime_ns
    check_both_splits(write_artefact(tmp_path / "one", OPTIONS))
    assert converted.stat().st_mtime_ns == before

    shutil.copytree(tmp_path / "one/pets", tmp_path / "other/pets")
    os.utime(tmp_path / "other/pets/data/test-00000-of-00001.parquet", (1, 1))
    other, _ = check_both_splits(write_artefact(tmp_path / "other", OPTIONS))
    assert [other.location(i) for i in range(5)] == [train.location(i) for i in range(5)]
    assert content_digest(tmp_path / "other", OPTIONS) == content_digest(tmp_path / "one", OPTIONS)


@pytest.mark.parametrize("saved", [True, False])
def test_data_dir_may_be_relative_or_a_link(tmp_path, monkeypatch, saved):
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    if saved:
        save(tmp_path / "data", two_splits())
    else:
        save_parquet(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    locations = []
    for data_dir in (tmp_path / "data", Path("data"), Path("link")):
        train, _ = check_both_splits(write_artefact(data_dir, OPTIONS))
        locations.append([train.location(i) for i in range(5)])
    assert locations[0] == locations[1] == locations[2]


def test_changed_parquet_is_converted_again(tmp_path):
    folder = save_parquet(tmp_path)
    options = OPTIONS | {"splits": {"test": "test"}}
    assert seen(open_split(tmp_path, options)) == [100, 101, 102]
    shutil.rmtree(folder)
    save_parquet(tmp_path, library.DatasetDict(train=rows([0], [0]), test=rows([55], [1])))
    assert seen(open_split(tmp_path, options)) == [55]


@pytest.mark.parametrize("column", ["struct", "binary"])
def test_parquet_without_the_librarys_own_types(tmp_path, column):
    folder = tmp_path / "pets"
    folder.mkdir()
    images = [{"bytes": png(5), "path": "a.png"}, {"bytes": png(6), "path": "b.png"}]
    images = images if column == "struct" else [image["bytes"] for image in images]
    pq.write_table(pa.table({"picture": images, "breed": ["pug", "boxer"]}), folder / "test.parquet")
    dataset = open_split(tmp_path, OPTIONS | {"image_key": "picture", "label_key": "breed"})
    assert seen(dataset) == [5, 6]
    assert [dataset.classes[label] for label in dataset.label] == ["pug", "boxer"]
    assert "has 0 Image features instead of one; set image_key to one of: picture (" in refused(tmp_path)


def test_images_beside_the_rows_are_opened_by_their_paths(tmp_path):
    """The library's own reader of image folders writes paths, not bytes, into the Arrow file."""
    names = ["test/cat/a.png", "test/dog/b.png"]
    make_folder(tmp_path / "pets", {name: png(number) for number, name in enumerate(names)})
    dataset = open_split(tmp_path, OPTIONS)
    assert seen(dataset) == [0, 1]
    assert [dataset.classes[label] for label in dataset.label] == ["cat", "dog"]
    digest = content_digest(tmp_path, OPTIONS)
    (tmp_path / "pets/test/dog/b.png").write_bytes(png(9))
    assert content_digest(tmp_path, OPTIONS) != digest


def test_saved_path_of_an_image_that_is_gone_is_named(tmp_path):
    table = pa.table({"image": [{"bytes": None, "path": str(tmp_path / "gone.png")}]})
    with pytest.raises(PipelineError, match=r"gone\.png: can't be read"):
        huggingface._checksum(table["image"][0], huggingface.Options.model_validate(OPTIONS), "x.arrow, row 0")


@pytest.mark.parametrize(
    ("values", "feature", "classes", "expected"),
    [
        ([10, 9, -1, 9], library.Value("int32"), ["-1", "9", "10"], [2, 1, 0, 1]),
        (["b", "a", "b", "B"], library.Value("string"), ["B", "a", "b"], [2, 1, 2, 0]),
        ([2, 0, 0, 2], PETS, ["dog", "cat", "eel"], [2, 0, 0, 2]),
    ],
)
def test_labels_without_class_names(tmp_path, values, feature, classes, expected):
    save(tmp_path, library.DatasetDict(test=rows([0, 1, 2, 3], values, feature)))
    dataset = open_split(tmp_path, OPTIONS | {"label_key": "label"})
    assert dataset.classes == classes
    assert dataset.label.tolist() == expected


@pytest.mark.parametrize(
    ("more", "options", "message"),
    [
        ({"fine": ([0], PETS)}, {}, "pets: has 2 ClassLabel features instead of one; set label_key to one of: "),
        ({"fine": ([0], PETS)}, {}, "image (Image), label (ClassLabel), fine (ClassLabel)"),
        ({"mask": ([None], library.Image())}, {}, "has 2 Image features instead of one; set image_key to one of: "),
        (
            {},
            {"label_key": "lable"},
            "has no feature 'lable'; set label_key to one of: image (Image), label (ClassLabel",
        ),
        ({}, {"label_key": "lable"}, "did you mean 'label'?"),
        ({}, {"image_key": "label"}, "feature 'label' is none of Image, "),
        ({"x": ([1.5], library.Value("float32"))}, {"label_key": "x"}, "feature 'x' is none of ClassLabel, int8"),
        ({"x": (["a"], library.Value("string"))}, {"image_key": "x"}, "feature 'x' is none of Image, "),
        ({"x": ([None], library.Value("int8"))}, {"label_key": "x"}, "split 'test', row 0: 'x' is None, which is no"),
        ({"x": ([None], library.Image())}, {"image_key": "x"}, "row 0 has no image"),
        ({"x": ([-1], PETS)}, {"label_key": "x"}, "split 'test', row 0: 'x' is -1, which is no class"),
    ],
)
def test_features_that_do_not_fit_are_named(tmp_path, more, options, message):
    save(tmp_path, library.DatasetDict(test=rows([1], [0], **more)))
    assert message in refused(tmp_path, OPTIONS | options)


def test_features_must_be_those_of_every_split(tmp_path):
    other = rows([1], [0], library.ClassLabel(names=["cat", "dog", "eel"]))
    save(tmp_path, library.DatasetDict(test=rows([1], [0]), train=other))
    assert "split 'train' has other features than the first" in refused(tmp_path)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"test": "tset"}, """split 'test' is 'tset', which can't be read (Unknown split "tset"."""),
        ({"test": "tset"}, "the dataset has train (5 rows), test (3 rows)"),
        ({"test": "test["}, "split 'test' is 'test[', which can't be read (Unrecognized instruction format"),
        ({"test": "test[:300%]"}, "Percent slice boundaries"),
        ({"test": "test[3:]"}, "split 'test' is 'test[3:]', which has no rows"),
        (
            {"train": "train[:80%]", "validation": "train[60%:]"},
            "split 'validation' ('train[60%:]') has rows of another split",
        ),
    ],
)
def test_split_strings_that_do_not_fit_are_named(tmp_path, splits, message):
    save(tmp_path, two_splits())
    assert message in refused(tmp_path, OPTIONS | {"splits": splits})


PERCENT = st.integers(-99, 99).map(lambda value: f"{value}%")
BOUND = st.one_of(st.none(), st.integers(-12, 12).map(str), PERCENT)


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pets")
    data = {"a": rows(range(9), [i % 3 for i in range(9)]), "b": rows(range(50, 54), [0, 1, 2, 0])}
    save(folder, library.DatasetDict(data), num_shards={"a": 3, "b": 1})
    save_parquet(folder, library.DatasetDict(data), "files")
    return folder


@settings(max_examples=30, deadline=None)
@given(start=BOUND, stop=BOUND, second=st.sampled_from(["", "+b", "+b[1:]", "+b[-50%:]"]))
def test_slices_are_those_of_the_library(pets, start, stop, second):
    if start and stop and start.endswith("%") != stop.endswith("%"):
        stop = None
    text = f"a[{start or ''}:{stop or ''}]{second}"
    options = huggingface.Options.model_validate(OPTIONS | {"splits": {"x": text}})
    try:
        # Piece by piece: of several the library leaves out the empty ones.
        pieces = [by_library(pets, piece) for piece in text.split("+")]
    except ValueError as error:
        assert "no data" in str(error)
        pieces = [[]]
    # Of a slice that ends before it starts the library returns rows from elsewhere.
    if not all(pieces) or position(start, 0) >= position(stop, 9):
        with pytest.raises(PipelineError, match="has no rows"):
            huggingface.build_index(options, pets)
        return
    expected = [row for piece in pieces for row in piece]
    index = huggingface.build_index(options, pets)
    opener = huggingface.open_images(options, pets)
    assert [grey_value(opener(location)) for location in index.location] == [
        grey_value(row["image"].convert("RGB")) for row in expected
    ]
    assert index.label.tolist() == [row["label"] for row in expected]


def position(bound, default):
    """Return where a bound lies among the nine rows of `a`."""
    if bound is None:
        return default
    rows = round(int(bound[:-1]) * 9 / 100) if bound.endswith("%") else int(bound)
    return min(max(rows + 9, 0) if rows < 0 else rows, 9)


def by_library(pets, text):
    files = {split: str(pets / f"files/data/{split}-00000-of-00001.parquet") for split in "ab"}
    return list(library.load_dataset("parquet", data_files=files, cache_dir=str(pets / "cache"), split=text))


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_downloaded_dataset_is_read_from_the_cache(tmp_path, revision):
    fill_hub_cache(tmp_path)
    options = OPTIONS | {"name": "owner/tiny", "revision": revision}
    train, _ = check_both_splits(write_artefact(tmp_path, options))
    assert train.location(0) == f"owner___tiny/default/0.0.0/{COMMIT}/tiny-train.arrow:0:image"
    assert huggingface.watched_files(huggingface.Options.model_validate(options), tmp_path) == []


def test_cache_of_another_revision_is_not_taken(tmp_path):
    fill_hub_cache(tmp_path)
    message = refused(tmp_path, OPTIONS | {"name": "owner/tiny", "revision": OTHER_COMMIT})
    assert f"revision {OTHER_COMMIT} can't be downloaded, and the cache has another ({COMMIT})" in message


def test_without_network_the_line_says_what_to_do(tmp_path):
    message = refused(tmp_path, OPTIONS | {"name": "owner/unknown"})
    assert f"'owner/unknown' (no such folder in {tmp_path}, so a Hub id): can't be loaded (Couldn't reach" in message
    assert f"load it once into {tmp_path / 'huggingface'} where there is a network" in message


def test_broken_parquet_is_named(tmp_path):
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets/test.parquet").write_bytes(b"PAR1 no parquet")
    assert f"{tmp_path / 'pets'}: can't be loaded (" in refused(tmp_path)


@pytest.mark.parametrize("saved", [True, False])
def test_arrow_file_that_is_cut_short_is_named(tmp_path, saved):
    if saved:
        save(tmp_path, two_splits())
    else:
        save_parquet(tmp_path)
        write_artefact(tmp_path, OPTIONS)
    (arrow,) = tmp_path.glob("pets/train/*.arrow" if saved else "huggingface/*/*/*train.arrow")
    arrow.write_bytes(arrow.read_bytes()[:-400])
    message = refused(tmp_path)
    assert f"{tmp_path / 'pets'}: can't be loaded (" in message
    assert (f"delete {tmp_path / 'huggingface/pets-*'}" in message) is not saved


def test_folder_without_data_is_named(tmp_path):
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets/notes.py").write_text("raise SystemExit('code was run')")
    assert f"{tmp_path / 'pets'}: can't be loaded (" in refused(tmp_path)


def test_code_of_a_dataset_is_not_run(tmp_path):
    folder = save_parquet(tmp_path)
    (folder / "pets.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "can't be loaded (Dataset scripts are no longer supported" in refused(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("option", "value"), [("revision", "main"), ("config", "small")])
def test_options_that_a_saved_folder_has_no_use_for_are_refused(tmp_path, option, value):
    save(tmp_path, two_splits())
    assert f"'{value}'; leave it out" in refused(tmp_path, OPTIONS | {option: value})


def test_configurations_of_a_folder(tmp_path):
    for name, grey in (("small", 1), ("large", 2)):
        save_parquet(tmp_path, library.DatasetDict(test=rows([grey], [0])), f"pets/{name}")
    configs = [f"- config_name: {name}\n  data_dir: {name}\n" for name in ("small", "large")]
    (tmp_path / "pets/README.md").write_text(f"---\nconfigs:\n{''.join(configs)}---\n")
    options = OPTIONS | {"splits": {"test": "test"}}
    assert seen(open_split(tmp_path, options | {"config": "large"})) == [2]
    assert seen(open_split(tmp_path, options | {"config": "small"})) == [1]
    assert "'small', 'large'" in refused(tmp_path, options)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_images_open_in_other_processes(pets, method):
    options = huggingface.Options.model_validate(OPTIONS)
    locations = huggingface.build_index(options, pets).location
    opener = huggingface.open_images(options, pets)
    assert grey_value(opener(locations[0])) == 0  # the file is mapped here before the fork
    with multiprocessing.get_context(method).Pool(2) as pool:
        images = pool.map(opener, locations * 3, chunksize=2)
    assert [grey_value(image) for image in images] == [*range(9), *range(50, 54)] * 3


def test_later_stages_need_neither_library_nor_parquet(tmp_path):
    folder = save_parquet(tmp_path)
    artefact = write_artefact(tmp_path, OPTIONS)
    shutil.rmtree(folder)
    code = (
        "import sys; sys.modules['datasets'] = None\n"
        "from pipeline_lib.datasets.images import ImageDataset\n"
        f"print(ImageDataset(__import__('pathlib').Path({str(artefact)!r}), 'test').image(1).getpixel((0, 0)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(101, 101, 101)"


def test_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "kind 'huggingface' needs the package 'datasets'" in refused(tmp_path)


def test_image_that_can_not_be_decoded_or_found_is_named(tmp_path):
    save(tmp_path, library.DatasetDict(test=rows([1, truncated_jpeg()], [0, 0])))
    dataset = open_split(tmp_path, OPTIONS)
    with pytest.raises(PipelineError, match=r"data-00000-of-00001\.arrow, row 1: can't be decoded"):
        dataset.image(1)
    opener = huggingface.open_images(huggingface.Options.model_validate(OPTIONS), tmp_path)
    for location in ["test/data-00000-of-00001.arrow:2:image", "test/gone.arrow:0:image"]:
        with pytest.raises(PipelineError, match=r"arrow, row \d: can't be read .*; delete the dataset in the results"):
            opener(location)


def test_digest_is_that_of_the_bytes_and_labels(tmp_path):
    def digest(data, **options):
        shutil.rmtree(tmp_path / "pets", ignore_errors=True)
        save(tmp_path, data)
        return content_digest(tmp_path, OPTIONS | options)

    base = digest(library.DatasetDict(test=rows([1, 2], [0, 1])))
    assert digest(library.DatasetDict(test=rows([9, 1, 2], [0, 0, 1]).select([1, 2]))) == base
    assert digest(library.DatasetDict(test=rows([1, 3], [0, 1]))) != base
    assert digest(library.DatasetDict(test=rows([1, 2], [0, 2]))) != base
    assert digest(library.DatasetDict(train=rows([1, 2], [0, 1]))) != base
    renamed = library.ClassLabel(names=["dog", "cat", "ant"])
    assert digest(library.DatasetDict(test=rows([1, 2], [0, 1], renamed))) != base
    lines = ["dog", "cat", "eel", *(f"test\0{hashlib.sha256(png(grey)).hexdigest()}" for grey in (1, 2))]
    assert base.split()[0] == hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def test_size_alone_tells_images_apart_where_asked(tmp_path):
    options = OPTIONS | {"checksum": "size"}
    digests = []
    for size in (4, 4, 200):
        shutil.rmtree(tmp_path / "pets", ignore_errors=True)
        stream = io.BytesIO()
        Image.new("RGB", (size, size)).save(stream, "BMP")
        save(tmp_path, library.DatasetDict(test=rows([stream.getvalue()], [0])))
        digests.append(content_digest(tmp_path, options))
    assert digests[0] == digests[1] != digests[2]


def test_watched_files_are_those_of_the_folder(tmp_path):
    folder = save(tmp_path, library.DatasetDict(test=rows([1], [0])))
    (folder / ".hidden").write_text("")
    watched = huggingface.watched_files(huggingface.Options.model_validate(OPTIONS), tmp_path)
    names = ["data-00000-of-00001.arrow", "dataset_info.json", "state.json"]
    assert watched == [folder / "dataset_dict.json", *(folder / "test" / name for name in names)]
