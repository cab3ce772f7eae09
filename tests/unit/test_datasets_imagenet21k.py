from __future__ import annotations

import pickle
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets import imagenet21k, images
from pipeline_lib.datasets.base import UnreadableImageError
from pipeline_lib.datasets.images import ImageDataset
from tests.unit.dataset_worlds import content_digest, grey_value, make_folder, make_tar, open_split, png, write_artefact
from tests.unit.test_datasets_imagenet import tar_of

# n03931044 is in Google's list only, n00004475 and n15102894 are in all lists of 21,841 and more, n01440764 in all.
WNIDS = ["n00004475", "n01440764", "n03931044", "n15102894"]
CLASSES = {wnid: {f"{wnid}_{n}.JPEG": png(20 * row + n) for n in range(5)} for row, wnid in enumerate(WNIDS)}
OPTIONS = {"kind": "imagenet21k", "path": "winter21", "held_out": 0.4}


def make_tar_folder(path, classes=CLASSES):
    make_folder(path, {f"{wnid}.tar": tar_of(images) for wnid, images in classes.items()})


def make_outer_tar(path, classes=CLASSES, below=""):
    make_tar(path, {f"{below}{wnid}.tar": tar_of(images) for wnid, images in reversed(classes.items())})


FORMS = pytest.mark.parametrize("make", [make_tar_folder, make_outer_tar])


def all_images(data_dir, options=OPTIONS):
    """Return the grey value and class of every image by its split, in order."""
    artefact = write_artefact(data_dir, options)
    found = {}
    for split in ("train", "test"):
        dataset = ImageDataset(artefact, split)
        found[split] = [(grey_value(dataset.image(n)), dataset.classes[dataset.label[n]]) for n in range(len(dataset))]
    return found


@FORMS
def test_every_image_is_in_one_split_with_its_class(tmp_path, make):
    make(tmp_path / "winter21")
    found = all_images(tmp_path)
    assert sorted(found["train"] + found["test"]) == [(20 * r + n, w) for r, w in enumerate(WNIDS) for n in range(5)]
    assert [name for _, name in found["test"]] == [wnid for wnid in WNIDS for _ in range(2)]
    for split in found.values():
        assert split == sorted(split)


def test_folder_and_outer_tar_give_the_same_samples(tmp_path):
    make_tar_folder(tmp_path / "winter21")
    make_outer_tar(tmp_path / "winter21_whole.tar", below="winter21_whole/")
    outer = OPTIONS | {"path": "winter21_whole.tar"}
    assert all_images(tmp_path) == all_images(tmp_path, outer)
    assert content_digest(tmp_path, OPTIONS) == content_digest(tmp_path, outer)
    loose, packed = open_split(tmp_path, OPTIONS), open_split(tmp_path, outer)
    content = (tmp_path / "winter21_whole.tar").read_bytes()
    for n in range(len(loose)):
        tar, _, size, name = loose.location(n).split(":")
        assert tar == f"{name.split('_')[0]}.tar"
        offset, packed_size, packed_name = packed.location(n).split(":")
        assert (packed_size, packed_name) == (size, name)
        assert content[int(offset) :][: int(size)] == CLASSES[name.split("_")[0]][name]


names_of_class = st.lists(st.text("ab01_", min_size=1, max_size=6), min_size=1, max_size=60, unique=True)
shares = st.integers(1, 999).map(lambda thousandths: thousandths / 1000)


@settings(deadline=None)
@given(names_of_class, shares, st.integers(0, 5))
def test_number_held_out_is_the_rounded_share_but_at_least_one_and_never_all(names, share, seed):
    number = int(imagenet21k.held_out_of(names, share, seed).sum())
    if len(names) == 1:
        assert number == 0
    else:
        exact = Fraction(str(share)) * len(names)
        assert 1 <= number <= len(names) - 1
        assert abs(number - exact) <= Fraction(1, 2) or (number == 1 and exact < 1) or number == len(names) - 1


@settings(deadline=None)
@given(names_of_class, shares, shares, st.integers(0, 5), st.randoms())
def test_held_out_depends_on_names_alone_and_grows_with_the_share(names, share, other, seed, random):
    chosen = dict(zip(names, imagenet21k.held_out_of(names, share, seed).tolist(), strict=True))
    shuffled = random.sample(names, len(names))
    assert [chosen[name] for name in shuffled] == imagenet21k.held_out_of(shuffled, share, seed).tolist()
    small, large = (imagenet21k.held_out_of(names, value, seed) for value in sorted((share, other)))
    assert (small <= large).all()


