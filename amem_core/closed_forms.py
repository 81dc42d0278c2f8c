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
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import lambertw, wrightomega
from torch import Tensor

from amem_core.validation import finite, require, require_broadcast, require_count

Real = Float[Tensor, "..."]

#: sup of h(y) y / log y over y > 1, attained at m = 3.0031766..., y = 23.1526191...
DEFECT_CONSTANT = 1.02371508094384725
#: sup of (e^m + m - 1) log(1 + e^-m), attained at m = 2.5261392..., that is c t = 14.0312724...
LOSS_CONSTANT = 1.07943468556143735
#: from this multiple of max(1, M - 1, a) on, exp(m) is followed by its expansion
FAR = 300.0
LONGEST = 10**5


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

    Eq. (29) takes the product logarithm of :math:`e^{ct}`, which overflows at :math:`ct = 710`; here
    it is the Wright omega function of :math:`ct`, which does not.

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
    shift = start.clamp(min=0)  # in units of exp(start), where that is large
    k = K * torch.exp(-shift)
    y = ct * torch.exp(-shift) + torch.exp(start - shift) + k * (start - shift)
    return finite("flow_margin", shift + _root(y, k))


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

    Steps are taken one by one until :math:`e^m` exceeds 300 times ``max(1, M - 1, a)``; from there
    on the coordinate of ``abel``, which gains ``a`` at each step, is inverted. Any number of
    steps costs the same, with errors below 1e-11.

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
        For bad values, and where more than 100 000 steps would have to be taken one by one.

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
    far, at, rows = torch.log(FAR * a.clamp(min=max(1, K))), 0, []
    for t in marks:
        while at < t and bool((m < far).any()):
            m, at = m + a / (torch.exp(m) + K), at + 1
            require(at <= LONGEST, "a", a.min().item(), f"values for which exp(m) is large after {LONGEST} steps")
        if at < t:
            break
        rows.append(m)
    if late := marks[len(rows) :]:
        ahead = torch.tensor(late, dtype=torch.float64).reshape(-1, *[1] * m.ndim) - at
        rows.extend(_from_abel(abel(m, a, M) + a * ahead, a, K))
    return finite("descent_margin", torch.stack(rows) if wanted.ndim else rows[0])


def abel(m: Real | float, a: Real | float, M: int = 2) -> Real:
    r"""A coordinate of the margin that gains exactly ``a`` at each step of descent, for large margins.

    .. math:: G(m) = e^m + (M - 1 - \tfrac a2)\,m + \sum_{k=1}^{4} b_k(a)\,e^{-km}

    up to :math:`O(e^{-5m})`; the :math:`b_k` follow from Eq. (28) order by order.

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
    far, m, t = torch.log(FAR * a.clamp(min=max(1, K))), torch.zeros_like(a), torch.zeros_like(a)
    while bool((late := m < far).any()):
        m, t = torch.where(late, m + a / (torch.exp(m) + K), m), t + late
        require(bool((t <= LONGEST).all()), "a", a.min().item(), f"values large enough for {LONGEST} steps")
    return finite("descent_constant", _abel(m, a, K) - a * t)


def descent_bounds(a: Real | float, t: Real | float, M: int = 2) -> tuple[Real, Real]:
    r"""Lower and upper bound on the margin after ``t`` steps from margin 0, for every ``a > 0``.

    .. math:: 1 + a t \;\le\; e^{m_t} + (M-1)\,m_t \;\le\; 1 + a t + \tfrac{M^2}{a}(e^{a/M} - 1 - \tfrac aM)\,m_t

    The lower one is the flow's margin at the same ``a t``.

    >>> low, high = descent_bounds(1.0, 100.0)
    >>> low.item() < descent_margin(1.0, 100).item() < high.item()
    True
    """
    K = require_count("M", M, least=2) - 1
    a, t = _reals(a=a, t=t)
    for name, value in (("a", a), ("t", t)):
        require(bool((value >= 0).all()), name, value.min().item(), "values >= 0")
    s = a / M
    q = torch.where(s < 1e-5, s / 2, (torch.expm1(s) - s) / s.clamp(min=1e-300)) * M
    return flow_margin(t, a, 0.0, M), finite("descent_bounds", _larger_root(1 + a * t, K - q))


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


def _root(y: Tensor, k: Tensor) -> Tensor:
    """The m with ``exp(m) + k m = y``, ``k >= 0``: ``exp(m)/k`` is the Wright omega of ``y/k - log k``."""
    positive = k.clamp(min=1e-300)  # below, k m is lost beside exp(m)
    z = y / positive
    omega = torch.as_tensor(wrightomega((z - torch.log(positive)).numpy()))
    large = torch.where(omega.isfinite(), positive * omega, y)
    # one of the two has no cancellation
    return torch.where(omega < 1, z - omega, torch.log(large.clamp(min=1e-300)))


def _larger_root(y: Tensor, k: Tensor) -> Tensor:
    """The larger m with ``exp(m) + k m = y``, ``y >= 1``, any k: Newton from the right of a convex function."""
    m = 1 + torch.log(y + k.abs()) + torch.log1p(k.abs())
    for _ in range(200):
        step = (torch.exp(m) + k * m - y) / (torch.exp(m) + k)
        m = m - step
        if bool((step.abs() <= 1e-15 * (1 + m.abs())).all()):
            break
    return m


def _abel(m: Tensor, a: Tensor, K: int) -> Tensor:
    X, total = torch.exp(-m), torch.zeros_like(m)
    for b in reversed(_abel_coefficients(a, K)):
        total = (total + b) * X
    return torch.exp(m) + (K - a / 2) * m + total


def _abel_coefficients(a: Any, K: Any) -> tuple:
    """The b_1 .. b_4 for which the coordinate gains ``a + O(exp(-6m))`` in a step; numbers or symbols."""
    return (
        a * (a - 3 * K) / 6,
        a * (12 * K**2 - 14 * K * a + 3 * a**2) / 48,
        a * (-180 * K**3 + 450 * K**2 * a - 255 * K * a**2 + 38 * a**3) / 1080,
        a * (180 * K**4 - 780 * K**3 * a + 825 * K**2 * a**2 - 287 * K * a**3 + 30 * a**4) / 1440,
    )


def _from_abel(value: Tensor, a: Tensor, K: int) -> Tensor:
    """The m whose coordinate is ``value``, by Newton; the coordinate is close to ``exp(m)``."""
    m = torch.log(value)
    for _ in range(8):
        m = m - (_abel(m, a, K) - value) / (torch.exp(m) + K - a / 2)
    return m
