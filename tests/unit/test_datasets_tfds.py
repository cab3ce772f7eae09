"""Kind tfds, on sets that TFDS itself writes as array_record; TensorFlow takes no part in it."""

from __future__ import annotations

import functools
import io
import json
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets import tfds, tfds_records
from pipeline_lib.datasets.base import UnreadableImageError
from tests.jobs import run
from tests.unit.dataset_worlds import content_digest, grey_value, open_split, png

REASON = "needs the optional extra: pip install '.[tfds]'"
OPTIONS = {"kind": "tfds", "name": "tiny", "splits": {"train": "train[:75%]", "validation": "train[75%:]"}}
CIFAR = {"kind": "tfds", "name": "cifar10"}


# Not in the order of the alphabet.
CLASSES = ("dog", "cat")


def prepare_set(
    data_dir, records, version="1.0.0", name="tiny", config=None, file_format="array_record", classes=CLASSES
):
    """Prepare a set; per split the label and picture of each image: -1 or a class, a grey value or a PNG."""
    library = pytest.importorskip("tensorflow_datasets", reason=REASON)
    pytest.importorskip("array_record", reason=REASON)
    features = library.features.FeaturesDict(
        {
            "image": library.features.Image(encoding_format="png"),
            "mask": library.features.Image(encoding_format="png"),
            "label": library.features.ClassLabel(names=list(classes)),
            "file_name": library.features.Text(),
        }
    )

    def info(builder):
        return library.core.DatasetInfo(builder=builder, features=features)

    def generate(self, rows):
        for number, (label, picture) in enumerate(rows):
            image = picture if isinstance(picture, bytes) else png(picture)
            pictures = {key: io.BytesIO(content) for key, content in (("image", image), ("mask", png(255)))}
            yield number, pictures | {"label": label, "file_name": f"{number}.png"}

    def splits(self, manager):
        return {split: self._generate_examples(rows) for split, rows in records.items()}

    body = {"VERSION": library.core.Version(version), "name": name, "code_path": None}
    if config:
        body["BUILDER_CONFIGS"] = [library.core.BuilderConfig(name=config)]
    methods = {"_info": info, "_generate_examples": generate, "_split_generators": splits}
    cls = type(name.title(), (library.core.GeneratorBasedBuilder,), body | methods, skip_registration=True)
    builder = cls(data_dir=data_dir / "tensorflow_datasets", config=config)
    builder.download_and_prepare(file_format=file_format)
    return Path(builder.data_dir)


@pytest.fixture
def prepare(tmp_path):
    """Return a function that prepares a set below `raw`: all arguments of `prepare_set` but the first."""
    (tmp_path / "raw").mkdir()
    return functools.partial(prepare_set, tmp_path / "raw")


TINY = {"train": [(n % 2, n) for n in range(8)], "test": [(1, 100 + n) for n in range(3)]}


def test_records_come_back_by_split_with_their_labels_and_without_tensorflow(tmp_path, prepare):
    prepare(TINY)
    parts = [open_split(tmp_path / "raw", OPTIONS, split) for split in ("train", "validation")]
    assert [len(part) for part in parts] == [6, 2]
    assert parts[0].classes == ["dog", "cat"]
    assert parts[0].location(3) == "1.0.0/tiny-train.array_record-00000-of-00001/3"
    seen = [(int(part.label[i]), grey_value(part.image(i))) for part in parts for i in range(len(part))]
    assert sorted(seen, key=lambda pair: pair[1]) == TINY["train"]
    assert "tensorflow" not in sys.modules


def test_configuration_and_newest_version_are_found(tmp_path, prepare):
    for version, grey in (("2.9.0", 9), ("2.10.0", 10), ("1.11.0", 11)):
        prepare({"test": [(0, grey)]}, version, config="small")
    options = {"kind": "tfds", "name": "tiny", "config": "small", "splits": {"test": "test"}}
    assert grey_value(open_split(tmp_path / "raw", options).image(0)) == 10
    above = tmp_path / "raw/tensorflow_datasets/tiny/small"
    watched = tfds.watched_files(tfds.Options(**options), tmp_path / "raw")
    assert watched == [above, above / "2.10.0/dataset_info.json"]
    pinned = tfds.build_index(tfds.Options(**options, version="1.11.0"), tmp_path / "raw")
    assert pinned.location == ["1.11.0/tiny-test.array_record-00000-of-00001/0"]


