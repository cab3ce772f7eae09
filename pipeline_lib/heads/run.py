"""One recipe in training: its heads, their optimiser and their curve, advanced batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.config.training import Training
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.heads.checkpoint import Record, TrainedHead
from pipeline_lib.heads.loss import loss_of
from pipeline_lib.heads.model import UncertaintyHead
from pipeline_lib.heads.pairs import order_accuracy
from pipeline_lib.heads.schedule import episodes_of, learning_rate
from pipeline_lib.heads.spec import HeadSpec
from pipeline_lib.heads.stack import HeadStack


class TrainingRun:
    """The heads of one recipe, as a stack.

    Parameters
    ----------
    heads
        What to train.
    seeds
        Those of a batch, which may be of more heads than these.
    dim
        Width of the representations.
    images_to_see
        Images that each head sees in the whole training.
    device
        Where the heads are.
    on_episode
        Called with each head and the record of each episode when it ends.

    Raises `PipelineError` when the warm-up is longer than the training.
    """

    def __init__(
        self,
        heads: Sequence[HeadSpec],
        seeds: Sequence[int],
        dim: int,
        images_to_see: int,
        device: torch.device,
        on_episode: Callable[[HeadSpec, Record], None],
    ) -> None:
        self._heads, self._training = heads, heads[0].training
        training = self._training
        self._images_to_see = images_to_see
        self._episodes = episodes_of(images_to_see, training)
        self._own = _where([head.seed for head in heads], seeds)
        networks = [UncertaintyHead(dim, training.hidden, head.seed, training.initialisation) for head in heads]
        self._stack = HeadStack(networks, training.batch_size, getattr(torch, training.precision), device)
        self._optimizer = _optimizer(training, self._stack.parameters)
        self._loss = loss_of(training)
        self._on_episode = on_episode
        self._curves: list[list[Record]] = [[] for _ in heads]
        self._loss_sum, self._accuracy_sum = torch.zeros((2, len(heads)), device=device)
        self._steps_in_episode = 0
        self._images = 0

    def step(self, embedding: Tensor, task_loss: Tensor) -> None:
        """Take one optimiser step on a batch: embeddings [S, B, d] and task losses [S, B] of all seeds.

        Raises `PipelineError` when the loss became NaN or infinite, at the end of the episode.
        """
        episode = self._images // self._training.episode_samples
        rate = learning_rate(episode, self._episodes, self._training)
        self._optimizer.param_groups[0]["lr"] = rate

        embedding, task_loss = embedding[self._own], task_loss[self._own]
        logits = self._stack.forward(embedding)
        uncertainty = _head_by_head(functional.softplus, logits)
        loss, gradient = self._loss(uncertainty, task_loss)
        self._stack.backward(gradient * _head_by_head(torch.sigmoid, logits))  # the softplus has the slope sigmoid(z)
        self._optimizer.step()

        self._loss_sum += loss
        self._accuracy_sum += order_accuracy(uncertainty, task_loss)
        self._steps_in_episode += 1
        self._images += embedding.shape[1]
        if self._images // self._training.episode_samples > episode or self._images == self._images_to_see:
            self._end_episode(episode, rate)

    def trained(self) -> dict[HeadSpec, TrainedHead]:
        """Return the heads as they are now."""
        weights = [
            {name: tensor.cpu().numpy() for name, tensor in self._stack.head(index).items()}
            for index in range(len(self._heads))
        ]
        return {
            head: TrainedHead(head.seed, arrays, tuple(curve))
            for head, arrays, curve in zip(self._heads, weights, self._curves, strict=True)
        }

    def _end_episode(self, episode: int, rate: float) -> None:
        losses, accuracies = ((sums / self._steps_in_episode).tolist() for sums in (self._loss_sum, self._accuracy_sum))
        for head, curve, loss, accuracy in zip(self._heads, self._curves, losses, accuracies, strict=True):
            if not math.isfinite(loss):
                raise PipelineError(
                    f"loss of seed {head.seed} became {loss} in episode {episode} at learning rate {rate:.3g}; "
                    "lower training.learning_rate or set training.precision to float32"
                )
            record = {"episode": episode, "images": self._images, "learning_rate": rate}
            curve.append({**record, "loss": loss, "order_accuracy": accuracy})
            self._on_episode(head, curve[-1])
        self._loss_sum.zero_()
        self._accuracy_sum.zero_()
        self._steps_in_episode = 0


def _where(some: Sequence[int], seeds: Sequence[int]) -> slice | list[int]:
    """Return where some seeds stand among others; as a slice, which copies nothing, if they stand in a row."""
    found = [seeds.index(seed) for seed in some]
    in_a_row = slice(found[0], found[0] + len(found))
    return in_a_row if found == list(range(in_a_row.start, in_a_row.stop)) else found


def _optimizer(training: Training, parameters: torch.nn.Parameter) -> torch.optim.Optimizer:
    """Return the optimiser of a recipe; its rate is set before each step."""
    group, decay = [parameters], training.weight_decay
    match training.optimizer:
        case "adamw":
            return torch.optim.AdamW(group, betas=training.betas, weight_decay=decay, fused=True)
        case "adam":
            return torch.optim.Adam(group, betas=training.betas, weight_decay=decay, fused=True)
        case "sgd":
            momentum = training.betas[0]
            return torch.optim.SGD(group, momentum=momentum, nesterov=momentum > 0, weight_decay=decay)
        case "lion":
            from timm.optim.lion import Lion  # importing timm takes seconds

            return Lion(group, betas=training.betas, weight_decay=decay)


def _head_by_head(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """Apply a function of numbers to the values [S, B] of each head by themselves.

    On a CPU the last bit of an exponential depends on whether its number is among the last of a tensor, which are left
    over when it is cut into vectors: a head would come out otherwise beside others than alone, unless B is a multiple
    of 64.
    """
    return torch.stack([function(row) for row in values])
