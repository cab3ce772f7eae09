"""Training curves, shown while training runs: by TensorBoard or Weights & Biases, which are optional.

The curve itself is `curve.jsonl` of the artefact; nothing is read back from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import xxhash

from pipeline_lib.backbones.spec import BackboneSpec
from pipeline_lib.core.artefacts import canonical_json
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Job


class _Sink(Protocol):
    def write(self, epoch: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class CurveSinks:
    """Sends records of a curve to the sinks that are named; a context manager.

    Parameters
    ----------
    names
        "tensorboard" writes event files into `<output>.curves/tensorboard`, for `tensorboard --logdir`; "wandb" makes a
        run of Weights & Biases, kept in `<output>.curves/wandb` where WANDB_MODE=offline.
    job
        The training: its spec's `name` names the run, all of the spec becomes the run's config.

    Raises
    ------
    PipelineError
        The package of a sink is not installed.
    """

    def __init__(self, names: Sequence[str], job: Job[BackboneSpec]) -> None:
        folder = job.output.with_name(f"{job.output.name}.curves")
        self._sinks: list[_Sink] = [_SINKS[name](folder / name, job.spec) for name in names]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sink in self._sinks:
            sink.close()

    def write(self, record: Mapping[str, float | None]) -> None:
        """Send a record, `epoch` and values by name; None is left out."""
        values = {name: value for name, value in record.items() if value is not None}
        epoch = int(values.pop("epoch"))
        for sink in self._sinks:
            sink.write(epoch, values)


class _TensorBoard:
    def __init__(self, folder: Path, spec: BackboneSpec) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise _missing("tensorboard") from None
        # A training that goes on sends its curve from the start again: events of before would be there twice.
        for path in folder.glob("events.out.tfevents.*"):
            path.unlink()
        self._writer = SummaryWriter(str(folder))

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, folder: Path, spec: BackboneSpec) -> None:
        try:
            import wandb
        except ImportError:
            raise _missing("wandb") from None
        folder.mkdir(parents=True, exist_ok=True)
        # The same training goes on in the same run, which ignores the epochs that it has already.
        run = f"{spec.name}-{xxhash.xxh3_64_hexdigest(canonical_json(spec.plain()).encode())}"
        project = "pretrained-visual-uncertainties"
        self._run = wandb.init(project=project, name=spec.name, id=run, resume="allow", dir=folder, config=spec.plain())

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=epoch)

    def close(self) -> None:
        self._run.finish()


_SINKS: dict[str, Callable[[Path, BackboneSpec], _Sink]] = {"tensorboard": _TensorBoard, "wandb": _WeightsAndBiases}


def _missing(sink: str) -> PipelineError:
    return PipelineError(
        f"curves: '{sink}' was asked for, but the package of that name is not installed; install it with "
        f"pip install '.[{sink}]', or leave it out"
    )
