"""How many images a head sees, in how many episodes, and the learning rate of each: warm-up, then a cosine or steps."""

from __future__ import annotations

import math

from pipeline_lib.config.training import Training
from pipeline_lib.core.errors import PipelineError


def usable_rows(rows: int, epochs: int, batch_size: int) -> int:
    """Return how many rows fill whole batches in `epochs` passes over `rows` rows.

    Raises `PipelineError` when there are fewer rows than one batch.
    """
    usable = rows * epochs // batch_size * batch_size
    if not usable:
        raise PipelineError(
            f"training.batch_size is {batch_size}, but {epochs} epochs of {rows} images are {rows * epochs}; "
            f"lower training.batch_size or add images or epochs"
        )
    return usable


def episodes_of(images: int, training: Training) -> int:
    """Return how many episodes so many images are; raises `PipelineError` when the warm-up leaves none."""
    episodes = math.ceil(images / training.episode_samples)
    if training.warmup_episodes >= episodes and training.warmup_episodes > 0:
        raise PipelineError(
            f"training.warmup_episodes is {training.warmup_episodes}, but {images} images are only {episodes} episodes "
            f"of training.episode_samples = {training.episode_samples}; lower one of the two"
        )
    return episodes


def peak_learning_rate(training: Training) -> float:
    """Return the rate at the top of the schedule: `learning_rate * sqrt(batch_size / 256)`.

    With the defaults 0.001 * sqrt(2048 / 256) = 0.0028 (appendix A of Pretrained Visual Uncertainties).
    """
    return training.learning_rate * math.sqrt(training.batch_size / 256)


def learning_rate(episode: int, episodes: int, training: Training) -> float:
    """Return the learning rate of an episode (counted from 0).

    Warm-up, for t < w:   warmup_start + t * (peak - warmup_start) / w
    Cosine, from t = w:   final + (peak - final) * (1 + cos(pi * t / T)) / 2
    Step, from t = w:     peak / 10^floor(3 t / T)

    with t the episode, w `training.warmup_episodes` and T `episodes`. As in timm's schedulers with
    `warmup_prefix=False`, the schedule runs over all T episodes and the warm-up covers its beginning: the first
    episode after the warm-up is already a little below the cosine's peak.
    """
    peak = peak_learning_rate(training)
    if episode < training.warmup_episodes:
        start = training.warmup_learning_rate
        return start + episode * (peak - start) / training.warmup_episodes
    if training.schedule == "step":
        return peak / 10 ** (3 * episode // episodes)
    final = training.final_learning_rate
    return final + (peak - final) * (1 + math.cos(math.pi * episode / episodes)) / 2
