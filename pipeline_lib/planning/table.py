"""A plan as a table for people."""

from __future__ import annotations

from pipeline_lib.planning.plan import Plan, Row

_HEADER = ("stage", "backbone", "jobs", "images", "draws", "cache", "hours", "", "bound by")
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def plan_text(plan: Plan) -> str:
    """Return the table, then what was assumed, what is not known, and what was measured."""
    device_hours = "GPU-hours" if plan.device == "cuda" else "CPU-hours"
    lines = [[*_HEADER[:7], device_hours, _HEADER[8]], *map(_cells, plan.rows), _cells(plan.total)]
    if not plan.device:
        lines = [line[: _HEADER.index("hours")] for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    table = [
        "  ".join(
            cell.ljust(width) if column in (0, 1, 8) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    table.insert(1, "-" * max(map(len, table)))
    table.insert(-1, table[1])
    return "\n".join([*table, "", *_notes(plan)])


def _cells(row: Row) -> list[str]:
    counts = ["" if value is None else f"{value:,.0f}" for value in (row.jobs, row.images, row.draws)]
    hours = ["" if not value else f"{value:,.2f}" for value in (row.hours, row.device_hours)]
    return [row.stage, row.backbone, *counts, "" if not row.bytes else _size(row.bytes), *hours, row.bound or ""]


def _size(count: float) -> str:
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count:.0f} B"


def _notes(plan: Plan) -> list[str]:
    notes = []
    for source, sentence in (
        ("published", "assumed (published size, not on this disk): "),
        ("given", "assumed (--images): "),
    ):
        found = [f"{'/'.join(split)} {size.images:,}" for split, size in plan.sizes.items() if size.source == source]
        if found:
            notes.append(sentence + ", ".join(found))
    unknown = ["/".join(split) for split, size in plan.sizes.items() if size.source == "unknown"]
    if unknown:
        notes.append(
            f"NOT COUNTED, size unknown: the extraction of {', '.join(unknown)}; give --images "
            + " ".join(f"{name}=N" for name in unknown)
        )
    for name, speed in plan.speeds.items():
        if speed.images_per_second:
            side = speed.data_config["input_size"][-1]
            notes.append(
                f"measured on {plan.device}: {name} {speed.images_per_second:,.1f} images/s "
                f"(random weights, {side} px, batch of {speed.batch}, {speed.dim} dimensions)"
            )
    if not plan.device:
        notes.append("hours: not measured; --seconds 2 does")
    if any(row.hours for row in plan.rows):
        notes.append(
            f"hours: extraction alone, one job after the other; decoding was measured on 1 of {plan.cores} cores"
        )
    return notes
