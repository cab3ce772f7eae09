"""Stages figure and table: every figure from artefacts, what makes which of them stale, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure

from pipeline_lib.config import kinds
from pipeline_lib.config.config import Config
from pipeline_lib.config.load import parse_config
from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.core.jobs import Job, Ref
from pipeline_lib.evaluation.metric_rows import write_metric_rows
from pipeline_lib.stages import command, projection_page
from pipeline_lib.stages import figure as figure_stage
from pipeline_lib.stages import table as table_stage
from tests.jobs import run
from tests.unit.drawings import (
    STEPS,
    all_text,
    make_coordinates,
    make_curves,
    make_images,
    make_joint_curves,
    make_metrics,
    make_rises,
    make_surfaces,
    make_training_curves,
)

ROOT = Path(__file__).parents[2]
SEEDS = (1, 2)
IMAGES = {"latin": 40, "greek": 30, "digits": 20}
STAGES = {"figures": figure_stage, "tables": table_stage}


def edited(**changes: Any) -> Config:
    """Return the default config of two backbones, two unseen sets and two seeds, with changes below dotted keys."""
    content = yaml.safe_load((ROOT / "config.yaml").read_text())
    content |= {"downstream": ["greek", "digits"], "seeds": list(SEEDS)}
    content["evaluation"] |= {"averaged": ["greek"]}
    content["datasets"]["digits"] = content["datasets"]["blend"]  # of a kind that has votes
    for key, value in changes.items():
        section = content
        *parents, last = key.split("__")
        for name in parents:
            section = section.setdefault(name, {})
        section[last] = value
    return parse_config(copy.deepcopy(content))


CONFIG = edited()


class World:
    """A results folder with whatever figures read, made up, each set with a number of images of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sets = [pair for _, pair in evaluation_sets()]
        metrics = make_metrics(sets[1:], list(CONFIG.backbones), SEEDS, [*CONFIG.variants, *CONFIG.ablations.variants])
        write_metric_rows(metrics, folder / "metrics.csv")

    def path(self, ref: Ref) -> Path:
        """Return where an artefact is, after it was made."""
        wildcards = dict(ref.wildcards)
        if ref.stage == "metrics":
            return self.folder / "metrics.csv"
        if ref.stage == "published":
            return ROOT / f"workflow/published/{wildcards['name']}.csv"
        path = self.folder.joinpath(ref.stage, *wildcards.values())
        if not path.exists():
            spec = wildcards | ({"seed": int(wildcards["seed"])} if "seed" in wildcards else {})
            if "mode" in spec:
                spec["stop_gradient"] = spec["mode"] == "stop_gradient"
            with artefacts.writing(path, ref.stage, spec) as draft:
                getattr(self, f"_{ref.stage}", lambda *_: None)(draft, wildcards)
        return path

    def job(self, family: str, name: str, output: Path = Path("unused"), config: Config = CONFIG) -> Job:
        stage = STAGES[family]
        refs = stage.inputs(config, name)
        inputs = {key: tuple(map(self.path, found)) for key, found in as_lists(refs)}
        return Job(stage.__name__.split(".")[-1], stage.Spec.of(config, name), inputs, output)

    def _dataset(self, draft: artefacts.Draft, wildcards: dict[str, str]) -> None:
        draft.facts["classes"] = ["ant", "bee", "cat", "dog"]

    def _evaluate_heads(self, draft: artefacts.Draft, wildcards: dict[str, str]) -> None:
        n = IMAGES[wildcards["dataset"]]
        random = np.random.default_rng(n)
        columns = {f"uncertainty_seed{seed}": random.gamma(2.0, size=n) for seed in SEEDS}
        pd.DataFrame({"sample_id": range(n)} | columns).to_parquet(draft.path / "scores.parquet")

    def _baselines(self, draft: artefacts.Draft, wildcards: dict[str, str]) -> None:
        n = IMAGES[wildcards["dataset"]]
        random = np.random.default_rng(n)
        columns = {name: random.random(n) for name in ("embedding_norm", "knn_distance", "class_entropy")}
        columns["correct"] = random.random(n) < 0.7
        columns |= {"label": np.arange(n) % 4, "neighbour_sample_id": np.arange(n)[::-1]}
        if wildcards["dataset"] == "greek":
            columns["vote_entropy"] = np.arange(n) % 3 / 3
        pd.DataFrame({"sample_id": range(n)} | columns).to_parquet(draft.path / "scores.parquet")

    def _deteriorations(self, draft: artefacts.Draft, wildcards: dict[str, str]) -> None:
        n = IMAGES[wildcards["dataset"]]
        random = np.random.default_rng(n)
        columns = {f"{kind}_{k}_seed{seed}": random.gamma(2.0 + k, size=n) for kind, k in STEPS for seed in SEEDS}
        pd.DataFrame({"sample_id": range(n)} | columns).to_parquet(draft.path / "scores.parquet")
        write_metric_rows(make_rises([pair for name, pair in evaluation_sets() if name == wildcards["dataset"]]),
                          draft.path / "metrics.csv")  # fmt: skip

    def _safe_retrieval(self, draft: artefacts.Draft, wildcards: dict[str, str]) -> None:
        for file, make in (("curves.csv", make_curves), ("surface.csv", make_surfaces)):
            make(["here"], SEEDS)["here"].to_csv(draft.path / file, index=False)

    def _head(self, draft: artefacts.Draft, wildcards: dict[str, str]) -> None:
        curve = make_training_curves(["here"], [int(wildcards["seed"])])["here", "default", int(wildcards["seed"])]
        curve.to_json(draft.path / "curve.jsonl", lines=True, orient="records")

    def _joint_training(self, draft: artefacts.Draft, wildcards: dict[str, str]) -> None:
        curve = make_joint_curves([1])[True, 1]
        curve.to_json(draft.path / "curve.jsonl", lines=True, orient="records")
        draft.facts["eval_images"] = 40

    def _projection(self, draft: artefacts.Draft, wildcards: dict[str, str]) -> None:
        make_coordinates(n=IMAGES[wildcards["dataset"]]).to_parquet(draft.path / "coordinates.parquet")


