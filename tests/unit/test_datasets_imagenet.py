from __future__ import annotations

import gzip
import io
import pickle
import shutil
import tarfile

import numpy as np
import pytest
import torchvision.datasets.imagenet as torchvision_imagenet
from scipy.io import savemat

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets import imagenet
from pipeline_lib.datasets.images import ImageDataset
from tests.unit.dataset_worlds import content_digest, grey_value, make_folder, make_tar, open_split, png, write_artefact

OPTIONS = {"kind": "imagenet", "path": "imagenet", "missing_classes": 996}
# Four of the thousand classes, with their positions in classifiers' outputs and their numbers in the devkit, which
# are in another order; 1001 is a group of classes.
POSITION = {"n01440764": 0, "n01443537": 1, "n01530575": 10, "n15075141": 999}
DEVKIT_NUMBER = {"n01440764": 449, "n01443537": 3, "n01530575": 2, "n15075141": 1}
TRAIN = {
    wnid: {f"{wnid}_{n}.JPEG": png(10 * row + n) for n in (2, 10, 1)} for row, wnid in enumerate(reversed(POSITION))
}
TRUTH = ["n15075141", "n01440764", "n01443537", "n01440764", "n01530575"]
VALIDATION = {f"ILSVRC2012_val_{n:08d}.JPEG": png(200 + n) for n in range(1, len(TRUTH) + 1)}


def tar_of(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as opened:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def devkit(truth=TRUTH):
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "n_train")
    rows = [(1001, "n00001740", "entity", "that which is", 2, [1, 2], 2, 0)]
    rows += [(number, wnid, "one, two", "a thing", 0, [], 0, 1300) for wnid, number in DEVKIT_NUMBER.items()]
    synsets = np.empty((len(rows), 1), [(field, object) for field in fields])
    for number, row in enumerate(rows):
        synsets[number, 0] = row
    stream = io.BytesIO()
    savemat(stream, {"synsets": synsets})
    lines = "".join(f"{DEVKIT_NUMBER[wnid]}\n" for wnid in truth).encode()
    data = "ILSVRC2012_devkit_t12/data/"
    files = {f"{data}meta.mat": stream.getvalue(), f"{data}ILSVRC2012_validation_ground_truth.txt": lines}
    return gzip.compress(tar_of(files), mtime=0)


def make_train_tar(root, train=None):
    root.mkdir(exist_ok=True)
    make_tar(root / imagenet.TRAIN_TAR, {f"{wnid}.tar": tar_of(images) for wnid, images in (train or TRAIN).items()})


def make_archives(root):
    make_train_tar(root)
    make_tar(root / imagenet.VALIDATION_TAR, dict(reversed(VALIDATION.items())))
    (root / imagenet.DEVKIT).write_bytes(devkit())


def make_flat(root):
    make_train_tar(root)
    make_folder(root / "val", VALIDATION)
    (root / imagenet.DEVKIT).write_bytes(devkit())


def make_folders(root):
    make_folder(root, {f"train/{wnid}/{name}": image for wnid, of in TRAIN.items() for name, image in of.items()})
    pairs = zip(TRUTH, VALIDATION.items(), strict=True)
    make_folder(root, {f"val/{wnid}/{name}": image for wnid, (name, image) in pairs})


LAYOUTS = pytest.mark.parametrize("make", [make_archives, make_flat, make_folders])


@LAYOUTS
def test_every_layout_gives_the_same_images_and_labels(tmp_path, make):
    make(tmp_path / "imagenet")
    artefact = write_artefact(tmp_path, OPTIONS)
    train, validation = (ImageDataset(artefact, split) for split in ("train", "validation"))
    assert len(train.classes) == 1000
    assert [train.classes[label] for label in POSITION.values()] == list(POSITION)
    assert train.label.tolist() == [label for label in POSITION.values() for _ in range(3)]
    # By name: _1, _10, _2.
    assert [grey_value(train.image(n)) for n in range(12)] == [10 * row + n for row in (3, 2, 1, 0) for n in (1, 10, 2)]
    assert validation.label.tolist() == [POSITION[wnid] for wnid in TRUTH]
    assert [grey_value(validation.image(n)) for n in range(5)] == [201, 202, 203, 204, 205]
    assert validation.sample_id.tolist() == [12, 13, 14, 15, 16]


