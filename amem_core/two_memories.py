r"""Two correlated tokens: constants that no formula gives, by integration in the phase plane. Chapter 6.

With unit inputs, :math:`\langle e_1, e_2\rangle = \alpha`, and ``f*(x) = x``, the margins are
:math:`m_1 = \gamma_2 + \gamma_1` and :math:`m_2 = \gamma_2 - \gamma_1`; ``c`` is :math:`\|u_1 - u_2\|^2`.
"""

import math

import numpy as np
from scipy.integrate import solve_ivp

from amem_core.validation import require, require_positive


def slow_amplitude(alpha: float, p1: float, c: float = 2.0) -> float:
    r"""The limit of :math:`t^\rho\,(\gamma_1 - \bar\gamma)` along the flow from ``W_0 = 0``, for ``-1 < alpha < 0``.

    With :math:`\rho = (1 + \alpha)/(1 - \alpha)`, :math:`s = \sqrt{p_1 p_2}`, :math:`S = (p_1 - p_2)/(2s)` and
    :math:`K = c\,(1 - \alpha)\,s`, the distance :math:`z = \sinh(\gamma_1 - \bar\gamma)` from
    :math:`\bar\gamma = \frac12\log(p_1/p_2)` obeys, on the clock :math:`\log E = \gamma_2`,

    .. math:: \frac{\mathrm dz}{\mathrm d\log E} = \rho\,(1 - \theta)\Bigl(\frac SE - z\Bigr),
        \qquad \theta = \frac{1}{1 + 2sE\sqrt{1 + z^2}}, \qquad z(1) = -S .

    The limit is :math:`A' K^{-\rho}` with :math:`A' = \frac{S}{\mu_\infty}\bigl(\int_1^\infty \mu E^{-2}\,
    \mathrm dE - 2\bigr)` and the weight :math:`\mu = \exp\int\rho\,(1 - \theta)\,\mathrm d\log E \sim
    \mu_\infty E^\rho`, both by DOP853 to about ten digits. It may have either sign.

    Parameters
    ----------
    alpha : correlation of the inputs
    p1 : frequency of token 1
    c : squared distance of the outputs

    Raises
    ------
    ValueError
        For a correlation outside (-1, 0), a frequency outside (0, 1), ``c`` not positive.
    RuntimeError
        Where the integrator gives up.

    Examples
    --------
    >>> [round(slow_amplitude(alpha, 0.75), 4) for alpha in (-0.5, -0.2)]
    [-0.459, 0.1309]
    """
    require(isinstance(alpha, float) and -1 < alpha < 0, "alpha", repr(alpha), "a number, -1 < alpha < 0")
    require(isinstance(p1, float) and 0 < p1 < 1, "p1", repr(p1), "a number, 0 < p1 < 1")
    c = require_positive("c", c)
    rho, s = (1 + alpha) / (1 - alpha), math.sqrt(p1 * (1 - p1))
    S, K = (2 * p1 - 1) / (2 * s), c * (1 - alpha) * s

    def pursuit(clock: float, state: np.ndarray) -> list[float]:
        """Slopes of z, of log mu - rho log E, and of the integral of mu / E^2."""
        z, excess, _ = state
        theta = 1 / (1 + 2 * s * math.exp(clock) * math.hypot(1, z))
        return [rho * (1 - theta) * (S * math.exp(-clock) - z), -rho * theta, math.exp(excess + (rho - 1) * clock)]

    # the integrand of the last one falls like exp(-(1 - rho) clock)
    run = solve_ivp(pursuit, (0, 60 / (1 - rho)), [-S, 0.0, 0.0], method="DOP853", rtol=1e-12, atol=1e-14)
    if not run.success:
        raise RuntimeError(f"slow_amplitude: {run.message}")
    _, excess, integral = run.y[:, -1]
    return float(S * (integral - 2) / math.exp(excess) / K**rho)
