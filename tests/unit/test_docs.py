"""What the documentation shows is what the code does."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline_lib.__main__ import STAGES
from pipeline_lib.config import kinds
from pipeline_lib.config.config import Config
from pipeline_lib.config.load import load_config
from pipeline_lib.stages.graph import Graph
from pipeline_lib.stages.targets import targets

ROOT = Path(__file__).parents[2]
DATASETS = (ROOT / "docs/datasets.md").read_text()
METHODS = (ROOT / "docs/methods.md").read_text()
README = (ROOT / "README.md").read_text()
API = (ROOT / "docs/api.md").read_text()
UNCERTAINTIES = (ROOT / "docs/uncertainties.md").read_text()
RULES_AND_CONFIGS = [
    ROOT / "Snakefile",
    ROOT / "config.yaml",
    *sorted(path for folder in ("rules", "configs") for path in (ROOT / "workflow" / folder).glob("*.*")),
]
FILE = r"(?<![\w/.-])((?:workflow|tests|pipeline_lib|envs|docs)/[\w/.-]*\.(?:yaml|json|smk|py|md|csv|txt))\b"


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("kind", kinds.kinds("datasets"))
def test_every_kind_of_dataset_has_a_section(kind: str) -> None:
    headings = re.findall(r"^### (.*)$", DATASETS, re.MULTILINE)
    assert any(f"`{kind}`" in heading for heading in headings)


@pytest.mark.parametrize("block", blocks(DATASETS, "yaml"))
def test_every_example_of_a_dataset_is_a_valid_section(block: str) -> None:
    for name, section in yaml.safe_load(block).items():
        assert kinds.options_class("datasets", section["kind"]).model_validate(section).kind, name


def test_every_published_method_is_in_the_table_and_nothing_else() -> None:
    """A method of one's own needs no line there."""
    world = yaml.safe_load((ROOT / "workflow/configs/url_benchmark.yaml").read_text())
    runs = [run for entry in world["benchmark"]["architectures"].values() for run in entry["methods"].values()]
    listed = re.findall(r"^\| `(\w+)` \|.*\|.*\|$", METHODS, re.MULTILINE)
    assert {run["method"]["kind"] for run in runs} == set(listed) <= set(kinds.kinds("methods"))


def test_the_example_of_a_model_and_of_a_benchmark_are_valid() -> None:
    (block,) = blocks(METHODS, "yaml")
    world = yaml.safe_load((ROOT / "config.yaml").read_text()) | yaml.safe_load(block)
    del world["ablations"], world["joint_training"]
    assert len(Config.model_validate(world).benchmark_backbones) == 6


def test_the_examples_of_using_uncertainties_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(UNCERTAINTIES, "python"):
        exec(block, names)
    lines = capsys.readouterr().out.splitlines()
    promised = re.search(r"# (uncertainty 9 and distance .*,)\n# (above .*)\n", UNCERTAINTIES)
    assert promised and lines[0] == " ".join(promised.groups())
    assert len(names["index"]) == 998
    assert names["on_average"] > 0 and names["surely"] > 0


def test_the_example_of_backbones_without_a_classifier_is_valid() -> None:
    (block,) = blocks(UNCERTAINTIES, "yaml")
    world = yaml.safe_load((ROOT / "config.yaml").read_text()) | yaml.safe_load(block)
    del world["ablations"], world["joint_training"]
    config = Config.model_validate(world)
    assert config.task_loss_of("dino", "default") == "knn"


