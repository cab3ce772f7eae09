"""Describe datasets on one page: counts, sizes, unreadable and repeated images, overlap with the upstream set.

Decodes every image once. Writes card.json, card.md and a contact sheet of random images (png, pdf), and prints the
page.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline_lib.stages.arguments import add_path

STAGE = "dataset_card"
_WIDTH_INCHES = 6.75
_DPI = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    parser.add_argument(
        "--dataset",
        type=Path,
        action="append",
        required=True,
        metavar="PATH",
        help="dataset artefact, such as results/datasets/birds; may be given several times",
    )
    add_path(
        parser, "--upstream", "dataset artefact of the training set: its images in the datasets are counted", False
    )
    parser.add_argument(
        "--max-images",
        type=_at_least_one,
        metavar="N",
        help="decode at most N images per split, drawn by the seed; images in common are then missed (default: all)",
    )
    parser.add_argument(
        "--seed", type=_at_least_zero, default=0, metavar="N", help="seed of what is drawn (%(default)s)"
    )
    parser.add_argument(
        "--count", type=_at_least_one, default=10, metavar="N", help="images per row of the contact sheet (%(default)s)"
    )
    add_path(parser, "--output", "folder of the card; an earlier card is replaced")


def run(arguments: argparse.Namespace) -> None:
    """Measure, write the card, and print its page."""
    import json

    from pipeline_lib import artefacts
    from pipeline_lib.datasets.card import build_card, name_of, open_splits
    from pipeline_lib.plots import contact_sheet, style

    output = arguments.output.resolve()
    _require_free(output)
    datasets = [open_splits(directory) for directory in arguments.dataset]
    upstream = None if arguments.upstream is None else open_splits(arguments.upstream)
    card = build_card(datasets, upstream, arguments.max_images, arguments.seed)
    page = _page(card)
    rows = [
        contact_sheet.pick(images, arguments.count, arguments.seed) for splits in datasets for images in splits.values()
    ]
    figure = contact_sheet.draw(rows, arguments.seed, _WIDTH_INCHES)
    spec = {
        "datasets": [name_of(splits) for splits in datasets],
        "upstream": None if upstream is None else name_of(upstream),
        "max_images": arguments.max_images,
        "seed": arguments.seed,
        "count": arguments.count,
    }
    with artefacts.writing(output, STAGE, spec) as draft:
        (draft.path / "card.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (draft.path / "card.md").write_text(page, encoding="utf-8")
        style.save(figure, draft.path / "contact_sheet.png", draft.path / "contact_sheet.pdf", _DPI)
        for splits in datasets:
            draft.add_input(f"dataset {name_of(splits)}", next(iter(splits.values())).manifest)
        if upstream is not None:
            draft.add_input("upstream", next(iter(upstream.values())).manifest)
    print(page, end="")


def _page(card: Mapping[str, Any]) -> str:
    """Return the card as Markdown."""
    from pipeline_lib.tables import dataset_cards, render

    names = ", ".join(dataset["name"] for dataset in card["datasets"])
    parts = [f"# Dataset card: {names}\n"]
    if card["max_images"] is not None:
        parts.append(
            f"At most {card['max_images']:,} images per split were decoded, drawn by seed {card['seed']}: fewer "
            "unreadable, repeated and common images may be found than there are.\n"
        )
    if upstream := card["upstream"]:
        splits = ", ".join(
            f"{split} ({facts['decoded']:,} of {facts['images']:,} images)"
            for split, facts in upstream["splits"].items()
        )
        parts.append(f"Compared with the upstream dataset {upstream['name']}: {splits}.\n")
    parts.append(render.to_markdown(dataset_cards.present(dataset_cards.build(card))))
    for title, table in dataset_cards.details(card).items():
        parts.append(f"## {title}\n\n{render.to_markdown(table)}")
    parts.append("## Random images\n\n![Random images of every split](contact_sheet.png)\n")
    return "\n".join(parts)


def _require_free(output: Path) -> None:
    """Raise `PipelineError` unless a folder is new, empty, or an earlier card with nothing added to it."""
    from pipeline_lib import artefacts
    from pipeline_lib.errors import ArtefactError, PipelineError

    if not output.exists():
        return
    if not output.is_dir():
        raise PipelineError(f"{output}: is a file; --output names a folder")
    found = sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if not path.is_dir())
    if not found:
        return
    try:
        manifest = artefacts.read(output, STAGE, verify=False)
    except ArtefactError:
        raise PipelineError(f"{output}: holds files, but no earlier card; choose a new folder for --output") from None
    if added := [name for name in found if name not in {artefacts.MANIFEST, *manifest.files}]:
        raise PipelineError(
            f"{output}: an earlier card, but '{added[0]}' is no part of it and would be lost; move it, or choose a new "
            "folder for --output"
        )


def _at_least_one(text: str) -> int:
    return _whole_number(text, 1)


def _at_least_zero(text: str) -> int:
    return _whole_number(text, 0)


def _whole_number(text: str, smallest: int) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < smallest:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least {smallest}")
    return int(text)