def test_an_index_keeps_its_version_when_a_newer_one_comes(tmp_path, prepare):
    prepare({"test": [(0, 1)]}, "1.0.0")
    dataset = open_split(tmp_path / "raw", OPTIONS | {"splits": {"test": "test"}})
    prepare({"test": [(0, 2)]}, "1.0.1")
    assert grey_value(dataset.image(0)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_threads_and_processes_read_at_random_after_their_parent_has_read(tmp_path, prepare, method):
    prepare({"test": [(0, n) for n in range(50)]})
    options = tfds.Options(kind="tfds", name="tiny", splits={"test": "test"})
    locations = tfds.build_index(options, tmp_path / "raw").location
    random.Random(0).shuffle(locations)
    opener = pickle.loads(pickle.dumps(tfds.open_images(options, tmp_path / "raw")))
    here = [grey_value(opener(location)) for location in locations]
    assert sorted(here) == list(range(50))
    with ThreadPoolExecutor(4) as threads:
        assert [grey_value(image) for image in threads.map(opener, locations)] == here
        with multiprocessing.get_context(method).Pool(2) as processes:
            images = processes.map_async(opener, locations, chunksize=5).get(100)
    assert [grey_value(image) for image in images] == here


def test_the_process_that_reads_ends_with_its_own_and_its_end_is_told(tmp_path, prepare):
    directory = prepare({"test": [(0, 1)]})
    file = next(directory.glob("*.array_record-*"))
    script = (
        "import os; from pipeline_lib.datasets import tfds_records as t; "
        f"t.read_record({str(file)!r}, 0); print(t._reader_of_process(os.getpid())._process.pid)"
    )
    asked = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{asked.stdout.strip()}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{asked.stdout.strip()}").exists()

    record = tfds_records.read_record(str(file), 0)
    process = tfds_records._reader_of_process(os.getpid())._process
    process.kill()
    with pytest.raises(OSError, match=r"the process that reads it ended \(exit status -9\)"):
        tfds_records.read_record(str(file), 0)
    assert tfds_records.read_record(str(file), 0) == record  # by a new one


def test_digest_changes_with_pictures_and_labels_alone(tmp_path, prepare):
    digests = []
    for version, row in (("1.0.0", (0, 1)), ("1.0.1", (0, 1)), ("1.0.2", (0, 2)), ("1.0.3", (1, 1))):
        prepare({"test": [row]}, version)
        digests.append(content_digest(tmp_path / "raw", OPTIONS | {"splits": {"test": "test"}}))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": {"test": "tset"}}, "'tset' for split 'test' is no TFDS split.*did you mean 'test'"),
        ({"splits": {"test": "test[:90]%"}}, "is no TFDS split"),
        ({"splits": {"a": "train[:75%]", "b": "train[60%:]"}}, r"splits 'a' \(train\[:75%\]\) and 'b' .* share images"),
        ({"splits": {"a": "train", "b": "train"}}, "share images"),
        ({"splits": {"a": "train+test", "b": "test[1:2]"}}, "share images"),
        ({"image_key": "picture"}, "image_key 'picture' is no Image feature of the set; it has image, mask"),
        ({"label_key": "file_name"}, "label_key 'file_name' is no ClassLabel feature of the set; it has label"),
    ],
)
def test_what_does_not_fit_the_set_is_named(tmp_path, prepare, change, message):
    prepare(TINY)
    with pytest.raises(PipelineError, match=message) as caught:
        open_split(tmp_path / "raw", OPTIONS | change)
    assert "\n" not in str(caught.value)


