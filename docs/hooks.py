"""Pages of the site that are made when it is built."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from pipeline_lib.metrics.glossary import glossary

_METRICS = """# Metrics

Every number that is measured is a row of `results/metrics.csv`; `n` is the number of images that it is about. A name
that begins with `avg_downstream_` is the plain mean over the downstream sets that have the metric.

"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of all metrics."""
    files.append(File.generated(config, "metrics.md", content=_METRICS + glossary()))
    return files
