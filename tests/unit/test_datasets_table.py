from __future__ import annotations

import math
import pickle
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets import table
from pipeline_lib.datasets.files import Tree
from pipeline_lib.datasets.images import content_of
from tests.unit.dataset_worlds import grey_value, make_folder, make_tar, make_zip, open_split, png

LABELS = {"kind": "table", "path": "t.csv", "images": "pics", "label_column": "class"}
VOTES = {"kind": "table", "path": "t.csv", "images": "pics"}


def write_world(data_dir, text: str, name: str = "t.csv") -> None:
    (data_dir / name).write_text(text, encoding="utf-8")
    make_folder(data_dir / "pics", {f"{n}.png": png(n) for n in range(5)})


def test_labels_are_sorted_names_and_rows_keep_their_order(tmp_path):
    write_world(tmp_path, "path,class\n3.png,dog\n1.png,NA\n./2.png,cat\n")
    dataset = open_split(tmp_path, LABELS)
    assert dataset.classes == ["NA", "cat", "dog"]
    assert dataset.label.tolist() == [2, 0, 1]
    assert [grey_value(dataset.image(i)) for i in range(3)] == [3, 1, 2]
    assert dataset.vote_entropy() is None


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet"])
def test_whole_numbers_are_classes_in_their_order_in_every_format(tmp_path, name):
    write_world(tmp_path, "")
    frame = pd.DataFrame({"path": [f"{n}.png" for n in range(4)], "class": [10, 9, -1, 10], "part": list("abab")})
    if name == "t.parquet":
        frame.to_parquet(tmp_path / name)
    else:
        frame.to_csv(tmp_path / name, sep="\t" if name == "t.tsv" else ",", index=False)
    options = LABELS | {"path": name, "split_column": "part"}
    a, b = (open_split(tmp_path, options, split) for split in "ab")
    assert a.classes == ["-1", "9", "10"]
    assert (a.label.tolist(), a.sample_id.tolist()) == ([2, 0], [0, 2])
    assert (b.label.tolist(), b.sample_id.tolist()) == ([1, 2], [1, 3])


@pytest.mark.parametrize(("name", "make"), [("pics.zip", make_zip), ("pics.tar", make_tar)])
def test_images_may_lie_in_an_archive(tmp_path, name, make):
    write_world(tmp_path, "path,class\nb/2.png,x\na/1.png,y\n")
    make(tmp_path / name, {"a/1.png": png(1), "b/2.png": png(2), "c/3.png": png(3)})
    dataset = open_split(tmp_path, LABELS | {"images": name})
    assert [grey_value(dataset.image(i)) for i in range(2)] == [2, 1]
    assert dataset.label.tolist() == [0, 1]
    (tmp_path / "t.csv").write_text("path,class\na/1.png,x\nb/4.png,y\n")
    with pytest.raises(PipelineError, match=rf"row 2 \(path 'b/4\.png'\): no such image in .*{name}"):
        open_split(tmp_path, LABELS | {"images": name})


def test_hard_label_is_the_argmax_of_votes_and_the_first_on_ties(tmp_path):
    write_world(tmp_path, "path,dog,cat,owl\n0.png,1,3,0\n1.png,2,2,2\n2.png,0,2.5,2.5\n3.png,0,0,7\n")
    dataset = open_split(tmp_path, VOTES)
    assert dataset.classes == ["dog", "cat", "owl"]
    assert dataset.label.tolist() == [1, 0, 1, 2]
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert dataset.vote_entropy().tolist() == pytest.approx([quarter, math.log(3), math.log(2), 0.0])


def test_a_config_says_whether_a_table_has_votes():
    assert table.Options(**VOTES).has_votes and not table.Options(**LABELS).has_votes


def test_vote_columns_choose_classes_and_their_order(tmp_path):
    write_world(tmp_path, "path,dog,cat,comment,part\n0.png,1,1,fine,x\n")
    dataset = open_split(tmp_path, VOTES | {"vote_columns": ["cat", "dog"], "split_column": "part"}, "x")
    assert (dataset.classes, dataset.label.tolist()) == (["cat", "dog"], [0])


