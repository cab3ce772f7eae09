"""Curves of methods, sent to TensorBoard and Weights & Biases while training runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_lib.backbones.spec import BackboneSpec
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Job, Settings
from pipeline_lib.training.curves import CurveSinks
from tests import jobs
from tests.unit import worlds
from tests.unit.test_method_training import curve, kill_at, make_spec

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """62 classes of characters: 62 to train on, 124 to validate on."""
    return worlds.glyphs(tmp_path_factory.mktemp("world"), per_class={"train": 1, "test": 2})


def job(output: Path) -> Job[BackboneSpec]:
    return Job("method", BackboneSpec.model_validate(make_spec()), {}, output)


def losses_of(files: dict[str, bytes]) -> list[float]:
    return [record["loss"] for record in curve(files)[1:]]


@pytest.mark.slow
def test_tensorboard_reads_the_curve_also_of_a_training_that_went_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    spec = make_spec(epochs=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at(patch, 2)
        jobs.run("method", spec, tmp_path / "model", Settings(curves=("tensorboard",)), dataset=images)
    jobs.run("method", spec, tmp_path / "model", Settings(curves=("tensorboard",)), dataset=images)
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    events = EventAccumulator(str(tmp_path / "model.curves/tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (epoch, pytest.approx(loss)) for epoch, loss in enumerate(losses_of(files), start=1)
    ]
    assert [event.value for event in events.Scalars("r1")] == pytest.approx([each["r1"] for each in curve(files)])


def offline_messages(content: bytes) -> Iterator[bytes]:
    """Yield the messages of an offline run: a header of 7 bytes, then pieces in blocks of 32 KiB.

    A piece has 4 bytes of checksum, 2 of its length, 1 of its kind (1 = a whole message, 4 = the last of one). What is
    left of a block without room for these 7 bytes is empty.
    """
    start, message = 7, b""
    while start + 7 <= len(content):
        if (left := 32768 - start % 32768) < 7:
            start += left
            continue
        stop = start + 7 + int.from_bytes(content[start + 4 : start + 6], "little")
        message += content[start + 7 : stop]
        if content[start + 6] in (1, 4):
            yield message
            message = b""
        start = stop


def test_weights_and_biases_keeps_the_curve_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not among the pinned packages: with it installed, timm imports it, and every job starts seconds later.
    wandb = pytest.importorskip("wandb", reason="optional; pip install '.[wandb]' tests it too")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with CurveSinks(["wandb"], job(tmp_path / "model")) as sinks:
        sinks.write({"epoch": 0, "loss": None, "r1": 0.25})
        sinks.write({"epoch": 1, "loss": 1.5, "r1": 0.75})
    wandb.teardown()  # its service writes the rest of the file when it ends, as it does with the training's process
    (file,) = (tmp_path / "model.curves/wandb").glob("wandb/offline-run-*/*.wandb")
    found = []
    for record in map(Record.FromString, offline_messages(file.read_bytes())):
        if record.HasField("history"):
            items = record.history.item
            found.append({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items})
    shown = [{name: value for name, value in each.items() if not name.startswith("_")} for each in found]
    assert shown == [{"r1": 0.25}, {"loss": 1.5, "r1": 0.75}]
    assert [each["_step"] for each in found] == [0, 1]


@pytest.mark.parametrize(("sink", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_sink_whose_package_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sink: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PipelineError, match=rf"curves: '{sink}' was asked for, .*pip install '.\[{sink}\]'"):
        CurveSinks([sink], job(tmp_path / "model"))
