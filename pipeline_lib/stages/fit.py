"""Learn uncertainty heads for a pretrained network from your own images, and write a checkpoint of both.

IMAGES is a folder or archive (.zip, .tar) of class folders, or of train and test with class folders; a table (.csv,
.tsv, .parquet) with the columns path and label; or images without labels. A fifth of them is held out: the heads' ranks
and the numbers of the card are of these.

The network is timm's (--model, whose weights are downloaded once, or --weights) or your own (--factory, --weights).
After a kill the same command goes on. `score`, `load` and `push` take the checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.stages.arguments import add_path, read_object

_EXAMPLE = """\
example:
  python -m pipeline_lib fit photos --model vit_small_patch16_224.augreg_in21k_ft_in1k --out my_checkpoint
  python -m pipeline_lib score photos --checkpoint my_checkpoint --out scores.parquet --atlas atlas.html
"""
# Options that are fields of the section of a backbone.
_NETWORK: dict[str, dict[str, Any]] = {
    "key_prefix": {"metavar": "TEXT", "help": "prefix of the weights' keys that is to be removed, such as module."},
    "num_classes": {"type": int, "metavar": "N", "help": "with --model: outputs of the weights' classifier"},
    "image_size": {"type": int, "metavar": "N", "help": "side of the images in pixels (default: the model's)"},
    "code_dir": {"metavar": "PATH", "help": "with --factory: folder of its module (default: this folder)"},
    "arguments": {
        "type": read_object,
        "metavar": "JSON",
        "help": """with --factory: its keyword arguments, such as '{"depth": 20}'""",
    },
    "mean": {"type": float, "nargs": 3, "help": "with --factory: mean per channel (default: ImageNet's)"},
    "std": {"type": float, "nargs": 3, "help": "with --factory: deviation per channel (default: ImageNet's)"},
    "interpolation": {"metavar": "NAME", "help": "with --factory: resampling filter (default: bicubic)"},
    "crop_pct": {"type": float, "metavar": "SHARE", "help": "with --factory: what the centre crop keeps (default: 1)"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    from pipeline_lib.fitting import Recipe

    parser.epilog = _EXAMPLE
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder, archive or table")
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--model", metavar="NAME", help="timm's name of a pretrained model")
    network.add_argument("--factory", metavar="MODULE:FUNCTION", help="function of yours that returns the network")
    parser.add_argument("--weights", metavar="PATH", help="local weights, .safetensors or a torch state dict")
    parser.add_argument(
        "--classifier",
        metavar="LAYER|none",
        help="the layer whose input is the representation, none where the network has no classifier (needed with "
        "--factory; with --model only none)",
    )
    add_path(parser, "--out", "folder of the checkpoint; an earlier one is replaced")
    add_path(parser, "--work", "folder that keeps what is made on the way (default: it is deleted)", required=False)
    for name, option in _NETWORK.items():
        parser.add_argument(_option(name), **option)
    for name, field in Recipe.model_fields.items():
        shown = "" if field.default in (None, False) else f" Default: {field.default}."
        more: dict[str, Any] = {"metavar": name.upper()}
        if field.annotation is bool:
            more = {"action": "store_true"}
        elif name == "seeds":
            more = {"nargs": "+", "metavar": "K"}
        parser.add_argument(_option(name), default=field.default, help=f"{field.description}{shown}", **more)


def run(arguments: argparse.Namespace) -> None:
    """Fit, and say what to do next."""
    from pipeline_lib.fitting import Recipe, fit_heads, recipe_of, work_folder

    section = _section(arguments)
    recipe = recipe_of(**{name: getattr(arguments, name) for name in Recipe.model_fields})
    with work_folder(arguments.out, arguments.work) as folder:
        fit_heads(section, arguments.images, arguments.out, recipe, folder)
    print(f"{arguments.out}: python -m pipeline_lib score IMAGES --checkpoint {arguments.out} --out scores.parquet")


def _section(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the section of the backbone."""
    given = {name: value for name in _NETWORK if (value := getattr(arguments, name)) is not None}
    if arguments.weights is not None:
        given["checkpoint"] = arguments.weights
    if arguments.model is not None and arguments.classifier not in (None, "none"):
        raise PipelineError(
            f"--classifier is '{arguments.classifier}', but with --model it can only be none: timm knows which layer "
            "it is"
        )
    if arguments.classifier is not None:
        given["classifier"] = False if arguments.classifier == "none" else arguments.classifier
    if arguments.model is not None:
        return {"kind": "timm", "model": arguments.model, **given}
    missing = [name for name in ("weights", "classifier", "image_size") if getattr(arguments, name) is None]
    if missing:
        raise PipelineError(f"--factory: needs {', '.join(map(_option, missing))} too (see --help)")
    return {"kind": "custom", "factory": arguments.factory, **given}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
