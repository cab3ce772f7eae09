"""Indexing 200,000 tiny images in a folder and in a tar of tars, and reading them at random from the tars.

Each index is made in a process of its own, whose time and peak memory must stay below a bound. Reading a member of a
tar, without decoding it, is compared with opening and reading a file that holds the same bytes.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

MAXIMUM_SECONDS, MAXIMUM_MB, MAXIMUM_RATIO = 60.0, 500.0, 2.0
READS, REPEATS = 20_000, 3
OPTIONS = {
    "folder, sizes": {"kind": "folder", "path": "loose", "checksum": "size"},
    "folder, checksums": {"kind": "folder", "path": "loose", "checksum": "content"},
    "tar of tars": {"kind": "imagenet21k", "path": "whole.tar"},
    "folder of tars": {"kind": "imagenet21k", "path": "tars"},
}


def write_images(data_dir: Path, n_classes: int, per_class: int) -> None:
    """Write the same images as files (`loose`), as a tar per class (`tars`) and as a tar of those (`whole.tar`)."""
    (data_dir / "tars").mkdir()
    with tarfile.open(data_dir / "whole.tar", "w") as whole:
        for number in range(n_classes):
            wnid = f"n{number:08d}"
            (data_dir / "loose" / wnid).mkdir(parents=True)
            with tarfile.open(data_dir / "tars" / f"{wnid}.tar", "w") as opened:
                for image in range(per_class):
                    name = f"{wnid}_{image}.JPEG"
                    content = name.encode() * 20
                    (data_dir / "loose" / wnid / name).write_bytes(content)
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    opened.addfile(info, io.BytesIO(content))
            whole.add(data_dir / "tars" / f"{wnid}.tar", f"{wnid}.tar")


def make_index(data_dir: Path, name: str) -> None:
    """Index one form of the images; print the number of images, the seconds and the peak memory in MB as JSON."""
    from pipeline_lib.datasets.images import ImageDataset
    from tests.jobs import run

    start = time.perf_counter()
    spec = {"name": name, "options": OPTIONS[name], "data_dir": str(data_dir)}
    directory = run("dataset", spec, data_dir / f"artefact {name}")
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    print(json.dumps([ImageDataset(directory, "test").manifest.facts["samples"], seconds, peak]))


def measure_index(data_dir: Path, name: str, images: int) -> bool:
    """Index in a new process; print its line and return whether a bound is missed."""
    command = [sys.executable, "-m", "tests.benchmarks.benchmark_datasets", "--index", name, "--data-dir", data_dir]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found, seconds, peak = json.loads(answer)
    missed = seconds > MAXIMUM_SECONDS or peak > MAXIMUM_MB or found != images
    print(
        f"datasets, index of {found:,} images, {name:18} {seconds:5.1f} s (at most {MAXIMUM_SECONDS:.0f}), peak "
        f"{peak:.0f} MB (at most {MAXIMUM_MB:.0f}): {'MISSED' if missed else 'ok'}",
        flush=True,
    )
    return missed


def read_seconds(read: Callable[[str], bytes], locations: Sequence[str]) -> float:
    """Return the seconds of reading all locations in turn."""
    start = time.perf_counter()
    for location in locations:
        read(location)
    return time.perf_counter() - start


def measure_reads(data_dir: Path) -> bool:
    """Read the same random images from each form; print a line per kind of tar, return whether a bound is missed."""
    from pipeline_lib.datasets import imagenet21k
    from pipeline_lib.datasets.archive_members import read_member

    def read_file(location: str) -> bytes:
        with open(f"{data_dir}/loose/{location}", "rb") as file:
            return file.read()

    def read_from_folder(location: str) -> bytes:
        tar, member = location.split(":", 1)
        return read_member(f"{data_dir}/tars/{tar}", member)

    readers = {
        "tar of tars": lambda location: read_member(f"{data_dir}/whole.tar", location),
        "folder of tars": read_from_folder,
    }
    missed = False
    for name, read in readers.items():
        options = imagenet21k.Options.model_validate(OPTIONS[name])
        locations = list(map(str, imagenet21k.build_index(options, data_dir).location))
        locations = random.Random(0).choices(locations, k=READS)
        names = [location.rsplit(":", 1)[1] for location in locations]
        files = [f"{image.split('_')[0]}/{image}" for image in names]
        if [read(location) for location in locations[:100]] != [read_file(file) for file in files[:100]]:
            raise AssertionError("a member's bytes are not those of the file")
        ours, plain = [], []
        for _ in range(REPEATS):
            plain.append(read_seconds(read_file, files))
            ours.append(read_seconds(read, locations))
        ratio = min(ours) / min(plain)
        missed |= ratio > MAXIMUM_RATIO
        print(
            f"datasets, random reads, {name:14} {1e6 * min(ours) / READS:5.1f} us, plain file "
            f"{1e6 * min(plain) / READS:5.1f} us, ratio {ratio:.2f} (at most {MAXIMUM_RATIO:.2f}): "
            f"{'ok' if ratio <= MAXIMUM_RATIO else 'MISSED'}",
            flush=True,
        )
    return missed


def main() -> int:
    """Measure, print one line per bound, and return 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--per-class", type=int, default=200)
    parser.add_argument("--index", choices=sorted(OPTIONS), help="make one index and report on it (for internal use)")
    parser.add_argument("--data-dir", type=Path, help="where the images of --index are")
    arguments = parser.parse_args()
    if arguments.index:
        make_index(arguments.data_dir, arguments.index)
        return 0
    with tempfile.TemporaryDirectory() as directory:
        data_dir = Path(directory)
        write_images(data_dir, arguments.classes, arguments.per_class)
        images = arguments.classes * arguments.per_class
        missed = [measure_index(data_dir, name, images) for name in OPTIONS]
        missed.append(measure_reads(data_dir))
    return int(any(missed))


if __name__ == "__main__":
    sys.exit(main())