def test_missing_labels_other_formats_and_lost_files_are_named(tmp_path, prepare):
    options = OPTIONS | {"splits": {"test": "test"}}
    prepare({"test": [(-1, 5)]})
    with pytest.raises(PipelineError, match=r"record '1\.0\.0/tiny-test.array_record-00000-of-00001/0' has no label"):
        open_split(tmp_path / "raw", options)
    directory = prepare({"test": [(0, 5)]}, "1.1.0")
    dataset = open_split(tmp_path / "raw", options)
    file = next(directory.glob("*.array_record-*"))
    with pytest.raises(UnreadableImageError, match=r"record '1\.1\.0/.*/9': can't be read .index 9 out of bound"):
        dataset._open(f"1.1.0/{file.name}/9")
    file.rename(directory / "elsewhere")
    tfds_records._reader_of_process.cache_clear()
    with pytest.raises(PipelineError, match=r"record '1\.1\.0/.*/0' can't be read .*No such file"):
        tfds.build_index(tfds.Options(**options), tmp_path / "raw")
    info = json.loads((directory / "dataset_info.json").read_text())
    (directory / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(PipelineError, match="holds tfrecord files, which can't be read at random; delete the"):
        tfds.build_index(tfds.Options(**options), tmp_path / "raw")
    (directory / "dataset_info.json").write_text("{")
    with pytest.raises(PipelineError, match=r"dataset_info\.json: can't be read .*delete the folder") as caught:
        tfds.build_index(tfds.Options(**options), tmp_path / "raw")
    assert "\n" not in str(caught.value)


def test_a_set_that_is_not_prepared_comes_with_the_command(tmp_path):
    (tmp_path / "tensorflow_datasets/sun397/tfds/incomplete.XABCDE_4.0.0").mkdir(parents=True)
    for change, expected in [
        ({"name": "sun397"}, "{}/tensorflow_datasets/sun397/tfds: TFDS set 'sun397/tfds' is not"),
        ({"name": "sun397", "config": "tfds"}, "{}/tensorflow_datasets/sun397/tfds: TFDS set 'sun397/tfds' is not"),
        ({"name": "cifar10", "version": "3.0.2", "tfds_dir": "/t"}, "/t/cifar10/3.0.2: TFDS set 'cifar10:3.0.2' is"),
        ({"name": "resisc45"}, "folder NWPU-RESISC45 lies in {}/tensorflow_datasets/downloads/manual, then run: make"),
    ]:
        options = tfds.Options(**CIFAR | change)
        with pytest.raises(PipelineError, match="is not prepared there") as caught:
            tfds.build_index(options, tmp_path)
        assert expected.format(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(tfds.watched_files(options, tmp_path)) == (2 if "version" in change else 1)


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "tensorflow_datasets/cifar10/3.0.2").mkdir(parents=True)
    (tmp_path / "tensorflow_datasets/cifar10/3.0.2/dataset_info.json").write_text('{"fileFormat": "array_record"}')
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(PipelineError, match=r"kind tfds: .*install it with: pip install '\.\[tfds\]'"):
        tfds.build_index(tfds.Options(**CIFAR), tmp_path)


def test_default_splits_are_those_of_vtab():
    def splits(name):
        return tfds.Options(kind="tfds", name=name).tfds_splits()

    for name in ("caltech101", "cifar10", "cifar100", "svhn_cropped"):
        assert splits(name) == {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"}
    assert splits("oxford_iiit_pet") == {"train": "train[:80%]", "validation": "train[80%:]", "test": "test"}
    assert splits("resisc45") == {"train": "train[:60%]", "validation": "train[60%:80%]", "test": "train[80%:]"}
    for name in ("dtd", "oxford_flowers102", "sun397"):
        assert splits(name) == {"train": "train", "validation": "validation", "test": "test"}
    with pytest.raises(ValidationError, match=r"must be given for 'mnist'.*known without: caltech101, cifar10"):
        tfds.Options(kind="tfds", name="mnist")


@pytest.mark.parametrize("change", [{"name": "../x"}, {"config": ".."}, {"version": "3"}, {"splits": {}}])
def test_options_that_lead_elsewhere_are_refused(change):
    with pytest.raises(ValidationError):
        tfds.Options(**CIFAR | change)


def run_stage(data_dir, options, output):
    """Run the stage; return the record's facts."""
    run("prepare_tfds", {"name": "any", "options": options, "data_dir": str(data_dir)}, output)
    return artefacts.read(output, "prepare_tfds").facts


def test_a_prepared_set_is_recorded_without_tensorflow_or_tfds(tmp_path, prepare, monkeypatch):
    prepare(TINY, config="small")
    for library in ("tensorflow", "tensorflow_datasets", "array_record"):
        monkeypatch.setitem(sys.modules, library, None)
    facts = run_stage(tmp_path / "raw", OPTIONS | {"config": "small"}, tmp_path / "record")
    assert facts == {"folder": "tiny/small/1.0.0", "version": "1.0.0", "splits": {"train": 8, "test": 3}}


def test_half_prepared_and_tfrecord_sets_are_not_recorded(tmp_path, prepare, monkeypatch):
    directory = prepare(TINY)
    directory.rename(directory.parent / "incomplete.ABCDEF_1.0.0")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tensorflow", None)
        with pytest.raises(PipelineError, match=r"preparing it takes TensorFlow .*make tfds.*deployment-method conda"):
            run_stage(tmp_path / "raw", OPTIONS, tmp_path / "record")
    directory = prepare(TINY)
    info = json.loads((directory / "dataset_info.json").read_text())
    (directory / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(PipelineError, match="holds tfrecord files"):
        run_stage(tmp_path / "raw", OPTIONS, tmp_path / "record")
    assert not (tmp_path / "record").exists()


def test_what_is_missing_to_prepare_a_set_is_said_in_one_line(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_datasets", reason=REASON)
    with pytest.raises(PipelineError, match=r"so that its folder NWPU-RESISC45 lies in .*/downloads/manual, then"):
        run_stage(tmp_path, CIFAR | {"name": "resisc45"}, tmp_path / "record")
    monkeypatch.setitem(sys.modules, "tensorflow", types.ModuleType("tensorflow"))
    stray = tmp_path / "tensorflow_datasets"
    for change, message in [
        ({"name": "no_such_set"}, "TFDS has no set 'no_such_set'"),
        ({"name": "cifar10_corrupted"}, "has configurations; give one as 'config': brightness_1, "),
        ({"version": "9.9.9"}, "TFDS has no set 'cifar10:9.9.9'"),
        ({"name": "imagenet2012"}, rf"'imagenet2012' is fetched by hand into {stray}/downloads/manual"),
    ]:
        with pytest.raises(PipelineError, match=message) as caught:
            run_stage(tmp_path, CIFAR | {"splits": {"test": "test"}} | change, tmp_path / "record")
        assert "\n" not in str(caught.value)


def test_tfds_is_asked_for_array_records_and_its_failure_is_told(tmp_path, prepare, monkeypatch):
    library = pytest.importorskip("tensorflow_datasets", reason=REASON)
    monkeypatch.setitem(sys.modules, "tensorflow", types.ModuleType("tensorflow"))

    class Builder:
        MANUAL_DOWNLOAD_INSTRUCTIONS = None
        builder_config = None

        def __init__(self, name, data_dir):
            assert (name, data_dir) == ("tiny:1.0.0", tmp_path / "raw/tensorflow_datasets")

        def download_and_prepare(self, file_format, download_config):
            assert not download_config.try_download_gcs
            if failure:
                raise failure
            monkeypatch.delitem(sys.modules, "tensorflow")
            prepare(TINY, file_format=file_format)

    monkeypatch.setattr(library, "builder", Builder)
    options = OPTIONS | {"version": "1.0.0"}
    failure = ConnectionError("no\nroute")
    with pytest.raises(
        PipelineError, match=r"can't be prepared in .*\(ConnectionError: no route\).*run snakemake again"
    ):
        run_stage(tmp_path / "raw", options, tmp_path / "record")
    failure = None
    assert run_stage(tmp_path / "raw", options, tmp_path / "record")["folder"] == "tiny/1.0.0"


def test_both_environments_that_prepare_sets_pin_the_same_packages():
    envs = Path(__file__).parents[2] / "envs"
    pinned = {line for line in (envs / "tfds.txt").read_text().splitlines() if not line.startswith("#")}
    conda = yaml.safe_load((envs / "tfds.yaml").read_text())["dependencies"][-1]["pip"]
    assert len(conda) > 5
    assert set(conda) <= pinned