def test_labels_are_torchvisions(tmp_path, monkeypatch):
    """torchvision unpacks the same archives, and is told not to compare their MD5 with the genuine ones."""
    make_archives(tmp_path / "imagenet")
    shutil.copytree(tmp_path / "imagenet", tmp_path / "unpacked")
    monkeypatch.setattr(torchvision_imagenet, "_verify_archive", lambda *_: None)
    artefact = write_artefact(tmp_path, OPTIONS)
    for split, name in (("train", "train"), ("val", "validation")):
        theirs = torchvision_imagenet.ImageNet(tmp_path / "unpacked", split=split)
        wanted = {path.rsplit("/", 1)[1]: theirs.wnids[label] for path, label in theirs.samples}
        ours = ImageDataset(artefact, name)
        found = {ours.location(n).rsplit(":", 1)[1]: ours.classes[label] for n, label in enumerate(ours.label.tolist())}
        assert found == wanted
    loose = open_split(tmp_path, OPTIONS | {"path": "unpacked"}, "validation")
    assert loose.location(0).startswith("val/n15075141/")
    assert loose.label.tolist() == [POSITION[wnid] for wnid in TRUTH]


def test_nested_offset_is_that_of_the_bytes_in_the_outer_file(tmp_path):
    make_archives(tmp_path / "imagenet")
    dataset = open_split(tmp_path, OPTIONS, "train")
    outer = (tmp_path / "imagenet" / imagenet.TRAIN_TAR).read_bytes()
    for n in range(len(dataset)):
        archive, offset, size, name = dataset.location(n).split(":")
        assert archive == imagenet.TRAIN_TAR
        assert outer[int(offset) :][: int(size)] == TRAIN[name.split("_")[0]][name]


@LAYOUTS
def test_one_split_alone_is_enough(tmp_path, make):
    make(tmp_path / "imagenet")
    for name in ("train", imagenet.TRAIN_TAR):
        path = tmp_path / "imagenet" / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
    artefact = write_artefact(tmp_path, OPTIONS)
    assert ImageDataset(artefact, "validation").sample_id.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(PipelineError, match="has no split 'train'; it has validation"):
        ImageDataset(artefact, "train")


def test_neither_split_is_an_error(tmp_path):
    with pytest.raises(PipelineError, match=r"imagenet: holds none of train/, ILSVRC2012_img_train.tar, val/ and"):
        open_split(tmp_path, OPTIONS)


@LAYOUTS
def test_classes_without_images_are_counted(tmp_path, make):
    make(tmp_path / "imagenet")
    with pytest.raises(PipelineError, match=r"996 of 1,000 classes .*'train' \(the first is n01484850\).*only 995 may"):
        open_split(tmp_path, OPTIONS | {"missing_classes": 995})


def test_class_that_is_not_of_imagenet_1k_is_named(tmp_path):
    make_train_tar(tmp_path / "imagenet", TRAIN | {"n00004475": {"n00004475_1.JPEG": png(1)}})
    with pytest.raises(PipelineError, match="class 'n00004475' of split 'train' is none of ImageNet-1k's 1,000"):
        open_split(tmp_path, OPTIONS, "train")


def swap(root, name, content):
    (root / name).write_bytes(content)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: (root / imagenet.DEVKIT).unlink(), "devkit_t12.tar.gz: missing, but it says which class"),
        (lambda root: swap(root, imagenet.DEVKIT, devkit()[:300]), "devkit_t12.tar.gz: broken or cut short"),
        (lambda root: swap(root, imagenet.DEVKIT, devkit(TRUTH[:4])), "holds 5 images, but ILSVRC2012_devkit.* of 4"),
        (lambda root: swap(root, imagenet.DEVKIT, gzip.compress(tar_of({"x": b""}))), "has no file data/meta.mat"),
        (
            lambda root: swap(
                root,
                imagenet.DEVKIT,
                gzip.compress(
                    tar_of(
                        {
                            f"ILSVRC2012_devkit_t12/data/{name}": b"x"
                            for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")
                        }
                    )
                ),
            ),
            r"devkit_t12.tar.gz: can't be read \(",
        ),
    ],
)
@pytest.mark.parametrize("make", [make_archives, make_flat])
def test_faults_of_the_devkit_are_named(tmp_path, make, break_it, message):
    make(tmp_path / "imagenet")
    break_it(tmp_path / "imagenet")
    with pytest.raises(PipelineError, match=message) as caught:
        open_split(tmp_path, OPTIONS)
    assert "\n" not in str(caught.value)


