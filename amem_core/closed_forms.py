r"""One memory whose margin can be solved: flow, descent, their bounds and constants. Theorem 2 of [CSB24].

A token of an orthogonal problem has one margin :math:`m`, the same over every wrong class when
there are two classes, or ``M`` orthonormal ones and equal scores of the wrong classes. One step
adds :math:`a/(e^m + M - 1)`, and the flow has the speed :math:`c/(e^m + M - 1)`, with

- two classes: :math:`c = p(x)\,|e_x|^2\,|u_1 - u_2|^2`, Eq. (28);
- ``M`` orthonormal classes: :math:`c = M\,p(x)\,|e_x|^2`;

and ``a`` is the learning rate times ``c``. The *clock* :math:`e^m + (M-1)\,m` runs at the rate ``c``
along the flow. Numbers and tensors broadcast; everything is float64.
"""

import itertools
import math

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import lambertw
from torch import Tensor

from amem_core.validation import finite, require, require_broadcast, require_count

Real = Float[Tensor, "..."]

#: sup of h(y) y / log y over y > 1, attained at m = 3.0031766..., y = 23.1526191...
DEFECT_CONSTANT = 1.02371508094384725
#: sup of (e^m + m - 1) log(1 + e^-m), attained at m = 2.5261392..., that is c t = 14.0312724...
LOSS_CONSTANT = 1.07943468556143735
#: steps of descent that are shorter are followed by their expansion; the first term left out is below 1e-15
SHORT = 0.01
LONGEST = 10**5
#: the polynomials in exp(m) / (exp(m) + M - 1) that multiply step, .., step^5 in ``abel``
TAIL = (
    (1 / 24, 1 / 8),
    (1 / 288, 1 / 144, 5 / 96),
    (1 / 2160, 0.0, 1 / 96, 7 / 288),
    (13 / 172800, 13 / 43200, -71 / 17280, 73 / 2880, -1 / 1280),
    (1 / 72576, 37 / 362880, -89 / 120960, -71 / 17280, 653 / 17280, -671 / 28800),
)


def clock(m: Real | float, M: int = 2) -> Real:
    r""":math:`e^m + (M-1)\,m`, which runs at a constant rate along the flow.

    >>> clock(0.0), clock(0.0, 5)
    (tensor(1., dtype=torch.float64), tensor(1., dtype=torch.float64))
    """
    K = require_count("M", M, least=2) - 1
    m = _real("m", m)
    return finite("clock", m.exp() + K * m)


def flow_margin(t: Real | float, c: Real | float = 1.0, start: Real | float = 0.0, M: int = 2) -> Real:
    r"""Margin of gradient flow, Eq. (29) of [CSB24]: :math:`e^m + (M-1)m = e^{m_0} + (M-1)m_0 + c\,t`.

    Eq. (29) takes the product logarithm of :math:`e^{ct}`, which overflows at :math:`ct = 710`. Here what is
    solved for is the gain :math:`m - m_0`, by Newton, to a relative error of a few roundings however small.

    Parameters
    ----------
    t : (...) times, at least 0
    c : (...) speed of the clock, at least 0
    start : (...) margin at time 0
    M : number of classes

    Raises
    ------
    ValueError
        For values that are negative, not finite, or shapes that do not broadcast.
    OverflowError
        Where ``c t`` is not finite.

    Examples
    --------
    >>> m = flow_margin(torch.tensor([0.0, 1e3, 1e300], dtype=torch.float64))
    >>> [round(v, 4) for v in m.tolist()]  # exp(m) + m = 1 + t
    [0.0, 6.9018, 690.7755]
    """
    K = require_count("M", M, least=2) - 1
    t, c, start = _reals(t=t, c=c, start=start)
    for name, value in (("t", t), ("c", c)):
        require(bool((value >= 0).all()), name, value.min().item(), "values >= 0")
    ct = finite("c t", c * t)
    return finite("flow_margin", start + _ahead(_share(ct, start, K), start - math.log(K)))


def defect(y: Real | float) -> Real:
    r"""The ``h`` of Eq. (15): by how much the margin with :math:`e^m + m = y` stays behind :math:`\log y`; ``y >= 1``.

    In closed form :math:`h = \log(1 + m e^{-m})`, computed without subtraction.

    >>> round(defect(1 + 2.718281828459045).item(), 5)  # largest at m = 1: log(1 + 1/e)
    0.31326
    """
    y = _real("y", y)
    require(bool((y >= 1).all()), "y", y.min().item(), "values >= 1")
    m = flow_margin(y - 1)
    return torch.log1p(m * torch.exp(-m))


