"""Thresholds of u below which the retrieval error is under control, from images of known answer.

An image is accepted when u <= t, and wrong when its nearest neighbour has another label. Calibration images and later
ones are drawn from one distribution, independently of each other. There are two guarantees, which are not the same:

- `learn_then_test`: with probability `confidence` over the calibration images, P(wrong | accepted) <= alpha. This
  selective error need not grow with t, so every threshold is tested on its own;
- `conformal_risk_control`: P(wrong and accepted) <= alpha on average over the calibration images, of all images, also
  those that are not accepted. This error grows with t, and exchangeability of the images is enough.

Neither asks anything of u: a useless one accepts few images, or none (t = -inf).

A threshold is a float that u's own type can hold, so that `u <= t` says the same in this type and in float64: NumPy
rounds t to the type of an array of float32, and a t just below some u would become that u.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binom

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.metrics.checks import checked_bools, require_no_nan

# Where the thresholds begin that are tested: at this share of them or, of few images, where so many times the fewest
# that can pass any test are accepted. Earlier ones rarely pass, and one that doesn't pass ends the sequence.
_START_SHARE, _START_IMAGES = 0.3, 1.5


def candidate_thresholds(uncertainty: np.ndarray, count: int = 100) -> np.ndarray:
    """Return the values of u up to which 1 / count, 2 / count ... of these images lie, float64 [at most count].

    uncertainty: of unlabelled images, float [n]: thresholds must be chosen without a look at the labelled ones.
    """
    uncertainty = np.asarray(uncertainty)
    require_no_nan(uncertainty, "uncertainty")
    if not len(uncertainty):
        raise PipelineError("thresholds are quantiles of uncertainties, but there are none; give at least one image")
    return np.unique(
        np.quantile(uncertainty, np.arange(1, count + 1) / count, method="inverted_cdf").astype(np.float64)
    )


def learn_then_test(
    uncertainty: np.ndarray, wrong: np.ndarray, thresholds: np.ndarray, alpha: float, confidence: float
) -> float:
    """Return the largest threshold that keeps P(wrong | u <= t) <= alpha with this confidence; -inf = there is none.

    For each threshold t the hypothesis P(wrong | u <= t) > alpha is tested: of the n images with u <= t, w are wrong,
    which under the hypothesis has at most the probability p = P(Binomial(n, alpha) <= w) (the exact test behind
    Clopper and Pearson's interval). A fixed sequence controls the error over all tests: from 30 % of the thresholds on
    (later with few labelled images), ever larger ones are tested at level 1 - confidence, up to the first that isn't
    rejected. So at least about 30 % of the images are accepted, or none.

    Parameters
    ----------
    uncertainty, wrong
        Of the labelled images, float [n] and bool [n].
    thresholds
        Ascending float [m], chosen without these images (`candidate_thresholds`), and rounded to the type of u.
    alpha, confidence
        The error, and the probability with which it is kept to.

    References
    ----------
    Angelopoulos, Bates, Candes, Jordan, Lei, Learn then Test: Calibrating Predictive Algorithms to Achieve Risk Control
    (2021), algorithm 1.
    """
    uncertainty, wrong = _checked(uncertainty, wrong, alpha)
    if not 0 < confidence < 1:
        raise PipelineError(f"confidence is {confidence}, but must lie between 0 and 1, such as 0.9")
    if not len(thresholds) or (np.diff(thresholds) <= 0).any():
        raise PipelineError("the thresholds must be at least one and ascending; use candidate_thresholds")
    thresholds = np.asarray(thresholds, uncertainty.dtype)
    order = np.argsort(uncertainty, kind="stable")
    accepted = np.searchsorted(uncertainty[order], thresholds, side="right")
    errors = np.append(0, np.cumsum(wrong[order]))[accepted]
    is_rejected = binom.cdf(errors, accepted, alpha) <= 1 - confidence
    # How many are labelled decides where to start, and not what they say.
    fewest = math.log(1 - confidence) / math.log(1 - alpha)
    share = max(_START_SHARE, _START_IMAGES * fewest / len(wrong))
    start = min(len(thresholds) - 1, int(share * len(thresholds)))
    passed = int(np.argmin(np.append(is_rejected[start:], False)))
    return float(thresholds[start + passed - 1]) if passed else -math.inf


def conformal_risk_control(uncertainty: np.ndarray, wrong: np.ndarray, alpha: float) -> float:
    """Return the largest labelled u that keeps P(wrong and u <= t) <= alpha as t; inf accepts all, -inf none.

    With L_i(t) = 1{wrong_i and u_i <= t}, which is at most 1, it is the largest of the u_i, or infinity, with

        (sum_i L_i(t) + 1) / (n + 1) <= alpha,

    that is with at most floor(alpha (n + 1)) - 1 wrong images among the accepted. The expectation of L of a further
    image, over that and the n images, is then at most alpha.

    Parameters
    ----------
    uncertainty, wrong
        Of the labelled images, float [n] and bool [n].
    alpha
        The error.

    References
    ----------
    Angelopoulos, Bates, Fisch, Lei, Schuster, Conformal Risk Control (2024), eq. 4.
    """
    uncertainty, wrong = _checked(uncertainty, wrong, alpha)
    # 0.29 * 100 is a little less than 29, which must not cost an image.
    allowed = math.floor(alpha * (len(wrong) + 1) + 1e-9) - 1
    if allowed < 0:
        return -math.inf
    of_wrong = np.sort(uncertainty[wrong])
    if allowed >= len(of_wrong):
        return math.inf
    # The first wrong image too many, and whatever shares its u, must not be accepted.
    acceptable = uncertainty[uncertainty < of_wrong[allowed]]
    return float(acceptable.max(initial=-math.inf))


def _checked(uncertainty: np.ndarray, wrong: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Return u, float in its own type, and whether images are wrong, bool."""
    uncertainty, wrong = np.asarray(uncertainty), checked_bools(wrong)
    if uncertainty.dtype.kind != "f":
        uncertainty = uncertainty.astype(np.float64)
    if uncertainty.shape != wrong.shape or uncertainty.ndim != 1 or not len(wrong):
        raise PipelineError(
            f"uncertainty has shape {uncertainty.shape} and wrong {wrong.shape}, but risk control needs one of each "
            "per image, and at least one image"
        )
    require_no_nan(uncertainty, "uncertainty")
    if not 0 < alpha < 1:
        raise PipelineError(f"alpha is {alpha}, but must lie between 0 and 1, such as 0.1")
    return uncertainty, wrong
