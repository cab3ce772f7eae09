"""Describe datasets on one page: counts, sizes, unreadable and repeated images, overlap with the upstream set.

Decodes every image once. Writes card.json, the same as a page (card.md, card.html), a contact sheet of random images
(contact_sheet.png) and the hashes of the pixels (pixels.parquet), and prints the page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_lib.config.section import Seed
from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.core.spec import Spec as BaseSpec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (
    Input("dataset", "the datasets to describe, such as results/datasets/birds", many=True),
    Input("upstream", "the training set: its images in the datasets are counted", required=False),
    Input("upstream_card", "a card of the training set, which spares decoding it anew", required=False),
)
OUTPUT = "cards/{dataset}"
SHOWN = ("card.html", "contact_sheet.png")
_WIDTH_INCHES = 6.75
_DPI = 200


class Spec(BaseSpec):
    """How many images are decoded per split, drawn by the seed (None: all), and how many the contact sheet shows."""

    max_images: int | None = Field(None, ge=1)
    seed: Seed = 0
    count: int = Field(10, ge=1, le=100)

    @classmethod
    def of(cls, config: Config, dataset: str) -> Spec:
        """Return the spec of a job."""
        return cls(max_images=config.evaluation.card_images)


def inputs(config: Config, dataset: str) -> Refs:
    """Return the dataset, the upstream set and, of another dataset, the upstream set's card."""
    upstream = config.upstream.dataset
    return {
        "dataset": Ref.to("dataset", dataset=dataset),
        "upstream": Ref.to("dataset", dataset=upstream),
        "upstream_card": None if dataset == upstream else Ref.to("dataset_card", dataset=upstream),
    }


def plugins(config: Config, dataset: str) -> list[str]:
    """Return the kinds of the dataset and of the upstream set."""
    return sorted({f"datasets.{config.datasets[name].kind}" for name in (dataset, config.upstream.dataset)})


def run(job: Job[Spec]) -> None:
    """Measure, write the card, and print its page."""
    import json

    from pipeline_lib.datasets import card_page
    from pipeline_lib.datasets.card import build_card, measure_datasets
    from pipeline_lib.datasets.pixels import CARD, PIXELS, open_splits, read_pixels, write_pixels
    from pipeline_lib.figures import contact_sheet

    spec = job.spec
    datasets = [open_splits(directory) for directory in job.all_inputs("dataset")]
    upstream_dir, upstream_card = job.optional_input("upstream"), job.optional_input("upstream_card")
    upstream = None if upstream_dir is None else open_splits(upstream_dir)
    known = None
    if upstream is not None and upstream_card is not None:
        known = read_pixels(upstream_card, upstream, spec.max_images, spec.seed)
    measured, reference = measure_datasets(datasets, upstream, spec.max_images, spec.seed, known)
    card = build_card(measured, reference, spec.max_images, spec.seed)
    page = card_page.to_markdown(card)
    rows = [contact_sheet.pick(images, spec.count, spec.seed) for splits in datasets for images in splits.values()]
    figure = contact_sheet.draw(rows, spec.seed, _WIDTH_INCHES)
    with job.writing() as draft:
        (draft.path / CARD).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (draft.path / "card.md").write_text(page, encoding="utf-8")
        sheet = draft.path / "contact_sheet.png"
        contact_sheet.save(figure, sheet, _DPI)
        (draft.path / "card.html").write_text(card_page.to_html(card, sheet.read_bytes()), encoding="utf-8")
        write_pixels(measured, draft.path / PIXELS)
    print(page, end="")
