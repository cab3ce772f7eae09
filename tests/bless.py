"""Compare what old and new code write, and record which components of the code have a new version: `make bless`.

The old code is that of the last commit that changed `pipeline_lib/versions.json`. It makes a small world, the config
`workflow/configs/tiny.yaml`; then the new code does those jobs again whose components changed, from the old inputs.
Where all bytes are equal, a component keeps its version; where not, its version is raised, and CHANGELOG.md must say
"recomputes: ...". Of what that world doesn't use, such as a dataset kind that needs a network, the author must say
whether its bytes are the same.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from pipeline_lib.config.load import load_config
from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import MANIFEST, Manifest
from pipeline_lib.core.code import code_digest
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.versions import VERSIONS, Recorded
from pipeline_lib.stages import graph as graph_module
from pipeline_lib.stages.graph import Graph, components, load_stage
from pipeline_lib.stages.targets import targets

ROOT = Path(__file__).parents[1]
GOLDEN = "workflow/configs/tiny.yaml"
# Provenance lists the manifests of a folder of results, which tell other code from the old; the record of a cache must
# lie beside its blocks, which are compared themselves.
NOT_COMPARED = ("provenance", "cache")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, record, and say what was recorded; returns 1 when the author must say something first."""
    parser = argparse.ArgumentParser(prog="python -m tests.bless", description=__doc__)
    parser.add_argument("--same", nargs="+", default=[], metavar="COMPONENT", help="its bytes are the same")
    parser.add_argument("--raised", nargs="+", default=[], metavar="COMPONENT", help="its bytes are others")
    parsed = parser.parse_args(arguments)

    known, now = committed(), {component: code_digest(component) for component in components()}
    changed = {component for component in now if component in known and known[component].code != now[component]}
    same_bytes = dict.fromkeys(parsed.same, True) | dict.fromkeys(parsed.raised, False)
    if undecided := changed - same_bytes.keys():
        same_bytes |= compare(undecided)
    entries = {component: known.get(component, Recorded(1, now[component])) for component in now}
    for component in sorted(changed & same_bytes.keys()):
        version = known[component].version + (not same_bytes[component])
        entries[component] = Recorded(version, now[component])
        print(f"{component}: {'the same bytes' if same_bytes[component] else f'other bytes, now version {version}'}")
    for component in sorted(now.keys() - known.keys()):
        print(f"{component}: new, version 1")
    content = {component: entry._asdict() for component, entry in sorted(entries.items())}
    VERSIONS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if unsaid := sorted(changed - same_bytes.keys()):
        print(f"changed, but {GOLDEN} does not compare them; say --same or --raised of: {' '.join(unsaid)}")
    return 1 if unsaid else 0


def compare(changed: set[str]) -> dict[str, bool]:
    """Return whether these components make the same bytes as before, as far as the golden world compares them."""
    world, compared = golden_world(), []
    before = Path.cwd()
    os.chdir(world)  # the config's paths are relative
    try:
        config = load_config(Path(GOLDEN_COPY))
        graph = Graph(config, Path(config.results_dir), ROOT / "workflow/published")
        graph_module.version_of = recorded_version  # the world is judged as its code judged it: all of it is fresh
        for ref in graph.behind(targets(config)):
            used = changed & graph.code(ref).keys()
            is_new = not (graph.folder(ref) / MANIFEST).exists()  # the old code knew none such
            if not used or is_new or ref.stage in NOT_COMPARED:
                continue
            job = graph.job(ref, elsewhere=Path("again") / graph.folder(ref).relative_to(graph.results))
            load_stage(ref.stage).run(job)
            is_same = what_readers_find(artefacts.read(job.output)) == what_readers_find(
                artefacts.read(graph.folder(ref))
            )
            print(f"{graph.folder(ref)}: {'the same' if is_same else 'other'} bytes")
            compared.append((used, is_same))
    finally:
        os.chdir(before)
    return blamed(compared)


def blamed(compared: Sequence[tuple[set[str], bool]]) -> dict[str, bool]:
    """Return whether each component makes the same bytes, from the artefacts that were compared.

    compared: the changed components behind each artefact, and whether its bytes are the same. What makes another
    artefact with the same bytes is not to blame for one that differs, unless nothing else could be: the page of a run,
    say, is made by all figures and tables.
    """
    innocent = {component for used, is_same in compared if is_same for component in used}
    guilty: set[str] = set()
    for used, is_same in compared:
        if not is_same:
            guilty |= used - innocent or used
    return {component: component not in guilty for used, _ in compared for component in used}


def recorded_version(component: str) -> str:
    """Return the version of a component, whatever was edited since; of one that is new, the first."""
    return str(committed().get(component, Recorded(1, "")).version)


@functools.cache
def committed() -> dict[str, Recorded]:
    """Return what the last commit says of each component: what was recorded since has not been anybody's code yet."""
    path = VERSIONS.relative_to(ROOT).as_posix()
    shown = subprocess.run(["git", "-C", str(ROOT), "show", f"HEAD:{path}"], capture_output=True, text=True, check=True)
    return {component: Recorded(**entry) for component, entry in json.loads(shown.stdout).items()}


def what_readers_find(manifest: Manifest) -> tuple[object, ...]:
    """Return what must be equal: the facts, and the checksum of each file."""
    return manifest.facts, {Path(name).name: file["xxh3_128"] for name, file in manifest.files.items()}


GOLDEN_COPY = "golden.yaml"


def golden_world() -> Path:
    """Return the folder of the golden world, made by the code of the last commit that recorded versions."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run(
        [*git, "log", "-1", "--format=%H", "--", str(VERSIONS)], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not commit:
        raise PipelineError(f"{VERSIONS}: in no commit yet; commit it once it holds the versions of the code as it is")
    world = ROOT / ".bless" / commit
    if (world / "finished").exists():
        return world
    archive = subprocess.run([*git, "archive", commit], capture_output=True, check=True).stdout
    code = world / "code"
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(code, filter="data")
    (world / GOLDEN_COPY).write_text((code / GOLDEN).read_text())
    print(f"making the golden world with the code of {commit[:10]} ...", flush=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--cores", "all", "--quiet", "all"),
            *("--snakefile", str(code / "Snakefile"), "--directory", str(world), "--configfile", GOLDEN_COPY),
        ],
        cwd=world,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        check=True,
    )
    (world / "finished").touch()
    return world


if __name__ == "__main__":
    sys.exit(main())