@given(counts=st.lists(st.tuples(*[st.integers(0, 3)] * 3).filter(any), min_size=1, max_size=5))
def test_votes_of_any_table_come_back(tmp_path_factory, counts):
    data_dir = tmp_path_factory.mktemp("votes")
    rows = "".join(f"{n}.png,{a},{b},{c}\n" for n, (a, b, c) in enumerate(counts))
    write_world(data_dir, f"path,a,b,c\n{rows}")
    index = table.build_index(table.Options(**VOTES), data_dir)
    assert index.label.tolist() == [votes.index(max(votes)) for votes in counts]
    assert [tuple(votes.get(i, 0) for i in range(3)) for votes in index.label_counts] == counts


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("path,a,b\n0.png,1,0\n1.png,0,0\n", VOTES, r"row 2 \(path '1\.png'\): has no votes at all"),
        ("path,a,b\n0.png,1,\n", VOTES, r"row 1 \(path '0\.png'\): '' in column 'b' is no number of votes"),
        ("path,a,b\n0.png,1,-1\n", VOTES, "'-1' in column 'b' is no number of votes"),
        ("path,a,b\n0.png,1,inf\n", VOTES, "'inf' in column 'b' is no number of votes"),
        ("path,class\n0.png,cat\n", VOTES, "'cat' in column 'class' is no number of votes.*'label_column'"),
        ("path\n0.png\n", VOTES, "neither vote columns nor a label column"),
        ("path,class\n0.png,cat\n1.png,\n", LABELS, r"row 2 \(path '1\.png'\): has no label in column 'class'"),
        ("path,class\n0.png\n", LABELS, r"row 1 \(path '0\.png'\): has no label"),
        ("path,class\n9.png,cat\n", LABELS, r"row 1 \(path '9\.png'\): no such image in .*pics"),
        ("path,class\n,cat\n", LABELS, r"row 1 \(path ''\): no such image"),
        ("path,class\n../t.csv,cat\n", LABELS, r"row 1 .*'\.\./t\.csv' is refused"),
        ("path,class\n/etc/passwd,cat\n", LABELS, "row 1 .*'/etc/passwd' is refused"),
        ("path,clas\n0.png,cat\n", LABELS, "has no column 'class'.*did you mean 'clas'"),
        ("file,class\n0.png,cat\n", LABELS, "has no column 'path'; it has class, file"),
        ("path,class,s\n0.png,cat,\n", LABELS | {"split_column": "s"}, "row 1 .*has no value in split column 's'"),
        ("path,class\n0.png,Smith, John\n", LABELS, r"t\.csv: line 2 has 3 fields, .* in double quotes"),
        ("path,class\n0.png,cat\n\n1.png,dog\n", LABELS, r"t\.csv: line 3 is empty, but lines follow"),
        ("path,class,class\n0.png,cat,dog\n", LABELS, r"t\.csv: has several columns 'class'; delete or rename"),
        (
            "path,class,s\n0.png,cat,a\n1.png,cat,A\n",
            LABELS | {"split_column": "s"},
            "splits 'A' and 'a' differ in case",
        ),
        ("version https://git-lfs.github.com/spec/v1\n", LABELS, r"t\.csv: is a pointer of Git LFS"),
        ("", LABELS, r"t\.csv: is an empty file"),
        ("path,class\n", LABELS, "no images found"),
    ],
)
def test_what_is_wrong_is_named_with_row_and_path(tmp_path, text, options, message):
    write_world(tmp_path, text)
    with pytest.raises(PipelineError, match=message) as caught:
        open_split(tmp_path, options)
    assert "\n" not in str(caught.value)


def test_missing_values_of_a_parquet_table_are_named(tmp_path):
    write_world(tmp_path, "")
    options = {"path": "t.parquet"}
    pd.DataFrame({"path": ["0.png", "1.png"], "class": pd.array([7, None], "Int64")}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(PipelineError, match=r"row 2 \(path '1\.png'\): has no label"):
        open_split(tmp_path, LABELS | options)
    with pytest.raises(PipelineError, match=r"row 2 \(path '1\.png'\): .* is no number of votes"):
        open_split(tmp_path, VOTES | options)
    (tmp_path / "t.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(PipelineError, match=r"t\.parquet: can't be read as a table"):
        open_split(tmp_path, LABELS | options)


@pytest.mark.parametrize(("again", "said"), [("cat", "the same label"), ("dog", "another label")])
def test_an_image_in_several_rows_is_said_to_be(tmp_path, capsys, again, said):
    write_world(tmp_path, f"path,class\n0.png,cat\n1.png,dog\n0.png,{again}\n")
    open_split(tmp_path, LABELS)
    warned = rf"WARNING: .*row 3 \(path '0\.png'\): this image is in row 1 already, with {said} \(1 such rows\)"
    assert re.search(warned, capsys.readouterr().err)


def test_missing_table_is_named(tmp_path):
    with pytest.raises(PipelineError, match=r"t\.csv: no such table"):
        open_split(tmp_path, LABELS)


def what_readers_find(folder):
    index = table.build_index(table.Options(**LABELS), folder)
    return content_of(index, {"fingerprint": index.fingerprint})


def test_digest_changes_with_the_table_and_with_the_images(tmp_path):
    write_world(tmp_path, "path,class\n0.png,a\n1.png,b\n")
    digests = [what_readers_find(tmp_path)]
    (tmp_path / "pics/1.png").write_bytes(png(200))
    digests.append(what_readers_find(tmp_path))
    (tmp_path / "t.csv").write_text("path,class\n0.png,b\n1.png,a\n")
    digests.append(what_readers_find(tmp_path))
    (tmp_path / "pics/4.png").write_bytes(png(201))  # not in the table
    (tmp_path / "t.csv").write_text("path,class,remark\n0.png,b,\n1.png,a,blurred\n")  # of which nothing is read
    assert what_readers_find(tmp_path) == digests[-1]
    assert len(set(digests)) == 3


def test_opener_survives_pickling(tmp_path):
    write_world(tmp_path, "path,class\n3.png,a\n")
    opener = pickle.loads(pickle.dumps(table.open_images(table.Options(**LABELS), tmp_path)))
    assert grey_value(opener("3.png")) == 3


@pytest.mark.parametrize("wrong", [{"path": "t.xlsx"}, {"vote_columns": ["a"]}])
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ValidationError):
        table.Options(**(LABELS | wrong))


def test_table_and_images_are_watched(tmp_path):
    assert table.watched_files(table.Options(**LABELS), tmp_path) == [tmp_path / "t.csv", Tree(tmp_path / "pics")]
    zipped = LABELS | {"images": "pics.zip"}
    assert table.watched_files(table.Options(**zipped), tmp_path)[1] == tmp_path / "pics.zip"
