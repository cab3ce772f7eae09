"""How a view is cut into blocks. Light, because the Snakefile imports it."""

from __future__ import annotations

from collections.abc import Sequence


def block_wildcards(samples: Sequence[int], epochs: Sequence[int]) -> dict[str, str]:
    """Return the wildcards of a block's folder from its half-open ranges of samples and epochs."""
    (start, stop), (first, last) = samples, epochs
    return {"start": f"{start:08d}", "stop": f"{stop:08d}", "first": f"{first:04d}", "last": f"{last:04d}"}


def block_ranges(total: int, size: int) -> list[tuple[int, int]]:
    """Cut [0, total) into half-open ranges of `size`; the last may be shorter."""
    return [(start, min(start + size, total)) for start in range(0, total, size)]
