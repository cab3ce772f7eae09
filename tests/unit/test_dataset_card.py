"""The dataset card: every count agrees with one made by hand or with plain Python over the raw files."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from pipeline_lib.__main__ import main
from pipeline_lib.core import artefacts
from pipeline_lib.core.code import imported_modules
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets import card as cards
from pipeline_lib.datasets import card_page, pixels
from pipeline_lib.datasets.base import UnreadableImageError
from pipeline_lib.datasets.pixels import Splits, open_splits
from pipeline_lib.figures import contact_sheet
from pipeline_lib.stages import dataset
from tests.jobs import run
from tests.unit.dataset_worlds import encoded, make_folder, png, truncated_jpeg

PETS = {"kind": "folder", "path": "pets", "splits": {"train": "train", "test": "val"}, "skip_unreadable": 1}
WEB = {"kind": "folder", "path": "web", "split": "train"}

FILES = {"card.json", "card.md", "card.html", "contact_sheet.png", "pixels.parquet"}


def noise(seed: int, width: int = 6, height: int = 5) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def with_text(image: Image.Image) -> bytes:
    text, stream = PngImagePlugin.PngInfo(), io.BytesIO()
    text.add_text("Comment", "saved twice")
    image.save(stream, "PNG", pnginfo=text, compress_level=0)
    return stream.getvalue()


def artefact(data_dir: Path, name: str, options: Mapping[str, Any]) -> Path:
    spec = {"name": name, "options": options, "data_dir": str(data_dir)}
    return run("dataset", spec, data_dir / "artefacts" / name)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Known faults: 1 = 3 = 4 (two classes), 2 = val/1, 5 is broken, owl has one image, 6 and val/7 are turned."""
    make_folder(
        tmp_path / "pets",
        {
            "train/cat/1.png": encoded(noise(1), "PNG"),
            "train/cat/2.png": encoded(noise(2), "PNG"),
            "train/cat/3.png": with_text(noise(1)),
            "train/dog/4.bmp": encoded(noise(1), "BMP"),
            "train/dog/5.jpg": truncated_jpeg(),
            "train/dog/6.png": png(7, 4),
            "train/owl/7.png": encoded(noise(3, 40, 30), "PNG"),
            "val/cat/1.bmp": encoded(noise(2), "BMP"),
            "val/cat/2.png": encoded(noise(4), "PNG"),
            "val/dog/3.png": encoded(noise(1), "PNG"),
            "val/dog/4.png": encoded(Image.new("RGB", (2, 8), (7, 7, 7)), "PNG"),
        },
    )
    return artefact(tmp_path, "pets", PETS)


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """A training set with the picture of val/cat/2.png, twice, and of train/dog/6.png."""
    make_folder(
        tmp_path / "web",
        {
            "wolf/1.bmp": encoded(noise(4), "BMP"),
            "wolf/2.png": encoded(noise(4), "PNG"),
            "wolf/3.png": encoded(noise(9), "PNG"),
            "dog/4.bmp": encoded(Image.new("RGB", (4, 4), (7, 7, 7)), "BMP"),
        },
    )
    return artefact(tmp_path, "web", WEB)


def card_of(dataset: Path, upstream: Path | None = None, **options: Any) -> dict[str, Any]:
    return card_of_splits([open_splits(dataset)], upstream and open_splits(upstream), **options)


def card_of_splits(datasets: list[Splits], upstream: Splits | None = None, **options: Any) -> dict[str, Any]:
    return cards.build_card(*cards.measure_datasets(datasets, upstream, **options), **options)


def write_config(tmp_path: Path, **datasets: Mapping[str, Any]) -> Path:
    """Write the config of a world whose upstream set is `web` and whose results are in `results`."""
    content = {
        "results_dir": str(tmp_path / "results"),
        "data_dir": str(tmp_path),
        "upstream": {"dataset": "web", "train_split": "train", "eval_split": "train"},
        "downstream": [{"dataset": name, "split": "test"} for name in datasets],
        "datasets": {"web": WEB, **datasets},
        "backbones": {"small": {"kind": "trained", "architecture": "test_resnet"}},
        "variants": {"default": {}},
        "seeds": [0],
    }
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


