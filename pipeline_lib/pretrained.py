"""The front door: checkpoints as models, and heads for a network of one's own.

from pipeline_lib.pretrained import fit, load

model = load("results/checkpoints/resnet/default")   # or "owner/name" on the Hugging Face Hub
representation, uncertainty = model(images)

model = fit(network, "photos", "my_checkpoint")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline_lib.checkpoints.loading import load as load

if TYPE_CHECKING:
    from torch import nn

    from pipeline_lib.checkpoints.model import PretrainedModel


def fit(
    network: nn.Module,
    images: str | Path,
    out: str | Path,
    image_size: int | None = None,
    classifier: str | Literal[False] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str = "bicubic",
    crop_pct: float = 1.0,
    work: str | Path | None = None,
    **recipe: Any,
) -> PretrainedModel:
    """Learn uncertainty heads for a network and return the model of the checkpoint that is written.

    The jobs are those of the pipeline, and after a kill the same call goes on. The network itself doesn't change.

    Parameters
    ----------
    network
        Maps images [n, 3, H, W] to logits or representations.
    images
        A folder or archive of class folders (or of `train` and `test` with class folders), a table with the columns
        `path` and `label`, or images without labels.
    out
        Folder of the checkpoint, which `load`, `score` and `push` take; an earlier one is replaced.
    image_size
        Side of the images in pixels; None: that of a timm network, else 224.
    classifier
        Name of the layer whose input is the representation; False: the output is the representation; None: the last
        linear layer, if its output is the network's.
    mean, std, interpolation, crop_pct
        How images must look; None: ImageNet's. A timm network has its own.
    work
        Where what is made on the way is kept, for another call with other settings; None: it is deleted at the end.
    **recipe
        Fields of `pipeline_lib.fitting.Recipe`: `seeds`, `task_loss`, `epochs`, `steps`, `device` ...

    Raises
    ------
    PipelineError
        For images or a network that don't do, and folders that aren't ours.
    """
    import copy

    from pipeline_lib.checkpoints.in_memory import backbone_section
    from pipeline_lib.fitting import fit_heads, recipe_of, work_folder

    out, work = Path(out), None if work is None else Path(work)
    own_size = (getattr(network, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))[-1]
    look = {"image_size": image_size or own_size, "interpolation": interpolation, "crop_pct": crop_pct}
    look |= {name: tuple(value) for name, value in (("mean", mean), ("std", std)) if value is not None}
    how = recipe_of(**recipe)
    with work_folder(out, work) as folder:
        section = backbone_section(network, folder / "network", classifier, look)
        fit_heads(section, Path(images), out, how, folder)
    return load(out, backbone=None if section["kind"] == "timm" else copy.deepcopy(network).cpu())
