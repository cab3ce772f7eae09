"""Describe datasets on one page: counts, sizes, unreadable and repeated images, overlap with the upstream set.

Decodes every image once. Writes card.json, the same as a page (card.md, card.html), a contact sheet of random images
(contact_sheet.png) and the hashes of the pixels (pixels.parquet), and prints the page.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_lib.stages.arguments import add_path

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline_lib.datasets.card import Measured, Splits

STAGE = "dataset_card"
PIXELS = "pixels.parquet"
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
    add_path(
        parser,
        "--upstream-card",
        "an earlier card of the upstream set; where it is of the same images, they are not decoded again",
        False,
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
    page = write_card(
        arguments.dataset,
        arguments.output,
        arguments.upstream,
        arguments.upstream_card,
        arguments.max_images,
        arguments.seed,
        arguments.count,
    )
    print(page, end="")


def write_card(
    datasets: Sequence[Path],
    output: Path,
    upstream: Path | None = None,
    upstream_card: Path | None = None,
    max_images: int | None = None,
    seed: int = 0,
    count: int = 10,
) -> str:
    """Measure some dataset artefacts and write their card into `output`; returns its page, Markdown.

    The other parameters are those of the command line.
    """
    import json

    import pyarrow.parquet as pq

    from pipeline_lib.core import artefacts
    from pipeline_lib.datasets.card import build_card, measure_datasets, name_of, open_splits
    from pipeline_lib.figures import contact_sheet
    from pipeline_lib.tables import dataset_cards

    output = output.resolve()
    _require_free(output)
    opened = [open_splits(directory) for directory in datasets]
    reference = None if upstream is None else open_splits(upstream)
    known = None
    if reference is not None and upstream_card is not None:
        known = _read_pixels(upstream_card, reference, max_images, seed)
    measured = measure_datasets(opened, reference, max_images, seed, known)
    card = build_card(measured)
    page = _page(card)
    rows = [contact_sheet.pick(images, count, seed) for splits in opened for images in splits.values()]
    figure = contact_sheet.draw(rows, seed, _WIDTH_INCHES)
    spec = {
        "datasets": [name_of(splits) for splits in opened],
        "upstream": None if reference is None else name_of(reference),
        "max_images": max_images,
        "seed": seed,
        "count": count,
    }
    with artefacts.writing(output, STAGE, spec) as draft:
        (draft.path / "card.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (draft.path / "card.md").write_text(page, encoding="utf-8")
        sheet = draft.path / "contact_sheet.png"
        contact_sheet.save(figure, sheet, _DPI)
        html = dataset_cards.to_html(card, sheet.read_bytes())
        (draft.path / "card.html").write_text(html, encoding="utf-8")
        pq.write_table(_pixel_table(measured.datasets), draft.path / PIXELS)
        for splits in opened:
            draft.add_input(f"dataset {name_of(splits)}", next(iter(splits.values())).manifest)
        if reference is not None:
            draft.add_input("upstream", next(iter(reference.values())).manifest)
    return page


def _pixel_table(datasets: Sequence[Mapping[str, Measured]]) -> pa.Table:
    """Return position, hash and size of every image that was decoded."""
    import numpy as np
    import pyarrow as pa

    splits = [each for measured in datasets for each in measured.values()]
    counts = [len(each.position) for each in splits]
    size = np.concatenate([each.size for each in splits])
    return pa.table(
        {
            "dataset": np.repeat([each.images.name for each in splits], counts),
            "split": np.repeat([each.images.split for each in splits], counts),
            "position": np.concatenate([each.position for each in splits]),
            "digest": pa.array([digest for each in splits for digest in each.digest.tolist()], pa.binary()),
            "width": size[:, 0],
            "height": size[:, 1],
        }
    )


def _read_pixels(directory: Path, splits: Splits, max_images: int | None, seed: int) -> dict[str, Measured] | None:
    """Return what an earlier card measured of a dataset; None unless it is of the same index and images."""
    import json

    import numpy as np
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from pipeline_lib.core import artefacts
    from pipeline_lib.core.errors import ArtefactError
    from pipeline_lib.datasets.card import Measured, digest_of, name_of

    name = name_of(splits)
    try:
        manifest = artefacts.read(directory, STAGE, {"max_images": max_images, "seed": seed})
    except ArtefactError:
        return None
    if manifest.inputs.get(f"dataset {name}") != digest_of(splits):
        return None
    cards = json.loads((directory / "card.json").read_text(encoding="utf-8"))["datasets"]
    facts = next(card["splits"] for card in cards if card["name"] == name)
    pixels = pq.read_table(directory / PIXELS, filters=[("dataset", "==", name)])
    measured = {}
    for split, images in splits.items():
        rows = pixels.filter(pc.equal(pixels["split"], split))
        measured[split] = Measured(
            images=images,
            tried=facts[split]["decoded"],
            position=rows["position"].to_numpy(),
            digest=np.array(rows["digest"].to_pylist(), "S16"),
            size=np.stack([rows["width"].to_numpy(), rows["height"].to_numpy()], axis=1),
            unreadable=facts[split]["unreadable"],
        )
    return measured


def _page(card: Mapping[str, Any]) -> str:
    """Return the card as Markdown."""
    from pipeline_lib.tables import dataset_cards, render

    parts = [f"# {dataset_cards.heading(card)}\n", *(f"{note}\n" for note in dataset_cards.notes(card))]
    parts.append(render.to_markdown(dataset_cards.present(dataset_cards.build(card))))
    for title, table in dataset_cards.details(card).items():
        parts.append(f"## {title}\n\n{render.to_markdown(table)}")
    parts.append("## Random images\n\n![Random images of every split](contact_sheet.png)\n")
    return "\n".join(parts)


def _require_free(output: Path) -> None:
    """Raise `PipelineError` unless a folder is new, empty, or an earlier card with nothing added to it."""
    from pipeline_lib.core import artefacts
    from pipeline_lib.core.errors import ArtefactError, PipelineError

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