def decoded_splits(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Return which splits were decoded since the last call, from the progress lines."""
    return {line.split(":")[0].split()[-1] for line in capsys.readouterr().err.splitlines() if "images" in line}


def check(name: str, config: Path) -> None:
    assert main(["dataset_check", name, "--config", str(config)]) == 0


def write(
    output: Path, *datasets: Path, upstream: Path | None = None, upstream_card: Path | None = None, **spec: int
) -> Path:
    """Write a card as the stage does, with one image of each split unless the spec has another `count`."""
    spec = {"count": 1, **spec}
    return run("dataset_card", spec, output, dataset=datasets, upstream=upstream, upstream_card=upstream_card)


def column(table: card_page.Table, name: str) -> list[str]:
    """Return the cells of a column, from top to bottom."""
    return [row[table.columns.index(name)] for row in table.rows]


def test_counts_per_class_and_entropy_of_labels(pets):
    splits = card_of(pets)["datasets"][0]["splits"]
    train, test = splits["train"], splits["test"]
    assert (train["images"], train["classes"], train["per_class"]) == (7, 3, {"min": 1, "median": 3.0, "max": 3})
    assert (test["images"], test["classes"], test["per_class"]) == (4, 2, {"min": 2, "median": 2.0, "max": 2})
    assert (train["one_image_classes"], test["one_image_classes"]) == (["owl"], [])
    assert train["label_entropy"] == pytest.approx(-(2 * 3 / 7 * math.log(3 / 7) + 1 / 7 * math.log(1 / 7)))
    assert test["label_entropy"] == pytest.approx(math.log(2))
    assert train["votes"] is test["votes"] is None


def test_same_pixels_are_found_whatever_the_format_and_the_broken_image_is_listed(pets):
    card = card_of(pets)["datasets"][0]
    train, test = card["splits"]["train"], card["splits"]["test"]
    assert card["skip_unreadable"] == 1
    assert [image["image"] for image in train["unreadable"]] == ["train/dog/5.jpg"]
    assert train["unreadable"][0]["reason"].startswith("can't be decoded")
    assert (train["decoded"], test["decoded"], test["unreadable"]) == (7, 4, [])
    assert train["duplicates"] == {
        "groups": 1,
        "redundant": 2,
        "other_class": 1,
        "examples": [
            {
                "times": 3,
                "images": [
                    {"image": "train/cat/1.png", "class": "cat"},
                    {"image": "train/cat/3.png", "class": "cat"},
                    {"image": "train/dog/4.bmp", "class": "dog"},
                ],
            }
        ],
    }
    assert test["duplicates"] == {"groups": 0, "redundant": 0, "other_class": 0, "examples": []}


def test_images_in_common_between_splits_and_with_the_upstream_set(pets, web):
    card = card_of(pets, web)
    train, test = (card["datasets"][0]["splits"][split] for split in ("train", "test"))
    # 1, 3 and 4 are val/dog/3.png, and 2 is val/cat/1.bmp; the twin of 1 and 3 has another class.
    assert train["other_splits"]["images"] == 4
    assert train["other_splits"]["in"][0]["other_class"] == 2
    assert test["other_splits"]["images"] == 2
    assert test["other_splits"]["in"][0]["other_class"] == 0
    assert test["other_splits"]["in"][0]["examples"] == [
        {"image": "val/cat/1.bmp", "class": "cat", "twin": "train/cat/2.png", "twin_class": "cat"},
        {"image": "val/dog/3.png", "class": "dog", "twin": "train/cat/1.png", "twin_class": "cat"},
    ]
    assert (train["upstream"]["images"], test["upstream"]["images"]) == (1, 1)
    leak = test["upstream"]["in"][0]
    assert (leak["dataset"], leak["split"], leak["other_class"]) == ("web", "train", 1)
    assert leak["examples"] == [
        {"image": "val/cat/2.png", "class": "cat", "twin": "wolf/1.bmp", "twin_class": "wolf"},
    ]
    assert train["upstream"]["in"][0]["examples"][0]["image"] == "train/dog/6.png"
    assert card["upstream"] == {"name": "web", "splits": {"train": {"images": 4, "decoded": 4}}}


def test_sizes_are_those_of_images(pets):
    splits = card_of(pets)["datasets"][0]["splits"]
    for split, folder in (("train", "train"), ("test", "val")):
        found = []
        for path in sorted((pets.parents[1] / "pets" / folder).rglob("*.*")):
            if path.name != "5.jpg":
                with Image.open(path) as image:
                    found.append(image.size)
        sizes = splits[split]["sizes"]
        for side, values in zip(("width", "height"), zip(*found, strict=True), strict=True):
            ordered = sorted(values)
            for name, share in (("min", 0.0), ("q25", 0.25), ("median", 0.5), ("q95", 0.95), ("max", 1.0)):
                assert sizes[side][name] == ordered[max(0, math.ceil(share * len(ordered)) - 1)]
        (width, height), images = Counter(found).most_common(1)[0]
        assert sizes["commonest"] == {"width": width, "height": height, "images": images}
        assert sizes["distinct"] == len(set(found))


def test_votes_of_a_table(tmp_path):
    make_folder(tmp_path / "pics", {f"{n}.png": png(n) for n in range(4)})
    (tmp_path / "t.csv").write_text("path,cat,dog\n0.png,2,0\n1.png,1,1\n2.png,1,3\n3.png,0,5\n")
    directory = artefact(tmp_path, "votes", {"kind": "table", "path": "t.csv", "images": "pics"})
    facts = card_of(directory)["datasets"][0]["splits"]["test"]
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert facts["votes"] == {
        "images": 4,
        "unanimous": 2,
        "mean": pytest.approx((math.log(2) + quarter) / 4),
        "median": pytest.approx(quarter / 2),
        "max": pytest.approx(math.log(2)),
    }
    assert facts["classes"] == 2
    assert "Votes" in [table.title for table in card_page.details(card_of(directory))]


@dataclass
class Pictures:
    """A split in memory: a picture per number, none for None; the class of an image is in `names`."""

    numbers: list[int | None]
    names: list[str]
    name: str = "toy"
    split: str = "test"
    classes: list[str] = field(init=False)
    label: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.classes = sorted({"a", "b", "c", *self.names})
        self.label = np.array([self.classes.index(name) for name in self.names], np.int64)

    def __len__(self) -> int:
        return len(self.numbers)

    def location(self, position: int) -> str:
        return str(position)

    def image(self, position: int) -> Image.Image:
        number = self.numbers[position]
        if number is None:
            raise UnreadableImageError(f"root/{position}: can't be decoded (<Stream at 0x7f01>)")
        return Image.new("RGB", (number // 3 + 1, 2), (number, 0, 0))


def pictures() -> st.SearchStrategy[Pictures]:
    image = st.tuples(st.one_of(st.none(), st.integers(0, 5)), st.sampled_from("abc"))
    return st.lists(image, min_size=1, max_size=12).map(lambda drawn: Pictures(*map(list, zip(*drawn, strict=True))))


@settings(deadline=None, max_examples=50)
@given(pictures(), pictures())
def test_counts_agree_with_comparing_every_pair(one, other):
    measured = pixels.measure(one)
    readable = [i for i in range(len(one)) if one.numbers[i] is not None]
    assert measured.position.tolist() == readable
    assert [image["image"] for image in measured.unreadable] == [
        str(i) for i in range(len(one)) if one.numbers[i] is None
    ]
    assert {image["reason"] for image in measured.unreadable} <= {"can't be decoded (<Stream>)"}
    groups = [[i for i in readable if one.numbers[i] == number] for number in range(6)]
    groups = [group for group in groups if len(group) > 1]
    found = cards.duplicates(measured)
    assert found["groups"] == len(groups)
    assert found["redundant"] == sum(len(group) - 1 for group in groups)
    assert found["other_class"] == sum(len({one.names[i] for i in group}) > 1 for group in groups)
    assert sorted(group["times"] for group in found["examples"]) == sorted(map(len, groups))

    mask, facts = cards.shared(measured, pixels.measure(other))
    twins = {i: [j for j in range(len(other)) if other.numbers[j] == one.numbers[i]] for i in readable}
    assert mask.tolist() == [bool(twins[i]) for i in readable]
    assert facts["images"] == sum(map(bool, twins.values()))
    assert facts["other_class"] == sum(
        bool(js) and one.names[i] not in {other.names[j] for j in js} for i, js in twins.items()
    )


def test_hashes_tell_turned_pictures_apart_and_keep_closing_zeros():
    flat = [Image.new("RGB", size, (1, 1, 1)) for size in ((2, 8), (8, 2), (4, 4), (16, 1))]
    assert len({pixels.pixel_hash(image) for image in flat}) == 4
    assert all(len(pixels.pixel_hash(image)) == 16 for image in flat)
    # A column of 16-byte strings drops closing zero bytes when read, but never makes two hashes equal.
    ends = [bytes([1] * (16 - zeros) + [0] * zeros) for zeros in range(17)]
    assert len(np.unique(np.array(ends, "S16"))) == 17


def test_a_sample_is_repeatable_bounded_and_said_to_be_one(pets, web):
    first, again, other = (card_of(pets, web, max_images=3, seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert first["max_images"] == 3
    for card in (first, other):
        for facts in card["datasets"][0]["splits"].values():
            assert facts["decoded"] == 3
            assert facts["images"] in (7, 4)
    assert first["upstream"]["splits"]["train"] == {"images": 4, "decoded": 3}
    assert "At most 3 images per split" in card_page.overview(first).caption
    assert "At most" not in card_page.overview(card_of(pets)).caption
    assert card_page.notes(first)[0].startswith("At most 3 images per split")
    assert not any("At most" in note for note in card_page.notes(card_of(pets, web, max_images=100)))
    toy = Pictures(list(range(100)), ["a"] * 100)
    drawn = {tuple(pixels.measure(toy, 10, seed).position.tolist()) for seed in range(4)}
    assert len(drawn) == 4
    assert all(len(set(positions)) == 10 and list(positions) == sorted(positions) for positions in drawn)
    assert pixels.measure(toy, 100).position.tolist() == list(range(100))


def test_the_upstream_set_is_not_compared_with_itself(pets, web):
    card = card_of_splits([open_splits(web), open_splits(pets)], open_splits(web))
    assert card["datasets"][0]["splits"]["train"]["upstream"] is None
    assert card["datasets"][1]["splits"]["test"]["upstream"]["images"] == 1
    overview = card_page.overview(card)
    assert (overview.rows[0][:2], column(overview, "In upstream")[0]) == (["web", "train"], "–")


def test_a_split_without_a_readable_image(tmp_path):
    make_folder(tmp_path / "web", {"cat/1.png": b"", "cat/2.jpg": truncated_jpeg()})
    splits = open_splits(artefact(tmp_path, "web", WEB))
    card = card_of_splits([splits])
    facts = card["datasets"][0]["splits"]["train"]
    assert (facts["sizes"], len(facts["unreadable"]), facts["duplicates"]["groups"]) == (None, 2, 0)
    assert [image["image"] for image in facts["unreadable"]] == ["cat/1.png", "cat/2.jpg"]
    assert not any(str(tmp_path) in image["reason"] for image in facts["unreadable"])
    assert facts["label_entropy"] == 0.0
    assert column(card_page.overview(card), "Size") == ["–"]
    row = contact_sheet.pick(splits["train"], 4, 0)
    assert row.pictures == []
    assert "no image could be decoded" in [text.get_text() for text in contact_sheet.draw([row], 0, 6.75).texts]


def test_the_overview_has_a_row_per_split_and_marks_faults(pets, web):
    table = card_page.overview(card_of(pets, web))
    assert [row[:2] for row in table.rows] == [["pets", "test"], ["pets", "train"]]
    for name, expected in {
        "Images": ["4", "7"],
        "Per class": ["2 / 2 / 2", "1 / 3 / 3"],
        "One-image classes": ["0", "1"],
        "Size": ["6 x 5", "6 x 5"],
        "Unreadable": ["0", "1"],
        "Repeated": ["0", "2"],
        "Repeated, other class": ["0", "1"],
        "In other splits": ["2", "4"],
        "In upstream": ["1", "1"],
    }.items():
        assert column(table, name) == expected
    bold = {name: [isinstance(cell, card_page.Bold) for cell in column(table, name)] for name in table.columns}
    assert bold["Unreadable"] == bold["One-image classes"] == bold["Repeated"] == [False, True]
    assert bold["In upstream"] == [True, True]
    assert not any(any(bold[name]) for name in ("Dataset", "Images", "Per class", "H(labels)"))
    assert "| **2** |" in card_page.to_markdown(card_of(pets, web))


def test_the_stage_writes_a_page_and_a_sheet_that_a_second_run_repeats(tmp_path, pets, web, capsys):
    outputs = [tmp_path / "first", tmp_path / "second"]
    with artefacts.writing(outputs[1], "dataset_card", {}):
        pass  # an earlier card, which is replaced
    for output in outputs:
        write(output, pets, web, upstream=web, count=3)
    printed = capsys.readouterr().out
    page = (outputs[0] / "card.md").read_text()
    assert printed == page * 2
    manifest = artefacts.read(outputs[0], "dataset_card")
    assert set(manifest.files) == FILES
    assert manifest.files == artefacts.read(outputs[1], "dataset_card").files
    assert {name: len(records) for name, records in manifest.inputs.items()} == {"dataset": 2, "upstream": 1}
    expected = card_of_splits([open_splits(pets), open_splits(web)], open_splits(web))
    assert json.loads((outputs[0] / "card.json").read_text()) == expected
    assert page.startswith("# Dataset card: pets, web\n")
    for words in (
        "Compared with the upstream dataset web",
        "train/dog/5.jpg",
        "owl",
        "wolf/1.bmp",
        "contact_sheet.png",
    ):
        assert words in page
    assert str(tmp_path) not in page
    with Image.open(outputs[0] / "contact_sheet.png") as sheet:
        assert sheet.width == round(6.75 * 200)


def test_the_sheet_shows_the_images_that_were_drawn_with_their_classes():
    toy = Pictures([None, *range(1, 200)], ["a very long class name that fits nowhere", *("b" * 199)])
    row = contact_sheet.pick(toy, 5, seed=1)
    assert [name for _, name in row.pictures] == ["b"] * 5
    again, other = contact_sheet.pick(toy, 5, seed=1), contact_sheet.pick(toy, 5, seed=2)
    values = [[image.getpixel((0, 0))[0] for image, _ in row.pictures] for row in (row, again, other)]
    assert values[0] == values[1] != values[2]
    assert len(set(values[0])) == 5
    small = contact_sheet.pick(Pictures([3, None, 4], ["a", "b", "c"]), 5, seed=0)
    assert sorted(name for _, name in small.pictures) == ["a", "c"]
    figure = contact_sheet.draw([row, small], 1, 6.75)
    assert [axes.images[0].get_array()[0, 0, 0] for axes in figure.axes[:5]] == values[0]
    assert len(figure.axes) == 7


def test_names_on_the_sheet_stay_inside_the_figure_and_apart():
    names = ["a very long class name that fits nowhere", "Ünïcode_class", "003.Sooty_Albatross"] * 4
    rows = [
        contact_sheet.Row(f"dataset_with_a_very_long_name_{n}", "validation", 10**6, [(noise(n), x) for x in names])
        for n in range(2)
    ]
    figure = contact_sheet.draw(rows, 0, 6.75)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
    inside = figure.bbox
    assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= inside.x1 and b.y1 <= inside.y1 for b in boxes)
    assert not any(
        a.x0 < b.x1 - 1 and b.x0 < a.x1 - 1 and a.y0 < b.y1 - 1 and b.y0 < a.y1 - 1
        for a, b in itertools.combinations(boxes, 2)
    )


def test_wrong_arguments_are_named(tmp_path, pets, web):
    with pytest.raises(PipelineError, match="'pets' is given 2 times"):
        write(tmp_path / "card", pets, pets)
    with pytest.raises(PipelineError, match=r"manifest\.json: missing"):
        write(tmp_path / "card", tmp_path / "nowhere")
    assert not (tmp_path / "card").exists()
    with pytest.raises(PipelineError, match="holds an artefact of stage 'dataset', not of 'dataset_card'"):
        write(pets, pets)
    assert (pets / "index.parquet").exists()
    write(tmp_path / "card", web, count=1)
    (tmp_path / "card/notes.txt").write_text("mine")
    with pytest.raises(PipelineError, match=r"'notes\.txt' is no part of it"):
        write(tmp_path / "card", web)
    with pytest.raises(PipelineError, match="is a file"):
        write(tmp_path / "card/notes.txt", web)
    for wrong in ({"max_images": 0}, {"count": "x"}, {"seed": -1}):
        with pytest.raises(PipelineError, match=f"spec of dataset_card: {next(iter(wrong))}"):
            write(tmp_path / "card", web, **wrong)


@pytest.mark.slow
def test_the_card_needs_neither_pyplot_nor_torch(tmp_path, web):
    command = ["dataset_card", "--spec", '{"count": 2}', "--dataset", str(web), "--output", str(tmp_path / "card")]
    code = (
        f"import sys; from pipeline_lib.__main__ import main; main({command!r});"
        "print('loaded', *{'torch', 'timm', 'sklearn', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("# Dataset card: web")
    assert done.stdout.splitlines()[-1].strip() == "loaded"


def test_counts_of_every_class(pets):
    splits = card_of(pets)["datasets"][0]["splits"]
    assert splits["train"]["counts"] == {"cat": 3, "dog": 3, "owl": 1}
    assert splits["test"]["counts"] == {"cat": 2, "dog": 2}
    shown = card_page.details(card_of(pets))[0]
    assert shown.title == "Images per class"
    assert column(shown, "Classes by number of images") == ["each 2: cat, dog", "each 3: cat, dog; each 1: owl"]


@pytest.mark.slow
def test_an_earlier_card_of_the_upstream_set_spares_decoding_it_and_changes_nothing(tmp_path, pets, web, capsys):
    write(tmp_path / "cards/web", web, upstream=web)
    write(tmp_path / "cards/plain", pets, upstream=web)
    assert decoded_splits(capsys) == {"web/train", "pets/test", "pets/train"}
    write(tmp_path / "cards/known", pets, upstream=web, upstream_card=tmp_path / "cards/web")
    assert decoded_splits(capsys) == {"pets/test", "pets/train"}
    plain, known = (artefacts.read(tmp_path / "cards" / name, "dataset_card") for name in ("plain", "known"))
    assert known.files == plain.files
    # The upstream set's own card, from an earlier one, still lists what can't be decoded.
    write(tmp_path / "cards/first", pets, upstream=pets)
    write(tmp_path / "cards/again", pets, upstream=pets, upstream_card=tmp_path / "cards/first")
    assert (tmp_path / "cards/first/card.md").read_text() == (tmp_path / "cards/again/card.md").read_text()
    assert "train/dog/5.jpg" in (tmp_path / "cards/again/card.md").read_text()


@pytest.mark.slow
def test_a_card_of_other_images_is_not_used(tmp_path, pets, web, capsys):
    write(tmp_path / "cards/web", web, upstream=web)
    write(tmp_path / "cards/pets", pets)
    for old in ("web", "pets"):
        changes = {"max_images": 3} if old == "web" else {}  # the card is of all images
        capsys.readouterr()
        write(tmp_path / "cards/out", pets, upstream=web, upstream_card=tmp_path / "cards" / old, **changes)
        assert "web/train" in decoded_splits(capsys)
    make_folder(tmp_path / "web2", {"wolf/1.png": png(1)})
    other = artefact(tmp_path, "other", {**WEB, "path": "web2"})
    write(tmp_path / "cards/out", pets, upstream=other, upstream_card=tmp_path / "cards/pets")
    assert "other/train" in decoded_splits(capsys)
    # Of the same name, but not of the same images; and the same images by another name.
    (tmp_path / "web/wolf/1.bmp").write_bytes(encoded(noise(5), "BMP"))
    write(tmp_path / "cards/out", pets, upstream=artefact(tmp_path, "web", WEB), upstream_card=tmp_path / "cards/web")
    assert "web/train" in decoded_splits(capsys)
    write(tmp_path / "cards/web", artefact(tmp_path, "web", WEB))
    capsys.readouterr()
    write(tmp_path / "cards/out", pets, upstream=artefact(tmp_path, "net", WEB), upstream_card=tmp_path / "cards/web")
    assert "net/train" in decoded_splits(capsys)


def test_the_page_escapes_names_and_needs_no_other_file(tmp_path):
    make_folder(tmp_path / "web", {"<b>&cat/1.png": png(1), "dog/2.png": png(2)})
    card = card_of(artefact(tmp_path, "web", WEB))
    html = card_page.to_html(card, b"picture")
    assert "&lt;b&gt;&amp;cat" in html
    assert "<b>&cat" not in html
    assert 'src="data:image/png;base64,cGljdHVyZQ=="' in html
    assert not any(word in html for word in ("http", "href", "script"))
    assert "<td><b>One-image" not in html
    assert '<td class="number"><b>2</b></td>' in html  # both classes have one image


def test_a_dataset_of_the_config_is_checked_by_its_name(tmp_path, pets, web, capsys):
    config = write_config(tmp_path, pets=PETS)
    assert main(["dataset_check", "pets", "--config", str(config)]) == 0
    printed = capsys.readouterr().out
    card = tmp_path / "results/cards/pets"
    assert set(artefacts.read(card, "dataset_card").files) == FILES
    assert printed.startswith((card / "card.md").read_text())
    assert "Compared with the upstream dataset web" in printed
    assert f"Written to {card}" in printed
    assert not (tmp_path / "results/datasets").exists()
    write(tmp_path / "by_hand", pets, upstream=web)
    # Indexed anew, the same images give the same card as the artefacts of the workflow do.
    assert (tmp_path / "by_hand/card.json").read_bytes() == (card / "card.json").read_bytes()
    (card / "card.md").write_text("old")
    assert main(["dataset_check", "pets", "--config", str(config)]) == 0
    assert (card / "card.md").read_bytes() == (tmp_path / "by_hand/card.md").read_bytes()


def test_a_check_uses_an_index_of_the_same_options_and_files_only(tmp_path, pets, web, monkeypatch, capsys):
    config = write_config(tmp_path, pets=PETS)
    for name, options in {"pets": PETS, "web": WEB}.items():
        spec = {"name": name, "options": options, "data_dir": str(tmp_path)}
        run("dataset", spec, tmp_path / "results/datasets" / name)
    listed = []
    real = dataset.run
    monkeypatch.setattr(dataset, "run", lambda job: listed.append(job.spec.name) or real(job))
    check("pets", config)
    assert listed == []
    check("pets", write_config(tmp_path, pets={**PETS, "skip_unreadable": 2}))
    assert listed == ["pets"]
    later = time.time() + 60
    (tmp_path / "web/dog/9.png").write_bytes(png(9))
    os.utime(tmp_path / "web/dog", (later, later))
    check("pets", config)
    assert listed[1:] in (["pets", "web"], ["web", "pets"])  # the config was written anew above
    assert "train (5 of 5 images)" in capsys.readouterr().out


def test_a_check_of_the_upstream_set_decodes_it_anew(tmp_path, web, pets, capsys):
    config = write_config(tmp_path, pets=PETS)
    check("web", config)
    assert "This is the upstream dataset" in capsys.readouterr().out
    check("web", config)
    assert decoded_splits(capsys) == {"web/train"}
    check("pets", config)
    assert decoded_splits(capsys) == {"pets/test", "pets/train"}


def test_wrong_checks_are_named_in_one_line(tmp_path, pets, web, capsys):
    config = write_config(tmp_path, pets=PETS)
    for words, message in (
        (["pest", "--config", str(config)], "has no dataset 'pest'; it has pets, web; did you mean 'pets'?"),
        (["pets", "--config", str(tmp_path / "no.yaml")], "no such config file"),
    ):
        assert main(["dataset_check", *words]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert message in error


def test_an_index_does_not_depend_on_the_code_of_the_card():
    assert not {"pipeline_lib.datasets.card", "pipeline_lib.datasets.pixels"} & imported_modules(
        "pipeline_lib.stages.dataset"
    )
