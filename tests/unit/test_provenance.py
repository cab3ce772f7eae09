"""The code digest changes with the logic that a stage runs, and with nothing else."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from pipeline_lib.core import code as provenance

CACHED = (
    provenance.code_digest,
    provenance._text,
    provenance._tree,
    provenance._imports,
    provenance._facts,
    provenance._kept,
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of three modules: a imports b inside a function, c stands alone."""
    files = {
        "a.py": "def run():\n    from pipeline_lib.b import add\n    return add(1)\n",
        "b.py": '"""Doc."""\n\ndef add(x):\n    """Add one."""\n    return x + 1\n',
        "c.py": "VALUE = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    return tmp_path


def digest(module: str) -> str:
    for function in CACHED:
        function.cache_clear()
    return provenance.code_digest(f"pipeline_lib.{module}")


@pytest.fixture(autouse=True)
def _forget_the_test_package():
    yield
    for function in CACHED:
        function.cache_clear()


def test_imports_are_followed_also_inside_functions(package: Path) -> None:
    assert provenance.imported_modules("pipeline_lib.a") == {"pipeline_lib.a", "pipeline_lib.b"}


@pytest.mark.parametrize(
    "text",
    [
        '"""Another."""\n\ndef add(x):\n    """Explained anew."""\n    return x + 1\n',
        "# a comment\ndef add(x):\n    return x + 1  # another\n",
        "def add(x):\n\n\n    return (x\n        + 1)\n",
    ],
    ids=["docstrings", "comments", "layout"],
)
def test_documentation_and_layout_do_not_count(package: Path, text: str) -> None:
    before = digest("a")
    (package / "b.py").write_text(text)
    assert digest("a") == before


def test_what_is_kept_beside_the_bytecode_gives_the_same_digest_without_parsing(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest("a")
    with monkeypatch.context() as patched:
        patched.setattr(provenance.ast, "parse", lambda *_: pytest.fail("parsed again"))
        assert digest("a") == before
    kept = next((package / "__pycache__").glob("code_digests.*.json"))
    kept.write_text("damaged")
    assert digest("a") == before


def test_a_library_that_can_not_be_written_to_has_the_same_digest(package: Path) -> None:
    before = digest("a")
    shutil.rmtree(package / "__pycache__")
    (package / "__pycache__").write_text("a file where the folder should be")
    assert digest("a") == before


def test_a_module_that_appears_is_noticed_though_the_importing_text_is_the_same(package: Path) -> None:
    (package / "c.py").write_text("from pipeline_lib.sub import late\n")
    (package / "sub").mkdir()
    (package / "sub/__init__.py").write_text("late = 1\n")
    before = digest("c")
    (package / "sub/late.py").write_text("VALUE = 2\n")
    assert digest("c") != before


def test_an_edit_of_logic_counts_for_those_who_import_it_alone(package: Path) -> None:
    before = {name: digest(name) for name in "abc"}
    (package / "b.py").write_text("def add(x):\n    return x + 2\n")
    changed = {name for name in "abc" if digest(name) != before[name]}
    assert changed == {"a", "b"}


def test_descriptions_of_config_fields_are_documentation(package: Path) -> None:
    (package / "c.py").write_text("x = Field(1, description='old')\n")
    before = digest("c")
    (package / "c.py").write_text("x = Field(1, description='new')\n")
    assert digest("c") == before
    (package / "c.py").write_text("x = Field(2, description='new')\n")
    assert digest("c") != before


def test_imports_for_type_checking_are_no_logic(package: Path) -> None:
    (package / "c.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pipeline_lib.b import add\n"
    )
    digest("c")
    assert provenance.imported_modules("pipeline_lib.c") == {"pipeline_lib.c"}


def test_stages_that_need_no_torch_do_not_import_it_and_later_rooms_are_not_imported_by_earlier_ones() -> None:
    """The order of the rooms is the order of the data; evaluation, tables and figures run without torch."""
    rooms = ["config", "datasets", "methods", "backbones", "features", "heads", "task_losses", "retrieval", "metrics"]
    rooms += ["joint", "method_training", "evaluation", "calibration", "tables", "figures", "arrays", "pretrained"]
    rooms += ["scoring", "planning", "stages"]
    root = Path(provenance.__file__).parent
    for path in root.rglob("*.py"):
        room = path.relative_to(root).parts[0]
        if room not in rooms:
            continue
        module = ".".join(["pipeline_lib", *path.relative_to(root).with_suffix("").parts])
        for imported in provenance._imports(module):
            other = imported.split(".")[1]
            assert other not in rooms or rooms.index(other) <= rooms.index(room), f"{module} imports {imported}"
    torchless = ["cache", "baselines", "evaluate_heads", "evaluate_ablations", "safe_retrieval", "deteriorations"]
    torchless += ["projection", "projection_page", "metrics", "provenance", "table", "figure", "evaluate", "dataset"]
    torchless += ["dataset_card", "calibrate", "export", "feature_statistics", "score_features", "verify"]
    for stage in torchless:
        for module in provenance.imported_modules(f"pipeline_lib.stages.{stage}"):
            names = {
                alias.name.split(".")[0]
                for node in ast.walk(provenance._tree(module))
                if isinstance(node, ast.Import)
                for alias in node.names
            } | {
                node.module.split(".")[0]
                for node in ast.walk(provenance._tree(module))
                if isinstance(node, ast.ImportFrom) and node.module
            }
            assert "torch" not in names, f"stage {stage} imports torch through {module}"
