"""What each of two processes runs in `test_method_processes`: `-m tests.unit.train_together IMAGES OUTPUT SPECS`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from pipeline_lib.training.processes import process_group, wait_for_all
from pipeline_lib.training.trainer import Record, Trainer
from tests import jobs


def interrupted(self: Trainer, epoch: int, *arguments: Any) -> Record:
    """Train an epoch, but interrupt the second one."""
    if epoch == 1:
        raise KeyboardInterrupt
    return train_epoch(self, epoch, *arguments)


train_epoch = Trainer.train_epoch

if __name__ == "__main__":
    images, output = map(Path, sys.argv[1:3])
    with process_group(torch.device("cpu")):
        for name, spec in json.loads(sys.argv[3]).items():
            if name.startswith("resumed"):
                try:
                    with mock.patch.object(Trainer, "train_epoch", interrupted):
                        jobs.run("method", spec, output / name, dataset=images)
                except KeyboardInterrupt:
                    wait_for_all()
                    assert (output / f"{name}.resume").exists()
            jobs.run("method", spec, output / name, dataset=images)