def test_image_without_a_number_or_beyond_the_ground_truth_is_named(tmp_path):
    make_flat(tmp_path / "imagenet")
    first = tmp_path / "imagenet/val/ILSVRC2012_val_00000001.JPEG"
    first.rename(first.with_name("ILSVRC2012_val_00000006.JPEG"))
    with pytest.raises(PipelineError, match=r"has 5 classes, none for 'ILSVRC2012_val_00000006\.JPEG'"):
        open_split(tmp_path, OPTIONS)
    first.with_name("ILSVRC2012_val_00000006.JPEG").rename(first.with_name("cat.JPEG"))
    with pytest.raises(PipelineError, match=r"val: 'cat\.JPEG' is no name like ILSVRC2012_val_00000001\.JPEG"):
        open_split(tmp_path, OPTIONS)


def test_half_sorted_validation_folder_is_refused(tmp_path):
    make_folders(tmp_path / "imagenet")
    shutil.move(tmp_path / "imagenet/val/n15075141/ILSVRC2012_val_00000001.JPEG", tmp_path / "imagenet/val")
    with pytest.raises(PipelineError, match=r"val/ILSVRC2012_val_00000001\.JPEG: lies beside class folders"):
        open_split(tmp_path, OPTIONS)


def test_validation_image_in_two_classes_is_refused(tmp_path):
    make_folders(tmp_path / "imagenet")
    name = "ILSVRC2012_val_00000001.JPEG"
    shutil.copy(tmp_path / f"imagenet/val/n15075141/{name}", tmp_path / "imagenet/val/n01440764")
    with pytest.raises(PipelineError, match=rf"image '{name}' occurs twice, as val/n01440764/.* and val/n15075141/"):
        open_split(tmp_path, OPTIONS)


@pytest.mark.parametrize("keep", [0.4, 0.8, 0.97])
@pytest.mark.parametrize("name", [imagenet.TRAIN_TAR, imagenet.VALIDATION_TAR])
def test_archive_cut_short_is_refused(tmp_path, name, keep):
    make_archives(tmp_path / "imagenet")
    content = (tmp_path / "imagenet" / name).read_bytes().rstrip(b"\0")
    swap(tmp_path / "imagenet", name, content[: int(keep * len(content))])
    with pytest.raises(PipelineError, match=rf"{name}.*: broken or cut short") as caught:
        open_split(tmp_path, OPTIONS)
    assert "\n" not in str(caught.value)


@LAYOUTS
@pytest.mark.parametrize("checksum", ["content", "size"])
def test_digest_follows_what_checksum_says(tmp_path, make, checksum):
    options = OPTIONS | {"checksum": checksum}
    make(tmp_path / "imagenet")
    before = content_digest(tmp_path, options)
    assert content_digest(tmp_path, options) == before
    for path in sorted((tmp_path / "imagenet").rglob("*")):
        if path.is_file() and b"\x89PNG" in path.read_bytes():
            # Another picture of the same size.
            path.write_bytes(path.read_bytes().replace(png(203), png(204)))
    assert len(png(203)) == len(png(204))
    assert (content_digest(tmp_path, options) != before) == (checksum == "content")


@LAYOUTS
def test_opener_can_be_sent_to_other_processes(tmp_path, make):
    make(tmp_path / "imagenet")
    options = imagenet.Options.model_validate(OPTIONS)
    index = imagenet.build_index(options, tmp_path)
    opener = pickle.loads(pickle.dumps(imagenet.open_images(options, tmp_path)))
    assert [grey_value(opener(index.location[n])) for n in (0, 12)] == [31, 201]


def test_watched_files_are_those_that_are_there(tmp_path):
    root = tmp_path / "imagenet"
    options = imagenet.Options.model_validate(OPTIONS)
    assert imagenet.watched_files(options, tmp_path) == [root]
    make_flat(root)
    assert imagenet.watched_files(options, tmp_path) == [
        root, root / "val", root / imagenet.TRAIN_TAR, root / imagenet.DEVKIT
    ]  # fmt: skip
    shutil.rmtree(root)
    make_folders(root)
    below = [root / f"{split}/{wnid}" for split in ("train", "val") for wnid in POSITION]
    assert imagenet.watched_files(options, tmp_path) == [
        root, root / "train", *below[:4], root / "val", *below[4:]
    ]  # fmt: skip
