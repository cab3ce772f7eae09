"""`benchmark`: the methods of the URL benchmark, each trained on each architecture and seed, and evaluated alike."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from pipeline_lib.config import kinds
from pipeline_lib.config.method_training import MethodTraining
from pipeline_lib.config.section import KindSection, Name, Section, Seeds


class Run(Section):
    """A method with its hyperparameters on one architecture."""

    method: dict[str, Any] = Field(description="The method: its `kind` and what differs from its own defaults.")
    training: dict[str, Any] = Field({}, description="Keys of `benchmark.training` that differ.")


class Architecture(Section):
    """A timm architecture and the methods that it is trained by."""

    architecture: str = Field(description="timm's name of the architecture, such as resnet50.")
    pretrained: bool = Field(False, description="Start from timm's pretrained weights (downloaded once).")
    checkpoint: str | None = Field(None, description="Start from local weights.")
    image_size: int = Field(224, ge=8, description="Side of the images in pixels.")
    methods: dict[Name, Run] = Field(min_length=1, description="Every method, by name.")


class Benchmark(Section):
    """Architectures x methods x seeds: each is a backbone `<architecture>_<method>_seed<k>` of kind `method`."""

    architectures: dict[Name, Architecture] = Field(min_length=1, description="Every architecture, by name.")
    seeds: Seeds = Field((1, 2, 3), description="One model per architecture, method and seed.")
    training: MethodTraining = Field(MethodTraining(), description="The recipe that all share.")

    @model_validator(mode="after")
    def _names_differ(self) -> Benchmark:
        taken: dict[str, tuple[str, str]] = {}
        for name, architecture in self.architectures.items():
            for method in architecture.methods:
                other = taken.setdefault(f"{name}_{method}", (name, method))
                if other != (name, method):
                    raise ValueError(
                        f"benchmark.architectures: '{other[0]}' with method '{other[1]}' and '{name}' with method "
                        f"'{method}' are both named '{name}_{method}'; rename one of them"
                    )
        return self

    def backbones(self) -> dict[str, KindSection]:
        """Return the backbone of every architecture, method and seed, by name.

        Raises ValueError of one line where one is wrong.
        """
        found: dict[str, KindSection] = {}
        for name, architecture in self.architectures.items():
            shared = architecture.model_dump(exclude={"methods"}) | {"kind": "method"}
            for method, run in architecture.methods.items():
                training = self.training.model_dump() | run.training
                where = f"benchmark.architectures.{name}.methods.{method}"
                for seed in self.seeds:
                    section = {**shared, "method": run.method, "training": training, "seed": seed}
                    found[backbone_name(name, method, seed)] = kinds.validated("backbones", section, where)
        return found


def backbone_name(architecture: str, method: str, seed: int) -> str:
    """Return the name of a model of the benchmark as a backbone."""
    return f"{architecture}_{method}_seed{seed}"
