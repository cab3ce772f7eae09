"""What the processor that measures can do."""

from __future__ import annotations

import time

import torch


def computes_bfloat16() -> bool:
    """Return whether products in bfloat16 are as fast as in float32; without units for them they take far longer."""

    def seconds(dtype: torch.dtype) -> float:
        values = torch.ones(1024, 1024, dtype=dtype)
        taken = []
        for _ in range(10):
            start = time.perf_counter()
            values @ values
            taken.append(time.perf_counter() - start)
        return min(taken)

    return seconds(torch.bfloat16) < 1.2 * seconds(torch.float32)


def precisions(benchmark: str) -> list[str]:
    """Return the types to measure, and say so where bfloat16, which would take minutes, is left out."""
    if computes_bfloat16():
        return ["float32", "bfloat16"]
    print(f"{benchmark} bfloat16: left out, since this processor has no units for it", flush=True)
    return ["float32"]