def test_every_image_is_held_out_as_often_over_seeds():
    """A sum of 400 draws with a share of 1/4 has a standard deviation of 8.7; five of them are allowed."""
    names = [f"n01440764/n01440764_{n}.JPEG" for n in range(40)]
    often = sum(imagenet21k.held_out_of(names, 0.25, seed).astype(int) for seed in range(400))
    assert np.abs(often - 100).max() < 5 * 8.7
    assert often.sum() == 10 * 400


def test_half_rounds_up():
    assert imagenet21k.held_out_of([str(n) for n in range(300)], 0.005, 0).sum() == 2  # 1.5
    assert imagenet21k.held_out_of([str(n) for n in range(299)], 0.005, 0).sum() == 1
    assert imagenet21k.held_out_of([str(n) for n in range(1000)], 0.0005, 0).sum() == 1


@FORMS
def test_other_classes_and_other_images_leave_a_class_as_it_is(tmp_path, make):
    make(tmp_path / "winter21")
    before = all_images(tmp_path)
    make(tmp_path / "few", {wnid: CLASSES[wnid] for wnid in WNIDS[1:3]})
    after = all_images(tmp_path, OPTIONS | {"path": "few"})
    for split in ("train", "test"):
        assert after[split] == [(value, wnid) for value, wnid in before[split] if wnid in WNIDS[1:3]]


@FORMS
@pytest.mark.parametrize(("name", "number"), [("imagenet21k", 21_843), ("imagenet22k", 21_841), ("imagenet1k", 1000)])
def test_labels_are_positions_in_a_list_of_classes(tmp_path, make, name, number):
    make(tmp_path / "winter21", {wnid: CLASSES[wnid] for wnid in WNIDS[1:2]})
    dataset = open_split(tmp_path, OPTIONS | {"classes": name})
    assert len(dataset.classes) == number
    assert dataset.classes == sorted(dataset.classes)
    assert {dataset.classes[label] for label in dataset.label} == {"n01440764"}


def test_list_of_the_augreg_classifiers_has_their_number_of_outputs():
    import timm

    model = timm.models.get_pretrained_cfg("vit_base_patch16_224.augreg_in21k")
    assert model.num_classes == len(imagenet21k.class_list("imagenet21k"))


@pytest.mark.parametrize(("name", "number"), [("imagenet12k", 11_821), ("imagenet21k_miil", 11_221),
                                              ("imagenet22k_ms", 21_842)])  # fmt: skip
def test_every_allowed_list_exists(name, number):
    assert len(set(imagenet21k.class_list(name))) == number