def descent_margin(a: Real | float, steps: Tensor | int, start: Real | float = 0.0, M: int = 2) -> Float[Tensor, "..."]:
    r"""Margins of gradient descent, Eq. (28): :math:`m_{t+1} = m_t + a/(e^{m_t} + M - 1)`.

    Steps are taken one by one until they are shorter than 0.01, about 100 of them from margin 0 at any rate;
    from there on the coordinate of ``abel``, which gains ``a`` at each step, is inverted. Any number of
    steps costs the same, with errors below 1e-13 and the rounding of the margins.

    Parameters
    ----------
    a : (...) learning rate times ``c``, above 0
    steps : (T,) increasing whole numbers, or one
    start : (...) margin before the first step
    M : number of classes

    Returns
    -------
    margins (T, ...), or (...) for one number of steps

    Raises
    ------
    ValueError
        For bad values, and for starts so far below 0 that 100 000 long steps do not leave them.

    Examples
    --------
    >>> [round(v, 6) for v in descent_margin(2.0, torch.tensor([0, 1, 2, 10**12])).tolist()]
    [0.0, 1.0, 1.537883, 28.324168]
    """
    K = require_count("M", M, least=2) - 1
    a, m = _reals(a=a, start=start)
    require(bool((a > 0).all()), "a", a.min().item(), "values > 0")
    known = isinstance(steps, int | Tensor) and not isinstance(steps, bool)
    require(known, "steps", repr(steps), "a whole number, or a tensor (T,) of them")
    wanted = torch.as_tensor(steps)
    whole = not wanted.is_floating_point() and wanted.dtype != torch.bool and wanted.ndim <= 1
    require(whole, "steps", steps, "a whole number, or a tensor (T,) of them")
    marks = wanted.reshape(-1).tolist()
    rising = len(marks) > 0 and marks[0] >= 0 and all(s < t for s, t in itertools.pairwise(marks))
    require(rising, "steps", marks[:3], "whole numbers >= 0, increasing")
    at, rows = 0, []
    for t in marks:
        while at < t and bool((_share(a, m, K) > SHORT).any()):
            m, at = m + a / (torch.exp(m) + K), at + 1
            require(
                at <= LONGEST,
                "start",
                f"margins of {m.min().item():g}",
                f"starts from which {LONGEST} steps are enough",
            )
        if at < t:
            break
        rows.append(m)
    if late := marks[len(rows) :]:
        ahead = torch.tensor(late, dtype=torch.float64).reshape(-1, *[1] * m.ndim) - at
        step = _share(a, m, K)
        rows.extend(m + _ahead(step * ahead, m - math.log(K), step))
    return finite("descent_margin", torch.stack(rows) if wanted.ndim else rows[0])


def abel(m: Real | float, a: Real | float, M: int = 2) -> Real:
    r"""A coordinate of the margin that gains ``a`` at each step of descent, where steps are short.

    .. math:: G(m) = e^m + (M - 1)\,m - \tfrac a2\log(e^m + M - 1) + a\sum_{k=1}^{5} \delta^k P_k(q)

    up to :math:`a\,O(\delta^6)`, with the step :math:`\delta = a/(e^m + M - 1)` and :math:`q = e^m/(e^m + M - 1)`;
    the polynomials :math:`P_k` (``TAIL``) follow from Eq. (28) order by order.

    >>> m = descent_margin(1.0, torch.tensor([1000, 1001]))
    >>> round(abel(m, 1.0).diff().item(), 9)
    1.0
    """
    K = require_count("M", M, least=2) - 1
    m, a = _reals(m=m, a=a)
    return finite("abel", _abel(m, a, K))


def descent_constant(a: Real | float, M: int = 2) -> Real:
    r"""The constant :math:`C_a` of descent from margin 0: :math:`e^{m_t} = a t + (\frac a2 - M + 1)\,m_t + C_a + o(1)`.

    >>> [round(v, 5) for v in descent_constant(torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)).tolist()]
    [0.96587, 0.71145, 1.48467]
    """
    K = require_count("M", M, least=2) - 1
    a = _real("a", a)
    require(bool((a > 0).all()), "a", a.min().item(), "values > 0")
    m, t = torch.zeros_like(a), torch.zeros_like(a)
    while bool((long := _share(a, m, K) > SHORT).any()):
        m, t = torch.where(long, m + a / (torch.exp(m) + K), m), t + long
    return finite("descent_constant", _abel(m, a, K) - a * t)


def descent_bounds(a: Real | float, t: Real | float, M: int = 2) -> tuple[Real, Real]:
    r"""Lower and upper bound on the margin after ``t`` steps from margin 0, for every ``a > 0``.

    .. math:: 1 + a t \;\le\; e^{m_t} + (M-1)\,m_t \;\le\; 1 + a t + \tfrac{M^2}{a}(e^{a/M} - 1 - \tfrac aM)\,m_t

    >>> low, high = descent_bounds(1.0, 100.0)
    >>> low.item() < descent_margin(1.0, 100).item() < high.item()
    True
    """
    K = require_count("M", M, least=2) - 1
    a, t = _reals(a=a, t=t)
    for name, value in (("a", a), ("t", t)):
        require(bool((value >= 0).all()), name, value.min().item(), "values >= 0")
    s = a / M
    small = s * (1 / 2 + s * (1 / 6 + s / 24))
    large = s - torch.log(s) + torch.log(-torch.expm1(-s) - s * torch.exp(-s))
    log_q = math.log(M) + torch.where(s < 1e-4, torch.log(small), large)
    k = K - torch.exp(log_q)
    flat = _ahead(a * t / (1 + k.clamp(min=0)), -torch.log(k.clamp(min=0)))
    high = torch.where(k >= 0, flat, _larger_root(torch.log1p(a * t), torch.where(k < 0, log_q, math.log(2 * K)), K))
    return flow_margin(t, a, 0.0, M), finite("descent_bounds", high)


