r"""How many random tokens one matrix can recall: what is proved. Chapter 10.

Letters: ``N`` tokens, ``M`` classes, ``d`` dimension.
"""

import math

import numpy as np
from scipy.special import gammaln

from amem_core.validation import require_count


def wendel_probability(N: int, d: int) -> float:
    r"""Probability that some matrix recalls ``N`` random tokens of two classes, any targets, by Wendel and Cover.

    .. math:: P_2(N, d) = 2^{1 - N} \sum_{k=0}^{d - 1}\binom{N - 1}{k},

    for two different outputs and inputs drawn independently from a density with :math:`e \sim -e`. ``ValueError``
    for sizes below 1.

    >>> wendel_probability(5, 5), wendel_probability(10, 5), wendel_probability(3, 2)
    (1.0, 0.5, 0.75)
    """
    N, d = require_count("N", N), require_count("d", d)
    return sum(math.comb(N - 1, i) for i in range(d)) / 2 ** (N - 1)


def log_counting_bound(N: int, d: int) -> float:
    r"""Logarithm of a bound on the probability that some matrix recalls ``N = M`` tokens, ``f*(x) = x``, by counting.

    With :math:`n = N \binom N2` hyperplanes that make at most :math:`C(n, D)` cells in :math:`D = d^2` dimensions,

    .. math:: \frac{C(n, d^2)}{N!}, \qquad C(n, D) = 2\sum_{k=0}^{D-1}\binom{n - 1}{k},

    for independent outputs of one distribution. It is above 0, and says nothing, for small ``N``. ``ValueError``
    for ``N`` below 2 and dimensions below 1.

    >>> log_counting_bound(300, 10) < math.log(0.5) < log_counting_bound(150, 10)
    True
    """
    N, d = require_count("N", N, least=2), require_count("d", d)
    n, r = N**2 * (N - 1) / 2, np.arange(d * d)
    r = r[r < n]  # beyond, there are none
    log_terms = gammaln(n) - gammaln(r + 1) - gammaln(n - r)
    return float(math.log(2) + np.logaddexp.reduce(log_terms) - gammaln(N + 1))


def log_failure_bound(N: int, d: int) -> float:
    r"""Logarithm of a bound on the probability that ``outer_products`` fails to recall all of ``N = M`` tokens.

    For ``f*(x) = x`` and embeddings on the unit sphere, with :math:`\tau = (1 - \varepsilon)^{3/2}/\sqrt2`,

    .. math:: N^2 e^{-d\varepsilon^2/2} + N^2 e^{-\theta\tau}\,(1 - \theta^2/d^2)^{-(N - 2)/2},

    at the best :math:`\theta` for each of 200 values of :math:`\varepsilon` from 0.02 to 0.9, and the best of these.
    ``ValueError`` for ``N`` below 3 and dimensions below 1.

    >>> log_failure_bound(1600, 512) < math.log(0.5) < log_failure_bound(1700, 512)
    True
    """
    N, d = require_count("N", N, least=3), require_count("d", d)
    eps = np.linspace(0.02, 0.9, 200)
    tau, n = (1 - eps) ** 1.5 / math.sqrt(2), N - 2
    s = (np.sqrt(n * n + 4 * (tau * d) ** 2) - n) / (2 * tau * d)  # theta / d at the minimum
    crosstalk = -s * d * tau - n / 2 * np.log1p(-(s**2))
    return float((2 * math.log(N) + np.logaddexp(crosstalk, -d * eps**2 / 2)).min())