@FORMS
def test_class_that_the_list_lacks_is_named_or_left_out(tmp_path, make):
    make(tmp_path / "winter21")
    options = OPTIONS | {"classes": "imagenet22k"}
    with pytest.raises(PipelineError, match=r"1 of its 4 classes are not .*imagenet22k' \(the first is n03931044\)"):
        open_split(tmp_path, options)
    dataset = open_split(tmp_path, options | {"skip_unlisted": 1})
    assert {dataset.classes[label] for label in dataset.label} == set(WNIDS) - {"n03931044"}
    assert [grey_value(dataset.image(n)) // 20 for n in range(len(dataset))] == [0, 0, 1, 1, 3, 3]
    with pytest.raises(PipelineError, match="1 of its 4 classes"):
        open_split(tmp_path, options)


def test_no_class_in_the_list_is_an_error_whatever_may_be_left_out(tmp_path):
    make_tar_folder(tmp_path / "winter21", {WNIDS[2]: CLASSES[WNIDS[2]]})
    with pytest.raises(PipelineError, match="none of its 1 classes is in the list 'imagenet22k'"):
        open_split(tmp_path, OPTIONS | {"classes": "imagenet22k", "skip_unlisted": 5})


def test_unknown_list_is_refused_in_the_config():
    with pytest.raises(ValidationError, match="imagenet21k"):
        imagenet21k.Options.model_validate(OPTIONS | {"classes": "imagenet20k"})


@FORMS
@pytest.mark.parametrize("bad", ["../n01440764_1.JPEG", "/n01440764_1.JPEG", "a/../../x.txt"])
def test_names_that_lead_out_are_refused(tmp_path, make, bad):
    make(tmp_path / "winter21", CLASSES | {"n01440764": {bad: png(1)}})
    with pytest.raises(PipelineError, match=r"n01440764\.tar.*is refused") as caught:
        open_split(tmp_path, OPTIONS)
    assert f"'{bad}'" in str(caught.value)


def test_tar_that_leads_out_of_the_outer_tar_is_refused(tmp_path):
    make_outer_tar(tmp_path / "winter21", below="../")
    with pytest.raises(PipelineError, match=r"the name '\.\./n15102894\.tar' is refused"):
        open_split(tmp_path, OPTIONS)


@FORMS
@pytest.mark.parametrize("blocks", [1, 2, 3, 5, 8, 9])
def test_inner_tar_cut_short_is_named(tmp_path, make, blocks):
    """Cut in a header, in a content, and between two members."""
    make(tmp_path / "winter21")
    cut = tar_of(CLASSES["n03931044"])[: 512 * blocks - (200 if blocks % 2 else 0)]
    files = {f"{wnid}.tar": cut if wnid == "n03931044" else tar_of(images) for wnid, images in CLASSES.items()}
    if make is make_tar_folder:
        (tmp_path / "winter21/n03931044.tar").write_bytes(cut)
    else:
        make_tar(tmp_path / "winter21", files)
    with pytest.raises(PipelineError, match=r"n03931044\.tar'?: broken or cut short") as caught:
        open_split(tmp_path, OPTIONS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", ["in header", "in content", "before the end mark", "between", "empty"])
def test_outer_tar_cut_short_is_named(tmp_path, end):
    make_outer_tar(tmp_path / "winter21")
    content = (tmp_path / "winter21").read_bytes()
    with tarfile.open(tmp_path / "winter21") as opened:
        members = opened.getmembers()
    last = members[-1].offset_data + members[-1].size
    at = {
        "in header": members[2].offset + 100,
        "in content": members[2].offset_data + 700,
        "before the end mark": last,
        "between": members[2].offset,
        "empty": 0,
    }
    (tmp_path / "winter21").write_bytes(content[: at[end]])
    with pytest.raises(PipelineError, match=r"winter21.*: (broken or cut short|is an empty file)") as caught:
        open_split(tmp_path, OPTIONS)
    assert "\n" not in str(caught.value)


def test_wnid_with_two_tars_is_refused(tmp_path):
    files = {f"{below}n01440764.tar": tar_of(CLASSES["n01440764"]) for below in ("a/", "b/")}
    make_tar(tmp_path / "winter21", files)
    with pytest.raises(PipelineError, match=r"member 'b/n01440764\.tar': class n01440764 has another tar too"):
        open_split(tmp_path, OPTIONS)


@FORMS
def test_image_that_occurs_twice_is_refused(tmp_path, make):
    make(tmp_path / "winter21", CLASSES | {"n01440764": {"n01440764_1.JPEG": png(1), "./n01440764_1.JPEG": png(2)}})
    with pytest.raises(PipelineError, match=r"n01440764\.tar.*member 'n01440764_1\.JPEG' occurs twice"):
        open_split(tmp_path, OPTIONS)


@FORMS
def test_class_without_images_is_named(tmp_path, make):
    make(tmp_path / "winter21", CLASSES | {"n01440764": {"readme.txt": b"none"}})
    with pytest.raises(PipelineError, match=r"n01440764\.tar'?: holds no images"):
        open_split(tmp_path, OPTIONS)


def test_files_that_are_no_tars_do_not_matter(tmp_path):
    make_tar_folder(tmp_path / "winter21")
    before = all_images(tmp_path), content_digest(tmp_path, OPTIONS)
    make_folder(tmp_path / "winter21", {"README": b"x", "n01530575.tar.part": b"x", ".n01530575.tar": b"", "n/": b""})
    assert (all_images(tmp_path), content_digest(tmp_path, OPTIONS)) == before


@FORMS
def test_tar_that_is_not_named_by_a_class_is_refused(tmp_path, make):
    make(tmp_path / "winter21", CLASSES | {"animals": CLASSES["n01440764"]})
    with pytest.raises(PipelineError, match=r"tar 'animals\.tar' is not named by a class"):
        open_split(tmp_path, OPTIONS)


def test_tar_that_is_a_link_in_the_outer_tar_is_refused(tmp_path):
    link = tarfile.TarInfo("n03931044.tar")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    make_tar(tmp_path / "winter21", {"n01440764.tar": tar_of(CLASSES["n01440764"])}, [link])
    with pytest.raises(PipelineError, match=r"member 'n03931044\.tar': is a link or a special file"):
        open_split(tmp_path, OPTIONS)


def test_missing_and_empty_and_compressed_sources_are_named(tmp_path):
    with pytest.raises(PipelineError, match="winter21: no such archive; check 'path'"):
        open_split(tmp_path, OPTIONS)
    with tarfile.open(tmp_path / "winter21", "w:gz"):
        pass
    with pytest.raises(PipelineError, match="winter21: is compressed, so it can't be read at random; unpack it once"):
        open_split(tmp_path, OPTIONS)
    make_tar(tmp_path / "winter21", {"readme.txt": b"nothing here"})
    with pytest.raises(PipelineError, match=r"winter21: holds no tar of a class \(such as n01440764\.tar\)"):
        open_split(tmp_path, OPTIONS)
    (tmp_path / "winter21").unlink()
    (tmp_path / "winter21").mkdir()
    with pytest.raises(PipelineError, match="winter21: holds no tar of a class"):
        open_split(tmp_path, OPTIONS)


@FORMS
def test_tar_that_shrank_after_indexing_is_noticed_on_opening(tmp_path, make):
    make(tmp_path / "winter21")
    dataset = open_split(tmp_path, OPTIONS, "train")
    path = tmp_path / "winter21"
    for tar in path.iterdir() if path.is_dir() else [path]:
        with open(tar, "r+b") as file:
            file.truncate(600)
    with pytest.raises(UnreadableImageError, match="the archive is cut short"):
        dataset.image(len(dataset) - 1)


@FORMS
def test_opener_can_be_sent_to_other_processes_and_serves_more_tars_than_stay_open(tmp_path, make):
    wnids = [f"n{number:08d}" for number in range(20)]
    make(tmp_path / "winter21", {wnid: {"a.JPEG": png(row)} for row, wnid in enumerate(wnids)})
    options = imagenet21k.Options.model_validate(OPTIONS)
    index = imagenet21k.build_index(options, tmp_path)
    opener = pickle.loads(pickle.dumps(imagenet21k.open_images(options, tmp_path)))
    for _ in range(2):
        assert [grey_value(opener(location)) for location in index.location.to_pylist()] == list(range(20))


@FORMS
def test_opener_serves_threads(tmp_path, make):
    """More tars than stay open: a handle must not be closed while another thread reads from it."""
    wnids = [f"n{number:08d}" for number in range(20)]
    make(tmp_path / "winter21", {wnid: {"a.JPEG": png(row)} for row, wnid in enumerate(wnids)})
    options = imagenet21k.Options.model_validate(OPTIONS)
    locations = imagenet21k.build_index(options, tmp_path).location.to_pylist() * 50
    opener = imagenet21k.open_images(options, tmp_path)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda location: grey_value(opener(location)), locations))
    assert found == list(range(20)) * 50


