"""The cross-entropy of a linear probe on the frozen representations: how surely the classes can be told from them.

The images are cut into folds, each class evenly. For each fold a probe learns from all cached epochs of the other
images; l_i(e) is its cross-entropy on image i of the fold in epoch e, which no probe that judges it has seen:

    l_i(e) = -ln softmax(W_f x_i(e) + b_f)[y_i],   f = fold of image i,
    W_f, b_f = argmin over images j outside f and epochs e of mean(-ln softmax(W x_j(e) + b)[y_j]) + penalty / 2 |W|^2

with x the representation, standardised (multinomial logistic regression; cross-fitting as in Chernozhukov et al.,
Double/debiased machine learning, 2018). All probes are fitted at once by L-BFGS, whose every step is one pass over the
cache: memory is that of the probes and of one piece of rows, whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from pipeline_lib.config.task_losses import TaskLossOptions
from pipeline_lib.core.errors import PipelineError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pipeline_lib.features.rows import FeatureRows

LEARNT_FROM = (
    "It was learnt from upstream images whose\n"
    "class a linear probe on the representations gets wrong, without a classifier; a category that looks crisp and is\n"
    "new may seem certain."
)
_PIECE_LOGITS = 1 << 22  # logits held at a time: 16 MB
_READ_ROWS = 4096
_HISTORY = 5  # pairs of vectors that L-BFGS remembers


class Options(TaskLossOptions):
    """How the probe is fitted."""

    kind: Literal["probe"] = "probe"
    folds: int = Field(5, ge=2, description="probe: parts of the images, each judged by a probe of the others.")
    penalty: float = Field(0.01, gt=0, description="probe: weight of the squared norm of its weights.")
    steps: int = Field(50, ge=1, description="probe: passes over the cache in which it is fitted.")


def losses(rows: FeatureRows, options: Options, device: torch.device) -> Iterator[np.ndarray]:
    """Yield the losses of consecutive rows of all epochs, float32, in pieces.

    Raises `PipelineError` where there is one class or fewer images than folds, and for a representation that is not
    finite.
    """
    import torch

    label = rows.read("label", 0, 0, rows.rows)
    classes, label = np.unique(label, return_inverse=True)
    if len(classes) < 2 or rows.rows < options.folds:
        raise PipelineError(
            f"task_loss 'probe' needs two classes and {options.folds} images (task_losses.folds), but the upstream "
            f"images are {rows.rows} of {len(classes)}; choose another training.task_loss"
        )
    with torch.inference_mode(False), torch.no_grad():
        probes = _Probes(rows, label, len(classes), _folds(label, options), options, device)
        weights = probes.fitted()
    yield from probes.losses(weights)


def warning(rows: FeatureRows, options: Options) -> str | None:
    """Return what to do about images whose class no probe that judges them has seen, if there are any."""
    _, count = np.unique(rows.read("label", 0, 0, rows.rows), return_counts=True)
    alone = int((count == 1).sum())
    if not alone:
        return None
    return (
        f"{alone:,} of {rows.rows:,} images are the only one of their class: the probe that judges such an image has "
        "never seen its class, and its loss tells little of it; add images, or leave such classes out"
    )


def _folds(label: np.ndarray, options: Options) -> np.ndarray:
    """Return the fold of each image, int64 [n]: each class is dealt out in turns, in an order drawn by the seed."""
    shuffled = np.random.default_rng(options.seed).permutation(len(label))
    by_class = shuffled[np.argsort(label[shuffled], kind="stable")]
    fold = np.empty(len(label), np.int64)
    fold[by_class] = np.arange(len(label)) % options.folds
    return fold


class _Probes:
    """The probes of all folds: weights [d + 1, folds * classes], the last row being the biases."""

    def __init__(
        self,
        rows: FeatureRows,
        label: np.ndarray,
        classes: int,
        fold: np.ndarray,
        options: Options,
        device: torch.device,
    ) -> None:
        import torch

        self._rows, self._classes, self._options, self._device = rows, classes, options, device
        self._label, self._fold = (torch.from_numpy(values).to(device) for values in (label, fold))
        # How many rows a probe learns from: the images outside its fold, in all epochs.
        inside = np.bincount(fold, minlength=options.folds)
        self._learnt_from = torch.from_numpy((rows.rows - inside) * rows.epochs).to(device)
        self._size = max(1, min(_READ_ROWS, _PIECE_LOGITS // (options.folds * classes)))
        self._mean, self._scale = self._moments()

    def fitted(self) -> Tensor:
        """Return the weights after the steps of L-BFGS, from zeros."""
        import torch

        weights = torch.zeros((self._rows.dim + 1, self._options.folds * self._classes), device=self._device)
        steps = self._options.steps
        optimizer = torch.optim.LBFGS(
            [weights], max_iter=steps, max_eval=steps, history_size=_HISTORY, line_search_fn="strong_wolfe"
        )

        def closure() -> float:
            value, weights.grad = self._value_and_gradient(weights)
            return value

        optimizer.step(closure)
        return weights

    def _value_and_gradient(self, weights: Tensor) -> tuple[float, Tensor]:
        """Return the sum of the probes' objectives, and its gradient."""
        import torch

        options, gradient, value = self._options, torch.zeros_like(weights), 0.0
        for x, label, fold in self._pieces():
            logits = (x @ weights).view(len(x), options.folds, self._classes)
            log_probability = torch.log_softmax(logits, dim=2)
            # What a row counts in each probe: nothing in that of its own fold.
            share = (fold[:, None] != torch.arange(options.folds, device=self._device)) / self._learnt_from
            of_label = log_probability.gather(2, label[:, None, None].expand(-1, options.folds, 1))[:, :, 0]
            value -= float((share * of_label).sum(dtype=torch.float64))
            slope = log_probability.exp_()
            slope.scatter_add_(
                2, label[:, None, None].expand(-1, options.folds, 1), -torch.ones_like(of_label)[:, :, None]
            )
            slope *= share[:, :, None].to(slope.dtype)
            gradient.addmm_(x.T, slope.view(len(x), -1))
        inner = weights[:-1]
        value += options.penalty / 2 * float(inner.square().sum(dtype=torch.float64))
        gradient[:-1].add_(inner, alpha=options.penalty)
        return value, gradient

    def losses(self, weights: Tensor) -> Iterator[np.ndarray]:
        """Yield the cross-entropies of consecutive rows of all epochs, each by the probe of its fold."""
        import torch

        for x, label, fold in self._pieces():
            logits = (x @ weights).view(len(x), self._options.folds, self._classes)
            logits = logits[torch.arange(len(x), device=self._device), fold]
            yield torch.nn.functional.cross_entropy(logits, label, reduction="none").cpu().numpy()

    def _pieces(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield standardised rows with a last column of ones [n, d + 1], labels and folds [n], of all epochs."""
        import torch

        for epoch in range(self._rows.epochs):
            for start in range(0, self._rows.rows, self._size):
                stop = min(start + self._size, self._rows.rows)
                x = torch.ones((stop - start, self._rows.dim + 1), device=self._device)
                x[:, :-1] = (self._read(epoch, start, stop) - self._mean) * self._scale
                yield x, self._label[start:stop], self._fold[start:stop]

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Return the mean of the representations, float32 [d], and one over their standard deviation, of all d."""
        import torch

        total, count = torch.zeros((2, self._rows.dim), dtype=torch.float64), 0
        for epoch in range(self._rows.epochs):
            for start in range(0, self._rows.rows, _READ_ROWS):
                x = self._read(epoch, start, min(start + _READ_ROWS, self._rows.rows)).cpu().double()
                total[0] += x.sum(dim=0)
                total[1] += x.square().sum(dim=0)
                count += len(x)
        mean = total[0] / count
        variance = (total[1] / count - mean.square()).clamp(min=0)
        scale = torch.where(variance > 1e-12, variance.clamp(min=1e-12).rsqrt(), 0.0)
        return mean.float().to(self._device), scale.float().to(self._device)

    def _read(self, epoch: int, start: int, stop: int) -> Tensor:
        import torch

        from pipeline_lib.features.rows import read_finite

        return torch.from_numpy(read_finite(self._rows, "embedding", epoch, start, stop)).to(self._device).float()