@pytest.mark.parametrize(("page", "file"), [(DATASETS, "datasets/digits.py"), (METHODS, "methods/cross_entropy.py")])
def test_the_example_of_a_kind_is_the_kind(page: str, file: str) -> None:
    assert blocks(page, "python")[-1] == (ROOT / "pipeline_lib" / file).read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "workflow/configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_ready_world_is_a_valid_config(path: Path) -> None:
    assert Config.model_validate(yaml.safe_load(path.read_text())).downstream


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "config/README.md", *sorted((ROOT / "docs").glob("*.md"))],
    ids=lambda page: page.stem,
)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text()
    headings = {
        re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings
        elif "://" not in target:
            assert (page.parent / target).exists()
    for name in re.findall(r"`((?:workflow|tests|pipeline_lib|envs|docs)/[A-Za-z0-9_/.-]+)`", text):
        assert (ROOT / name).exists(), name


def test_the_page_on_results_names_every_folder_that_a_rule_writes() -> None:
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    page = (ROOT / "results/README.md").read_text()
    folders = set(re.findall(r"<results>/(\w+)/", rules))
    assert {folder for folder in folders if f"`{folder}/" not in page} == set()
    assert len(folders) > 10


@pytest.mark.parametrize("path", RULES_AND_CONFIGS, ids=lambda path: path.name)
def test_files_named_in_comments_exist(path: Path) -> None:
    for comment in re.findall(r"(?:^|\s)#.*$", path.read_text(), re.MULTILINE):
        for name in re.findall(FILE, comment):
            assert (ROOT / name).exists(), f"{name} in: {comment.strip()}"


def test_the_examples_of_the_readme_make_a_valid_config() -> None:
    world = yaml.safe_load((ROOT / "config.yaml").read_text())
    examples = [yaml.safe_load(block) for block in blocks(README, "yaml")]
    assert {key for example in examples for key in example} == {"datasets", "backbones", "variants", "ablations"}
    for example in examples:
        for key, section in example.items():
            world[key] = section if key == "ablations" else world[key] | section
    Config.model_validate(world)


def test_the_stages_of_the_readme_are_commands() -> None:
    rows = re.findall(r"^\| (`.*?) \| .* \| .* \|$", README, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert len(named) > 15
    assert set(named) <= set(STAGES)


def test_the_site_has_every_page() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = re.findall(r"[\w/]+\.md", str(site["nav"]))
    made = ["metrics.md"]  # by docs/hooks.py, from what each metric says of itself
    assert sorted(listed) == sorted([*made, *(path.name for path in (ROOT / "docs").glob("*.md"))])


def documented(name: str) -> Iterator[tuple[str, Any]]:
    """Yield what the site shows for a name of the Python interface: the public objects of a module, or an object."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError:
        parent, _, attribute = name.rpartition(".")
        yield name, getattr(importlib.import_module(parent), attribute)
        return
    for submodule in pkgutil.iter_modules(getattr(module, "__path__", ())):
        yield from documented(f"{name}.{submodule.name}")
    for attribute, value in vars(module).items():
        if not attribute.startswith("_") and getattr(value, "__module__", None) == name:
            yield f"{name}.{attribute}", value


@pytest.mark.parametrize("name", re.findall(r"^::: ([\w.]+)$", API, re.MULTILINE))
def test_every_entry_of_the_python_interface_exists_and_is_described(name: str) -> None:
    entries = list(documented(name))
    assert entries
    for path, value in entries:
        assert len(inspect.getdoc(value) or "") > 20, f"{path} has no docstring"
        for method, function in inspect.getmembers(value, inspect.isfunction) if inspect.isclass(value) else ():
            if not method.startswith("_") and function.__module__ == value.__module__:
                assert inspect.getdoc(function), f"{path}.{method} has no docstring"


def test_what_the_documentation_tells_practitioners_to_use_is_in_the_python_interface() -> None:
    directives = re.findall(r"^::: ([\w.]+)$", API, re.MULTILINE)
    entries = {path.split(".")[-1] for name in directives for path, _ in documented(name)}
    assert entries >= {"load", "push", "write_onnx", "write_program", "convert_reference", "measure", "score_images"}
    assert entries >= {"SafeIndex", "Calibrator", "reliability_bins", "calibration_errors", "draw", "learn_then_test"}


def test_the_graph_of_stages_is_drawn_as_it_is() -> None:
    (drawn,) = blocks((ROOT / "docs/architecture.md").read_text(), "mermaid")
    # Features are planned once their dataset is indexed.
    arrows = {(source, "features") for source in ("dataset", "backbone", "method")} | {("features", "cache")}
    for config in ("config.yaml", "workflow/configs/paper.yaml", "workflow/configs/url_mini.yaml"):
        graph = Graph(load_config(ROOT / config), ROOT / "nothing", ROOT / "workflow/published")
        for ref in graph.behind(targets(graph.config)):
            arrows |= {(source.stage, ref.stage) for source in graph.sources(ref) if source.stage != "published"}
    arrows = {(source, made) for source, made in arrows if source != made}

    def leads(source: str, made: str, direct: bool) -> bool:
        return any(
            (direct and following == made) or leads(following, made, True)
            for start, following in arrows
            if start == source and (direct or following != made)
        )

    needed = {f"{source} --> {made}" for source, made in arrows if not leads(source, made, False)}
    assert set(map(str.strip, drawn.splitlines()[1:])) == needed
