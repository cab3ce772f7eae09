"""The config: one clear line for each way to get it wrong, and a spec for each job."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipeline_lib.config import kinds
from pipeline_lib.config.load import load_config, parse_config
from pipeline_lib.config.schema import schema_text
from pipeline_lib.core.artefacts import canonical_json
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Ref
from pipeline_lib.datasets.spec import DatasetSpec
from pipeline_lib.features.spec import CacheSpec
from pipeline_lib.stages import download
from pipeline_lib.stages.graph import Graph
from pipeline_lib.stages.targets import targets

ROOT = Path(__file__).parents[2]
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())


def changed(path: str, value: Any, of: dict[str, Any] = DEFAULT) -> dict[str, Any]:
    """Return the default config, or another one, with one key (dotted path) set."""
    content = copy.deepcopy(of)
    *parents, last = path.split(".")
    section = content
    for key in parents:
        section = section.setdefault(key, {})
    section[last] = value
    return content


@pytest.mark.parametrize("path", [ROOT / "config.yaml", *sorted((ROOT / "workflow/configs").glob("*.yaml"))], ids=str)
def test_every_config_in_the_repository_is_valid(path: Path) -> None:
    load_config(path)
    schema = (path.parent / re.match(r"# yaml-language-server: \$schema=(.*)\n", path.read_text())[1]).read_text()
    jsonschema.validate(yaml.safe_load(path.read_text()), json.loads(schema))


def test_the_schema_names_what_an_editor_should_underline() -> None:
    check = jsonschema.Draft202012Validator(json.loads(schema_text())).is_valid
    assert check(changed("downstream", ["greek", {"dataset": "digits", "split": "test"}]))
    for path, value in [("downstream", [1]), ("downstream", ["a b"]), ("trainin", {}), ("datasets.greek.kind", "glyf")]:
        assert not check(changed(path, value)), path


def test_the_schema_is_in_step_with_the_models() -> None:
    assert (ROOT / "workflow/schemas/config.schema.json").read_text() == schema_text(), "run: make schema"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("trainin", {}, ["trainin", "unknown key", "did you mean 'training'?"]),
        ("training.learning_rat", 1, ["training.learning_rat", "unknown key", "did you mean 'learning_rate'?"]),
        ("training.batch_size", 255, ["training.batch_size", "255", "even"]),
        ("training.batch_size", "many", ["training.batch_size", "'many'", "integer"]),
        ("training.loss", "ordr", ["training.loss", "'ordr'", "'order'", "did you mean 'order'?"]),
        ("features.views.train.epoch", 3, ["features.views.train.epoch", "did you mean 'epochs'?"]),
        (
            "features.views.train.policy",
            {"kind": "mixup", "alph": 1},
            ["features.views.train.policy.mixup.alph", "allowed here", "did you mean 'alpha'?"],
        ),
        ("features.views.train.policy", {"kind": "mixdown"}, ["features.views.train.policy", "mixdown", "'cutmix'"]),
        ("ablations.baseline", "defalt", ["ablations.baseline", "'defalt'", "did you mean 'default'?"]),
        ("ablations.variants.default", {}, ["ablations.variants.default", "taken"]),
        ("evaluation.deteriorated", ["grek"], ["evaluation.deteriorated", "'grek'", "did you mean 'greek'?"]),
        ("evaluation.projection.dataset", "latin", ["evaluation.projection.dataset", "'latin'", "defined"]),
        ("joint_training.backbone", "rsnet", ["joint_training.backbone", "did you mean 'resnet'?"]),
        ("evaluation.safe_retrieval", {"shares": [0.0, 0.2]}, ["table_share 0.1", "0.2"]),
        ("features.views.eval", {"epochs": 3}, ["views.eval", "built-in"]),
        ("features.centre_crop.minimum", 0.9, ["features.centre_crop", "0.9", "0.75"]),
        ("datasets.latin.kind", "glyph", ["datasets.latin", "'glyph'", "folder", "did you mean 'glyphs'?"]),
        ("datasets.latin.scrpt", "greek", ["datasets.latin.scrpt", "did you mean 'script'?"]),
        ("datasets.latin.script", "klingon", ["datasets.latin.script", "'klingon'", "'greek'"]),
        (
            "datasets.latin.download",
            [{"url": "https://example.org/a.zip", "mirror": []}],
            ["datasets.latin.download.0.mirror", "unknown key", "did you mean 'mirrors'?"],
        ),
        ("datasets.latin.download", [{"url": "gs://bucket/a.zip"}], ["datasets.latin.download.0.url", "gs://bucket"]),
        (
            "datasets.latin.download",
            [{"url": "https://example.org/files/7", "unpack_to": "latin"}],
            ["datasets.latin.download.0.unpack_to", "'7' ends in none of", "'path'"],
        ),
        (
            "datasets.latin.download",
            [{"url": "https://example.org/a/x.zip"}, {"url": "https://example.org/b/x.zip"}],
            ["datasets.latin.download", "'x.zip' has another url or sha256", "another 'path'"],
        ),
        (
            "datasets.latin.download",
            [
                {"url": "https://example.org/x.zip", "unpack_to": "raw"},
                {"url": "https://example.org/y.zip", "unpack_to": "raw/more"},
            ],
            ["unpack_to", "'raw/more' lies in 'raw'"],
        ),
        ("datasets.new", {"path": "x"}, ["datasets.new", "kind", "archive"]),
        ("datasets.bad/name", {"kind": "digits"}, ["datasets", "bad/name"]),
        ("backbones.resnet.architecture", "test_vitt", ["backbones.resnet.architecture", "test_vitt", "did you mean"]),
        ("backbones.resnet.epochs", 0, ["backbones.resnet.epochs", "0"]),
        ("upstream.dataset", "latn", ["upstream.dataset", "'latn'", "did you mean 'latin'?"]),
        ("upstream.split", "train", ["upstream.split", "train_split"]),
        ("downstream", ["greek", "cyrilic"], ["downstream", "'cyrilic'", "did you mean 'cyrillic'?"]),
        ("downstream", ["greek", "greek"], ["downstream", "greek/test", "twice"]),
        ("downstream", ["latin"], ["downstream", "latin/test", "upstream"]),
        ("downstream", [], ["downstream", "at least 1"]),
        ("variants.default", {"view": "trian"}, ["variants.default.view", "'trian'", "did you mean 'train'?"]),
        ("variants.order", {"training": {"los": 1}}, ["variants.order.training.los", "did you mean 'loss'?"]),
        ("variants.order", {"training": {"margin": -1}}, ["variants.order.training.margin", "-1"]),
        ("seeds", [1, 1], ["seeds", "distinct", "[1, 1]"]),
        ("seeds", 3, ["seeds: 3 ", "must be a list"]),
        ("seeds", [], ["seeds: [] ", "list should have at least 1 item"]),
        ("seeds", [1, -1], ["seeds.1: -1 ", "greater than or equal to 0"]),
        ("seeds", [2**70], ["seeds.0: 1180591620717411303424 ", "less than 4294967296"]),
        ("seeds", [True, 2], ["config.yaml: seeds must hold numbers, not [True, 2]"]),
        ("joint_training.seeds", [1, 1], ["joint_training.seeds: must be distinct (it is [1, 1])"]),
        ("features.views.train.seed", 2**32, ["features.views.train.seed: 4294967296 ", "less than 4294967296"]),
        ("training.margin", True, ["training: margin must hold numbers"]),
        ("training.epochs", False, ["training: epochs must hold numbers", "not False"]),
        ("datasets.greek.per_class", {"test": True}, ["datasets.greek: per_class must hold numbers"]),
        ("training.betas", [0.8], ["training.betas.1: this item is required"]),
        ("training.betas", [0.8, 1.0], ["training.betas.1: 1.0 ", "less than 1"]),
        ("training.betas", 0.8, ["training.betas: 0.8 is not allowed: must be a list"]),
        ("training", [1], ["training: [1] is not allowed: must be a mapping of keys to values"]),
        ("evaluation.target_accuracies", [2, -1], ["evaluation.target_accuracies.0: 2 ", "less than or equal to 1"]),
        ("backbones.resnet.scale", [1.0, 0.5], ["backbones.resnet.scale: must satisfy 0 < low <= high <= 1"]),
        ("backbones.resnet.scale", [-1, 3], ["backbones.resnet.scale: must satisfy 0 < low <= high <= 1"]),
        (
            "backbones.mine",
            {
                "kind": "custom",
                "factory": "a:b",
                "checkpoint": "c",
                "classifier": "d",
                "image_size": 32,
                "std": [0] * 3,
            },
            ["backbones.mine.std.0: 0 ", "greater than 0", "(and 2 more)"],
        ),
        (
            "backbones.vit",
            {"kind": "timm", "model": "vit_tiny_patch16_224.augreg_in21"},
            ["backbones.vit.model: timm has no weights 'augreg_in21'", "did you mean 'augreg_in21k'?"],
        ),
        (
            "backbones.vit",
            {"kind": "timm", "model": "vit_tiny_patch16_224", "classifier": False, "num_classes": 5},
            ["config.yaml: backbones.vit: num_classes is 5, but classifier is false; leave one of them out"],
        ),
        (
            "datasets.votes",
            {"kind": "table", "path": "a.csv", "images": "b.zip", "label_column": "c", "vote_columns": ["d"]},
            ["config.yaml: datasets.votes: give either label_column or vote_columns, not both"],
        ),
        (
            "datasets.photos",
            {"kind": "folder", "path": "a", "split_by": {"train": 0.5, "test": 0.4}},
            ["datasets.photos.split_by: the shares of train, test must sum to 1, not 0.9"],
        ),
        (
            "backbones.elk",
            {"kind": "method", "architecture": "test_vit", "method": {"kind": "elk", "tempo": 1}},
            ["config.yaml: backbones.elk.method.tempo: unknown key"],
        ),
        ("results_dir", "my results", ["results_dir: must be a path without blanks", "' '", "'my results'"]),
        ("results_dir", "results/{today}", ["results_dir: must be a path without blanks", "braces", "'{'"]),
        ("figures.zero_shot.widht", 3, ["figures.zero_shot.widht", "did you mean 'width'?"]),
        ("ablations.backbones", ["resnet", "resnet"], ["ablations.backbones", "must be distinct"]),
        ("figures.zero_shto", {}, ["figures.zero_shto: unknown figure", "did you mean 'zero_shot'?"]),
    ],
)
def test_a_mistake_gives_one_line_with_key_value_and_what_is_allowed(
    path: str, value: Any, expected: list[str]
) -> None:
    with pytest.raises(PipelineError) as caught:
        parse_config(changed(path, value), source="config.yaml")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("config.yaml: ")
    assert len(line) < 500
    for part in expected:
        assert part in line


def test_a_mistyped_key_is_shown_rather_than_the_one_that_is_missing_for_it() -> None:
    content = copy.deepcopy(DEFAULT)
    content["seedz"] = content.pop("seeds")
    with pytest.raises(PipelineError, match=r"^config: seedz: unknown key; .*did you mean 'seeds'\? \(and 1 more\)$"):
        parse_config(content)


def test_numbers_may_be_written_as_yaml_does_not_know_them() -> None:
    training = yaml.safe_load("{learning_rate: 1e-3, margin: 0}")
    assert isinstance(training["learning_rate"], str)
    assert parse_config(changed("training", training)).training.learning_rate == 0.001


RUN = "benchmark.architectures.small.methods.mc"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (f"{RUN}.method.inv_tmp", 1, [f"{RUN}.method.inv_tmp: unknown key", "did you mean 'inv_temp'?"]),
        (f"{RUN}.method.inv_temp", -1, [f"{RUN}.method.inv_temp: -1"]),
        (f"{RUN}.method.kind", "mcinfonse", [f"{RUN}.method: kind 'mcinfonse'", "did you mean 'mcinfonce'?"]),
        (f"{RUN}.training", {"epoch": 1}, [f"{RUN}.training.epoch: unknown key", "did you mean 'epochs'?"]),
        (f"{RUN}.training", {"epochs": 2}, [f"{RUN}.training: warmup_epochs 5.0 must be less than epochs 2"]),
        ("benchmark.seeds", [0, 0], ["benchmark.seeds", "distinct", "[0, 0]"]),
        (
            "benchmark.architectures.small_mc",
            {"architecture": "test_vit", "methods": {"ce": {"method": {"kind": "cross_entropy"}}}},
            ["'small' with method 'mc_ce' and 'small_mc' with method 'ce'", "'small_mc_ce'; rename one"],
        ),
        (
            "backbones.own",
            {"kind": "method", "architecture": "test_vit", "method": {"kind": "hib", "inv_tmp": 1}},
            ["backbones.own.method.inv_tmp: unknown key"],
        ),
    ],
)
def test_a_mistake_in_a_method_is_named_where_it_is_written(path: str, value: Any, expected: list[str]) -> None:
    methods = {"mc": {"method": {"kind": "mcinfonce"}}, "mc_ce": {"method": {"kind": "cross_entropy"}}}
    content = changed("benchmark", {"architectures": {"small": {"architecture": "test_resnet", "methods": methods}}})
    assert list(parse_config(content).benchmark_backbones) == [f"small_{m}_seed{k}" for m in methods for k in (1, 2, 3)]
    with pytest.raises(PipelineError) as caught:
        parse_config(changed(path, value, content))
    for part in expected:
        assert part in str(caught.value)


def test_a_missing_key_and_a_broken_file_are_named(tmp_path: Path) -> None:
    content = copy.deepcopy(DEFAULT)
    del content["upstream"]
    with pytest.raises(PipelineError, match="upstream: this key is required"):
        parse_config(content)
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(PipelineError, match=r"broken\.yaml: not YAML"):
        load_config(tmp_path / "broken.yaml")
    with pytest.raises(PipelineError, match=r"none\.yaml: no such config file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(PipelineError, match="must be a mapping"):
        parse_config([1])


def test_a_variant_changes_only_what_it_names() -> None:
    config = parse_config(changed("variants.small", {"training": {"hidden": [256]}}))
    small, base = config.training_of("small"), config.training
    assert small.hidden == (256,)
    assert small.model_dump(exclude={"hidden"}) == base.model_dump(exclude={"hidden"})


def test_epochs_workers_and_how_rows_are_cut_are_no_part_of_what_decides_them() -> None:
    def rows(config: dict[str, Any]) -> CacheSpec:
        return CacheSpec.of(parse_config(config), "resnet", "latin", "train", "train").model_copy(update={"epochs": 0})

    for path, value in [("features.views.train.epochs", 99), ("features.workers", 4), ("features.block_samples", 7)]:
        assert rows(changed(path, value)) == rows(DEFAULT)
    for path, value in [("features.views.train.seed", 9), ("features.dtype", "float32")]:
        assert rows(changed(path, value)) != rows(DEFAULT)


def test_addresses_are_no_part_of_what_makes_a_dataset_stale() -> None:
    entry = {"url": "https://example.org/a.zip", "unpack_to": "a"}
    plain, fetched, mirrored, elsewhere = (
        parse_config(changed("datasets.latin.download", entries))
        for entries in (
            [],
            [entry],
            [entry | {"mirrors": ["https://example.net/a.zip"], "sha256": "0" * 64}],
            [entry | {"unpack_to": "b"}],
        )
    )
    indexed = [DatasetSpec.of(config, "latin").plain() for config in (plain, fetched, mirrored, elsewhere)]
    assert all(spec == indexed[0] for spec in indexed) and "download" not in indexed[0]["options"]
    wanted = {
        name: download.Spec.of(config, "latin") for name, config in [("f", fetched), ("m", mirrored), ("e", elsewhere)]
    }
    assert wanted["m"].plain() == wanted["f"].plain() != wanted["e"].plain()
    assert wanted["m"].complete()["download"][0]["mirrors"] == ["https://example.net/a.zip"]
    assert (plain.downloaded_datasets, fetched.downloaded_datasets) == ([], ["latin"])


def test_two_datasets_may_share_a_file_but_not_disagree_on_it() -> None:
    entry = {"url": "https://example.org/a.zip", "sha256": "0" * 64}
    content = changed("datasets.latin.download", [entry])
    content["datasets"]["greek"]["download"] = [entry]
    parse_config(content)
    content["datasets"]["greek"]["download"] = [entry | {"sha256": "1" * 64}]
    with pytest.raises(PipelineError, match=r"'a.zip' has another url or sha256 than in datasets\."):
        parse_config(content)


def test_specs_do_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    def every_spec(content: dict[str, Any]) -> set[str]:
        config = parse_config(content)
        graph = Graph(config, tmp_path, ROOT / "workflow/published")
        # Ablations are shown in their order.
        in_order = (Ref.to("table", name="ablations"), Ref.to("report"))
        jobs = [graph.job(ref) for ref in graph.behind(targets(config)) if ref not in in_order]
        return {canonical_json([job.stage, job.spec.plain()]) for job in jobs} | {str(config.joint_views)}

    def reordered(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: reordered(value[key]) for key in reversed(value)}
        return value

    content = copy.deepcopy(DEFAULT)
    views = {kind: {"epochs": 1, "policy": {"kind": kind}} for kind in ("mixup", "cutmix")}
    content["features"]["views"] |= views
    content["ablations"] = {"baseline": "default", "backbones": ["resnet"]}
    content["ablations"]["variants"] = {"sgd": {}, "leeway": {}} | {kind: {"view": kind} for kind in views}
    # What is shown of the first backbone and variant alone, is shown of another.
    first = {key: content[key] for key in ("backbones", "variants")}
    assert every_spec(reordered(content) | first) == every_spec(content)


def test_every_kind_has_described_options_named_after_its_module() -> None:
    for family in ("datasets", "backbones"):
        assert kinds.kinds(family)
        for kind in kinds.kinds(family):
            options = kinds.options_class(family, kind)
            assert options.model_fields["kind"].annotation.__args__ == (kind,)
            undescribed = [
                name for name, field in options.model_fields.items() if name != "kind" and not field.description
            ]
            assert not undescribed, f"{family}/{kind}: {undescribed}"
