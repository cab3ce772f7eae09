"""From an uncertainty, which only ranks images, to the probability that an image's nearest neighbour is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import xxhash
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from pipeline_lib.calibration.reliability import CalibrationErrors, calibration_errors
from pipeline_lib.core.artefacts import canonical_json, writing_file
from pipeline_lib.core.errors import PipelineError, one_of
from pipeline_lib.core.ownership import require_replaceable_file
from pipeline_lib.metrics.checks import checked_bools, require_no_nan

Kind = Literal["logistic", "isotonic"]
FORMAT = 2


@dataclass(frozen=True)
class Calibrator:
    """A map from u to P(nearest neighbour wrong), and how good such maps were on images that they had not seen.

    Attributes
    ----------
    kind
        `isotonic` (never falls; between `u` and `probability` at the knots, linear) or `logistic`
        (1 / (1 + exp(-(slope u + intercept)))).
    parameters
        Of this kind.
    images, wrong
        Number of labelled images, and of the wrong ones among them.
    cross_validated
        The scores of each kind on the folds that it was not fitted to; `constant` is the share of wrong images of the
        other folds for every image, which any useful u beats.
    """

    kind: Kind
    parameters: Mapping[str, Any]
    images: int
    wrong: int
    cross_validated: Mapping[str, CalibrationErrors]

    @classmethod
    def fit(
        cls,
        uncertainty: np.ndarray,
        wrong: np.ndarray,
        kind: Kind | None = None,
        folds: int = 5,
        bins: int = 10,
        seed: int = 0,
    ) -> Self:
        """Fit the map to labelled images.

        Parameters
        ----------
        uncertainty
            u, float [n].
        wrong
            Whether the nearest neighbour has another label, bool [n].
        kind
            None: the one of the smaller cross-validated log loss.
        folds
            Of the cross-validation, each with its share of the wrong images.
        bins
            Of the calibration errors.
        seed
            Of the folds.

        Raises
        ------
        PipelineError
            For NaN or infinity, and when there are fewer right or wrong images than folds.
        """
        uncertainty, wrong = np.asarray(uncertainty, np.float64), checked_bools(wrong)
        if uncertainty.shape != wrong.shape or uncertainty.ndim != 1:
            raise PipelineError(
                f"uncertainty has shape {uncertainty.shape} and wrong {wrong.shape}, but both must be [n]"
            )
        require_no_nan(uncertainty, "uncertainty")
        if np.isinf(uncertainty).any():
            row = int(np.flatnonzero(np.isinf(uncertainty))[0])
            raise PipelineError(f"uncertainty is infinite in row {row}; fit to finite ones, and check the head")
        if kind not in (None, *get_args(Kind)):
            raise PipelineError(f"kind '{kind}' is unknown; allowed: {one_of(get_args(Kind))}")
        fewest = min(int(wrong.sum()), int((~wrong).sum()))
        if folds < 2 or fewest < folds:
            raise PipelineError(
                f"of {len(wrong)} labelled images {int(wrong.sum())} are wrong, but each of {folds} folds (at least 2) "
                "needs a right and a wrong one; label more images or use fewer folds"
            )
        unseen = {name: np.empty(len(wrong)) for name in ("constant", *_FITS)}
        for rows, others in StratifiedKFold(folds, shuffle=True, random_state=seed).split(uncertainty, wrong):
            unseen["constant"][others] = wrong[rows].mean()
            for name, fit in _FITS.items():
                unseen[name][others] = _MAPS[name](fit(uncertainty[rows], wrong[rows]), uncertainty[others])
        scores = {name: calibration_errors(probability, wrong, bins) for name, probability in unseen.items()}
        best = min(_FITS, key=lambda name: scores[name].log_loss)
        chosen = kind or best
        return cls(chosen, _FITS[chosen](uncertainty, wrong), len(wrong), int(wrong.sum()), scores)

    def predict(self, uncertainty: np.ndarray) -> np.ndarray:
        """Return the probability that the nearest neighbour is wrong, float64 [n], for u, float [n]."""
        uncertainty = np.asarray(uncertainty, np.float64)
        require_no_nan(uncertainty, "uncertainty")
        return _MAPS[self.kind](self.parameters, uncertainty)

    def save(self, path: Path) -> None:
        """Write the map as JSON, with its checksum; raises `PipelineError` for a file that is no earlier map."""
        require_replaceable_file(path, "an earlier calibration", _is_calibration)
        content = {"format": FORMAT, **asdict(self)}
        with writing_file(path) as file:
            json.dump({**content, "xxh3_128": _checksum(content)}, file, indent=1, allow_nan=False)
            file.write("\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a saved map; raises `PipelineError` when the file holds none, or any value was changed."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            checksum = content.pop("xxh3_128")
            if checksum != _checksum(content) or content.pop("format") != FORMAT or content["kind"] not in _MAPS:
                raise ValueError
            scores = {name: CalibrationErrors(**values) for name, values in content.pop("cross_validated").items()}
            calibrator = cls(**content, cross_validated=scores)
            calibrator.predict(np.zeros(1))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise PipelineError(
                f"{path}: is no calibration of format {FORMAT}, or was changed since; fit and save it again"
            ) from None
        return calibrator


def _is_calibration(path: Path) -> bool:
    content = json.loads(path.read_text(encoding="utf-8"))
    return isinstance(content, dict) and {"format", "kind", "parameters", "cross_validated"} <= content.keys()


def _checksum(content: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(canonical_json(content).encode())


def _fit_isotonic(uncertainty: np.ndarray, wrong: np.ndarray) -> dict[str, list[float]]:
    """Return the knots of the isotonic regression.

    Probabilities stay 1 / (n + 2) away from 0 and 1, which is what n images without an exception tell by Laplace's
    rule: one image that contradicts a certainty would cost an infinite log loss.
    """
    least = 1 / (len(wrong) + 2)
    fitted = IsotonicRegression(y_min=least, y_max=1 - least).fit(uncertainty, wrong)
    return {"u": fitted.X_thresholds_.tolist(), "probability": fitted.y_thresholds_.tolist()}


def _fit_logistic(uncertainty: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """Return slope and intercept, of u in its own units.

    scikit-learn's default penalty, on standardised u, keeps the slope finite where u tells all images apart.
    """
    mean, spread = float(uncertainty.mean()), float(uncertainty.std()) or 1.0
    fitted = LogisticRegression().fit((uncertainty[:, None] - mean) / spread, wrong)
    slope = float(fitted.coef_[0, 0]) / spread
    return {"slope": slope, "intercept": float(fitted.intercept_[0]) - slope * mean}


def _logistic(parameters: Mapping[str, Any], uncertainty: np.ndarray) -> np.ndarray:
    return expit(parameters["slope"] * uncertainty + parameters["intercept"])


_FITS: dict[Kind, Callable[[np.ndarray, np.ndarray], dict[str, Any]]] = {
    "logistic": _fit_logistic,
    "isotonic": _fit_isotonic,
}
_MAPS: dict[Kind, Callable[[Mapping[str, Any], np.ndarray], np.ndarray]] = {
    "logistic": _logistic,
    "isotonic": lambda parameters, u: np.interp(u, parameters["u"], parameters["probability"]),
}
