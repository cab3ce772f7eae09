"""What the options of methods have in common. Imports no torch: the config reads the options of every method."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline_lib.config.section import KindSection, Widths

# What a learnt uncertainty u is never below: the concentration 1 / u stays finite, and so do the gradients through it.
FLOOR = 1e-6


class MethodOptions(KindSection):
    """The base of every method's options; each method adds its `kind` and its hyperparameters."""


# Of methods with a learnt uncertainty.
Hidden = Annotated[Widths, Field(description="Widths of the uncertainty module's hidden layers.")]
StartValue = Annotated[
    float | None,
    Field(gt=FLOOR, description="Uncertainty of the untrained module; null leaves it to the random weights."),
]
# Of methods whose published numbers the reference code's faults may have changed.
Compat = Annotated[
    Literal["reference"] | None,
    Field(description="`reference` repeats the faults of the reference code that docs/methods.md lists; null = none."),
]
