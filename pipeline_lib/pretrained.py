"""The public entry: checkpoints as models, `representation, uncertainty = model(images)`.

    from pipeline_lib.pretrained import load

    model = load("results/checkpoints/resnet/default")

Everything else about checkpoints is in `pipeline_lib.checkpoints`.
"""

from pipeline_lib.checkpoints.loading import load
from pipeline_lib.checkpoints.model import PretrainedModel

__all__ = ["PretrainedModel", "load"]
