"""Kind `folder`: one folder per class, in one folder per split or none. Folders below a class belong to it.

Names that start with a dot are left out, and so are files that are no images by name; how many of these is printed.
The location of an image is its path below `path`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline_lib.datasets.base import ImageOpener, Index, report_no_images, resolve
from pipeline_lib.datasets.class_folders import ClassFolderOptions, index_class_folders
from pipeline_lib.datasets.files import FileOpener, Tree, digest_of_files, list_images
from pipeline_lib.datasets.spec import Checksum


class Options(ClassFolderOptions):
    """Images in one folder per class."""

    kind: Literal["folder"] = Field(description="One folder per class, below one folder per split or none.")
    checksum: Checksum = "content"


def open_images(options: Options, data_dir: Path) -> ImageOpener:
    """Return the opener of the folder's files."""
    return FileOpener(str(resolve(data_dir, options.path)))


def build_index(options: Options, data_dir: Path) -> Index:
    """List the images by split folder, then by path."""
    root = resolve(data_dir, options.path)
    images: list[str] = []
    folders: list[str] = []
    others: list[str] = []
    for folder in options.folder_of_split().values():
        for names, found in zip((images, folders, others), list_images(root, folder), strict=True):
            names += found
    images.sort()
    report_no_images(str(root), others)
    return index_class_folders(
        images=images,
        folders=set(folders),
        folder_of_split=options.folder_of_split(),
        source=str(root),
        fingerprint=digest_of_files(root, images, options.checksum),
        split_by=options.split_by,
    )


def watched_files(options: Options, data_dir: Path) -> list[Tree]:
    """Return all images of the split folders."""
    root = resolve(data_dir, options.path)
    return [Tree(root / folder) for folder in options.folder_of_split().values()]
