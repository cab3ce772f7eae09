"""Calibration of heads on one set: some of its images are labelled, the others tell how good the result is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.calibration.calibrator import Calibrator
from pipeline_lib.calibration.reliability import ReliabilityBins, calibration_errors, reliability_bins
from pipeline_lib.calibration.risk_control import candidate_thresholds, conformal_risk_control, learn_then_test
from pipeline_lib.calibration.simulation import simulate
from pipeline_lib.config.evaluation import Calibration
from pipeline_lib.core.errors import PipelineError

ALL = "all"  # the heads of a variant together, as a checkpoint gives them by default
SCORES, RELIABILITY, THRESHOLDS = "scores.csv", "reliability.csv", "thresholds.csv"


@dataclass(frozen=True)
class CalibratedHead:
    """The calibration of a head, and what came of it on the images that had no part in it.

    scores: one row per way to map u. thresholds: one row per way to control the error.
    """

    calibrator: Calibrator
    reliability: ReliabilityBins
    scores: list[dict[str, Any]]
    thresholds: list[dict[str, Any]]


def calibrate_heads(
    uncertainties: Mapping[str, np.ndarray], wrong: np.ndarray, options: Calibration, dataset: str
) -> dict[str, CalibratedHead]:
    """Return the calibration of each uncertainty.

    Parameters
    ----------
    uncertainties
        Of each image, float [n], by name: `ALL` heads together, `seed<k>`.
    wrong
        Whether an image's nearest neighbour has another label, bool [n].
    options
        How many images are labelled, and what is done with them.
    dataset
        Named in messages.

    Raises
    ------
    PipelineError
        When the set has not twice as many images as are to be labelled, and as `Calibrator.fit`.
    """
    count = options.images
    if len(wrong) < 2 * count:
        raise PipelineError(
            f"{dataset} has {len(wrong)} images; with {count} to calibrate on, fewer than {count} are left to "
            "test on; lower evaluation.calibration.images"
        )
    shuffled = np.random.default_rng(options.seed).permutation(len(wrong))
    labelled, others = np.sort(shuffled[:count]), np.sort(shuffled[count:])
    return {
        name: _calibrate(options, uncertainty.astype(np.float64), wrong, labelled, others)
        for name, uncertainty in uncertainties.items()
    }


def write_calibration(folder: Path, heads: Mapping[str, CalibratedHead]) -> None:
    """Write `calibration.json` of all heads and `calibration_seed<k>.json` of each, and the tables."""
    for name, head in heads.items():
        head.calibrator.save(folder / ("calibration.json" if name == ALL else f"calibration_{name}.json"))
    for file, tables in {
        SCORES: {name: pd.DataFrame(head.scores) for name, head in heads.items()},
        RELIABILITY: {name: pd.DataFrame(vars(head.reliability)) for name, head in heads.items()},
        THRESHOLDS: {name: pd.DataFrame(head.thresholds) for name, head in heads.items()},
    }.items():
        table = pd.concat(tables, names=["heads"]).reset_index(level="heads")
        table.to_csv(folder / file, index=False, lineterminator="\n")


def _calibrate(
    options: Calibration, uncertainty: np.ndarray, wrong: np.ndarray, labelled: np.ndarray, others: np.ndarray
) -> CalibratedHead:
    calibrator = Calibrator.fit(
        uncertainty[labelled], wrong[labelled], options.kind, options.folds, options.bins, options.seed
    )
    probability = calibrator.predict(uncertainty[others])
    table = [
        {"map": name, "images": "cross-validated", "n": len(labelled), **asdict(scores)}
        for name, scores in calibrator.cross_validated.items()
    ]
    constant = np.full(len(others), wrong[labelled].mean())
    for name, mapped in {"constant": constant, calibrator.kind: probability}.items():
        on_others = asdict(calibration_errors(mapped, wrong[others], options.bins))
        table.append({"map": name, "images": "others", "n": len(others), **on_others})
    return CalibratedHead(
        calibrator,
        reliability_bins(probability, wrong[others], options.bins),
        table,
        _thresholds(options, uncertainty, wrong, labelled, others),
    )


def _thresholds(
    options: Calibration, uncertainty: np.ndarray, wrong: np.ndarray, labelled: np.ndarray, others: np.ndarray
) -> list[dict[str, Any]]:
    """Return the thresholds, what they do to the other images, and what they do over many draws of labelled ones."""
    alpha, confidence = options.alpha, options.confidence
    candidates = candidate_thresholds(uncertainty[others])
    tested = learn_then_test(uncertainty[labelled], wrong[labelled], candidates, alpha, confidence)
    conformal = conformal_risk_control(uncertainty[labelled], wrong[labelled], alpha)
    simulation = simulate(uncertainty, wrong, len(labelled), alpha, confidence, options.draws, options.seed)
    rows = []
    for method, guarantee, threshold, errors, accepted in [
        (
            "learn_then_test",
            f"with probability {confidence:g}: P(wrong | accepted) <= {alpha:g}",
            tested,
            simulation.learn_then_test,
            simulation.learn_then_test_accepted,
        ),
        (
            "conformal_risk_control",
            f"on average: P(wrong and accepted) <= {alpha:g}",
            conformal,
            simulation.conformal,
            simulation.conformal_accepted,
        ),
    ]:
        is_accepted = uncertainty[others] <= threshold
        is_wrong = is_accepted & wrong[others]
        rows.append(
            {
                "method": method,
                "guarantee": guarantee,
                "threshold": threshold,
                "accepted": is_accepted.mean(),
                "wrong_of_accepted": is_wrong.sum() / max(1, is_accepted.sum()),
                "wrong_and_accepted": is_wrong.mean(),
                "n": len(others),
                "simulated_draws": options.draws,
                "simulated_above_alpha": (errors > alpha).mean(),
                "simulated_error": errors.mean(),
                "simulated_accepted": accepted.mean(),
            }
        )
    return rows
