"""Every kind of dataset, in its genuine layout, from the source's bytes to the evaluation of the baselines.

The stages run one after another in this process, as the workflow would run them. What they made is compared with what
a fixture knows of its images (class, content and votes), never with the index alone.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import datasets as huggingface_library
import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import entropy, spearmanr
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from pipeline_lib.backbones.artefact import open_backbone
from pipeline_lib.backbones.base import Backbone
from pipeline_lib.config import kinds
from pipeline_lib.config.config import Config
from pipeline_lib.config.load import parse_config
from pipeline_lib.config.views import view_spec
from pipeline_lib.core.artefacts import MANIFEST
from pipeline_lib.core.jobs import Ref, Settings
from pipeline_lib.datasets import blend, glyphs, imagenet
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.scripts import CHARACTERS
from pipeline_lib.datasets.views import make_view
from pipeline_lib.evaluation.metric_rows import read_metric_rows
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.stages import features
from pipeline_lib.stages.graph import Graph, load_stage
from tests.unit import worlds
from tests.unit.dataset_worlds import encoded, make_folder, make_tar, make_zip
from tests.unit.test_datasets_class_halves import BIRDS, CUB, SIZES, make_birds
from tests.unit.test_datasets_huggingface import rows, save, save_parquet
from tests.unit.test_datasets_imagenet import POSITION, devkit, make_train_tar
from tests.unit.test_datasets_imagenet21k import make_outer_tar, make_tar_folder
from tests.unit.test_datasets_imagenet_real import file_name, make_labels
from tests.unit.test_datasets_sop import make_products
from tests.unit.test_datasets_tfds import prepare_set
from tests.unit.test_datasets_votes import annotators, make_votes
from tests.unit.test_datasets_webdataset import write_shard

ROOT = Path(__file__).parents[2]
VIEWS = ("eval", "centre_crop")
CHECKED_EMBEDDINGS = 40
SHARE_OF_COLOUR = 0.1  # so little that some images have a neighbour of another class


class Source(NamedTuple):
    """What a fixture knows of one image: its class, its file or picture, and its votes, where anyone voted."""

    label: str
    content: bytes | Image.Image
    votes: tuple[float, ...] = ()

    def picture(self) -> Image.Image:
        if isinstance(self.content, Image.Image):
            return self.content
        with Image.open(io.BytesIO(self.content)) as opened:
            return opened.convert("RGB")


Sources = Callable[[ImageDataset], list[Source]]


class Case(NamedTuple):
    """A dataset on the disk: its config section, the split to evaluate, and the sources of its images in order."""

    options: dict[str, Any]
    split: str
    sources: Sources
    has_votes: bool = False


@functools.cache
def picture(number: int) -> bytes:
    """Return a PNG of noise; four numbers that follow a multiple of four share their colour."""
    colour = np.random.default_rng(1000 + number // 4).uniform(0, 256, 3)
    noise = np.random.default_rng(number).uniform(0, 256, (14, 11, 3))
    return encoded(Image.fromarray((SHARE_OF_COLOUR * colour + (1 - SHARE_OF_COLOUR) * noise).astype(np.uint8)), "PNG")


def pictures_of(labels: Sequence[int]) -> list[bytes]:
    """Return a picture of its own for each image, of one colour per class; at most four per class."""
    return [picture(4 * label + list(labels[:n]).count(label)) for n, label in enumerate(labels)]


def in_order(sources: Sequence[Source]) -> Sources:
    """Return the sources as the fixture lists them."""
    return lambda images: list(sources)


def in_any_order(sources: Sequence[Source]) -> Sources:
    """Return the sources in the order in which their pictures are found: a kind may shuffle or divide them."""

    def find(images: ImageDataset) -> list[Source]:
        by_pixels = {source.picture().tobytes(): source for source in sources}
        assert len(by_pixels) == len(sources)
        return [by_pixels.pop(images.image(position).tobytes()) for position in range(len(images))]

    return find


PETS = ("cat", "dog", "owl")
# The index lists splits by name, so the images of `test` come after those of `development`.
PHOTOS = {f"val/{pet}/{n}.png": picture(4 * row + n) for row, pet in enumerate(PETS) for n in range(4)}
TRAINING_PHOTOS = {f"train/{pet}/{n}.jpg": picture(100 + n) for pet in PETS for n in range(2)}
FOLDERS = {"splits": {"development": "train", "test": "val"}}
PHOTO_SOURCES = in_order([Source(name.split("/")[1], content) for name, content in PHOTOS.items()])


def folder(data_dir: Path) -> Case:
    make_folder(data_dir / "photos", PHOTOS | TRAINING_PHOTOS)
    return Case({"kind": "folder", "path": "photos", **FOLDERS}, "test", PHOTO_SOURCES)


def archive(make: Callable[[Path, Mapping[str, bytes]], None], name: str, data_dir: Path) -> Case:
    members = {f"photos/{member}": content for member, content in (TRAINING_PHOTOS | PHOTOS).items()}
    make(data_dir / name, dict(reversed(members.items())))
    return Case({"kind": "archive", "path": name, "root": "photos", **FOLDERS}, "test", PHOTO_SOURCES)


VOTES = [(9, 0, 0), (6, 3, 0), (5, 2, 2), (2, 2, 2), (0, 9, 0), (1, 7, 1), (0, 5, 4), (3, 0, 6), (0, 0, 9)]


def table(data_dir: Path) -> Case:
    rows = [(11 - n, votes) for n, votes in enumerate(VOTES)]
    make_folder(data_dir / "pictures", {f"{n}.png": picture(n) for n, _ in rows})
    frame = pd.DataFrame([votes for _, votes in rows], columns=["dog", "cat", "owl"])
    frame.insert(0, "path", [f"{n}.png" for n, _ in rows])
    frame["part"] = "test"
    frame.loc[3, "part"] = "train"
    frame.to_csv(data_dir / "votes.csv", index=False)
    sources = [Source(["dog", "cat", "owl"][int(np.argmax(votes))], picture(n), votes) for n, votes in rows]
    del sources[3]
    options = {"kind": "table", "path": "votes.csv", "images": "pictures", "split_column": "part"}
    return Case(options, "test", in_order(sources), has_votes=True)


def class_halves(data_dir: Path) -> Case:
    make_birds(data_dir)
    content = {(bird, n): picture(40 + 8 * row + n) for row, bird in enumerate(BIRDS) for n in range(SIZES[bird])}
    images = {f"images/{bird}/{n:04d}_{9 - n}.jpg": image for (bird, n), image in content.items()}
    make_folder(data_dir / "CUB_200_2011", images)
    sources = [Source(bird, image) for (bird, _), image in content.items() if bird in BIRDS[2:]]
    return Case(CUB, "test", in_order(sources))


def sop(data_dir: Path) -> Case:
    listed = [(20 + n // 4, 1 + n // 4, f"kettle_final/{20 + n // 4}_{n}.JPG") for n in (3, 0, 6, 1, 2, 5, 4, 7)]
    root = make_products(data_dir, "Info_Files/", "images/", test=listed)
    content = {path: picture(n) for n, (_, _, path) in enumerate(listed)}
    make_folder(root / "images", content)
    options = {"kind": "sop", "path": "Stanford_Online_Products"}
    return Case(options, "test", in_order([Source(str(label), content[path]) for label, _, path in listed]))


def votes(data_dir: Path) -> Case:
    """Nine images of the split have votes and one has none, so that it can't be in the dataset."""
    names = [f"fold2/{n}.png" for n in range(10)]
    images = {name: picture(n) for n, name in enumerate(names)} | {f"fold{n}/0.png": picture(50) for n in (1, 3, 4, 5)}
    counts = dict(zip([*names[:4], *names[5:]], VOTES, strict=True))
    ballots = [[PETS[label] for label, count in enumerate(given) for _ in range(count)] for given in counts.values()]
    by_image = dict(zip(counts, ballots, strict=True)) | {f"fold{n}/0.png": ["cat"] * 9 for n in (1, 3, 4, 5)}
    # The third of nine people gives the third ballot of each image; an image with fewer ballots has nulls.
    people = [[[*by_image.get(image, []), *[None] * 9][person] for image in images] for person in range(9)]
    make_votes(data_dir, annotators(people, "CIFAR10H/", images), images)
    sources = [Source(PETS[int(np.argmax(given))], images[name], given) for name, given in counts.items()]
    options = {"kind": "votes", "path": "CIFAR10H", "skip_unvoted": 1}
    return Case(options, "test", in_order(sources), has_votes=True)


