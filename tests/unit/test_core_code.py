"""The code digest changes with the logic that a stage runs, and with nothing else."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from pipeline_lib.core import code

CACHED = (
    code.code_digest,
    code._path,
    code._templates,
    code._text,
    code._imports,
    code._facts,
    code._kept,
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
    monkeypatch.setattr(code, "_ROOT", tmp_path)
    return tmp_path


def digest(module: str) -> str:
    for function in CACHED:
        function.cache_clear()
    return code.code_digest(module)


@pytest.fixture(autouse=True)
def _forget_the_test_package():
    yield
    for function in CACHED:
        function.cache_clear()


def test_imports_are_followed_also_inside_functions(package: Path) -> None:
    assert code.imported_modules("pipeline_lib.a") == {"pipeline_lib.a", "pipeline_lib.b"}


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
        patched.setattr(code.ast, "parse", lambda *_: pytest.fail("parsed again"))
        assert digest("a") == before
    kept = next((package / "__pycache__").glob("code_digests.json"))
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
    assert code.imported_modules("pipeline_lib.c") == {"pipeline_lib.c"}


def test_a_page_beside_its_module_counts(package: Path) -> None:
    before = digest("c")
    (package / "c.html").write_text("<p>")
    assert digest("c") != before


TEXTS = """
def check(x, path, progress):
    remedy = f"delete {path} and run again"
    if x < 0:
        raise ValueError(f"{path}: {x} is negative; {remedy}")
    with Progress(x, "images", f"reading {path}"):
        print("read", x)
    return x * SCALE
"""


def test_what_is_said_to_the_user_does_not_count() -> None:
    said_otherwise = (
        TEXTS.replace("delete {path}", "remove {path}")
        .replace('f"{path}: {x} is negative; {remedy}"', 'f"{path}: must not be below 0, not {x}" + remedy')
        .replace("reading", "extracting")
        .replace('print("read", x)', 'print("done", x)')
    )
    assert said_otherwise != TEXTS
    assert code.logic_digest(said_otherwise) == code.logic_digest(TEXTS)


@pytest.mark.parametrize(
    ("old", "new"),
    [("x < 0", "x <= 0"), ("ValueError", "TypeError"), ("SCALE", "2"), ("return x", "return -x")],
    ids=["condition", "type of an error", "constant", "result"],
)
def test_what_is_done_counts(old: str, new: str) -> None:
    assert code.logic_digest(TEXTS.replace(old, new)) != code.logic_digest(TEXTS)


def test_a_text_that_is_a_value_counts() -> None:
    source = "def name(x):\n    suffix = 'a'\n    return f'{x}{suffix}'\n"
    assert code.logic_digest(source.replace("'a'", "'b'")) != code.logic_digest(source)


def test_the_digest_does_not_depend_on_the_version_of_python() -> None:
    """Fields that some versions of Python leave out of a syntax tree, and others leave empty, are no part of it."""
    tree = ast.parse("def f(x: int) -> int:\n    return x\n")
    lines = list(code._lines(tree))
    for node in ast.walk(tree):
        for field, value in list(ast.iter_fields(node)):
            if value in (None, []):
                delattr(node, field)
    assert list(code._lines(tree)) == lines
