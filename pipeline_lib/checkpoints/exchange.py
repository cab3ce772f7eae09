"""Checkpoints for programs without this library: `torch.export` and ONNX, for batches of any size.

The file takes `images`, float32 [n, 3, H, W], normalised, and gives `representation` [n, d] and `uncertainty` [n], as
the model itself does. An ONNX file also says how images must look, in its metadata (`transform`). Before a file is
kept, it is opened again and compared with the model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from pipeline_lib.checkpoints.model import PretrainedModel
from pipeline_lib.core.artefacts import writing_file
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.ownership import require_replaceable_file

_INPUTS, _OUTPUTS = ["images"], ["representation", "uncertainty"]
# How far another order of float32 sums may move a value, as a share of the representation's largest.
_TOLERANCE = 1e-3
# protobuf's limit on the size of a file.
_ONNX_BYTES = 2**31


def write_program(model: PretrainedModel, path: Path) -> None:
    """Write a `torch.export` program; `torch.export.load(path).module()` runs it, without this library or timm.

    Raises
    ------
    PipelineError
        When the model can't be traced, or the file gives other results than the model, or exists already.
    """
    _require_new(path)
    program = _traced(model)
    with writing_file(path, "wb") as file:
        with warnings.catch_warnings():
            # Said of weights in channels-last order; the comparison below shows that they are saved whole.
            warnings.filterwarnings("ignore", message="No complete tensor found")
            torch.export.save(program, file)
        file.flush()
        with open(file.name, "rb") as written:
            loaded = torch.export.load(written).module()
        _require_equal(model, loaded, path)


def write_onnx(model: PretrainedModel, path: Path) -> None:
    """Write an ONNX model, weights included. Needs the packages of the extra `onnx`.

    Raises
    ------
    PipelineError
        When one of these packages is missing, the model can't be traced or is larger than an ONNX file may be (2 GB),
        or the file gives other results than the model, or exists already.
    """
    _require_new(path)
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (torch.onnx needs it)
    except ModuleNotFoundError as error:
        raise PipelineError(
            f"ONNX: the package '{error.name}' is missing; pip install 'pretrained-visual-uncertainties[onnx]'"
        ) from None
    size = sum(value.nbytes for value in model.state_dict().values())
    if size >= _ONNX_BYTES:
        raise PipelineError(
            f"ONNX: the model has {size / 1e9:.1f} GB of weights, but one file holds 2; use torch.export instead"
        )
    program = torch.onnx.export(_traced(model), input_names=_INPUTS, output_names=_OUTPUTS, verbose=False)
    assert program is not None  # None is what it returns when it has written the file itself
    program.model.metadata_props["transform"] = model.config.backbone.data_config.model_dump_json()
    with writing_file(path, "wb") as file:
        program.save(file.name, external_data=False)
        session = onnxruntime.InferenceSession(file.name, providers=["CPUExecutionProvider"])

        def run(images: Tensor) -> list[Tensor]:
            return [torch.from_numpy(output) for output in session.run(_OUTPUTS, {"images": images.numpy()})]

        _require_equal(model, run, path)


def _require_new(path: Path) -> None:
    """Raise where a file is: whether it is an earlier conversion of this model could not be told."""
    require_replaceable_file(path, "an earlier conversion", lambda path: False)


def _traced(model: PretrainedModel) -> ExportedProgram:
    size = model.config.backbone.data_config.input_size
    try:
        return torch.export.export(model, (torch.zeros(2, *size),), dynamic_shapes={"images": {0: Dim("batch", min=1)}})
    except Exception as error:  # a network's own code can raise anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PipelineError(
            f"torch.export can't trace the backbone '{model.config.backbone.name}': {reason}; its forward must not "
            "depend on values or on the batch's size"
        ) from None


def _require_equal(model: PretrainedModel, converted: Callable[[Tensor], Sequence[Tensor]], path: Path) -> None:
    """Compare a converted model with the original on batches of one and of three random images."""
    size = model.config.backbone.data_config.input_size
    generator = torch.Generator().manual_seed(0)
    for count in (1, 3):
        images = torch.randn(count, *size, generator=generator)
        with torch.inference_mode():
            expected, _ = model(images)
            representation, uncertainty = converted(images)
            # Of the converted model's own representation: a rank may jump where u moves by the last bit.
            expected_uncertainty = model.uncertainty_of(representation)
        difference = float((representation - expected).abs().max() / expected.abs().max())
        if not (difference <= _TOLERANCE and torch.allclose(uncertainty, expected_uncertainty, rtol=_TOLERANCE)):
            raise PipelineError(
                f"{path}: the converted model gives other representations or uncertainties than the checkpoint (they "
                f"differ by {difference:.1e} of the largest value); it was not written"
            )
