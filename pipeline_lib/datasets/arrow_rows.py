"""Images in the rows of Arrow files, read at random with pyarrow alone.

The location of an image is `file:row:feature`, with the file's path below a root folder.
"""

from __future__ import annotations

import functools
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.core.errors import PipelineError, one_line
from pipeline_lib.datasets.base import UnreadableImageError, decode

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa
    from PIL.Image import Image

_LOCATION = re.compile(r"(.+?\.arrow):(\d+):(.*)", re.DOTALL)


@dataclass(frozen=True)
class RowOpener:
    """Decodes the image at a location. Safe in threads and in forked or spawned processes."""

    root: str

    def __call__(self, location: str) -> Image:
        found = _LOCATION.fullmatch(location)
        if found is None:
            raise UnreadableImageError(f"{self.root}: '{location}' is no row of an Arrow file; list the dataset anew")
        file, row, feature = found.groups()
        where = f"{self.root}/{file}, row {row}"
        try:
            value = _mapped(f"{self.root}/{file}")[feature][int(row)]
        except (OSError, ValueError, LookupError) as error:
            raise UnreadableImageError(
                f"{where}: can't be read ({one_line(error)}); delete the dataset in the results and run again"
            ) from None
        picture, path = content(value)
        return decode(io.BytesIO(picture), where) if picture is not None else decode(str(path), str(path))


def arrow_files(dataset: datasets.Dataset, root: Path) -> Iterator[tuple[str, pa.Table]]:
    """Yield the Arrow files of a dataset by their paths below `root`, in the order of its rows."""
    rows = 0
    for file in dataset.cache_files:
        name = Path(os.path.relpath(file["filename"], root)).as_posix()
        table = _map(f"{root}/{name}")
        rows += table.num_rows
        yield name, table
    if rows != dataset.num_rows:
        raise PipelineError(f"{root}: its Arrow files have {rows} rows instead of {dataset.num_rows}; load it again")


def pictures(files: list[tuple[str, pa.Table]], feature: str, rows: range) -> Iterator[tuple[str, int, pa.Scalar]]:
    """Yield the file, the row in that file and the undecoded image of each row of a dataset."""
    start = 0
    for file, table in files:
        column = table[feature]
        for row in range(max(rows.start - start, 0), min(rows.stop - start, len(column))):
            yield file, row, column[row]
        start += len(column)


def content(value: pa.Scalar) -> tuple[pa.Buffer | None, str | None]:
    """Return the bytes of an undecoded image and the path of its file; both None where there is no image."""
    import pyarrow as pa

    if not value.is_valid:
        return None, None
    if not isinstance(value, pa.StructScalar):
        return value.as_buffer(), None
    path = value["path"].as_py() if "path" in value else None
    return value["bytes"].as_buffer() if value["bytes"].is_valid else None, path


def _map(path: str) -> pa.Table:
    """Map an Arrow file into memory."""
    import pyarrow as pa

    # Without threads: a forked process has none of those that its parent started.
    options = pa.ipc.IpcReadOptions(use_threads=False)
    with pa.ipc.open_stream(pa.memory_map(path), options=options) as reader:
        return reader.read_all()


_mapped = functools.lru_cache(maxsize=1024)(_map)
