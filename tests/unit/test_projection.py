"""Maps of representations: which images, which distances, the same every time; and the page that shows them."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.manifold import trustworthiness

from pipeline_lib.config.evaluation import Projection
from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Job
from pipeline_lib.evaluation import projection
from pipeline_lib.evaluation.projection import chosen_classes, project, reduced, tsne_coordinates
from pipeline_lib.evaluation.spec import ProjectionSpec
from pipeline_lib.figures import projection_page
from pipeline_lib.figures.projection_page import json_for_script, thumbnail
from tests.browser import needs_browser, visit
from tests.jobs import run as make

CLASSES = ["b", "a", "empty", "c"]
EVIL = [
    "</script><script>document.title='bad'</script>",
    '<img src=x onerror="fail()">',
    "{{data}} & Ä",
]


class ArrayCache:
    """The part of `FeatureCache` that a projection reads, over arrays in memory."""

    def __init__(self, view_dir: Path, **arrays: np.ndarray) -> None:
        self.view_dir, self.arrays = view_dir, arrays
        with artefacts.writing(view_dir / "cache", "cache", {}):
            pass
        self.manifest = artefacts.read(view_dir / "cache", "cache")

    def read(self, array: str, epoch: int, start: int, stop: int) -> np.ndarray:
        assert epoch == 0
        return self.arrays[array][start:stop]

    def read_all(self, array: str) -> np.ndarray:
        return self.arrays[array]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A dataset of three classes (20 of b, 25 of a, 15 of c), of which image 3 is not in the cache."""
    root = tmp_path_factory.mktemp("world")
    names = ["b"] * 20 + ["a"] * 25 + ["c"] * 15
    table = pd.DataFrame({"path": [f"{i}.png" for i in range(len(names))], "class": names})
    (root / "images").mkdir()
    for path in table["path"]:
        (root / "images" / path).write_bytes(b"never decoded here")
    table.to_csv(root / "t.csv", index=False)
    options = {"kind": "table", "path": "t.csv", "images": "images", "split": "test", "label_column": "class"}
    make("dataset", {"name": "three", "options": options, "data_dir": str(root)}, root / "dataset")
    classes = artefacts.read(root / "dataset", "dataset").facts["classes"]
    sample_id = np.delete(np.arange(len(names)), 3)
    label = np.array([classes.index(names[each]) for each in sample_id])
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(3, 64))[label] + 0.3 * rng.normal(size=(len(label), 64))
    cache = ArrayCache(root / "eval", sample_id=sample_id, label=label, embedding=embedding.astype(np.float16))
    return SimpleNamespace(root=root, cache=cache, names=names)


def run(world: SimpleNamespace, out: Path, **more: Any) -> pd.DataFrame:
    maps = Projection(**({"class_count": 2, "max_images": 1000, "perplexity": 8, "neighbours": 6} | more))
    spec = ProjectionSpec(backbone="small", dataset="three", split="test", maps=maps)
    project(Job("projection", spec, {"dataset": (world.root / "dataset",)}, out), world.cache)
    return pd.read_parquet(out / "coordinates.parquet")


