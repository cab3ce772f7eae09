"""A dataset card for people: an overview with one row per dataset and split, and below it what there is to list."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

# A card, or what it says of a dataset or a split.
Facts = Mapping[str, Any]

_TEMPLATE = Path(__file__).with_suffix(".html")
_LISTED = 20
_PAIRS_SHOWN = 5
_NOTHING = "–"
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|#"})


class Bold(str):
    """A cell that is worth a look."""

    __slots__ = ()
    is_bold = True


@dataclass(frozen=True)
class Table:
    """A table of texts: a title (empty: none), its columns and rows, and a caption that says what they are."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str

    @property
    def numbers(self) -> set[int]:
        """The positions of the columns that hold numbers alone: they are set flush right."""
        return {
            position
            for position, cells in enumerate(zip(*self.rows, strict=True))
            if all(cell[:1] in "+−–" or cell[:1].isdigit() for cell in cells)
        }


def heading(card: Facts) -> str:
    """Return the title of a card."""
    return f"Dataset card: {', '.join(dataset['name'] for dataset in card['datasets'])}"


def notes(card: Facts) -> list[str]:
    """Return what to know before reading a card: how many images were decoded, and what they were compared with."""
    found = []
    of_upstream = card["upstream"]["splits"].values() if card["upstream"] else ()
    measured = [*(facts for _, _, facts in _splits(card)), *of_upstream]
    if any(facts["decoded"] < facts["images"] for facts in measured):
        found.append(
            f"At most {card['max_images']:,} images per split were decoded, drawn by seed {card['seed']}: fewer "
            "unreadable, repeated and common images may be found than there are."
        )
    if (upstream := card["upstream"]) and all(facts["upstream"] is None for _, _, facts in _splits(card)):
        found.append("This is the upstream dataset, from which backbones and heads learn.")
    elif upstream:
        splits = ", ".join(
            f"{split} ({facts['decoded']:,} of {facts['images']:,} images)"
            for split, facts in upstream["splits"].items()
        )
        found.append(f"Compared with the upstream dataset {upstream['name']}: {splits}.")
    for dataset, split, facts in _splits(card):
        if facts["classes"] == 1:
            found.append(f"All images of {dataset['name']}/{split} are of one class: every neighbour is right.")
    return found


def to_markdown(card: Facts) -> str:
    """Return the card as Markdown; the contact sheet lies beside it."""
    parts = [f"# {heading(card)}\n", *(f"{note}\n" for note in notes(card))]
    for table in (overview(card), *details(card)):
        rule = ["--:" if position in table.numbers else ":--" for position in range(len(table.columns))]
        lines = [f"| {' | '.join(cells)} |" for cells in [map(_escaped, table.columns), rule, *_escaped_rows(table)]]
        title = f"## {table.title}\n\n" if table.title else ""
        parts.append(title + "\n".join([_escaped(table.caption), "", *lines]) + "\n")
    parts.append("## Random images\n\n![Random images of every split](contact_sheet.png)\n")
    return "\n".join(parts)


