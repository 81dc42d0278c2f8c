"""Rates read off a run: how fast a quantity decays, with a stated confidence."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import least_squares
from scipy.stats import t as student
from torch import Tensor

from amem_core.validation import require


@dataclass(frozen=True)
class RateFit:
    """``|y| ~ amplitude * t**exponent * (1 + ratio * companion)``.

    Parameters
    ----------
    exponent, half_width : the exponent and half of its 95% interval
    amplitude : of the leading term
    ratio : of the companion, 0 without one
    worst : largest relative residual of the fit
    """

    exponent: float
    half_width: float
    amplitude: float
    ratio: float
    worst: float

    def agrees(self, exponent: float) -> bool:
        """Whether a predicted exponent lies in the interval."""
        return abs(self.exponent - exponent) <= self.half_width


def fit_rate(t: Tensor, y: Tensor, companion: Tensor | None = None) -> RateFit:
    r"""Exponent of a decay, by least squares on relative deviations from a power law.

    A run is not a sample: what a power law leaves over is the next term of the expansion, not noise.
    So the next term may be given (``companion``: its size relative to the leading one, such as
    :math:`\log t`), and the 95% interval is Student's plus twice what the exponent moves when the
    earlier half of the points is dropped.

    Parameters
    ----------
    t, y : (T,) positive times and values of one sign, six or more
    companion : (T,) optional

    Raises
    ------
    ValueError
        For fewer than six points, times that do not increase from above 0, and values that vanish,
        change sign or are not finite.

    Examples
    --------
    >>> t = torch.logspace(3, 9, 25, dtype=torch.float64)
    >>> fit = fit_rate(t, -2 / t * (1 + 3 * t.log()), t.log())
    >>> round(fit.exponent, 6), round(fit.amplitude, 4), fit.agrees(-1.0)
    (-1.0, 2.0, True)
    """
    require(t.ndim == 1 and len(t) >= 6 and t.shape == y.shape, "y", tuple(y.shape), "(T,) like t, six or more")
    rising = bool((t.diff() > 0).all()) and float(t[0]) > 0 and bool(t.isfinite().all())
    require(rising, "t", t.tolist(), "finite times above 0, increasing")
    one_sign = bool(((y > 0).all() | (y < 0).all()) & y.isfinite().all())
    require(one_sign, "y", y.tolist(), "finite values of one sign, none of them 0")
    fits = companion is None or (companion.shape == t.shape and bool(companion.isfinite().all()))
    require(fits, "companion", None if fits else tuple(companion.shape), "finite values, (T,) like t")
    columns = [torch.ones_like(t)] if companion is None else [torch.ones_like(t), companion]
    basis = torch.stack(columns, 1).double().numpy()
    log_t, values = t.double().log().numpy(), y.double().numpy()
    half = len(log_t) // 2
    exponent, weights, error, worst = _fit(log_t, values, basis)
    later = _fit(log_t[half:], values[half:], basis[half:])[0]
    ratio = float(weights[1] / weights[0]) if companion is not None else 0.0
    half_width = error + 2 * abs(exponent - later)
    return RateFit(exponent, half_width, abs(float(weights[0])), ratio, worst)


def _fit(log_t: np.ndarray, y: np.ndarray, basis: np.ndarray) -> tuple[float, np.ndarray, float, float]:
    """Exponent, weights, half of Student's 95% interval, largest relative residual.

    For a given exponent the model is linear in the weights; only the exponent is searched for.
    """

    def scaled(q: float) -> np.ndarray:  # relative: the model should be 1
        return basis * (np.exp(q * log_t) / y)[:, None]

    def residual(q: np.ndarray) -> np.ndarray:
        design = scaled(q[0])
        return design @ np.linalg.lstsq(design, np.ones(len(y)), rcond=None)[0] - 1

    slope = np.polyfit(log_t, np.log(np.abs(y)), 1)[0]
    best = least_squares(residual, [slope], xtol=1e-15, ftol=1e-15, gtol=1e-15)
    q, rest = float(best.x[0]), best.fun
    design = scaled(q)
    weights = np.linalg.lstsq(design, np.ones(len(y)), rcond=None)[0]
    jacobian = np.column_stack([log_t * (design @ weights), design])
    freedom = max(1, len(y) - jacobian.shape[1])
    spread = np.linalg.pinv(jacobian.T @ jacobian)[0, 0] * (rest @ rest) / freedom
    return q, weights, float(student.ppf(0.975, freedom) * spread**0.5), float(np.abs(rest).max())