@pytest.fixture
def without_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the slow maps out where a test is about which images are chosen."""
    for name in ("tsne_coordinates", "umap_coordinates"):
        monkeypatch.setattr(projection, name, lambda points, *_: np.zeros((len(points), 2), np.float32))


@pytest.mark.slow  # importing and compiling UMAP takes half a minute
def test_maps_keep_neighbours_and_come_out_the_same(world: SimpleNamespace, tmp_path: Path) -> None:
    table = run(world, tmp_path / "a")
    assert table.columns.tolist() == ["sample_id", "label", "class_name", "tsne_x", "tsne_y", "umap_x", "umap_y"]
    assert table["class_name"].value_counts().to_dict() == {"a": 25, "b": 19}
    assert table["class_name"].tolist() == [world.names[each] for each in table["sample_id"]]
    rows = np.searchsorted(world.cache.arrays["sample_id"], table["sample_id"])
    embedding = world.cache.arrays["embedding"][rows].astype(np.float64)
    for name in ("tsne", "umap"):
        points = table[[f"{name}_x", f"{name}_y"]].to_numpy()
        assert np.isfinite(points).all()
        assert trustworthiness(embedding, points, n_neighbors=5, metric="cosine") > 0.75
        # The classes are far apart: on a map that means something, the nearest other point is of the same class.
        distance = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(len(points))
        assert (table["label"].to_numpy()[distance.argmin(axis=1)] == table["label"]).all()
    run(world, tmp_path / "b")
    assert len({artefacts.read(tmp_path / name, "projection").digest for name in "ab"}) == 1


def test_tsne_comes_out_the_same_and_keeps_clusters_apart() -> None:
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(2), 20)
    points = (rng.normal(size=(40, 5)) + 8 * cluster[:, None]).astype(np.float32)
    distance = np.linalg.norm(np.diff(tsne_coordinates(points, 5, 1), axis=0), axis=1)
    assert distance.argmax() == 19  # the step from one cluster to the other
    np.testing.assert_array_equal(tsne_coordinates(points, 5, 1), tsne_coordinates(points, 5, 1))


def test_reduced_keeps_cosine_neighbours() -> None:
    rng = np.random.default_rng(0)
    # 60 dimensions of which 45 vary, far from the origin: PCA to 50 loses nothing, but moves the origin.
    values = 3 + rng.normal(size=(80, 45)) @ rng.normal(size=(45, 60)) / 5
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    expected = (unit @ unit.T - 2 * np.eye(80)).argmax(axis=1)
    points = reduced(values).astype(np.float64)
    assert points.shape == (80, 50)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(80)
    np.testing.assert_array_equal(distance.argmin(axis=1), expected)


def test_classes_with_most_images_come_first_and_ties_by_name() -> None:
    label = np.array([0] * 3 + [1] * 3 + [3] * 5)
    assert chosen_classes(CLASSES, label, None, 2, "d") == [3, 1]
    assert chosen_classes(CLASSES, label, None, 9, "d") == [3, 1, 0]
    assert chosen_classes(CLASSES, label, ["b", "c"], 1, "d") == [0, 3]
    with pytest.raises(PipelineError, match=r"dataset 'd' has no class 'emtpy'.*empty"):
        chosen_classes(CLASSES, label, ["emtpy"], 1, "d")


@pytest.mark.usefixtures("without_maps")
def test_a_sample_depends_on_the_seed_alone(world: SimpleNamespace, tmp_path: Path) -> None:
    first, again, other = (run(world, tmp_path / "x", max_images=20, seed=seed)["sample_id"] for seed in (0, 0, 1))
    assert len(first) == 20 and first.is_monotonic_increasing and first.is_unique
    assert first.tolist() == again.tolist() != other.tolist()
    assert set(run(world, tmp_path / "x", classes=["c"])["class_name"]) == {"c"}


@pytest.mark.usefixtures("without_maps")
def test_a_small_set_has_a_smaller_neighbourhood(world: SimpleNamespace, tmp_path: Path) -> None:
    run(world, tmp_path / "out", perplexity=100, neighbours=60)
    facts = artefacts.read(tmp_path / "out", "projection").facts
    assert facts["rows"] == 44 and facts["perplexity"] == pytest.approx(43 / 3) and facts["neighbours"] == 43


class Page(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and data.strip():
            self.scripts.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    n = 30
    coordinates = pd.DataFrame(rng.normal(size=(n, 4)), columns=["tsne_x", "tsne_y", "umap_x", "umap_y"])
    coordinates.insert(0, "sample_id", np.arange(n)[::-1])
    coordinates.insert(1, "label", np.arange(n) % 3)
    coordinates.insert(2, "class_name", [EVIL[each] for each in coordinates["label"]])
    uncertainty = pd.Series(np.arange(n) / n + 0.5, index=np.arange(n))
    correct = pd.Series(np.arange(n) % 4 > 0, index=np.arange(n))
    images = SimpleNamespace(
        sample_id=np.arange(n), image=lambda position: Image.new("RGB", (100, 50), (position, position, position))
    )
    path = tmp_path_factory.mktemp("page") / "page.html"
    description = {"title": EVIL[0], "subtitle": EVIL[2]}
    path.write_text(projection_page.page(coordinates, uncertainty, correct, images, description), encoding="utf-8")
    return path


def test_page_holds_each_image_with_its_facts(page: Path) -> None:
    parsed = Page(page.read_text(encoding="utf-8"))
    assert [tag for tag, _ in parsed.tags].count("script") == len(parsed.scripts) == 2
    content = json.loads(parsed.scripts[0])
    points = content["points"]
    assert content["classes"] == EVIL
    for k, sample in enumerate(points["sample"]):
        assert points["u"][k] == pytest.approx(sample / 30 + 0.5, rel=1e-4)
        assert points["correct"][k] == int(sample % 4 > 0)
        assert points["class"][k] == (29 - sample) % 3
        kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.*)", points["thumbnail"][k]).groups()
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert picture.size == (64, 32) and picture.format.lower() == kind
        assert abs(picture.convert("RGB").getpixel((9, 9))[0] - sample) <= 2
    assert min(points["umap_x"]) == 0 and max(points["umap_x"]) == 1


def test_page_loads_nothing_and_names_stay_text(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert not {"link", "iframe", "object", "embed"} & {tag for tag, _ in parsed.tags}
    assert not any(key in ("src", "href", "onerror") for _, attributes in parsed.tags for key in attributes)
    assert "default-src 'none'" in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert text.count(html.escape(EVIL[0])) == 2  # title and heading
    assert "{{data}} &amp; Ä" in text  # a name that looks like a place in the template


def test_equal_input_gives_equal_bytes_and_small_pictures_stay_as_they_are() -> None:
    assert json_for_script(["</script>", "&"]) == '["\\u003c/script\\u003e","\\u0026"]'
    small = Image.effect_noise((40, 30), 50)
    picture = Image.open(io.BytesIO(base64.b64decode(thumbnail(small).partition(",")[2])))
    assert picture.size == (40, 30)
    assert thumbnail(small) == thumbnail(small)


@needs_browser
def test_page_works_without_a_mouse(page: Path, tmp_path: Path) -> None:
    script = """
    const say = [];
    const isDrawn = () => {
      const canvas = document.getElementById("map");
      return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0);
    };
    const key = (name) => document.getElementById("map").dispatchEvent(new KeyboardEvent("keydown", {key: name}));
    const sample = () => document.querySelector("#details dd:last-of-type").textContent;
    say.push(document.title === "bad" || document.querySelector("img[onerror]") ? "hacked" : "safe");
    document.getElementById("more").click(); say.push(sample());
    key("ArrowRight"); say.push(sample());
    document.getElementById("less").click(); key("ArrowLeft"); say.push(sample());
    document.querySelector("#classes input").click(); say.push(document.getElementById("count").textContent);
    const lowest = document.getElementById("lowest");
    lowest.value = 100; lowest.dispatchEvent(new Event("input"));
    say.push(document.getElementById("count").textContent);
    say.push(isDrawn());
    document.getElementById("all").click(); document.querySelector("input[value=umap]").click(); say.push(isDrawn());
    document.getElementById("none").click(); say.push(document.getElementById("count").textContent);
    record("said", ...say); report();"""
    said = visit(page, script, tmp_path)["said"]
    # Sample k has the k-th lowest u. The first class is that of samples 29, 26, ...: sample 28 is the highest left.
    assert said[:4] == ["safe", "sample 0", "sample 1", "sample 29"]
    assert said[4].startswith("20 of 30 images shown; the nearest neighbour of 6 of them")
    assert said[5].startswith("0 of 30 images shown: choose a class")
    assert said[6:8] == [False, True]
    assert said[8].startswith("0 of 30")
