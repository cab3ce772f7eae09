"""The learning rate of each episode: linear warm-up, then a cosine or steps."""

from __future__ import annotations

import math

from pipeline_lib.config.training import Training


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
        return peak / 10 ** min(3 * episode // episodes, 2)
    final = training.final_learning_rate
    if episode >= episodes:
        return final
    return final + (peak - final) * (1 + math.cos(math.pi * episode / episodes)) / 2
