from __future__ import annotations

import gzip
import io
import json
import multiprocessing
import tarfile
import tempfile
from pathlib import Path

import pytest
import webdataset as library
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline_lib.config import kinds
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets import webdataset
from pipeline_lib.datasets.images import ImageDataset
from tests.unit.dataset_worlds import (
    content_digest,
    encoded,
    grey_value,
    make_tar,
    open_split,
    png,
    truncated_jpeg,
    write_artefact,
)

OPTIONS = {"kind": "webdataset", "path": "shards", "splits": {"test": "a-{000..001}.tar"}}


def write_shard(data_dir, name, samples):
    """Write a shard with the library: a dict of contents by suffix per sample."""
    path = data_dir / "shards" / name
    path.parent.mkdir(exist_ok=True)
    with library.TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write(sample)
    return path


def sample(key, grey, label, suffix="png"):
    return {"__key__": key, suffix: png(grey), "cls": label}


def write_two_shards(data_dir):
    write_shard(data_dir, "a-000.tar", [sample("z/0", 1, 7), sample("a/1", 2, 3)])
    return write_shard(data_dir, "a-001.tar", [sample("0", 3, 7), sample("10", 4, 12)])


def refused(data_dir, options=OPTIONS):
    with pytest.raises(PipelineError) as caught:
        open_split(data_dir, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_samples_keep_the_order_of_shards_and_members(tmp_path):
    write_two_shards(tmp_path)
    dataset = open_split(tmp_path, OPTIONS)
    assert [grey_value(dataset.image(i)) for i in range(4)] == [1, 2, 3, 4]
    assert dataset.classes == ["3", "7", "12"]
    assert dataset.label.tolist() == [1, 0, 1, 2]
    assert dataset.location(2).startswith("a-001.tar:")
    assert dataset.location(2).endswith(":0.png")


def test_splits_have_shards_of_their_own_and_share_the_classes(tmp_path):
    for number in range(3):
        write_shard(tmp_path, f"train-{number}.tar", [sample("x", number, number)])
    write_shard(tmp_path, "val.tar", [sample("x", 9, 2)])
    artefact = write_artefact(tmp_path, OPTIONS | {"splits": {"validation": "val.tar", "train": "train-{2..0}.tar"}})
    train, validation = (ImageDataset(artefact, split) for split in ("train", "validation"))
    assert [grey_value(train.image(i)) for i in range(3)] == [2, 1, 0]
    assert train.label.tolist() == [2, 1, 0]
    assert validation.label.tolist() == [2]
    assert grey_value(validation.image(0)) == 9


KEYS = st.from_regex(r"([a-c]{1,2}(\.[de])?/){0,2}[a-z0-9_ ü-]{1,6}", fullmatch=True)
SUFFIXES = st.sampled_from(["jpg", "jpeg", "png", "webp", "ppm", "PNG", "JPG"])


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_keys_labels_and_images_agree_with_the_library(data):
    samples = []
    for number, key in enumerate(data.draw(st.lists(KEYS, min_size=1, max_size=6, unique=True))):
        suffix = data.draw(SUFFIXES)
        others = {"txt": "a text", "seg.png": png(200), "cls.txt": "9", "json": {"id": number}}
        extra = {name: others[name] for name in data.draw(st.sets(st.sampled_from(sorted(others))))}
        format_name = {"jpg": "JPEG", "jpeg": "JPEG"}.get(suffix.lower(), suffix.upper())
        content = encoded(Image.new("RGB", (4, 4), (number * 9,) * 3), format_name)
        samples.append({"__key__": key, suffix: content, "cls": data.draw(st.integers(-3, 9)), **extra})
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "s.tar"
        with tarfile.open(shard, "w") as archive:  # TarWriter refuses suffixes in capitals
            for sample in samples:
                for suffix, content in sample.items():
                    if suffix != "__key__":
                        body = content if isinstance(content, bytes) else json_or_text(content)
                        info = tarfile.TarInfo(f"{sample['__key__']}.{suffix}")
                        info.size = len(body)
                        archive.addfile(info, io.BytesIO(body))
        options = webdataset.Options(kind="webdataset", path=folder, splits={"test": "s.tar"})
        index = webdataset.build_index(options, Path("/"))
        opener = webdataset.open_images(options, Path("/"))
        pixels = [opener(location).tobytes() for location in index.location]
        read = list(library.WebDataset(str(shard), shardshuffle=False, empty_check=False))
    suffixes = ("jpg", "jpeg", "png", "webp", "ppm")
    assert [location.rsplit(":", 1)[1].lower() for location in index.location] == [
        f"{sample['__key__']}.{next(s for s in suffixes if s in sample)}".lower() for sample in read
    ]
    assert [index.classes[label] for label in index.label] == [str(int(sample["cls"])) for sample in read]
    contents = [next(sample[s] for s in suffixes if s in sample) for sample in read]
    assert pixels == [Image.open(io.BytesIO(content)).convert("RGB").tobytes() for content in contents]


def json_or_text(content):
    return (json.dumps(content) if isinstance(content, dict) else str(content)).encode()


@pytest.mark.parametrize(
    ("labels", "with_names", "classes", "expected"),
    [
        ([4, 0, 4], None, ["0", "4"], [1, 0, 1]),
        (["dog", "cat", "dog"], None, ["cat", "dog"], [1, 0, 1]),
        ([2, 0, 2], "dog\nbird\ncat\n", ["dog", "bird", "cat"], [2, 0, 2]),
        (["cat", "dog", 1], "dog\nbird\r\ncat\n\n", ["dog", "bird", "cat"], [2, 0, 1]),
    ],
)
def test_labels_from_json(tmp_path, labels, with_names, classes, expected):
    samples = [
        {"__key__": str(i), "jpg": encoded(Image.new("RGB", (4, 4)), "JPEG"), "json": {"y": label, "cls": 9}}
        for i, label in enumerate(labels)
    ]
    path = write_shard(tmp_path, "a.tar", samples)
    options = OPTIONS | {"splits": {"test": "a.tar"}, "label_key": "y"}
    if with_names is not None:
        (path.parent / "names.txt").write_bytes(with_names.encode())
        options |= {"classes": "names.txt"}
    dataset = open_split(tmp_path, options)
    assert dataset.classes == classes
    assert dataset.label.tolist() == expected


@pytest.mark.parametrize(
    ("sample", "options", "message"),
    [
        ({"png": png(1), "jpg": png(1), "cls": 1}, {}, "a-001.tar: sample 'k' has 2 images (k.jpg, k.png)"),
        ({"cls": 1}, {}, "a-001.tar: sample 'k' has 0 images, but must have one"),
        ({"png": png(1)}, {}, "a-001.tar: sample 'k' has 0 labels"),
        ({"png": png(1), "json": {"label": 1}}, {}, "with the suffix cls; it has json, png; see label_key"),
        ({"png": png(1), "cls": "cat"}, {}, "a-001.tar: sample 'k' must have a .cls file with a whole number"),
        ({"png": png(1), "cls": 1}, {"label_key": "y"}, "a-001.tar: sample 'k' has 0 labels"),
        ({"png": png(1), "json": {"label": 1}}, {"label_key": "y"}, "must have a .json file with 'y'"),
        ({"png": png(1), "json": [1]}, {"label_key": "y"}, "must have a .json file with 'y'"),
        ({"png": png(1), "json": {"y": 1.5}}, {"label_key": "y"}, "label 1.5 must be a whole number or a class name"),
        ({"png": png(1), "json": {"y": True}}, {"label_key": "y"}, "label True must be a whole number"),
        ({"png": png(1), "json": {"y": "cat"}}, {"label_key": "y"}, "some labels are numbers and some are names"),
    ],
)
def test_what_is_wrong_with_a_sample_is_named(tmp_path, sample, options, message):
    first = {"__key__": "0", "png": png(1), "cls": 0}
    write_shard(tmp_path, "a-000.tar", [first | {"json": {"y": 3}} if options else first])
    write_shard(tmp_path, "a-001.tar", [{"__key__": "k"} | sample])
    assert message in refused(tmp_path, OPTIONS | options)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (b"a\nb\n", "label 12 is none of the 2 classes"),
        (b"a\n\nb\n", "names.txt: must have one class name per line, none of them empty or twice"),
        (b"a\nb\na\n", "none of them empty or twice"),
        (b"", "must have one class name per line"),
        (None, "names.txt: the list of classes can't be read"),
    ],
)
def test_list_of_classes_must_fit(tmp_path, names, message):
    shard = write_shard(tmp_path, "a.tar", [sample("0", 1, 1), sample("1", 1, 12)])
    if names is not None:
        (shard.parent / "names.txt").write_bytes(names)
    assert message in refused(tmp_path, OPTIONS | {"splits": {"test": "a.tar"}, "classes": "names.txt"})


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["0.png", "1.png", "1.cls", "0.cls"], "a.tar: sample '0' has 0 labels"),
        (["0.png", "0.cls", "1.png", "1.cls", "0.jpg"], "a.tar: sample '0' occurs twice"),
        (["readme"], "a.tar: holds no samples"),
    ],
)
def test_files_of_a_key_must_lie_beside_each_other(tmp_path, members, message):
    (tmp_path / "shards").mkdir()
    make_tar(tmp_path / "shards/a.tar", dict.fromkeys(members, b"0"))
    assert message in refused(tmp_path, OPTIONS | {"splits": {"test": "a.tar"}})