@FORMS
def test_digest_follows_names_and_sizes_but_not_bytes(tmp_path, make):
    make(tmp_path / "winter21")
    before = content_digest(tmp_path, OPTIONS)
    changes = {"n01440764_1.JPEG": png(99)}, {"n01440764_1.JPEG": png(99) + b"more"}, {"n01440764_9.JPEG": png(1)}
    digests = []
    for change in changes:
        path = tmp_path / "winter21"
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path, CLASSES | {"n01440764": CLASSES["n01440764"] | change})
        digests.append(content_digest(tmp_path, OPTIONS))
    assert len(png(99)) == len(CLASSES["n01440764"]["n01440764_1.JPEG"])
    assert digests[0] == before
    assert len({before, *digests}) == 3


def test_source_is_watched(tmp_path):
    options = imagenet21k.Options.model_validate(OPTIONS)
    assert imagenet21k.watched_files(options, tmp_path) == [tmp_path / "winter21"]


def test_a_range_of_images_is_read_without_the_rest(tmp_path, monkeypatch):
    """Of groups of rows that hold none of them only the splits are read; the rows are those of the whole split."""
    monkeypatch.setattr(images, "_GROUP_ROWS", 3)
    make_tar_folder(tmp_path / "winter21")
    artefact = write_artefact(tmp_path, OPTIONS)
    read, groups = pq.ParquetFile.read_row_group, []

    def reading(file, group, columns):
        groups.extend([group] if "location" in columns else [])
        return read(file, group, columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", reading)
    whole = ImageDataset(artefact, "train")
    assert groups == list(range(7))  # 20 images
    groups.clear()
    part = ImageDataset(artefact, "train", (4, 6))
    assert groups == [2, 3]
    assert part.sample_id.tolist() == whole.sample_id[4:6].tolist()
    assert part.label.tolist() == whole.label[4:6].tolist()
    assert [part.location(n) for n in range(len(part))] == [whole.location(n) for n in (4, 5)]
