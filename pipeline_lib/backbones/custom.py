"""Backbone kind `custom`: a network from your own code, with your own checkpoint."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from pipeline_lib.config.section import KindSection
from pipeline_lib.core.errors import PipelineError

if TYPE_CHECKING:
    from pipeline_lib.backbones.base import HeadlessEncoder, HookedEncoder


Deviation = Annotated[float, Field(gt=0)]


class Options(KindSection):
    """A network from your own Python module."""

    kind: Literal["custom"]
    factory: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="`module:function`; the function returns the network (a torch.nn.Module).",
    )
    code_dir: str = Field(".", description="Folder from which the module is imported.")
    arguments: dict[str, Any] = Field({}, description="Keyword arguments of the function.")
    checkpoint: str = Field(description="The weights (.safetensors or a torch state dict).")
    key_prefix: str = Field("", description="Prefix of the checkpoint's keys that is to be removed (`module.`).")
    classifier: str | Literal[False] = Field(
        description="Name of the layer whose input is the representation and output the logits; false = there is none, "
        "the network's output is the representation."
    )
    image_size: int = Field(ge=1, description="Side of the images in pixels.")
    mean: tuple[float, float, float] = Field((0.485, 0.456, 0.406), description="Mean per channel, of [0, 1].")
    std: tuple[Deviation, Deviation, Deviation] = Field(
        (0.229, 0.224, 0.225), description="Standard deviation per channel."
    )
    interpolation: Literal["bilinear", "bicubic", "nearest"] = Field("bicubic", description="Resampling filter.")
    crop_pct: float = Field(1.0, gt=0, le=1, description="Share of the resized image that the centre crop keeps.")

    @field_validator("classifier", mode="before")
    @classmethod
    def _layer_or_none(cls, value: Any) -> Any:
        if value is not False and not (isinstance(value, str) and value):
            raise ValueError("must be the name of a layer, or false where the network has no classifier")
        return value


def watched_files(options: Options) -> list[Path]:
    """Return the checkpoint, the module's file, and those below `code_dir` that it imports, at any depth.

    Found by reading them: an import that code puts together as it runs, and installed packages, are not.
    """
    code_dir, found = Path(options.code_dir), dict[Path, None]()
    waiting = [options.factory.split(":")[0]]
    while waiting:
        module = waiting.pop(0)
        for path in _files_of(code_dir, module):
            if path not in found:
                found[path] = None
                waiting += _imported(path, module)
    return [Path(options.checkpoint), *found]


def _files_of(code_dir: Path, module: str) -> Iterator[Path]:
    """Yield the file of a module below a folder, and those of the packages that it lies in, which are run first."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        base = code_dir.joinpath(*parts[:count])
        yield from (path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file())


def _imported(path: Path, module: str) -> list[str]:
    """Return the modules that a module may import; a name that it imports from one may be a module as well."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []  # it is read when it is imported, and the error told then
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: None if path.name == "__init__.py" else -1]
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            start = ".".join(filter(None, [above, node.module]))
            names += [".".join(filter(None, [start, alias.name])) for alias in node.names]
    return names


def build(options: Options, num_classes: int | None) -> HookedEncoder | HeadlessEncoder:
    """Return the network with the weights that the factory gives it."""
    from torch import nn

    from pipeline_lib.backbones.base import HeadlessEncoder, HookedEncoder

    factory = import_factory(options.factory, options.code_dir)
    try:
        network = factory(**options.arguments)
    except TypeError as error:
        raise PipelineError(f"factory '{options.factory}' with arguments {options.arguments}: {error}") from None
    if not isinstance(network, nn.Module):
        raise PipelineError(f"factory '{options.factory}' returned {type(network).__name__}, not a torch.nn.Module")
    return HeadlessEncoder(network) if options.classifier is False else HookedEncoder(network, options.classifier)


def import_factory(name: str, code_dir: str) -> Callable[..., Any]:
    """Return the function `module:function` of a module below `code_dir`.

    Raises
    ------
    PipelineError
        There is no such module or function.
    """
    import importlib

    module_name, _, function_name = name.partition(":")
    folder = str(Path(code_dir).resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        raise PipelineError(f"factory '{name}': {error} (code_dir is {folder})") from None
    except AttributeError:
        raise PipelineError(f"factory '{name}': {module_name} has no '{function_name}'") from None


def prepare(options: Options) -> HookedEncoder | HeadlessEncoder:
    """Return the network with the checkpoint's weights."""
    from pipeline_lib.backbones.headless import describe_representation, without_classifier
    from pipeline_lib.backbones.weights import load_into, read_state_dict

    encoder = build(options, None)
    path = Path(options.checkpoint)
    state = read_state_dict(path, options.key_prefix)
    if options.classifier is False:
        state = without_classifier(state, encoder.network, path)
    load_into(encoder.network, state, path)
    if options.classifier is False:
        print(describe_representation(encoder, options.arguments, (3, options.image_size, options.image_size)))
    return encoder


def data_config(options: Options, encoder: HookedEncoder | HeadlessEncoder) -> dict[str, Any]:
    """Return the data config that the options spell out."""
    return {
        "input_size": (3, options.image_size, options.image_size),
        "mean": options.mean,
        "std": options.std,
        "interpolation": options.interpolation,
        "crop_pct": options.crop_pct,
        "crop_mode": "center",
    }