def evaluation_sets() -> list[tuple[str, Any]]:
    """Return name and pair of each set of the config, the upstream one first."""
    spec = kinds.load("figures", "examples").Spec.of(CONFIG)
    return [(pair.dataset, pair) for pair in (spec.upstream, *spec.downstream)]


def as_lists(refs: Any) -> Iterator[tuple[str, list[Ref]]]:
    for key, found in refs.items():
        if found is not None:
            yield key, [found] if isinstance(found, Ref) else list(found)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("results"))


@pytest.fixture(autouse=True)
def images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the images of a set be grey, each as bright as its number."""

    def images_of(folder: Path, split: str) -> SimpleNamespace:
        return make_images(IMAGES[Path(folder).name])

    monkeypatch.setattr("pipeline_lib.datasets.images.ImageDataset", images_of)


def read_and_draw(world: World, name: str) -> Figure:
    job = world.job("figures", name)
    shows = Job(job.stage, job.spec.shows, job.inputs, job.output)
    return kinds.load("figures", name).figure_of(shows, job.spec.look.width, job.spec.look.height)


SHOWN = {
    "densities": ["greek (30)", "digits (20)", "40 held-out images of latin"],
    "deteriorations": ["30 images of greek", "2 seeds"],
    "examples": ["latin n = 40", "greek n = 30", "digits n = 20"],
    "human_ambiguity": ["greek (n = 30)"],
    "joint_training": ["40 held-out images", "squared-error loss"],
    "projection": ["30 images of 6 classes", "maps of greek"],
    "recall_vs_auroc": ["2 seeds", "greek"],
    "risk_coverage": ["greek (30)", "digits (20)", "class entropy"],
    "safe_retrieval_curves": ["latin (upstream) n = 700", "greek n = 700"],
    "safe_retrieval_surface": ["latin (upstream) n = 700", "digits n = 700"],
    "training_curves": ["2 seeds", "trained on latin", "efficientnet"],
    "classes": ["latin (upstream) n = 40", "greek n = 30"],
    "worst_queries": ["latin n = 40", "wrong, lowest u", "digits n = 20"],
    "zero_shot": ["n = 700", "greek", "variant default"],
}


@pytest.mark.parametrize("name", kinds.wanted("figures", CONFIG))
def test_a_figure_shows_what_is_in_its_artefacts(world: World, name: str) -> None:
    text = all_text(read_and_draw(world, name))
    assert text and [part for part in SHOWN.get(name, ()) if part not in text] == []


def test_a_figure_is_written_as_png_and_pdf_and_a_table_as_csv_md_and_tex(world: World, tmp_path: Path) -> None:
    for family, name in (("figures", "zero_shot"), ("tables", "zero_shot")):
        job = world.job(family, name, tmp_path / family / name)
        STAGES[family].run(job)
        made = artefacts.read(job.output, job.stage)
        assert set(made.files) == {Path(pattern.format(name=name)).name for pattern in STAGES[family].FILES}
        assert made.spec == job.spec.plain()


def test_the_command_takes_a_spec_by_hand(world: World, tmp_path: Path) -> None:
    job = world.job("tables", "all_metrics")
    run("table", job.spec.plain(), tmp_path / "all_metrics", metrics=job.input("metrics"))
    assert "| resnet | head (default) | greek |" in (tmp_path / "all_metrics/all_metrics.md").read_text()


def test_the_table_of_classes_has_every_class_and_shows_those_of_most_errors(world: World, tmp_path: Path) -> None:
    job = world.job("tables", "classes", tmp_path / "classes")
    table_stage.run(job)
    table = pd.read_csv(tmp_path / "classes/classes.csv")
    assert table.groupby("dataset", sort=False).size().to_dict() == {"latin": 4, "greek": 4, "digits": 4}
    greek = table[table["dataset"] == "greek"].set_index("class")
    scores, baselines = (pd.read_parquet(job.inputs[name][1] / "scores.parquet") for name in ("scores", "baselines"))
    uncertainty = scores.filter(like="uncertainty").mean(axis=1)
    for number, name in enumerate(["ant", "bee", "cat", "dog"]):
        mine = baselines["label"] == number
        assert greek.loc[name, "images"] == mine.sum()
        assert greek.loc[name, "error"] == pytest.approx(1 - baselines["correct"][mine].mean(), rel=1e-5)
        assert greek.loc[name, "median_rank"] == pytest.approx(
            ((uncertainty.rank()[mine] - 0.5) / len(uncertainty)).median(), abs=0.5 / len(uncertainty)
        )
    assert greek["error"].is_monotonic_decreasing
    assert "| latin (upstream) | " in (tmp_path / "classes/classes.md").read_text()


def test_every_table_is_built_from_what_it_names(world: World, tmp_path: Path) -> None:
    for name in kinds.wanted("tables", CONFIG):
        job = world.job("tables", name, tmp_path / name)
        table_stage.run(job)
        assert len((tmp_path / name / f"{name}.md").read_text().splitlines()) > 4 or name == "published"


def test_artefacts_in_another_order_are_refused(world: World) -> None:
    for name, key in (("densities", "scores"), ("risk_coverage", "baselines"), ("safe_retrieval_curves", None)):
        job = world.job("figures", name)
        key = key or "safe_retrieval"
        swapped = dict(job.inputs) | {key: job.inputs[key][::-1]}
        with pytest.raises(ArtefactError, match="was asked for"):
            kinds.load("figures", name).figure_of(Job(job.stage, job.spec.shows, swapped, job.output), 6.75, 3.0)


def test_a_damaged_artefact_is_named(world: World, tmp_path: Path) -> None:
    job = world.job("figures", "zero_shot")
    (tmp_path / "scores.parquet").write_text("nothing")
    densities = world.job("figures", "densities")
    inputs = dict(densities.inputs) | {"scores": (tmp_path, *densities.inputs["scores"][1:])}
    with pytest.raises(ArtefactError, match=r"manifest\.json: missing"):
        kinds.load("figures", "densities").figure_of(Job(job.stage, densities.spec.shows, inputs, job.output), 6.75, 3)


def test_the_page_of_a_map_is_written(world: World, tmp_path: Path) -> None:
    refs = dict(as_lists(projection_page.inputs(CONFIG)))
    inputs = {key: tuple(map(world.path, found)) for key, found in refs.items()}
    job = Job("projection_page", projection_page.Spec.of(CONFIG), inputs, tmp_path / "page")
    projection_page.run(job)
    text = (tmp_path / "page/projection.html").read_text()
    assert "30 images of greek/test; backbone resnet" in text or "30 images of greek/test; backbone" in text
    assert "u is the mean over 2 seeds." in text
    assert projection_page.plugins(CONFIG) == ["datasets.glyphs"]


def changed(edit: Config) -> dict[str, set[str]]:
    """Return the figures and tables whose specs an edit of the config changes."""
    return {
        family: {
            name
            for name in kinds.wanted(family, CONFIG)
            if stage.Spec.of(CONFIG, name).plain() != stage.Spec.of(edit, name).plain()
        }
        for family, stage in STAGES.items()
    }


OF_ONE_HEAD = {"deteriorations", "examples", "human_ambiguity", "projection", "risk_coverage"}
OF_ONE_HEAD |= {"classes", "worst_queries"}
OF_SETS = {"densities", "zero_shot", "safe_retrieval_curves", "safe_retrieval_surface", *OF_ONE_HEAD}
TABLES_OF_SETS = {"all_metrics", "classes", "compat", "safe_retrieval", "selective", "zero_shot"}


@pytest.mark.parametrize(
    ("edit", "figures", "tables"),
    [
        ({"downstream": ["greek", "digits", "cyrillic"]}, OF_SETS, TABLES_OF_SETS),
        ({"seeds": [1, 2, 3]}, {*OF_ONE_HEAD, "training_curves"}, {"classes"}),
        ({"evaluation__averaged": ["digits"]}, {"recall_vs_auroc"}, {"ablations"}),
        ({"evaluation__deteriorated": ["greek", "digits"]}, {"deteriorations"}, set()),
        ({"evaluation__projection__dataset": "digits"}, {"projection"}, set()),
        ({"evaluation__projection__perplexity": 20.0}, set(), set()),
        ({"evaluation__safe_retrieval": {"table_share": 0.2}}, set(), {"safe_retrieval"}),
        ({"evaluation__bootstrap__resamples": 10}, set(), set()),
        ({"joint_training__seeds": [1, 2]}, {"joint_training"}, set()),
        ({"joint_training__options__epochs": 9}, set(), set()),
        ({"ablations__variants__adam__training__learning_rate": 0.1}, set(), set()),
        ({"ablations__variants__mine": {"view": "train", "training": {"margin": 0.3}}}, set(), {"ablations"}),
        ({"features__batch_size": 8}, set(), set()),
        ({"figures": {"densities": {"width": 5.0}}}, {"densities"}, set()),
        ({"figures": {"densities": {"dpi": 100}}}, {"densities"}, set()),
        ({"figures": {"title": False}}, set(kinds.wanted("figures", CONFIG)), set()),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_an_edit_of_the_config_changes_exactly_what_shows_it(
    edit: dict[str, Any], figures: set[str], tables: set[str]
) -> None:
    assert changed(edited(**edit)) == {"figures": figures, "tables": tables}


def test_a_config_has_the_figures_and_tables_of_what_it_does() -> None:
    small = edited(ablations=None, joint_training=None, evaluation__deteriorated=[], downstream=["greek"])
    left_out = {"benchmark", "joint_training", "deteriorations", "human_ambiguity"}
    assert not left_out & set(kinds.wanted("figures", small)) and "human_ambiguity" in kinds.wanted("figures", CONFIG)
    assert not {"benchmark", "ablations"} & set(kinds.wanted("tables", small))


SELECTIVE = {"downstream": [["greek", "test"]], "backbones": ["vit"], "variant": "default"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "zero_shto", "shows": {}}, "'zero_shto' of tables is unknown.*did you mean 'zero_shot'"),
        ({"name": "selective", "shows": SELECTIVE | {"metric": "r1"}}, "shows: metric: unknown key"),
        ({"shows": {}}, "name: this key is required"),
    ],
)
def test_a_spec_that_is_not_valid_is_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        command.validated("table", table_stage, spec)