def test_key_written_twice_in_a_row_is_refused(tmp_path):
    write_shard(tmp_path, "a.tar", [sample("k", 1, 1), sample("k", 2, 1)])
    message = refused(tmp_path, OPTIONS | {"splits": {"test": "a.tar"}})
    assert "a.tar" in message
    assert "'k." in message
    assert "occurs twice" in message


@pytest.mark.parametrize("lost", [1, 4, 10240 - 200, 11000])
def test_shard_that_is_cut_short_is_named(tmp_path, lost):
    """From the end mark, from the padding, and from the middle of the members."""
    shard = write_shard(tmp_path, "a-000.tar", [sample(str(i), i, i) for i in range(9)])
    write_shard(tmp_path, "a-001.tar", [sample("0", 1, 1)])
    content = shard.read_bytes()
    end = max(i for i in range(len(content)) if content[i]) + 1
    shard.write_bytes(content[: end - lost] if lost < 10 else content[: end // 2])
    message = refused(tmp_path)
    assert f"{shard}: broken or cut short" in message


def test_shard_that_is_cut_short_later_is_named_when_an_image_is_read(tmp_path):
    shard = write_two_shards(tmp_path)
    dataset = open_split(tmp_path, OPTIONS)
    shard.write_bytes(shard.read_bytes()[:600])
    with pytest.raises(PipelineError, match=r"a-001\.tar, member '0\.png': the archive is cut short"):
        dataset.image(2)


def test_image_that_can_not_be_decoded_is_named(tmp_path):
    write_shard(tmp_path, "a.tar", [{"__key__": "k", "jpg": truncated_jpeg(), "cls": 0}])
    dataset = open_split(tmp_path, OPTIONS | {"splits": {"test": "a.tar"}})
    with pytest.raises(PipelineError, match=r"a\.tar, member '.*k\.jpg': can't be decoded"):
        dataset.image(0)


def test_compressed_shards_are_refused(tmp_path):
    shard = write_two_shards(tmp_path)
    shard.write_bytes(gzip.compress(shard.read_bytes()))
    assert "a-001.tar: is compressed, so it can't be read at random; decompress it" in refused(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a-{000..001}.tar.gz", "decompress it"),
        ("a.tgz", "decompress it"),
        ("a.zip", "must name .tar shards"),
        ("a", "neither a .zip nor a .tar"),
        ("https://example.org/a-{000..009}.tar", "download the shards"),
        ("pipe:cat a.tar", "download the shards"),
    ],
)
def test_patterns_that_can_not_be_read_at_random_are_refused_by_the_config(pattern, message):
    with pytest.raises(ValueError, match=message):
        kinds.options_class("datasets", "webdataset").model_validate(OPTIONS | {"splits": {"test": pattern}})


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"test": "a-{000..002}.tar"}, "a-002.tar: no such shard; check 'path', 'splits'"),
        ({"test": "a-{000..001.tar"}, "'a-{000..001.tar' has a brace that is not closed"),
        ({"test": "a-000.tar", "train": "a-{000..001}.tar"}, "'a-000.tar' is in split 'test' and again in 'train'"),
        ({"test": "{a-000,./a-000}.tar"}, "'a-000.tar' is in split 'test' and again in 'test'"),
        ({"test": "../a-000.tar"}, "'../a-000.tar' is refused"),
    ],
)
def test_wrong_shards_are_named(tmp_path, splits, message):
    write_two_shards(tmp_path)
    assert message in refused(tmp_path, OPTIONS | {"splits": splits})


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_images_open_in_other_processes(tmp_path, method):
    write_two_shards(tmp_path)
    options = webdataset.Options.model_validate(OPTIONS)
    locations = webdataset.build_index(options, tmp_path).location
    opener = webdataset.open_images(options, tmp_path)
    assert grey_value(opener(locations[0])) == 1  # the handle is open here before the fork
    with multiprocessing.get_context(method).Pool(2) as pool:
        images = pool.map(opener, locations * 5, chunksize=1)
    assert [grey_value(image) for image in images] == [1, 2, 3, 4] * 5


def test_digest_follows_content_labels_and_names_but_not_the_place(tmp_path):
    write_two_shards(tmp_path)
    digests = [content_digest(tmp_path, OPTIONS)]
    (tmp_path / "other").mkdir()
    write_two_shards(tmp_path / "other")
    assert content_digest(tmp_path / "other", OPTIONS) == digests[0]
    write_shard(tmp_path, "a-000.tar", [sample("z/0", 99, 7), sample("a/1", 2, 3)])
    digests.append(content_digest(tmp_path, OPTIONS))
    write_shard(tmp_path, "a-000.tar", [sample("z/0", 99, 3), sample("a/1", 2, 3)])
    digests.append(content_digest(tmp_path, OPTIONS))
    (tmp_path / "shards/names.txt").write_text("\n".join("abcdefghijklm"))
    digests.append(content_digest(tmp_path, OPTIONS | {"classes": "names.txt"}))
    assert len(set(digests)) == 4


def test_watched_files_are_shards_and_classes(tmp_path):
    options = webdataset.Options.model_validate(OPTIONS | {"classes": "names.txt"})
    names = ["names.txt", "a-000.tar", "a-001.tar"]
    assert webdataset.watched_files(options, tmp_path) == [tmp_path / "shards" / name for name in names]
