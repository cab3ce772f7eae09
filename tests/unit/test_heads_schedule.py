from __future__ import annotations

import pytest
import torch
from timm.scheduler import CosineLRScheduler, StepLRScheduler

from pipeline_lib.config.training import Training
from pipeline_lib.heads.schedule import learning_rate, peak_learning_rate


@pytest.mark.parametrize("episodes, warmup", [(460, 25), (10, 0), (7, 3), (2, 1), (1, 0)])
def test_the_schedule_is_timms(episodes, warmup):
    training = Training(warmup_episodes=warmup)
    peak, start, final = peak_learning_rate(training), 1e-4, 1e-8
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    timms = CosineLRScheduler(
        optimizer, t_initial=episodes, lr_min=final, warmup_t=warmup, warmup_lr_init=start, warmup_prefix=False
    )
    for episode in range(episodes):
        timms.step(episode)
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate(episode, episodes, training) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("episodes, warmup", [(460, 25), (9, 0), (10, 2), (2, 1), (1, 0)])
def test_steps_are_timms_where_thirds_are_whole_and_end_at_a_hundredth(episodes, warmup):
    training = Training(warmup_episodes=warmup, schedule="step")
    peak = peak_learning_rate(training)
    rates = [learning_rate(episode, episodes, training) for episode in range(episodes)]
    after = rates[warmup:]
    assert after == sorted(after, reverse=True)
    assert set(after) <= {peak, peak / 10, peak / 100}
    if episodes % 3 == 0:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
        timms = StepLRScheduler(optimizer, decay_t=episodes // 3, decay_rate=0.1, warmup_t=warmup, warmup_lr_init=1e-4)
        for episode in range(episodes):
            timms.step(episode)
            assert rates[episode] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


def test_the_papers_peak():
    assert peak_learning_rate(Training()) == pytest.approx(0.0028, abs=5e-5)
    assert peak_learning_rate(Training(batch_size=256)) == 0.001
