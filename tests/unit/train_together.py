"""What `test_method_processes` runs in each of two processes, in the place of `-m pipeline_lib`.

Starting them takes longest. So before they run the command that they were started for, they train other methods, which
the environment names.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from pipeline_lib.__main__ import main
from pipeline_lib.training.processes import process_group, wait_for_all
from pipeline_lib.training.trainer import Record, Trainer
from tests import jobs

VARIABLE = "TRAINED_TOGETHER"


def interrupted(self: Trainer, epoch: int, *arguments: Any) -> Record:
    """Train an epoch, but interrupt the second one."""
    if epoch == 1:
        raise KeyboardInterrupt
    return train_epoch(self, epoch, *arguments)


train_epoch = Trainer.train_epoch

if __name__ == "__main__":
    asked = json.loads(os.environ[VARIABLE])
    images, output = Path(asked["images"]), Path(asked["output"])
    with process_group(torch.device("cpu")):
        for name, spec in asked["specs"].items():
            if name.startswith("resumed"):
                try:
                    with mock.patch.object(Trainer, "train_epoch", interrupted):
                        jobs.run("method", spec, output / name, dataset=images)
                except KeyboardInterrupt:
                    wait_for_all()
                    assert (output / f"{name}.resume").exists()
            jobs.run("method", spec, output / name, dataset=images)
        sys.exit(main(sys.argv[1:]))
