"""Kind `tfds`: an image classification set of TensorFlow Datasets, prepared as array_record files.

Preparing a set (once, outside the pipeline) takes TensorFlow; reading it takes `tensorflow-datasets` and `array-record`
alone. The location of an image is its version, its file and its number in it, such as
`3.0.2/cifar10-train.array_record-00000-of-00001/17`.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from pipeline_lib.config.section import Name
from pipeline_lib.core.errors import PipelineError, one_line, one_of
from pipeline_lib.datasets.base import ImageOpener, Index, UnreadableImageError, decode, resolve
from pipeline_lib.datasets.spec import DatasetOptions
from pipeline_lib.datasets.tfds_reading import check_feature, find_parts, open_builder, read

if TYPE_CHECKING:
    from PIL.Image import Image

INFO = "dataset_info.json"
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_CONFIG = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"


def _shares_of_train(end: int) -> dict[str, str]:
    return {"train": f"train[:{end}%]", "validation": f"train[{end}%:]", "test": "test"}


# The splits of the Visual Task Adaptation Benchmark (VTAB).
_OFFICIAL = {"train": "train", "validation": "validation", "test": "test"}
VTAB_SPLITS = {
    "caltech101": _shares_of_train(90),
    "cifar10": _shares_of_train(90),
    "cifar100": _shares_of_train(90),
    "dtd": _OFFICIAL,
    "oxford_flowers102": _OFFICIAL,
    "oxford_iiit_pet": _shares_of_train(80),
    "resisc45": {"train": "train[:60%]", "validation": "train[60%:80%]", "test": "train[80%:]"},
    "sun397": _OFFICIAL,
    "svhn_cropped": _shares_of_train(90),
}
VTAB_CONFIGS = {"sun397": "tfds"}
# What TFDS can't download itself: a folder below its folder of manual downloads, and how it comes there.
_BY_HAND = {"resisc45": ("NWPU-RESISC45", "unpack NWPU-RESISC45.rar so that its folder NWPU-RESISC45 lies in {}")}


class Options(DatasetOptions):
    """Images of a set of TensorFlow Datasets."""

    kind: Literal["tfds"] = Field(description="A set of TensorFlow Datasets; needs `pip install '.[tfds]'`.")
    name: str = Field(pattern=r"^[a-z0-9_]+$", description="Name of the set, such as cifar10 or oxford_iiit_pet.")
    config: str | None = Field(
        None,
        pattern=_CONFIG,
        description="Configuration, such as tfds; null = VTAB's for sun397 (tfds), none for the others.",
    )
    version: str | None = Field(
        None,
        pattern=rf"^{_VERSION.pattern}$",
        description="Version, such as 3.0.2; null = the newest prepared.",
    )
    tfds_dir: str = Field(
        "tensorflow_datasets", min_length=1, description="Where sets are prepared; a relative path starts at data_dir."
    )
    splits: dict[Name, str] | None = Field(
        None,
        min_length=1,
        validate_default=True,
        description="TFDS split of each split, such as {train: 'train[:90%]', test: test}; null = VTAB's.",
    )
    image_key: str = Field("image", min_length=1, description="Feature with the image.")
    label_key: str = Field("label", min_length=1, description="Feature with the class.")

    @field_validator("splits")
    @classmethod
    def _known_where_null(cls, value: dict[str, str] | None, info: ValidationInfo) -> dict[str, str] | None:
        if value is None and info.data.get("name", "cifar10") not in VTAB_SPLITS:
            raise ValueError(
                f"must be given for '{info.data['name']}', such as {{train: 'train[:90%]', test: test}}; "
                f"known without: {one_of(VTAB_SPLITS)}"
            )
        return value

    def tfds_config(self) -> str | None:
        """Return the configuration, VTAB's where none is given."""
        return self.config or VTAB_CONFIGS.get(self.name)

    def tfds_splits(self) -> dict[str, str]:
        """Return the TFDS split of each split, sorted by the split's name."""
        return dict(sorted((self.splits or VTAB_SPLITS[self.name]).items()))


@dataclass(frozen=True)
class RecordOpener:
    """Decodes the image of a record. Safe in threads and in forked or spawned processes."""

    folder: str
    image_key: str

    def __call__(self, location: str) -> Image:
        where = f"{self.folder}, record '{location}'"
        try:
            content = read(self.folder, location)[self.image_key]
        except (OSError, ValueError, KeyError) as error:
            raise UnreadableImageError(f"{where}: can't be read ({one_line(error)})") from None
        return decode(io.BytesIO(content), where)


def open_images(options: Options, data_dir: Path) -> ImageOpener:
    """Return the opener of the records."""
    return RecordOpener(str(_folder_of_versions(options, data_dir)), options.image_key)


