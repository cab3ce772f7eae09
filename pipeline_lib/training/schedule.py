"""The learning rate of every step: a linear warm-up, then a cosine to zero."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Rates relative to their peak.

    Warm-up, t < w:  r_0 + (1 - r_0) t / w;  then (1 + cos(pi t / T)) / 2, with t the epoch, a fraction within one.

    Parameters
    ----------
    epochs, warmup_epochs
        T and w.
    start
        r_0, the rate of the first step.
    steps_per_epoch
        Optimiser steps of an epoch.
    """

    epochs: int
    warmup_epochs: float
    start: float
    steps_per_epoch: int

    def rate(self, epoch: int, step: int) -> float:
        """Return the relative rate of a step of an epoch, both counted from 0."""
        time = epoch + step / self.steps_per_epoch
        if time < self.warmup_epochs:
            return self.start + (1 - self.start) * time / self.warmup_epochs
        return 0.5 * (1 + math.cos(math.pi * time / self.epochs))


def start_of_warmup(warmup_epochs: float) -> float:
    """Return the start of a warm-up that begins not at zero, but where it is after a thousandth of an epoch."""
    return 1e-3 / (warmup_epochs + 1e-3)
