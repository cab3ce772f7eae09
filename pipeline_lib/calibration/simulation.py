"""What risk control keeps of its word on images of known answer: many draws of labelled images, and the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline_lib.calibration.risk_control import candidate_thresholds, conformal_risk_control, learn_then_test


@dataclass(frozen=True)
class Simulation:
    """Errors at the thresholds of each draw, float64 [draws]: what is guaranteed, and what share is accepted.

    learn_then_test: P(wrong | accepted), 0 where nothing is accepted. conformal: P(wrong and accepted).
    """

    learn_then_test: np.ndarray
    learn_then_test_accepted: np.ndarray
    conformal: np.ndarray
    conformal_accepted: np.ndarray


def simulate(
    uncertainty: np.ndarray, wrong: np.ndarray, images: int, alpha: float, confidence: float, draws: int, seed: int
) -> Simulation:
    """Draw labelled images again and again and return the true errors at the thresholds that they lead to.

    The set is the population: images are drawn from it with replacement, so that they are independent, and the errors
    of the whole set are the truth. The candidate thresholds are quantiles of the set's u, which don't depend on the
    draw.

    Parameters
    ----------
    uncertainty, wrong
        Of the set, float [n] and bool [n].
    images
        How many are labelled in a draw.
    alpha, confidence
        What the thresholds keep to.
    draws, seed
        How many draws, and which.
    """
    order = np.argsort(uncertainty, kind="stable")
    ordered, errors = uncertainty[order], np.append(0, np.cumsum(wrong[order]))
    thresholds = candidate_thresholds(uncertainty)
    rng = np.random.default_rng(seed)
    chosen = np.empty((2, draws))
    for draw in range(draws):
        row = rng.integers(0, len(wrong), images)
        chosen[0, draw] = learn_then_test(uncertainty[row], wrong[row], thresholds, alpha, confidence)
        chosen[1, draw] = conformal_risk_control(uncertainty[row], wrong[row], alpha)
    accepted = np.searchsorted(ordered, chosen, side="right")
    of_tested = errors[accepted[0]] / np.maximum(accepted[0], 1)
    return Simulation(of_tested, accepted[0] / len(wrong), errors[accepted[1]] / len(wrong), accepted[1] / len(wrong))