def log_bound_threshold(M: int = 2) -> float:
    r"""The smallest ``a`` for which descent from margin 0 has :math:`m_t \ge \log(1 + a t)` at all ``t``.

    It is the positive root :math:`a_* = -1 - M\,W_{-1}(-e^{-1/M}/M)` of :math:`e^{a/M} = 1 + a`. Up to
    :math:`a = 2(M-1)` the bound fails at every ``t >= 1``, between the two values at ``t = 1``.

    >>> round(log_bound_threshold(), 12)
    2.512862417252
    """
    require_count("M", M, least=2)
    return float(-1 - M * lambertw(-np.exp(-1 / M) / M, -1).real)


# ---- the roots behind them, unchecked ----


def _real(name: str, value: object) -> Tensor:
    number = isinstance(value, int | float | Tensor) and not isinstance(value, bool)
    require(number, name, repr(value), "a number or a tensor")
    tensor = torch.as_tensor(value, dtype=torch.float64)
    require(bool(tensor.isfinite().all()), name, "a value that is NaN or infinite", "finite values only")
    return tensor


def _reals(**values: object) -> tuple[Tensor, ...]:
    tensors = {name: _real(name, value) for name, value in values.items()}
    shape = require_broadcast({name: tensor.shape for name, tensor in tensors.items()})
    return tuple(tensor.expand(shape) for tensor in tensors.values())


def _share(value: Tensor, m: Tensor, K: int) -> Tensor:
    """``value / (exp(m) + K)``, also where the two leave double precision one by one."""
    half = torch.exp(-torch.logaddexp(m, torch.tensor(math.log(K), dtype=torch.float64)) / 2)
    return value * half * half


def _ahead(y: Tensor, z: Tensor, step: Tensor | None = None) -> Tensor:
    """The u >= 0 with ``q (exp(u) - 1) + (1 - q) u = y``, ``q = sigmoid(z)``; in descent after short steps, ``abel``'s.

    That is the gain of a margin m whose clock gains y in units of ``exp(m) + K``; ``z = m - log K``.
    """
    log_q, q, rest = torch.nn.functional.logsigmoid(z), torch.sigmoid(z), torch.sigmoid(-z)
    # each of the two terms alone is at most y: to the right of the root of a convex function
    u = torch.minimum(torch.logaddexp(torch.log(y) - log_q, torch.zeros_like(y)), y / rest.clamp(min=1e-300))
    for _ in range(40):
        gain = torch.where(u < 1, q * torch.expm1(u), torch.exp(u + log_q) - q)
        missing, slope = gain + rest * u - y, gain + 1
        if step is not None:
            share = (gain + q) / (1 + gain)
            tail = _tail(step / (1 + gain), share) - _tail(step, q)
            missing, slope = missing + step * (tail - torch.log1p(gain) / 2), slope - step * share / 2
        change = missing / slope
        u = u - change
        if bool((change.abs() <= 1e-15 * u).all()):
            break
    return u


def _larger_root(log_y: Tensor, log_q: Tensor, K: int) -> Tensor:
    """The larger m with ``exp(m) = y + (q - K) m``, ``y >= 1``, ``q > K``: Newton, in logarithms, from the right."""
    log_k = log_q + torch.log1p(-torch.exp(math.log(K) - log_q))
    top = torch.logaddexp(log_y, log_k)
    m = top + torch.log(2 * top + 2)  # the root is at most top + log(max(1, root))
    for _ in range(200):
        right = torch.logaddexp(log_y, log_k + torch.log(m))
        change = (m - right) / (1 - torch.exp(log_k - right))
        m = (m - change).clamp(min=1e-300)  # the root may be 0
        if bool((change.abs() <= 1e-15 * (1 + m)).all()):
            break
    return m


def _tail(step: Tensor, share: Tensor) -> Tensor:
    total = torch.zeros_like(step)
    for row in reversed(TAIL):
        total = (total + sum(b * share**k for k, b in enumerate(row))) * step
    return total


def _abel(m: Tensor, a: Tensor, K: int) -> Tensor:
    log_K = torch.tensor(math.log(K), dtype=torch.float64)
    tail = _tail(_share(a, m, K), torch.sigmoid(m - log_K)) - torch.logaddexp(m, log_K) / 2
    return torch.exp(m) + K * m + a * tail
