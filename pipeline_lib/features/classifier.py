"""The outputs of a backbone's classifier: which ones the upstream classes are, and what is kept of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline_lib.backbones.base import Backbone
from pipeline_lib.core.artefacts import Manifest
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.images import outputs_of
from pipeline_lib.features.spec import BlockSpec

# An evaluated block tells whether labels and outputs are in step from so many images on.
_ENOUGH_IMAGES = 100


@dataclass(frozen=True)
class Classifier:
    """What is read of the logits of a backbone.

    label: the output, among those that count, of each class of the images, int64 [k]; None where no loss is asked for
    or the classifier knows other classes. counted: the outputs that count, ascending, int64; None = all.
    """

    label: np.ndarray | None
    counted: Tensor | None

    def outputs(self, count: int) -> int:
        """Return how many of so many outputs count."""
        return count if self.counted is None else len(self.counted)

    def scalars(self, logits: Tensor, label: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        """Return what is kept of logits [n, outputs], one number a row each, and log probabilities [n, counted].

        class_entropy = -sum_c p_c ln p_c in nats; task_loss = -ln p_label, the cross-entropy;
        label_rank = number of outputs that come before the true one (0: top-1 is right; < 5: top-5 is right).
        label: the true outputs, int64 [n]; None = the entropy alone.
        """
        if self.counted is not None:
            logits = logits[:, self.counted.to(logits.device)]
        log_probability = F.log_softmax(logits.float(), dim=1)
        scalars = {"class_entropy": -(log_probability.exp() * log_probability).sum(dim=1)}
        if label is not None:
            scalars["task_loss"] = -log_probability.gather(1, label[:, None])[:, 0]
            scalars["label_rank"] = label_rank(logits, label)
        return scalars, log_probability


def classifier_of(backbone: Backbone, dataset: Manifest, upstream: Manifest | None, spec: BlockSpec) -> Classifier:
    """Return what is read of the logits of a backbone.

    Parameters
    ----------
    backbone
        Whose classifier it is.
    dataset, upstream
        Whose images these are, and the upstream dataset where its classes alone count.
    spec
        Whether the task loss is kept, and whether heads learn from it.

    Raises
    ------
    PipelineError
        The classifier doesn't know the classes, and heads learn from it or these classes alone count.
    """
    outputs = backbone.num_classes
    if not outputs:
        return Classifier(None, None)
    label = _known(backbone, dataset) if spec.with_task_loss else None
    counted = None
    if upstream is not None:
        known = _known(backbone, upstream)
        if known is None:
            raise PipelineError(
                f"upstream.loss_over is classes, but which of the {outputs:,} outputs of the classifier of backbone "
                f"'{spec.backbone}' are the classes of '{upstream.spec['name']}' is not known; {ways_out(upstream)}"
            )
        counted = np.unique(known)
        label = None if label is None else np.searchsorted(counted, label)
    if spec.with_task_loss and label is None:
        misfit = (
            f"backbone '{spec.backbone}' classifies {outputs:,} classes, but the upstream dataset "
            f"'{dataset.spec['name']}' has {len(dataset.facts['classes']):,} and doesn't say which outputs they are"
        )
        if spec.needs_task_loss:
            raise PipelineError(f"{misfit}; {ways_out(dataset)}")
        print(f"{misfit}: no head needs that, and of the classifier the entropy alone is kept")
    return Classifier(label, None if counted is None else torch.from_numpy(counted))


def ways_out(upstream: Manifest) -> str:
    """Return what to do about a classifier of other classes than the upstream dataset's."""
    return (
        f"say so (datasets.{upstream.spec['name']}.outputs: imagenet1k, imagenet21k or a file), or keep the classifier "
        "for its entropy alone (training.task_loss: knn, probe or contrastive), or leave it out (classifier: false)"
    )


def _known(backbone: Backbone, dataset: Manifest) -> np.ndarray | None:
    """Return the output of each class; of a classifier that was trained here, they are the classes in their order."""
    if backbone.manifest.spec.get("train_split") is not None:
        return np.arange(backbone.num_classes)
    return outputs_of(dataset, backbone.num_classes)


def label_rank(logits: Tensor, label: Tensor) -> Tensor:
    """Return how many outputs come before the label, int32 [n]: by higher logit, of equal ones by lower number."""
    of_label = logits.gather(1, label[:, None])
    is_lower = torch.arange(logits.shape[1], device=logits.device) < label[:, None]
    return ((logits > of_label) | ((logits == of_label) & is_lower)).sum(dim=1).int()


def check_order(predicted: np.ndarray, label: np.ndarray, outputs: int, name: str) -> None:
    """Notice a classifier that knows the classes by other numbers.

    Each label's most common prediction on every other image says by which number the classifier knows that class; the
    images between tell how often that is right.

    Parameters
    ----------
    predicted, label : int64 [n]
        The predicted and the true outputs of images that are not augmented.
    outputs : int
        How many there are.
    name : str
        What messages call the backbone and its images.

    Raises
    ------
    PipelineError
        By other numbers, each of one class, the classifier is right at least twice as often.
    """
    if len(label) < _ENOUGH_IMAGES:
        return
    right = float(np.mean(predicted == label))
    order = np.argsort(label, kind="stable")
    predicted, label = predicted[order], label[order]
    pairs, times = np.unique(label[::2] * outputs + predicted[::2], return_counts=True)
    most = np.lexsort((times, pairs // outputs))  # within a label the most common prediction comes last
    own = dict(zip((pairs[most] // outputs).tolist(), (pairs[most] % outputs).tolist(), strict=True))
    told = [
        (own[one], other)
        for one, other in zip(label[1::2].tolist(), predicted[1::2].tolist(), strict=True)
        if one in own
    ]
    renamed = float(np.mean([one == other for one, other in told])) if told else 0.0
    differ = float(np.mean([one != other for one, other in own.items()]))
    # A classifier of other things calls many of the classes by the same number; one in another order does not.
    one_to_one = len(set(own.values())) > 0.9 * len(own)
    if renamed > max(2 * right, 0.2) and differ >= 0.5 and one_to_one:
        raise PipelineError(
            f"{name}: the classifier is right on {right:.1%} of the images, but on {renamed:.1%} if classes are "
            "numbered otherwise, so the order of the classes is not that of its outputs; give that order in "
            "'outputs' of the dataset (a file with a class a line), or choose another training.task_loss (knn, probe)"
        )
    if right < 2 / outputs:
        print(
            f"WARNING: {name}: the classifier is right on {right:.1%} of the images, which is chance: are these its "
            "classes, in its order ('outputs' of the dataset), its mean, std and image size?"
        )
