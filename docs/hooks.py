"""What of the site is made when it is built: what each metric means, how large each figure is."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from pipeline_lib.config import kinds
from pipeline_lib.metrics.glossary import glossary

_METRICS = """# Metrics

Every number that is measured is a row of `results/metrics.csv`; `n` is the number of images that it is about. A name
that begins with `avg_downstream_` is the plain mean over the downstream sets that have the metric.

"""


_FIGURES = "<!-- every figure, with its size -->"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of all metrics."""
    files.append(File.generated(config, "metrics.md", content=_METRICS + glossary()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the table of all figures where a page has its mark."""
    rows = ["| figure | what it shows | width x height |", "|---|---|---|"]
    for name in kinds.kinds("figures"):
        module = kinds.load("figures", name)
        rows.append(f"| `{name}` | {kinds.label(module)} | {module.SIZE[0]:g} x {module.SIZE[1]:g} |")
    return markdown.replace(_FIGURES, "\n".join(rows))