def build_index(options: Options, data_dir: Path) -> Index:
    """List the images by split, then in the order of the records.

    Raises
    ------
    PipelineError
        TFDS is not installed, the set is not prepared, a split or feature is unknown, a record or its label is missing,
        or two splits share images.
    """
    directory = _prepared(options, data_dir)
    builder = open_builder(str(directory))
    features = builder.info.features
    check_feature(features, options.image_key, "Image", f"{directory}: image_key")
    check_feature(features, options.label_key, "ClassLabel", f"{directory}: label_key")

    split, label, location = [], [], []
    digest = hashlib.sha256()
    for name, parts in find_parts(builder, options.tfds_splits(), str(directory)).items():
        for found in (f"{directory.name}/{file}/{n}" for file, start, end in parts for n in range(start, end)):
            try:
                record = read(str(directory.parent), found)
            except (OSError, ValueError) as error:
                raise PipelineError(f"{directory}: record '{found}' can't be read ({one_line(error)})") from None
            if record[options.label_key] < 0:
                raise PipelineError(f"{directory}: record '{found}' has no label; leave split '{name}' out of 'splits'")
            split.append(name)
            label.append(int(record[options.label_key]))
            location.append(found)
            digest.update(hashlib.sha256(record[options.image_key]).digest())
    return Index(
        classes=list(features[options.label_key].names),
        split=split,
        label=np.array(label, np.int64),
        location=location,
        fingerprint=f"{digest.hexdigest()} {hashlib.sha256(repr(label).encode()).hexdigest()}",
    )


def watched_files(options: Options, data_dir: Path) -> list[Path]:
    """Return the folder of the versions and, of the prepared one, the description that TFDS writes last."""
    above = _folder_of_versions(options, data_dir)
    version = options.version or _newest(above)
    return [above, above / version / INFO] if version else [above]


def prepared_folder(options: Options, data_dir: Path) -> Path | None:
    """Return the folder of the version asked for, or of the newest; None where it is not completely prepared.

    TFDS prepares a set in `incomplete.<ID>_<version>` and renames that folder at the end.

    Raises
    ------
    PipelineError
        The set is prepared in a format that can't be read at random.
    """
    above = _folder_of_versions(options, data_dir)
    version = options.version or _newest(above)
    if version is None or not (above / version / INFO).is_file():
        return None
    info = read_info(above / version)
    formats = {info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", [])}
    if "array_record" not in formats:
        raise PipelineError(
            f"{above / version}: holds {one_of(formats)} files, which can't be read at random; delete the folder and "
            "prepare the set again, as array_record"
        )
    return above / version


def read_info(directory: Path) -> dict[str, Any]:
    """Return what TFDS wrote about a prepared set; raises `PipelineError` where it is damaged."""
    try:
        info = json.loads((directory / INFO).read_text(encoding="utf-8"))
        if not isinstance(info, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"{directory / INFO}: can't be read ({one_line(error)}); delete the folder and prepare the set again"
        ) from None
    return info


def set_name(options: Options) -> str:
    """Return the set as TFDS names it: name, configuration and version, such as sun397/tfds:4.0.0."""
    config = f"/{options.tfds_config()}" if options.tfds_config() else ""
    return f"{options.name}{config}{f':{options.version}' if options.version else ''}"


def by_hand(options: Options, root: Path) -> str | None:
    """Return what must be placed below `root` (where sets are prepared) by hand, as an instruction; None = nothing."""
    missing = options.name in _BY_HAND and not (root / "downloads/manual" / _BY_HAND[options.name][0]).is_dir()
    return _BY_HAND[options.name][1].format(f"{root}/downloads/manual") if missing else None


def _folder_of_versions(options: Options, data_dir: Path) -> Path:
    return resolve(data_dir, options.tfds_dir) / options.name / (options.tfds_config() or "")


def _newest(above: Path) -> str | None:
    """Return the newest version that is completely prepared."""
    prepared = [path.parent.name for path in above.glob(f"*/{INFO}") if _VERSION.fullmatch(path.parent.name)]
    return max(prepared, key=lambda version: [int(part) for part in version.split(".")], default=None)


def _prepared(options: Options, data_dir: Path) -> Path:
    """Return the folder of the set; raises `PipelineError` with the command to prepare it."""
    directory = prepared_folder(options, data_dir)
    if directory is not None:
        return directory
    root = resolve(data_dir, options.tfds_dir)
    first = by_hand(options, root)
    raise PipelineError(
        f"{_folder_of_versions(options, data_dir) / (options.version or '')}: TFDS set '{set_name(options)}' is not "
        f"prepared there; {f'{first}, then ' if first else ''}run: make tfds && snakemake (its rule prepare_tfds)"
    )
