"""How a backbone was made, as its manifest says it: for every room that reads backbones. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import SerializeAsAny

from pipeline_lib.config import kinds
from pipeline_lib.config.section import KindSection
from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import Manifest
from pipeline_lib.core.errors import ArtefactError
from pipeline_lib.core.spec import Spec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

Maker = Literal["backbone", "method"]
BackboneOptions = Annotated[SerializeAsAny[KindSection], kinds.dispatched("backbones", "options")]


class BackboneSpec(Spec):
    """The spec of the stages `backbone` and `method`: the config section of the backbone, whichever its kind.

    train_split: the split of the upstream dataset that it is trained on, of a backbone that is trained here.
    eval_split: the one by which a method's best epoch is chosen.
    """

    name: str
    options: BackboneOptions
    train_split: str | None = None
    eval_split: str | None = None

    @classmethod
    def of(cls, config: Config, backbone: str) -> BackboneSpec:
        """Return the spec of a job."""
        return cls(
            name=backbone,
            options=config.backbone(backbone),
            train_split=config.upstream.train_split if is_trained_here(config, backbone) else None,
            eval_split=config.upstream.eval_split if made_by(config, backbone) == "method" else None,
        )


def made_by(config: Config, backbone: str) -> Maker:
    """Return the stage that makes a backbone."""
    return "method" if config.backbone(backbone).kind == "method" else "backbone"


def is_trained_here(config: Config, backbone: str) -> bool:
    """Return whether a backbone is trained on the upstream dataset."""
    return config.backbone(backbone).kind in ("trained", "method")


def components(options: KindSection) -> list[str]:
    """Return the components of the code that are chosen by a backbone's name: its kind and, if any, its method."""
    methods = [section.kind for _, section in options if isinstance(section, KindSection)]
    return [f"backbones.{options.kind}", *(f"methods.{method}" for method in methods)]


def read_manifest(directory: Path, verify: bool = True) -> Manifest:
    """Read the manifest of a backbone; raises `ArtefactError` for an artefact that is damaged or something else."""
    manifest = artefacts.read(directory, verify=verify)
    if manifest.stage not in ("backbone", "method"):
        raise ArtefactError(f"{directory}: made by stage '{manifest.stage}', but a backbone was asked for")
    return manifest
