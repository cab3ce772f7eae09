"""How a view is cut into blocks. Light, because the Snakefile imports it."""

from __future__ import annotations

from collections.abc import Sequence


def block_name(samples: Sequence[int], epochs: Sequence[int]) -> str:
    """Return the folder name of a block from its half-open ranges of samples and epochs."""
    return f"samples-{samples[0]:08d}-{samples[1]:08d}_epochs-{epochs[0]:04d}-{epochs[1]:04d}"


def block_ranges(total: int, size: int) -> list[tuple[int, int]]:
    """Cut [0, total) into half-open ranges of `size`; the last may be shorter."""
    return [(start, min(start + size, total)) for start in range(0, total, size)]
