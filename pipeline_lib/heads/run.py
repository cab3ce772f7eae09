"""One recipe in training: its heads, their optimiser and their curve, advanced batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.config.training import Training
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.heads.checkpoint import TrainedHead
from pipeline_lib.heads.curve import EpisodeRecord
from pipeline_lib.heads.loss import loss_of
from pipeline_lib.heads.model import UncertaintyHead
from pipeline_lib.heads.pairs import order_accuracy
from pipeline_lib.heads.schedule import learning_rate
from pipeline_lib.heads.stack import HeadStack


class TrainingRun:
    """The heads of one recipe, one per seed, as a stack.

    Parameters
    ----------
    training
        The recipe.
    seeds
        One head each.
    dim
        Width of the representations.
    images_to_see
        Images that each head sees in the whole training.
    device
        Where the heads are.
    on_episode
        Called with the record of each episode when it ends.

    Raises `PipelineError` when the warm-up is longer than the training.
    """

    def __init__(
        self,
        training: Training,
        seeds: Sequence[int],
        dim: int,
        images_to_see: int,
        device: torch.device,
        on_episode: Callable[[EpisodeRecord], None],
    ) -> None:
        self._training, self._seeds = training, seeds
        self._images_to_see = images_to_see
        self._episodes = math.ceil(images_to_see / training.episode_samples)
        if training.warmup_episodes >= self._episodes and training.warmup_episodes > 0:
            raise PipelineError(
                f"training.warmup_episodes is {training.warmup_episodes}, but {images_to_see} images are only "
                f"{self._episodes} episodes of training.episode_samples = {training.episode_samples}; "
                "lower one of the two"
            )
        heads = [UncertaintyHead(dim, training.hidden, seed, training.initialisation) for seed in seeds]
        self._stack = HeadStack(heads, training.batch_size, getattr(torch, training.precision), device)
        self._optimizer = _optimizer(training, self._stack.parameters)
        self._loss = loss_of(training)
        self._on_episode = on_episode
        self._curve: list[EpisodeRecord] = []
        self._loss_sum, self._accuracy_sum = torch.zeros((2, len(seeds)), device=device)
        self._steps_in_episode = 0
        self._images = 0

    def step(self, embedding: Tensor, task_loss: Tensor) -> None:
        """Take one optimiser step on a batch: embeddings [S, B, d] and task losses [S, B].

        Raises `PipelineError` when the loss became NaN or infinite, at the end of the episode.
        """
        episode = self._images // self._training.episode_samples
        rate = learning_rate(episode, self._episodes, self._training)
        self._optimizer.param_groups[0]["lr"] = rate

        logits = self._stack.forward(embedding)
        uncertainty = functional.softplus(logits)
        loss, gradient = self._loss(uncertainty, task_loss)
        self._stack.backward(gradient * torch.sigmoid(logits))  # the softplus has the slope sigmoid(z)
        self._optimizer.step()

        self._loss_sum += loss
        self._accuracy_sum += order_accuracy(uncertainty, task_loss)
        self._steps_in_episode += 1
        self._images += embedding.shape[1]
        if self._images // self._training.episode_samples > episode or self._images == self._images_to_see:
            self._end_episode(episode, rate)

    def trained(self) -> list[TrainedHead]:
        """Return the heads in the order of the seeds."""
        heads = []
        for index, seed in enumerate(self._seeds):
            weights = {name: tensor.cpu().numpy() for name, tensor in self._stack.head(index).items()}
            heads.append(TrainedHead(seed, weights, tuple(record.of_head(index) for record in self._curve)))
        return heads

    def _end_episode(self, episode: int, rate: float) -> None:
        record = EpisodeRecord(
            episode,
            self._images,
            rate,
            loss=tuple((self._loss_sum / self._steps_in_episode).tolist()),
            order_accuracy=tuple((self._accuracy_sum / self._steps_in_episode).tolist()),
        )
        for seed, loss in zip(self._seeds, record.loss, strict=True):
            if not math.isfinite(loss):
                raise PipelineError(
                    f"loss of seed {seed} became {loss} in episode {episode} at learning rate {rate:.3g}; "
                    "lower training.learning_rate or set training.precision to float32"
                )
        self._curve.append(record)
        self._on_episode(record)
        self._loss_sum.zero_()
        self._accuracy_sum.zero_()
        self._steps_in_episode = 0


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
    raise PipelineError(f"training.optimizer '{training.optimizer}' is unknown; allowed: adam, adamw, lion, sgd")
