"""Rates read off a run: how fast a quantity decays, with a stated confidence."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import OptimizeResult, least_squares
from scipy.stats import t as student
from torch import Tensor

from amem_core.validation import require


@dataclass(frozen=True)
class RateFit:
    """``|y| ~ amplitude * t**exponent * (1 + ratios[0] * companions[0] + ...)``.

    Parameters
    ----------
    exponent, half_width : the exponent and half of its 95% interval
    amplitude : of the leading term
    ratios : one for each companion
    worst : largest relative residual of the fit
    """

    exponent: float
    half_width: float
    amplitude: float
    ratios: tuple[float, ...]
    worst: float

    def agrees(self, exponent: float) -> bool:
        """Whether a predicted exponent lies in the interval."""
        return abs(self.exponent - exponent) <= self.half_width


def fit_rate(t: Tensor, y: Tensor, *companions: Tensor) -> RateFit:
    r"""Exponent of a decay, by least squares on relative deviations from a power law.

    A run is not a sample: what a power law leaves over is the next term of the expansion, not noise.
    So the next terms may be given (``companions``: their sizes relative to the leading one, such as
    :math:`\log t`), and the 95% interval is Student's plus twice what the exponent moves when the
    earlier half of the points is dropped: what still moves it later adds up to less, as long as each
    further halving moves it at most half as far.

    Parameters
    ----------
    t, y : (T,) positive times and values of one sign, six or more
    companions : (T,) each

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
    for companion in companions:
        fits = companion.shape == t.shape and bool(companion.isfinite().all())
        require(fits, "companion", None if fits else tuple(companion.shape), "finite values, (T,) like t")
    basis = torch.stack([torch.ones_like(t), *companions], 1).double().numpy()
    log_t, values = t.double().log().numpy(), y.double().numpy()
    half = len(log_t) // 2
    exponent, weights, error, worst = _fit(log_t, values, basis)
    later = _fit(log_t[half:], values[half:], basis[half:], exponent)[0]
    ratios = tuple(float(w / weights[0]) for w in weights[1:])
    half_width = error + 2 * abs(exponent - later)
    return RateFit(exponent, half_width, abs(float(weights[0])), ratios, worst)


def _fit(
    log_t: np.ndarray, y: np.ndarray, basis: np.ndarray, start: float | None = None
) -> tuple[float, np.ndarray, float, float]:
    """Exponent, weights, half of Student's 95% interval, largest relative residual.

    For a given exponent the model is linear in the weights; only the exponent is searched for.
    """

    def scaled(q: float, terms: int) -> np.ndarray:  # relative: the model should be 1
        return basis[:, :terms] * (np.exp(q * log_t) / y)[:, None]

    def residual(q: np.ndarray, terms: int) -> np.ndarray:
        design = scaled(q[0], terms)
        return design @ np.linalg.lstsq(design, np.ones(len(y)), rcond=None)[0] - 1

    def solve(start: float, terms: int) -> OptimizeResult:
        return least_squares(residual, [start], args=(terms,), xtol=1e-15, ftol=1e-15, gtol=1e-15)

    whole = basis.shape[1]
    if start is None:  # several terms have more than one local optimum: also come from fewer terms
        start = steps = float(np.polyfit(log_t, np.log(np.abs(y)), 1)[0])
        for terms in range(1, whole):
            steps = float(solve(steps, terms).x[0])
        best = min(solve(start, whole), solve(steps, whole), key=lambda found: found.cost)
    else:
        best = solve(start, whole)
    q, rest = float(best.x[0]), best.fun
    design = scaled(q, whole)
    weights = np.linalg.lstsq(design, np.ones(len(y)), rcond=None)[0]
    jacobian = np.column_stack([log_t * (design @ weights), design])
    freedom = max(1, len(y) - jacobian.shape[1])
    spread = np.linalg.pinv(jacobian.T @ jacobian)[0, 0] * (rest @ rest) / freedom
    return q, weights, float(student.ppf(0.975, freedom) * spread**0.5), float(np.abs(rest).max())
