"""Score your own images with a checkpoint: how uncertain is the representation of each?

Give folders, archives (.zip, .tar) and image files in any mixture. The first folder below a folder or archive, where
there is one, is the label of its images. The table has a row per image: path, label, one uncertainty per seed, that of
all seeds together, and its rank, from 1 for the least uncertain.

After a kill the same command goes on where it stopped, and writes the same bytes as an undisturbed run. Images that
can't be read don't stop it: they are listed at the end and keep their row, with the reason in the column `error`. The
exit code is 0 all the same, unless no image at all can be read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.core.cores import usable_cores
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.stages.arguments import add_path
from pipeline_lib.stages.checkpoint_arguments import add_backbone, load_with_backbone

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline_lib.checkpoints.model import PretrainedModel
    from pipeline_lib.scoring.images import ImageList

_EXAMPLE = """\
example:
  python -m pipeline_lib score photos --checkpoint results/checkpoints/resnet/default \\
    --out scores.parquet --representations representations.npy --atlas atlas.html
"""
_UNREADABLE_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    parser.epilog = _EXAMPLE
    parser.add_argument("sources", nargs="+", type=Path, metavar="PATH", help="folder, archive or image")
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="DIR|ID",
        help="folder of a checkpoint, or its id on the Hugging Face Hub",
    )
    add_path(
        parser, "--out", "the table to write, .parquet; an earlier one is replaced, and so are its array and its page"
    )
    add_path(
        parser,
        "--representations",
        "also write the representations, .npy, float32 [images, dimensions], in the order of the table; NaN where an "
        "image can't be read",
        required=False,
    )
    add_path(parser, "--atlas", "also write a page with thumbnails sorted by uncertainty, .html", required=False)
    parser.add_argument(
        "--atlas-images",
        type=_at_least(1),
        default=5_000,
        metavar="N",
        help="thumbnails on the page; of more images, an even share of all ranks is shown (%(default)s: up to 60 MB)",
    )
    parser.add_argument(
        "--atlas-side",
        type=_at_least(16),
        default=128,
        metavar="PIXELS",
        help="longer side of the pictures on the page (%(default)s; its size grows with the square). The page also "
        "opens the image files themselves, but not what lies in archives",
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", metavar="K", help="the heads to use (default: all, averaged by rank)"
    )
    add_backbone(parser)
    parser.add_argument(
        "--batch-size", type=_at_least(1), default=64, metavar="N", help="images at a time (%(default)s)"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: %(default)s")
    parser.add_argument(
        "--precision", default="float32", choices=("float32", "bfloat16"), help="of the backbone (%(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=_at_least(0),
        default=usable_cores(),
        metavar="N",
        help="processes that decode images; the result does not depend on it (default: one per core, here %(default)s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Score, write the table and what else was asked for, and list the unreadable images."""
    from pipeline_lib.core.device import choose_device
    from pipeline_lib.core.progress import Progress
    from pipeline_lib.scoring.atlas import require_replaceable_atlas
    from pipeline_lib.scoring.images import ImageList
    from pipeline_lib.scoring.run import chunks_of, digest_of, score_images
    from pipeline_lib.scoring.table import require_replaceable_scores, score_table, write_scores
    from pipeline_lib.scoring.unfinished import Unfinished

    _require_apart(arguments)
    require_replaceable_scores(arguments.out, arguments.representations)
    if arguments.atlas is not None:
        require_replaceable_atlas(arguments.atlas)
    images = ImageList(arguments.sources)
    device = choose_device(arguments.device)
    model = load_with_backbone(
        arguments.checkpoint, arguments.backbone, arguments.code_dir, arguments.seeds, device, arguments.precision
    )
    spec = {
        "images": images.digest,
        "model": digest_of(model),
        "seeds": list(model.seeds),
        "batch_size": arguments.batch_size,
        "precision": arguments.precision,
        "device": next(model.parameters()).device.type,
        "representations": None if arguments.representations is None else str(arguments.representations.resolve()),
    }
    with Unfinished(arguments.out, spec, arguments.representations) as unfinished:
        done = sum(map(len, chunks_of(len(images), arguments.batch_size)[: unfinished.done]))
        with Progress(len(images), "images", "scoring", done) as progress:
            score_images(images, model, unfinished, arguments.batch_size, arguments.workers, progress.advance)
        table = score_table(images, unfinished.table())
        if table["error"].null_count == 0:
            unfinished.discard()
            raise PipelineError(f"none of the {len(images)} images can be read; the first: {table['error'][0]}")
        write_scores(table, arguments.out, arguments.representations)
        if arguments.atlas is not None:
            _write_atlas(arguments, table, images, model)
        unfinished.finish()
    _report(table, arguments.out)


def _require_apart(arguments: argparse.Namespace) -> None:
    """Raise `PipelineError` where two outputs are one file: the second would be written over the first."""
    written: dict[Path, str] = {}
    for option in ("out", "representations", "atlas"):
        if (path := getattr(arguments, option)) is not None:
            other = written.setdefault(path.resolve(), option)
            if other != option:
                raise PipelineError(
                    f"{path}: is what both --{other} and --{option} are to be written to; name two files"
                )


def _write_atlas(arguments: argparse.Namespace, table: pa.Table, images: ImageList, model: PretrainedModel) -> None:
    from pipeline_lib.core.progress import Progress
    from pipeline_lib.scoring.atlas import write_atlas

    scored = table["error"].null_count
    seeds = "1 seed" if len(model.seeds) == 1 else f"mean rank of {len(model.seeds)} seeds"
    with Progress(min(scored, arguments.atlas_images), "thumbnails", "atlas") as progress:
        write_atlas(
            table.to_pandas(),
            images.image,
            f"Uncertainty of {', '.join(source.name for source in arguments.sources[:3])}"
            + (" and more" if len(arguments.sources) > 3 else ""),
            f"{scored:,} images, scored by {model.config.backbone.name} / {model.config.heads.variant}: {seeds}. "
            "The larger u, the less the representation of an image is to be trusted.",
            arguments.atlas,
            arguments.atlas_images,
            max(1, arguments.workers),
            progress.advance,
            images.file,
            arguments.atlas_side,
        )


def _report(table: pa.Table, out: Path) -> None:
    """Print how many images were scored, and which were not."""
    errors = table["error"].drop_null().to_pylist()
    print(f"{table.num_rows - len(errors):,} of {table.num_rows:,} images scored: {out}")
    if errors:
        print(f"{len(errors):,} can't be read (column `error` of {out} has all):", file=sys.stderr)
        for error in errors[:_UNREADABLE_SHOWN]:
            print(f"  {error}", file=sys.stderr)


def _at_least(minimum: int) -> Callable[[str], int]:
    """Return a parser of whole numbers that are at least `minimum`."""

    def read(text: str) -> int:
        if not text.lstrip("-").isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"'{text}': must be a whole number of at least {minimum}")
        return int(text)

    return read