def to_html(card: Facts, sheet: bytes) -> str:
    """Return the card as an HTML page that needs no other file; sheet: the contact sheet, PNG."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return page.render(
        title=heading(card),
        notes=notes(card),
        tables=[_turned(overview(card)), *details(card)],
        sheet=base64.b64encode(sheet).decode("ascii"),
    )


def overview(card: Facts) -> Table:
    """Return one row per dataset and split. card: from `card.build_card`."""
    rows = []
    for dataset, split, facts in _splits(card):
        sizes, votes, upstream, duplicates = (facts[name] for name in ("sizes", "votes", "upstream", "duplicates"))
        rows.append(
            {
                "Dataset": dataset["name"],
                "Split": split,
                "Images": f"{facts['images']:,}",
                "Classes": f"{facts['classes']:,}",
                "Per class": " / ".join(f"{facts['per_class'][name]:,g}" for name in ("min", "median", "max")),
                "One-image classes": _fault(len(facts["one_image_classes"])),
                "Decoded": f"{facts['decoded']:,}",
                "Size": f"{sizes['width']['median']} x {sizes['height']['median']}" if sizes else _NOTHING,
                "Unreadable": _fault(len(facts["unreadable"])),
                "Repeated": _fault(duplicates["redundant"]),
                "Repeated, other class": _fault(duplicates["other_class"]),
                "In other splits": _fault(facts["other_splits"]["images"]),
                "In upstream": _fault(upstream["images"]) if upstream else _NOTHING,
                "Alike": _fault(max((found["images"] or 0 for found in facts["alike"]), default=0)),
                "H(labels)": f"{facts['label_entropy']:.3f}",
                "H(votes)": f"{votes['mean']:.3f}" if votes else _NOTHING,
            }
        )
    caption = (
        "Per class: smallest, median and largest number of images of a class in the split. One-image classes: their "
        "image has no other of its class to retrieve. Size: median width and height in pixels. Unreadable: images "
        "that can't be decoded. Repeated: images whose pixels occur earlier in the split; other class: groups of such "
        "images with different labels. In other splits, in upstream: images whose pixels occur there too. Alike: "
        "images that look like another one here, in another split or upstream whose pixels differ. H(labels): "
        "entropy of the labels, H(votes): mean entropy of an image's votes, both in nats. Bold: worth a look."
    )
    sampled = [facts["decoded"] for _, _, facts in _splits(card) if facts["decoded"] < facts["images"]]
    if sampled:
        caption += (
            f" At most {max(sampled):,} images per split were decoded, drawn at random: counts "
            "of unreadable and repeated images are of those, and images in common are missed."
        )
    return Table("", list(rows[0]), [list(row.values()) for row in rows], caption)


def details(card: Facts) -> list[Table]:
    """Return a table of each thing that the overview only counts; those with nothing to list are left out."""
    tables = []
    for title, columns, rows_of, caption in _DETAILS:
        # A line break in a file's name would end the row.
        rows = [
            [" ".join(cell.split()) for cell in (dataset["name"], split, *cells)]
            for dataset, split, facts in _splits(card)
            for cells in rows_of(dataset, facts)
        ]
        if rows:
            tables.append(Table(title, ["Dataset", "Split", *columns], rows, caption))
    return tables


def _splits(card: Facts) -> Iterator[tuple[Facts, str, Facts]]:
    for dataset in card["datasets"]:
        for split, facts in dataset["splits"].items():
            yield dataset, split, facts


def _fault(count: int) -> str:
    return Bold(f"{count:,}") if count else "0"


def _turned(table: Table) -> Table:
    """Return the overview with a column per split: a page is narrower than its many quantities."""
    splits = [f"{row[0]} / {row[1]}" for row in table.rows]
    rows = [[name, *(row[column] for row in table.rows)] for column, name in enumerate(table.columns) if column > 1]
    return Table("", ["Quantity", *splits], rows, table.caption)


def _escaped(text: str) -> str:
    return text.translate(_MARKDOWN)


def _escaped_rows(table: Table) -> Iterator[list[str]]:
    for row in table.rows:
        yield [f"**{_escaped(cell)}**" if isinstance(cell, Bold) else _escaped(cell) for cell in row]


def _classes(_: Facts, facts: Facts) -> Iterator[Sequence[str]]:
    by_count = sorted(facts["counts"].items(), key=lambda item: -item[1])[:_LISTED]
    groups = itertools.groupby(by_count, key=lambda item: item[1])
    text = "; ".join(f"each {images:,}: {', '.join(name for name, _ in group)}" for images, group in groups)
    yield (text + _more(facts["classes"] - _LISTED),)


def _sizes(_: Facts, facts: Facts) -> Iterator[Sequence[str]]:
    if sizes := facts["sizes"]:
        commonest = sizes["commonest"]
        text = f"{commonest['width']} x {commonest['height']} ({commonest['images']:,})"
        yield _quantiles(sizes["width"]), _quantiles(sizes["height"]), f"{sizes['distinct']:,}", text


def _quantiles(side: Mapping[str, int]) -> str:
    return " / ".join(map(str, side.values())) if side["min"] < side["max"] else str(side["min"])


def _one_image_classes(_: Facts, facts: Facts) -> Iterator[Sequence[str]]:
    if names := facts["one_image_classes"]:
        yield (", ".join(names[:_LISTED]) + _more(len(names) - _LISTED),)


def _votes(_: Facts, facts: Facts) -> Iterator[Sequence[str]]:
    if votes := facts["votes"]:
        entropies = [f"{votes[name]:.3f}" for name in ("mean", "median", "max")]
        yield f"{votes['images']:,}", f"{votes['unanimous']:,}", *entropies


def _unreadable(dataset: Facts, facts: Facts) -> Iterator[Sequence[str]]:
    allowed, found = f"{dataset['skip_unreadable']:,}", facts["unreadable"]
    yield from ((allowed, image["image"], image["reason"]) for image in found[:_LISTED])
    if (left := len(found) - _LISTED) > 0:
        yield allowed, f"{left:,} more", "see card.json"


def _repeated(_: Facts, facts: Facts) -> Iterator[Sequence[str]]:
    found = facts["duplicates"]
    for group in found["examples"]:
        images = [f"{image['image']} ({image['class']})" for image in group["images"]]
        yield f"{group['times']:,}", ", ".join(images) + _more(group["times"] - len(images))
    if (left := found["groups"] - len(found["examples"])) > 0:
        yield _NOTHING, f"{left:,} more groups"


def _common(_: Facts, facts: Facts) -> Iterator[Sequence[str]]:
    upstream = facts["upstream"] or {"in": []}
    return _pairs([*facts["other_splits"]["in"], *upstream["in"]], "=")


def _alike(_: Facts, facts: Facts) -> Iterator[Sequence[str]]:
    return _pairs(facts["alike"], "~")


def _pairs(sets: Iterable[Facts], sign: str) -> Iterator[Sequence[str]]:
    for found in sets:
        where = f"{found['dataset']}/{found['split']}"
        if found["images"] is None:
            yield where, "too many to compare", _NOTHING, _NOTHING
        elif found["images"]:
            pairs = [
                f"{pair['image']} ({pair['class']}) {sign} {pair['twin']} ({pair['twin_class']})"
                for pair in found["examples"][:_PAIRS_SHOWN]
            ]
            text = ", ".join(pairs) + _more(found["images"] - len(pairs))
            yield where, f"{found['images']:,}", f"{found['other_class']:,}", text


def _more(left: int) -> str:
    return f" and {left:,} more" if left > 0 else ""


# Title, columns after the dataset's and the split's, the rows of a split, and a caption.
_DETAILS: tuple[tuple[str, Sequence[str], Callable[[Facts, Facts], Iterator[Sequence[str]]], str], ...] = (
    (
        "Images per class",
        ["Classes by number of images"],
        _classes,
        f"The classes with the most images, {_LISTED} at most per split; all are in card.json.",
    ),
    (
        "Image sizes",
        ["Width", "Height", "Distinct sizes", "Commonest"],
        _sizes,
        "Smallest / 5 % / 25 % / median / 75 % / 95 % / largest in pixels, or the one size there is; the commonest "
        "size and how many images have it.",
    ),
    (
        "Classes with one image",
        ["Classes"],
        _one_image_classes,
        "An image whose class has no other in the split has no right answer.",
    ),
    (
        "Votes",
        ["Images with votes", "Unanimous", "Mean", "Median", "Largest"],
        _votes,
        "Entropy of the votes of an image, in nats.",
    ),
    (
        "Unreadable images",
        ["Allowed", "Image", "Reason"],
        _unreadable,
        "Allowed: skip_unreadable of the dataset's options.",
    ),
    ("Repeated images", ["Times", "Images and classes"], _repeated, "Images of one split with the same pixels."),
    (
        "Images in common",
        ["Also in", "Images", "Other class", "Examples"],
        _common,
        "Images whose pixels occur in another split or upstream. Other class: those whose twins all have a class "
        "of another name.",
    ),
    (
        "Images that look alike",
        ["Like one of", "Images", "Other class", "Examples"],
        _alike,
        "Resized, recompressed or slightly edited copies, by a perceptual hash (at most 20 of 256 bits differ); those "
        "of 32 pixels are missed. Look at some: what was drawn or photographed alike may be found too.",
    ),
)
