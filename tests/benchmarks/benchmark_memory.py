"""How much memory each stage takes at the paper's scale: 13 million images, 21,843 classes.

`python -m tests.benchmarks.benchmark_memory` runs each part in a process of its own, prints the most memory that it
had (`getrusage`, imports included), and ends with an error when a bound is missed. Rows and names are made up as they
are read, so nothing of their size lies on the disk, but for the index. Work that repeats piece by piece is stopped
after some pieces.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

ROWS, CLASSES, BLOCK, QUERIES = 13_151_276, 21_843, 98_304, 60_000
INDEX = ("index", "block", "split")
# Part, width of the representations, and at most so many MB.
PARTS = (
    *((part, 0, bound) for part, bound in zip(INDEX, (1500, 500, 1500), strict=True)),
    *(
        (part, dim, bound)
        for part, bound in (("heads", 4000), ("knn", 2000), ("contrastive", 2000))
        for dim in (8, 768)
    ),
    ("probe", 8, 2000),
    ("neighbours", 768, 1000),
)


class MadeUpRows:
    """Rows of a cache that repeat themselves every 65,536 and are nowhere stored."""

    def __init__(self, rows: int, dim: int, epochs: int = 2) -> None:
        self.rows, self.dim, self.epochs = rows, dim, epochs
        self._noise = np.random.default_rng(0).standard_normal((1 << 16, dim), np.float32).astype(np.float16)

    def read(self, array: str, epoch: int, start: int, stop: int) -> np.ndarray:
        position = np.arange(start, stop)
        if array == "label":
            return np.minimum(position // (self.rows // CLASSES), CLASSES - 1)
        position %= len(self._noise)
        return self._noise[position] if array == "embedding" else np.abs(self._noise[position, 0].astype(np.float32))


def class_tars(path: Path, checksum: bool) -> Iterator[tuple[str, list]]:
    """Yield what `list_class_tars` says of an outer tar, with names and offsets as long as ImageNet-21k's."""
    from pipeline_lib.datasets.archive_members import Member

    for number in range(CLASSES):
        wnid, first = f"n{number + 1_000_000:08d}", ROWS * number // CLASSES
        names = [f"{wnid}_{image}.JPEG" for image in range(ROWS * (number + 1) // CLASSES - first)]
        yield (
            wnid,
            [
                Member(
                    name, f"{(first + image) * 110_000}:{100_000 + image}:{name}", 100_000 + image, "", is_folder=False
                )
                for image, name in enumerate(names)
            ],
        )


def index(folder: Path, dim: int) -> None:
    """List the images of ImageNet-21k."""
    from pipeline_lib.core.jobs import Job
    from pipeline_lib.datasets import imagenet21k, images
    from pipeline_lib.datasets.spec import DatasetSpec

    setattr(imagenet21k, "list_class_tars", class_tars)  # noqa: B010 (mypy knows the name as an import alone)
    spec = DatasetSpec(name="imagenet21k", options={"kind": "imagenet21k", "path": "whole.tar"}, data_dir="nowhere")
    images.write_dataset(Job("dataset", spec, {}, folder / "imagenet21k"))


def block(folder: Path, dim: int) -> None:
    """Open the images of one block, as a job of features does."""
    _read(folder, (ROWS // 2, ROWS // 2 + BLOCK))


def split(folder: Path, dim: int) -> None:
    """Open all images, as what mixes images or trains from them does."""
    _read(folder, None)


def _read(folder: Path, samples: tuple[int, int] | None) -> None:
    from pipeline_lib.datasets.images import ImageDataset

    images = ImageDataset(folder / "imagenet21k", "train", samples)
    assert images.location(len(images) - 1).endswith(".JPEG")


def heads(folder: Path, dim: int) -> None:
    """Train five heads until three buffers are used."""
    from pipeline_lib.config.training import Training
    from pipeline_lib.heads.spec import HeadSpec
    from pipeline_lib.heads.train import train_heads

    class EnoughError(Exception):
        pass

    def stop(head: HeadSpec, record: Mapping[str, float]) -> None:
        if record["images"] > 3 * training.shuffle_buffer:
            raise EnoughError

    training = Training(threads=1, epochs=1, precision="float32")
    about = {"backbone": "vit", "dataset": "imagenet21k", "split": "train", "view": "train", "variant": "default"}
    specs = [HeadSpec.model_validate({**about, "seed": seed, "training": training}) for seed in range(5)]
    try:
        train_heads(MadeUpRows(ROWS, dim), specs, stop)
    except EnoughError:
        return


def _task_loss(kind: str) -> Callable[[Path, int], None]:
    def measured(folder: Path, dim: int) -> None:
        import torch

        from pipeline_lib.config import kinds
        from pipeline_lib.config.task_losses import TaskLosses

        rows, module = MadeUpRows(ROWS, dim), kinds.load("task_losses", kind)
        if kind == "probe":  # one step over some pieces, of the moments too
            module._Probes._moments = lambda self: (torch.zeros(dim), torch.ones(dim))
            pieces = module._Probes._pieces
            module._Probes._pieces = lambda self: itertools.islice(pieces(self), 3)
        with torch.inference_mode():
            losses = module.losses(rows, TaskLosses().options(kind), torch.device("cpu"))
            for _ in itertools.islice(losses, 3):
                pass

    return measured


def neighbours(folder: Path, dim: int) -> None:
    """Search a downstream set."""
    from pipeline_lib.config.evaluation import Neighbours
    from pipeline_lib.retrieval.search import nearest_neighbours

    rows = MadeUpRows(QUERIES, dim)
    nearest_neighbours(lambda start, stop: rows.read("embedding", 0, start, stop), QUERIES, Neighbours(device="cpu"))


MEASURED: dict[str, Callable[[Path, int], None]] = {
    **{function.__name__: function for function in (index, block, split, heads, neighbours)},
    **{kind: _task_loss(kind) for kind in ("knn", "contrastive", "probe")},
}


def peak() -> float:
    """Return the most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Measure every part, or one in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=MEASURED)
    parser.add_argument("--dim", type=int, default=8)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.part:
        MEASURED[arguments.part](arguments.folder, arguments.dim)
        print(f"{peak():.0f}")
        return 0
    missed = False
    with tempfile.TemporaryDirectory() as folder:
        for part, dim, bound in PARTS:
            command = [sys.executable, "-m", __spec__.name, "--part", part, "--dim", str(dim), "--folder", folder]
            result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = int(result.stdout.split()[-1])
            missed |= found > bound
            verdict = "ok" if found <= bound else "MISSED"
            print(f"memory of {part:12} at d = {dim:4}: {found:6,} MB (at most {bound:,}: {verdict})", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
