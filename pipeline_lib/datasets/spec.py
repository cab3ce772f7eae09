"""What a dataset artefact is made from: its name, the options of its kind, and where its files are.

Light to import: the config reads the options, and everything that opens a dataset reads the spec.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from pipeline_lib.config import kinds
from pipeline_lib.config.download import Download
from pipeline_lib.config.section import KindSection
from pipeline_lib.core.spec import Spec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config


# A path: it starts at data_dir, or at another path.
FolderName = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Checksum = Annotated[
    Literal["content", "size"],
    Field(description="What tells a changed image: content = SHA-256 of every file, size = its size alone (faster)."),
]


def _in_a_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Outputs = Annotated[
    tuple[FolderName, ...] | None,
    BeforeValidator(_in_a_list, json_schema_input_type=FolderName | tuple[FolderName, ...] | None),
]


class DatasetOptions(KindSection):
    """Options that every dataset kind has."""

    skip_unreadable: int = Field(
        0, ge=0, description="How many images may fail to decode before the job stops; each is listed."
    )
    background: Literal["white", "black"] | None = Field(
        None, description="What transparent pictures lie on; null = white, as in viewers."
    )
    outputs: Outputs = Field(
        None,
        min_length=1,
        description="Which outputs of a classifier the classes are: imagenet1k, imagenet21k or another list of timm's "
        "WordNet ids, or a file with a name a line, in the order of the outputs; several, for backbones of different "
        "classifiers. null = the classes are the outputs, in their order.",
    )
    # Excluded from specs: where files come from changes no image.
    download: tuple[Download, ...] = Field(
        (),
        exclude=True,
        description="Files to fetch before the images are listed; what is there already is not fetched again.",
    )

    @property
    def has_votes(self) -> bool:
        """Whether images carry the votes of several people (`Index.label_counts`)."""
        return False

    @property
    def fetched_by(self) -> Literal["download", "prepare_tfds"] | None:
        """The stage that brings the raw files; None where the user places them, or there are none."""
        if self.kind == "tfds":
            return "prepare_tfds"
        return "download" if self.download else None


def _of_its_kind(options: Any) -> KindSection:
    return kinds.validated("datasets", options, "options")


class DatasetSpec(Spec):
    """A dataset of the config. Where its files come from is no part of it."""

    name: str
    options: Annotated[DatasetOptions, BeforeValidator(_of_its_kind)]
    data_dir: str

    @classmethod
    def of(cls, config: Config, dataset: str) -> DatasetSpec:
        """Return the spec of a dataset of the config."""
        return cls(name=dataset, options=config.datasets[dataset], data_dir=config.data_dir)

    @property
    def reader(self) -> ModuleType:
        """The module of the dataset's kind."""
        return kinds.load("datasets", self.options.kind)
