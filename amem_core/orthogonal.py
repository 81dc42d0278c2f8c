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

    a polynomial and logarithms; it is inverted by bisection.

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
    OverflowError
        Where exponentials of the start leave double precision.

    Examples
    --------
    >>> w = logits_flow(torch.zeros(3, dtype=torch.float64), torch.tensor([0.0, 1e6], dtype=torch.float64))
    >>> m = w[:, 0] - w[:, 1]
    >>> (m.exp() + 2 * m).tolist()  # 1 + M c t
    [1.0, 3000001.0...]
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
    r, lead = torch.exp(start[..., wrong] - level), torch.exp(start[..., target] - level[..., 0])
    finite("exp of the lead of the right class", lead)
    s = _inverse_time(c * times.to(torch.float64), r, lead)
    moved = torch.log1p(s[..., None] * r)
    w = torch.empty(*s.shape, M, dtype=torch.float64)
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


def _inverse_time(ct: Tensor, r: Tensor, lead: Tensor) -> Tensor:
    """The s (T, ...) at which the time of ``logits_flow`` is ``ct``: bisection of log s between proven ends."""
    ct = ct.reshape(-1, *[1] * lead.ndim)
    e = [torch.ones_like(lead)]  # elementary symmetric polynomials of r: the product is sum_k e_k s^k
    for column in r.unbind(-1):
        e = [p + column * q for p, q in zip([*e, 0 * lead], [0 * lead, *e], strict=True)]

    def time(s: Tensor) -> Tensor:
        powers = sum(lead * e_k * s ** (k + 1) / (k + 1) for k, e_k in enumerate(e))
        return powers + torch.log1p(s[..., None] * r).sum(-1)

    # time >= lead s, and its speed is largest at one of the ends of each of its two parts
    high = ct / lead
    last, degree = lead * e[-1], len(e)
    high = torch.minimum(high, (degree * ct / last) ** (1 / degree))
    fastest = lead * torch.prod(1 + high[..., None] * r, -1) + r.sum(-1)
    low = ct / fastest
    a, b = torch.log(low.clamp(min=1e-300)), torch.log(high.clamp(min=1e-300))
    for _ in range(HALVINGS):
        middle = (a + b) / 2
        early = time(torch.exp(middle)) < ct
        a, b = torch.where(early, middle, a), torch.where(early, b, middle)
    return finite("the inverse of time", torch.where(ct > 0, torch.exp((a + b) / 2), 0.0))
