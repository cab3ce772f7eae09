"""Evaluate the uncertainties of any embedding model, from arrays: does u know which nearest neighbours are wrong?

Give one row per image in every file, in the same order. Nearest neighbours are exact, by cosine similarity, and
searched among the given images; say with --neighbours or --correct where you know them already.

A FILE is .npy, .npz, .hdf5 (.h5), .csv (with commas or semicolons), .tsv or .parquet. Pick from it with FILE.npz:KEY
(.hdf5 likewise, and in groups FILE.h5:GROUP/KEY) or FILE.csv:COLUMN,COLUMN (.tsv, .parquet likewise).
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

_SHOWN = (
    *("features", "labels", "neighbours", "correct", "uncertainty", "votes", "vote-entropy"),
    *("images", "name", "names"),
)
_EXAMPLE = """\
examples:
  Features, labels and two uncertainties; open my_report/report.html afterwards:
    python -m pipeline_lib evaluate --features embeddings.npy --labels labels.npy \\
      --uncertainty scores.csv:head,entropy --name "ViT-B, CUB" --out my_report

  A cache of the papers' own code:
    python -m pipeline_lib evaluate --features cub.hdf5:embed --labels cub.hdf5:label \\
      --uncertainty u.npy --out my_report

  Correctness is known already:
    python -m pipeline_lib evaluate --correct right.npy --uncertainty u.npy --out my_report
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    parser.epilog = _EXAMPLE
    parser.add_argument(
        "--uncertainty",
        nargs="+",
        required=True,
        metavar="FILE",
        help="uncertainties [n], or several as columns [n, m]; larger means less certain",
    )
    parser.add_argument("--features", metavar="FILE", help="representations [n, dimensions]")
    parser.add_argument("--labels", metavar="FILE", help="the class of each image, integers or text [n]")
    known = parser.add_mutually_exclusive_group()
    known.add_argument("--neighbours", metavar="FILE", help="row number of each image's nearest other image [n]")
    known.add_argument(
        "--correct", metavar="FILE", help="whether each image's nearest neighbour has its label, 0/1 [n]"
    )
    votes = parser.add_mutually_exclusive_group()
    votes.add_argument(
        "--votes", metavar="FILE", help="how many people chose each class [n, classes]; NaN where nobody was asked"
    )
    votes.add_argument(
        "--vote-entropy", metavar="FILE", help="or the entropy of the votes in nats [n]; NaN where nobody was asked"
    )
    parser.add_argument(
        "--images",
        metavar="FILE",
        help="the path of each image [n], to show the worst queries; relative to FILE's folder",
    )
    parser.add_argument("--name", default="Embedding model", help="what the report calls the model (and dataset)")
    parser.add_argument("--names", metavar="A,B,...", help="names of the uncertainties, in order")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the report; an earlier report is replaced"
    )


def run(arguments: argparse.Namespace) -> None:
    """Read, evaluate, write the report, and print its main table."""
    from pipeline_lib.arrays.inputs import read_inputs
    from pipeline_lib.arrays.report import STAGE, write_report
    from pipeline_lib.core.ownership import require_replaceable

    out = arguments.out.resolve()
    require_replaceable(out, STAGE)
    names = None if arguments.names is None else arguments.names.split(",")
    inputs = read_inputs(
        arguments.uncertainty,
        names,
        arguments.features,
        arguments.labels,
        arguments.neighbours,
        arguments.correct,
        arguments.votes,
        arguments.vote_entropy,
        arguments.images,
    )
    table = write_report(inputs, arguments.name, _command(arguments), out)
    print(f"{table}\n{arguments.out / 'report.html'}")


def _command(arguments: argparse.Namespace) -> str:
    """Return the command line, one option per line in a fixed order.

    --out is left open: where a report lies is no part of it.
    """
    options: list[tuple[str, str | Sequence[str] | None]] = [
        (key, getattr(arguments, key.replace("-", "_"))) for key in _SHOWN
    ]
    words = ["python -m pipeline_lib evaluate"]
    for key, value in options:
        if value is not None:
            words.append(f"--{key} {shlex.join([value] if isinstance(value, str) else value)}")
    return " \\\n  ".join([*words, "--out DIR"])
