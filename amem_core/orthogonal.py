r"""Orthogonal inputs: every token is a memory of its own, and what it does can be written down. Theorem 3 of [CSB24].

Letters: ``N`` tokens, ``M`` classes, ``d`` dimension, ``T`` times. The logits of one token are
:math:`w_i = u_i^\top W e_x`. With orthonormal outputs the flow moves the logit of the right class by
:math:`\dot w_1 = c\,(1 - p_1)` and the others by :math:`\dot w_i = -c\,p_i`, where
:math:`p = \mathrm{softmax}(w)` and :math:`c = p(x)\,|e_x|^2`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from amem_core.problem import AssociationProblem
from amem_core.validation import finite, require, require_count, require_floating, require_positive

HALVINGS = 80  # of log s: more than double precision can tell apart


def logits_flow(
    start: Float[Tensor, "*batch M"], times: Float[Tensor, " T"], c: float = 1.0, target: int = 0
) -> Float[Tensor, "T *batch M"]:
    r"""Logits of one token under gradient flow, solved for every ``M`` and every start.

    In the variable :math:`s = \int c\,\mathrm dt / A`, with the partition function :math:`A = \sum_j e^{w_j}`, every
    :math:`e^{-w_i}` of a wrong class grows by :math:`s`, the sum of all logits stays, and time is

    .. math:: c\,t = e^{w_1(0)}\int_0^s\prod_{i\ne1}\big(1 + \sigma e^{w_i(0)}\big)\,\mathrm d\sigma
        + \sum_{i\ne1}\log\big(1 + s\,e^{w_i(0)}\big),

    a polynomial and logarithms; it is inverted by bisection of :math:`\log s`. Coefficients, products and the lead of
    the right class are kept as logarithms: thousands of classes and leads of any size are in range.

    Parameters
    ----------
    start : (..., M) logits at time 0
    times : (T,) at least 0
    c : frequency of the token times the squared norm of its input
    target : the right class, ``0 .. M-1``

    Raises
    ------
    ValueError
        For bad shapes, times below 0, a target that is no class.

    Examples
    --------
    >>> w = logits_flow(torch.zeros(3, dtype=torch.float64), torch.tensor([0.0, 1e6], dtype=torch.float64))
    >>> m = w[:, 0] - w[:, 1]
    >>> [round(v, 6) for v in (m.exp() + 2 * m).tolist()]  # 1 + M c t
    [1.0, 3000001.0]
    """
    require_floating("start", start)
    require_floating("times", times)
    M = start.shape[-1] if start.ndim else 0
    require(M >= 2, "start", tuple(start.shape), "(..., M) with M >= 2")
    require(times.ndim == 1 and bool((times >= 0).all()), "times", times.tolist()[:3], "(T,), values >= 0")
    require(require_count("target", target, least=0) < M, "target", target, f"0 to M-1 = {M - 1}")
    c, start = require_positive("c", c), start.to(torch.float64)
    wrong = [i for i in range(M) if i != target]
    # softmax ignores a common shift: the likeliest wrong class at 0
    level = start[..., wrong].amax(-1, keepdim=True)
    log_r, log_lead = start[..., wrong] - level, start[..., target] - level[..., 0]
    log_s = _inverse_time(c * times.to(torch.float64), log_r, log_lead)
    moved = _log1p_exp(log_s[..., None] + log_r)
    w = torch.empty(*log_s.shape, M, dtype=torch.float64)
    w[..., wrong] = start[..., wrong] - moved
    w[..., target] = start[..., target] + moved.sum(-1)
    return finite("logits_flow", w)


def one_step_rate(start: Float[Tensor, "*batch M"], target: int = 0) -> Float[Tensor, "*batch"]:
    r"""The rate that one step must exceed to recall a token, in units of :math:`1/(p(x)|e_x|^2)`; orthonormal outputs.

    A step of rate :math:`a` adds :math:`a\,(1 - p_1 + p_i)` to :math:`m_i`, so that the least rate is the largest
    :math:`-m_i/(1 - p_1 + p_i)`: between half the worst deficit and the whole of it; 0 where nothing is missing.

    >>> one_step_rate(torch.tensor([0.0, 0.0, 0.0], dtype=torch.float64))
    tensor(0., dtype=torch.float64)
    >>> 1.5 <= one_step_rate(torch.tensor([-3.0, 0.0], dtype=torch.float64)).item() <= 3.0
    True
    """
    require_floating("start", start)
    M = start.shape[-1] if start.ndim else 0
    require(M >= 2, "start", tuple(start.shape), "(..., M) with M >= 2")
    require(require_count("target", target, least=0) < M, "target", target, f"0 to M-1 = {M - 1}")
    wrong = [i for i in range(M) if i != target]
    P = torch.softmax(start, -1)
    m = start[..., target, None] - start[..., wrong]
    gain = P[..., wrong].sum(-1, keepdim=True) + P[..., wrong]
    return torch.where(m < 0, -m / gain, 0.0).amax(-1)


def orthogonal_max_margin(problem: AssociationProblem) -> Float[Tensor, "*batch d d"]:
    r"""The matrix of least norm whose margins are all at least 1, for orthogonal inputs.

    Two classes: :math:`\sum_x (u_{f^*(x)} - u_{\mathrm{other}})\otimes e_x / (|u_1-u_2|^2|e_x|^2)`. More
    classes, orthogonal and of one norm: :math:`\sum_x (u_{f^*(x)} - \bar u)\otimes e_x/(|u|^2|e_x|^2)`. All
    margins are then exactly 1.

    Raises
    ------
    ValueError
        For inputs that are not orthogonal or zero, two equal outputs, more than two outputs that
        are not orthogonal and of one norm.

    Examples
    --------
    >>> orthogonal_max_margin(AssociationProblem.orthonormal(2))
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000]], dtype=torch.float64)
    """
    E, U, M, d = problem.E, problem.U, problem.M, problem.d
    _require_orthogonal("problem.E", E)
    if M == 2:
        distance = ((U[..., 0, :] - U[..., 1, :]) ** 2).sum(-1)
        require(bool((distance > 0).all()), "problem.U", "two equal outputs", "two different outputs")
        size = distance / 2
    else:
        _require_orthogonal("problem.U", U)
        norms = (U**2).sum(-1)
        equal = bool((norms - norms[..., :1]).abs().max() <= 1e-9 * norms.max())
        require(equal, "problem.U", f"squared norms {norms.tolist()}", "one norm")
        size = norms[..., 0]
    batch = problem.batch_shape
    wide = (U - U.mean(-2, keepdim=True)).expand(*batch, M, d)
    rows = problem.targets.expand(*batch, problem.N)[..., None].expand(*batch, problem.N, d)
    return (wide.gather(-2, rows) / size[..., None, None]).mT @ (E / (E**2).sum(-1, keepdim=True))


def loss_law(problem: AssociationProblem) -> Float[Tensor, "*batch"]:
    r"""The limit of :math:`\eta t\,\mathcal L(W_t)` for orthogonal inputs: ``orthogonal_max_margin``, its squared norm.

    :math:`\sum_x 1/(|e_x|^2|u_1-u_2|^2)` for two classes, :math:`N(1 - 1/M)` for orthonormal embeddings.
    The frequencies cancel.

    >>> round(loss_law(AssociationProblem.orthonormal(5)).item(), 12)
    4.0
    """
    return (orthogonal_max_margin(problem) ** 2).sum((-2, -1))


def _require_orthogonal(name: str, X: Tensor) -> None:
    G = X @ X.mT
    size = G.diagonal(dim1=-2, dim2=-1)
    require(bool((size > 0).all()), name, "a row of zeros", "non-zero rows")
    cosines = G / (size[..., :, None] * size[..., None, :]).sqrt() - torch.eye(X.shape[-2], dtype=X.dtype)
    worst = cosines.abs().max().item()
    require(worst < 1e-6, name, f"a cosine of {worst:.3g}", "orthogonal rows")


def _inverse_time(ct: Tensor, log_r: Tensor, log_lead: Tensor) -> Tensor:
    """The log s (T, ...) at which the time of ``logits_flow`` is ``ct``: bisection between proven ends."""
    ct = ct.reshape(-1, *[1] * log_lead.ndim)
    M = log_r.shape[-1] + 1
    log_e = (
        _log_symmetric(log_r) - torch.arange(1, M + 1, dtype=torch.float64).log()
    )  # the integral is sum_k e_k s^(k+1) / (k+1)
    powers = torch.arange(1, M + 1, dtype=torch.float64)

    def time(log_s: Tensor) -> Tensor:
        first = torch.logsumexp(log_e + powers * log_s[..., None], -1)
        return torch.exp(log_lead + first) + _log1p_exp(log_s[..., None] + log_r).sum(-1)

    # time >= lead s, >= lead e_(M-1) s^M / M, >= log(1 + s); its speed is largest at one of the ends of each part
    log_ct = torch.log(ct)
    high = torch.minimum(log_ct - log_lead, (log_ct - log_lead - log_e[..., -1]) / M)
    high = torch.minimum(high, ct + torch.log(-torch.expm1(-ct)))
    fastest = log_lead + _log1p_exp(high[..., None] + log_r).sum(-1)
    low = log_ct - torch.logaddexp(fastest, torch.logsumexp(log_r, -1))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        early = time(middle) < ct
        low, high = torch.where(early, middle, low), torch.where(early, high, middle)
    return (low + high) / 2


def _log_symmetric(log_r: Tensor) -> Tensor:
    """Logarithms of the elementary symmetric polynomials e_0, e_1, .. (..., M) of r (..., M-1)."""
    none = torch.full_like(log_r[..., :1], -torch.inf)
    e = torch.zeros_like(none)
    for column in log_r.split(1, -1):
        e = torch.logaddexp(torch.cat([e, none], -1), torch.cat([none, e + column], -1))
    return e


def _log1p_exp(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros((), dtype=x.dtype))  # softplus drops terms of 1e-9