def tfds(data_dir: Path) -> Case:
    test = [(n // 4, picture(n)) for n in range(8)]
    prepare_set(data_dir, {"train": [(n % 2, picture(100 + n)) for n in range(4)], "test": test})
    options = {"kind": "tfds", "name": "tiny", "splits": {"train": "train", "test": "test"}}
    return Case(options, "test", in_any_order([Source(["dog", "cat"][label], content) for label, content in test]))


WNIDS = list(POSITION)
TRAINING = {wnid: {f"{wnid}_{n}.JPEG": picture(4 * row + n % 4) for n in (2, 11, 1)} for row, wnid in enumerate(WNIDS)}
TRUTH = [WNIDS[number] for number in (3, 0, 1, 0, 2, 3, 0, 1, 2)]
VALIDATION = {
    file_name(n): content for n, content in enumerate(pictures_of([10 + WNIDS.index(wnid) for wnid in TRUTH]), start=1)
}
IMAGENET = {
    "train": [Source(wnid, content) for wnid, images in TRAINING.items() for _, content in sorted(images.items())],
    "validation": [Source(*pair) for pair in zip(TRUTH, VALIDATION.values(), strict=True)],
}


def imagenet_tars(root: Path, truth: Sequence[str] = TRUTH, validation: Mapping[str, bytes] = VALIDATION) -> None:
    make_train_tar(root, dict(reversed(TRAINING.items())))
    make_tar(root / imagenet.VALIDATION_TAR, dict(reversed(validation.items())))
    (root / imagenet.DEVKIT).write_bytes(devkit(truth))


def imagenet_folders(root: Path) -> None:
    make_folder(root, {f"train/{wnid}/{name}": image for wnid, of in TRAINING.items() for name, image in of.items()})
    pairs = zip(TRUTH, VALIDATION.items(), strict=True)
    make_folder(root, {f"val/{wnid}/{name}": image for wnid, (name, image) in pairs})


def imagenet_1k(make: Callable[[Path], None], split: str, data_dir: Path) -> Case:
    make(data_dir / "imagenet")
    return Case({"kind": "imagenet", "path": "imagenet", "missing_classes": 996}, split, in_order(IMAGENET[split]))


def imagenet_21k(make: Callable[[Path, Mapping[str, dict[str, bytes]]], None], name: str, data_dir: Path) -> Case:
    """Five images of each class, of which a hash holds two out."""
    classes = {w: {f"{w}_{n}.JPEG": picture(8 * row + n) for n in range(5)} for row, w in enumerate(WNIDS)}
    make(data_dir / name, classes)
    sources = [Source(wnid, content) for wnid, images in classes.items() for content in images.values()]
    return Case({"kind": "imagenet21k", "path": name, "held_out": 0.4}, "train", in_any_order(sources))


def imagenet_real(data_dir: Path) -> Case:
    """The first four images have the votes of the unit test: those of people, of the labels, of people, and none."""
    numbers = [0, 8, 40, 41, 60, 20, 21, 22, 9, 10]
    truth = [WNIDS[0]] * len(numbers)
    validation = {file_name(number): picture(n) for number, n in enumerate(numbers, start=1)}
    imagenet_tars(data_dir / "imagenet", truth, validation)
    real = [[7], [20, 3], [], [], [500], [7], [7], [7, 20, 3], [3], [3, 7]]
    make_labels(data_dir, real)
    labels = [30, 3, 999, POSITION[truth[3]], 500, 7, 7, 3, 3, 3]
    counts = [(2, 2, 1), (1, 1), (1,), (), (1,), (1,), (1,), (1, 1, 1), (1,), (1, 1)]
    names = [imagenet.classes()[label] for label in labels]
    sources = [Source(*source) for source in zip(names, validation.values(), counts, strict=True)]
    options = {"kind": "imagenet_real", "path": "imagenet", "missing_classes": 999}
    options |= {"real_labels": "real.json", "raters": "raters.npz"}
    return Case(options, "validation", in_order(sources), has_votes=True)


def huggingface(write: Callable[..., Path], options: dict[str, Any], data_dir: Path) -> Case:
    labels = [2, 0, 1, 1, 0, 2, 0, 1, 2, 2]
    test = pictures_of(labels)
    data = huggingface_library.DatasetDict(train=rows([100, 101], [0, 1]), test=rows(test, labels))
    write(data_dir, data, **options)
    sources = [Source(["dog", "cat", "eel"][label], content) for label, content in zip(labels, test, strict=True)]
    return Case({"kind": "huggingface", "name": "pets"}, "test", in_order(sources))


def webdataset(data_dir: Path) -> Case:
    labels = [7, 3, 12, 12, 7, 3, 7, 12, 3]
    samples = [
        {"__key__": f"part{n % 2}/{20 - n}", "png": content, "cls": label}
        for n, (label, content) in enumerate(zip(labels, pictures_of(labels), strict=True))
    ]
    write_shard(data_dir, "train-000.tar", [{"__key__": "0", "png": picture(100), "cls": 9}])
    write_shard(data_dir, "val-000.tar", samples[:5])
    write_shard(data_dir, "val-001.tar", samples[5:])
    options = {"kind": "webdataset", "path": "shards"}
    options["splits"] = {"train": "train-{000..000}.tar", "validation": "val-{000..001}.tar"}
    return Case(options, "validation", in_order([Source(str(sample["cls"]), sample["png"]) for sample in samples]))


def greek(data_dir: Path) -> Case:
    options = {"kind": "glyphs", "script": "greek", "image_size": 24, "per_class": {"test": 3, "train": 1}}
    render = glyphs.open_images(glyphs.Options.model_validate(options), data_dir)
    sources = [Source(letter, render(f"test/{n}/{letter}")) for n in range(3) for letter in CHARACTERS["greek"]]
    return Case(options, "test", in_order(sources))


def digits(data_dir: Path) -> Case:
    bunch = load_digits()
    greys = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    pictures = [Image.fromarray(grey).convert("RGB") for grey in greys]
    sources = [Source(str(label), image) for label, image in zip(bunch.target, pictures, strict=True)]
    return Case({"kind": "digits", "image_size": 8}, "test", in_order(sources))


def blended(data_dir: Path) -> Case:
    """A location says which characters are mixed and in what ratio: that of the votes."""
    options = {"kind": "blend", "script": "greek", "image_size": 24, "per_class": {"test": 4, "train": 1}}
    render = blend.open_images(blend.Options.model_validate(options), data_dir)

    def source(location: str) -> Source:
        _, _, first, second, text = location.split("/")
        label, share = min(first, second) if float(text) == 0.5 else first, float(text)
        return Source(label, render(location), (100 * share, 100 - 100 * share))

    return Case(options, "test", lambda images: [source(images.location(n)) for n in range(len(images))], True)


CASES: dict[str, Callable[[Path], Case]] = {
    "folder": folder,
    "archive-zip": functools.partial(archive, make_zip, "photos.zip"),
    "archive-tar": functools.partial(archive, make_tar, "photos.tar"),
    "table": table,
    "class_halves": class_halves,
    "sop": sop,
    "votes": votes,
    "tfds": tfds,
    "imagenet-tars-train": functools.partial(imagenet_1k, imagenet_tars, "train"),
    "imagenet-tars-validation": functools.partial(imagenet_1k, imagenet_tars, "validation"),
    "imagenet-folders-train": functools.partial(imagenet_1k, imagenet_folders, "train"),
    "imagenet-folders-validation": functools.partial(imagenet_1k, imagenet_folders, "validation"),
    "imagenet21k-tar-of-tars": functools.partial(imagenet_21k, make_outer_tar, "winter21_whole.tar"),
    "imagenet21k-folder-of-tars": functools.partial(imagenet_21k, make_tar_folder, "winter21"),
    "imagenet_real": imagenet_real,
    "huggingface-saved": functools.partial(huggingface, save, {"num_shards": {"train": 1, "test": 2}}),
    "huggingface-parquet": functools.partial(huggingface, save_parquet, {}),
    "webdataset": webdataset,
    "glyphs": greek,
    "digits": digits,
    "blend": blended,
}
WITH_VOTES = ("table", "votes", "imagenet_real", "blend")
READ_BY_WORKERS = ("archive-zip", "archive-tar", "tfds", "imagenet21k-tar-of-tars", "huggingface-saved", "webdataset")


@dataclass(frozen=True)
class Evaluated:
    """A case with what the stages made of it, and its sources in the split's order."""

    case: Case
    graph: Graph
    name: str
    images: ImageDataset
    sources: list[Source]

    @property
    def of_split(self) -> dict[str, str]:
        """The wildcards that name what is made of the split."""
        return {"backbone": "mine", "dataset": self.name, "split": self.case.split}

    @property
    def evaluation(self) -> Path:
        """The folder of the baselines' evaluation."""
        return self.graph.folder(Ref.to("baselines", **self.of_split))

    def cache(self, view: str) -> FeatureCache:
        return FeatureCache(self.graph.folder(Ref.to("cache", view=view, **self.of_split)).parent)

    def scores(self) -> pd.DataFrame:
        return pd.read_parquet(self.evaluation / "scores.parquet")

    def value(self, metric: str, method: str) -> tuple[float, int]:
        rows = read_metric_rows(self.evaluation / "metrics.csv")
        (row,) = rows[(rows["metric"] == metric) & (rows["method"] == method)].itertuples()
        return row.value, row.n


class World:
    """One backbone and one evaluated upstream set, which all cases share."""

    def __init__(self, root: Path) -> None:
        self._root, self._evaluated = root, {}
        self._backbone = worlds.custom_options(root)
        graph = self._evaluate("latin", "test", self._config(root, {}))
        self.model: Backbone = open_backbone(graph.folder(Ref.to("backbone", backbone="mine")))

    def evaluate(self, name: str) -> Evaluated:
        """Return a case, evaluated once."""
        if name not in self._evaluated:
            data = self._root / name / "data"
            data.mkdir(parents=True)
            case = CASES[name](data)
            graph = self._evaluate(name, case.split, self._config(data, {name: case.options}))
            images = ImageDataset(graph.folder(Ref.to("dataset", dataset=name)), case.split)
            self._evaluated[name] = Evaluated(case, graph, name, images, case.sources(images))
        return self._evaluated[name]

    def _config(self, data_dir: Path, datasets: dict[str, dict[str, Any]]) -> Config:
        latin = {"kind": "glyphs", "image_size": 24, "per_class": {"train": 1, "test": 2}, "difficulty": [0.0, 0.2]}
        return parse_config(
            {
                "data_dir": str(data_dir),
                "upstream": {"dataset": "latin"},
                "downstream": [{"dataset": "latin", "split": "train"}],
                "datasets": {"latin": latin, **datasets},
                "backbones": {"mine": self._backbone},
                "variants": {"default": {}},
                "seeds": [1],
                "features": {"device": "cpu", "batch_size": 32, "block_samples": 2000},
                "evaluation": {"neighbours": {"device": "cpu"}, "bootstrap": {"resamples": 20}},
            }
        )

    def _evaluate(self, dataset: str, split: str, config: Config) -> Graph:
        """Run all stages from the index to the baselines, as far as nobody else did."""
        self._make(Ref.to("dataset", dataset=dataset), config)
        return self._make(Ref.to("baselines", backbone="mine", dataset=dataset, split=split), config)

    def _make(self, target: Ref, config: Config) -> Graph:
        graph = Graph(config, self._root / "results", ROOT / "workflow/published")
        missing = [ref for ref in graph.behind([target]) if not (graph.folder(ref) / MANIFEST).exists()]
        for ref in missing:
            load_stage(ref.stage).run(graph.job(ref))
        return graph


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        for owner in (huggingface_library.config, huggingface_hub.constants):
            patch.setattr(owner, "HF_HUB_OFFLINE", True)
        yield World(tmp_path_factory.mktemp("world"))


EACH = pytest.mark.parametrize("name", CASES)


@EACH
def test_the_split_holds_exactly_the_images_of_the_source_with_their_classes(world: World, name: str) -> None:
    found = world.evaluate(name)
    assert len(found.images) == len(found.sources) > 4
    assert [found.images.classes[label] for label in found.images.label] == [source.label for source in found.sources]
    assert len(set(found.images.label.tolist())) > 1


@EACH
def test_caches_and_scores_hold_the_labels_and_sample_ids_of_the_index(world: World, name: str) -> None:
    found = world.evaluate(name)
    scores = found.scores()
    for array in ("label", "sample_id"):
        expected = getattr(found.images, array).tolist()
        assert scores[array].tolist() == expected
        for view in VIEWS:
            assert found.cache(view).read_all(array).tolist() == expected


@EACH
def test_each_representation_is_that_of_the_sources_own_bytes(world: World, name: str) -> None:
    found, model = world.evaluate(name), world.model
    chosen = np.unique(np.linspace(0, len(found.sources) - 1, CHECKED_EMBEDDINGS).astype(int))
    for kind in VIEWS:
        view = make_view(view_spec(found.graph.config.features, kind), model.data_config)
        drawn = [view(found.sources[n].picture(), int(found.images.sample_id[n]), 0) for n in chosen]
        with torch.inference_mode():
            expected = model.from_pixels(torch.stack([pixels for pixels, _ in drawn]))[0].numpy()
        cache = found.cache(kind)
        cached = cache.read_all("embedding")[chosen].astype(np.float32)
        np.testing.assert_allclose(cached, expected, rtol=2e-3, atol=1e-3)
        if kind == "centre_crop":
            np.testing.assert_allclose(cache.read_all("crop_fraction")[chosen], [share for _, (share,) in drawn])
        # The tolerance tells every two images apart.
        distance = np.abs(expected[:, None] - expected[None, :]).max(axis=2)
        assert distance[~np.eye(len(chosen), dtype=bool)].min() > 5e-3 or kind == "centre_crop"


@EACH
def test_recall_at_1_is_that_of_a_loop_over_the_cached_representations(world: World, name: str) -> None:
    found = world.evaluate(name)
    cache = found.cache("eval")
    vectors, label = cache.read_all("embedding").astype(np.float64), [source.label for source in found.sources]
    norm = np.sqrt((vectors * vectors).sum(axis=1))
    nearest = []
    for query in range(len(vectors)):
        similarity = (vectors * vectors[query]).sum(axis=1) / (norm * norm[query])
        similarity[query] = -np.inf
        nearest.append(int(similarity.argmax()))
    correct = [label[neighbour] == label[query] for query, neighbour in enumerate(nearest)]
    scores = found.scores()
    assert scores["neighbour_sample_id"].tolist() == found.images.sample_id[nearest].tolist()
    assert scores["correct"].tolist() == correct
    assert found.value("r1", "representation") == (pytest.approx(np.mean(correct), abs=1e-12), len(label))


@pytest.mark.parametrize("name", WITH_VOTES)
def test_metrics_of_votes_are_those_of_the_images_with_votes(world: World, name: str) -> None:
    found = world.evaluate(name)
    voted = np.array([len(source.votes) > 0 for source in found.sources])
    disagreement = np.array([entropy(source.votes) for source in found.sources if source.votes])
    assert voted.all() == (name != "imagenet_real")
    scores = found.scores()
    assert np.isnan(scores["vote_entropy"]).tolist() == (~voted).tolist()
    np.testing.assert_allclose(scores["vote_entropy"][voted], disagreement, atol=1e-12)
    uncertainty = {key: scores[key] for key in ("class_entropy", "knn_distance")}
    uncertainty["embedding_norm"] = -scores["embedding_norm"]
    for method in uncertainty:
        u = uncertainty[method][voted].to_numpy()
        # The fixtures' entropies may differ in the last bit where the votes are equal.
        expected = spearmanr(u, disagreement.round(9)).statistic
        assert found.value("rcorr_entropy", method) == (pytest.approx(expected, abs=1e-9), voted.sum())
        expected = roc_auc_score(disagreement > 1e-9, u)
        assert found.value("auroc_not_dirac", method) == (pytest.approx(expected, abs=1e-9), voted.sum())
        value, n = found.value("auroc_correct", method)
        assert n == len(voted)
        expected = roc_auc_score(~scores["correct"], uncertainty[method])
        assert value == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", [name for name in CASES if name not in WITH_VOTES])
def test_sets_without_votes_have_no_metrics_of_votes(world: World, name: str) -> None:
    found = world.evaluate(name)
    metrics = set(read_metric_rows(found.evaluation / "metrics.csv")["metric"])
    assert {"auroc_correct", "auroc_ood", "auroc_correct_mixed", "rcorr_crop_unc"} <= metrics
    assert not metrics & {"rcorr_entropy", "auroc_not_dirac"}
    assert "vote_entropy" not in found.scores()


@pytest.mark.parametrize("name", READ_BY_WORKERS)
def test_two_worker_processes_write_the_same_bytes_as_none(world: World, name: str, tmp_path: Path) -> None:
    """They are forked from a process that has read the source already."""
    found = world.evaluate(name)
    found.images.image(0)
    graph = found.graph
    blocks = [ref for view in VIEWS for ref in graph.sources(Ref.to("cache", view=view, **found.of_split))]
    blocks = [ref for ref in blocks if ref.stage == "features"]
    jobs = [graph.job(ref, tmp_path / dict(ref.wildcards)["view"]) for ref in blocks]
    features.run_together([replace(job, settings=Settings(workers=2)) for job in jobs])
    assert len(jobs) == len(VIEWS)
    for ref, job in zip(blocks, jobs, strict=True):
        # With the checksum of every file.
        assert (job.output / MANIFEST).read_bytes() == (graph.folder(ref) / MANIFEST).read_bytes()


def test_every_kind_of_dataset_is_here(world: World) -> None:
    assert {world.evaluate(name).case.options["kind"] for name in CASES} == set(kinds.kinds("datasets"))
    assert {name for name in CASES if world.evaluate(name).case.has_votes} == set(WITH_VOTES)


def test_the_config_knows_which_sets_have_votes(world: World) -> None:
    """Their figure is drawn where it says so."""
    for name in CASES:
        found = world.evaluate(name)
        assert found.graph.config.datasets[found.of_split["dataset"]].has_votes == (name in WITH_VOTES), name
