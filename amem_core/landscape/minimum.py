r"""Minimisers of the cross-entropy in the plane: two classes, two dimensions.

With ``s_x = 1`` for tokens of the first class and -1 for the others, the signed tokens :math:`z_x = s_x e_x` and
:math:`v = W^\top (u_1 - u_2)`, the margins are :math:`m_x = \langle v, z_x \rangle` and the loss is convex in ``v``.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from amem_core.landscape.reading import planar_gap, spread
from amem_core.problem import AssociationProblem

# an angle (in radians) or a margin (relative to its vectors) below this many roundings counts as zero
ANGLE, TIE = 64, 4096
# Newton steps at most: along an exponential tail each gains one unit of margin, and there are 745 in float64
STEPS = 1500


@dataclass(frozen=True, eq=False)
class LossMinimum:
    r"""The minimiser of a planar loss. Look at ``attained`` first.

    Parameters
    ----------
    W : (..., 2, 2) the smallest matrix that has this ``v``, :math:`(u_1 - u_2)\,v^\top / c`
    v : (..., 2) the minimiser, of least norm where there are several; 0 where there is none
    loss : (...) cross-entropy at ``v``, in nats: ``log 2`` where there is no minimiser, not the infimum
    zero_one_loss : (...) total frequency of the tokens that ``v`` does not recall, 1 where there is no minimiser; a
        margin below 4096 roundings (9e-13 in float64) relative to :math:`\|v\|\,\|e_x\|` is a tie, hence an error
    attained : (...) whether there is a minimiser
    residual : (...) norm of the gradient at ``v`` relative to the sum of its terms' norms, :math:`\|\sum_x p(x)
        \sigma(-m_x)\,z_x\| / \sum_x p(x)\,\sigma(-m_x)\,\|z_x\|`: a few roundings at a minimiser
    """

    W: Float[Tensor, "*batch 2 2"]
    v: Float[Tensor, "*batch 2"]
    loss: Float[Tensor, "*batch"]
    zero_one_loss: Float[Tensor, "*batch"]
    attained: Bool[Tensor, "*batch"]
    residual: Float[Tensor, "*batch"]


def minimise_loss(problem: AssociationProblem) -> LossMinimum:
    r"""Minimiser of the loss for two classes in the plane, the reduction (21) of [CSB24], by Newton's method.

    .. math:: \mathcal L(v) = \sum_x p(x) \log\bigl(1 + e^{-\langle v, z_x\rangle}\bigr), \qquad z_x = \pm e_x.

    There is a minimiser unless some closed half-plane contains all ``z_x`` with ``p(x) > 0``, one of them strictly
    inside; then the loss decreases for ever along its normal. This is read off the gaps between the angles of
    the ``z_x``, where a difference of less than 64 roundings (1.4e-14 radians in float64) counts as none. The damped
    Newton steps of a batch go on until the gradient is zero to rounding; the scale of the inputs does not matter.

    Parameters
    ----------
    problem : ``M = d = 2``, with any batch

    Raises
    ------
    ValueError
        For other dimensions, and equal outputs.
    RuntimeError
        Where Newton's method comes to a halt before the gradient is zero.

    Examples
    --------
    >>> p = torch.tensor([0.4, 0.3, 0.3], dtype=torch.float64)
    >>> phi = math.acos(0.8)  # the most frequent token is forgotten
    >>> best = minimise_loss(AssociationProblem.planar(torch.tensor([0.0, -phi, phi]), torch.tensor([0, 1, 1]), p))
    >>> round(best.zero_one_loss.item(), 12), round(best.v[0].item(), 7), best.attained.item()
    (0.4, -0.204668, True)
    """
    gap, c = planar_gap(problem)
    Z, p, length = signed_tokens(problem)
    batch = p.shape[:-1]
    scale = length.amax(-1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
    Z = Z / scale[..., None]
    z, q = Z.reshape(-1, problem.N, 2), p.reshape(-1, problem.N)
    attained, line = _attained(z, q)
    v, residual = _newton(z, q, attained, line)
    v = v.reshape(*batch, 2)
    m = (Z @ v[..., None])[..., 0]
    loss = (p * torch.logaddexp(torch.zeros_like(m), -m)).sum(-1)
    tie = TIE * torch.finfo(p.dtype).eps * v.norm(dim=-1, keepdim=True) * (length / scale)
    error = (p * (m <= tie)).sum(-1)
    v = v / scale
    W = spread(v, gap, c)
    return LossMinimum(W, v, loss, error, attained.reshape(batch), residual.reshape(batch))


def signed_tokens(problem: AssociationProblem) -> tuple[Tensor, Tensor, Tensor]:
    """``z_x`` (..., N, 2), frequencies and lengths (..., N) in the batch shape of the problem."""
    batch = problem.batch_shape
    sign = 1 - 2 * problem.targets.to(problem.dtype)
    Z = (sign[..., None] * problem.E).expand(*batch, problem.N, 2)
    return Z, problem.p.expand(*batch, problem.N), torch.hypot(Z[..., 0], Z[..., 1])


def _attained(z: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Whether there is a minimiser (n,), and for collinear tokens a direction along them (n, 2), otherwise 0."""
    counts = (p > 0) & (z != 0).any(-1)
    heaviest = torch.where(counts, p, -1).argmax(-1, keepdim=True)
    z = z.take_along_dim(torch.where(counts, torch.arange(p.shape[-1], device=p.device), heaviest)[..., None], -2)
    angle = torch.atan2(z[..., 1], z[..., 0]).sort(-1).values
    gaps = torch.cat([angle.diff(dim=-1), 2 * math.pi + angle[:, :1] - angle[:, -1:]], -1)
    first, second = torch.nn.functional.pad(gaps, (0, 1)).topk(2, -1).values.unbind(-1)
    tolerance = ANGLE * torch.finfo(p.dtype).eps
    collinear = ((first - math.pi).abs() <= tolerance) & ((second - math.pi).abs() <= tolerance)
    attained = collinear | (first < math.pi - tolerance) | ~counts.any(-1)
    t = z[:, 0] / torch.hypot(z[:, 0, 0], z[:, 0, 1]).clamp_min(torch.finfo(p.dtype).tiny)[:, None]
    return attained, t * collinear[:, None]


def _newton(z: Tensor, p: Tensor, attained: Tensor, line: Tensor) -> tuple[Tensor, Tensor]:
    """Minimisers (n, 2) and residuals (n,); members leave as they are done. Inputs at most 1 in length."""
    v, eps = torch.zeros_like(line), torch.finfo(p.dtype).eps
    residual = _slopes(v, z, p)[1]
    left = (attained & (residual > 8 * eps)).nonzero()[:, 0]
    for _ in range(STEPS):
        if not len(left):
            break
        here, zs, ps, lines = v[left], z[left], p[left], line[left]
        v[left], moved = _step(here, zs, ps, lines)
        residual[left] = _slopes(v[left], zs, ps)[1]
        # a margin is known up to its rounding, and so is a term of the gradient
        floor = 8 * eps * (1 + v[left].norm(dim=-1))
        left = left[moved & (residual[left] > floor)]
    reached = residual <= (1e4 * eps * (1 + v.norm(dim=-1))).clamp_max(eps**0.25)  # a thousand times the floor
    if not bool((reached | ~attained).all()):
        raise RuntimeError(f"minimise_loss: a gradient of {float(residual[attained].max()):.1g} relative to its terms")
    return v, residual


def _slopes(v: Tensor, z: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient (n, 2), and its norm relative to the sum of its terms' norms."""
    weight = p * torch.sigmoid(-(z @ v[..., None])[..., 0])
    g = -(weight[..., None] * z).sum(-2)
    total = (weight * torch.hypot(z[..., 0], z[..., 1])).sum(-1)
    return g, torch.where(total > 0, torch.hypot(g[:, 0], g[:, 1]) / total, 0.0)


def _step(v: Tensor, z: Tensor, p: Tensor, line: Tensor) -> tuple[Tensor, Tensor]:
    """One Newton step, halved until the loss falls and the slope beyond the bottom is slight; and who moved.

    Where rounding hides the fall of the loss, the slope must fall instead.
    """
    g = _slopes(v, z, p)[0]
    s = _direction(v, z, p, line, g)
    slope, value = (g * s).sum(-1), _value(v, z, p)
    margin, change = ((z @ x[..., None])[..., 0].abs().amax(-1) for x in (v, s))
    t = (10 * (1 + margin) / change).clamp_max(1)  # where all is flat, Newton's step has no bounds
    moved = torch.zeros_like(t, dtype=torch.bool)
    for _ in range(60):
        new = v + t[:, None] * s
        falls = _value(new, z, p) <= value + 1e-4 * t * slope
        turn = (_slopes(new, z, p)[0] * s).sum(-1) / slope.abs()  # -1 at the start, 0 at the bottom
        hidden = slope.abs() <= torch.finfo(p.dtype).eps ** 0.5 * value
        good = (slope < 0) & (turn <= 0.5) & torch.where(hidden, turn > -0.999, falls)
        v = torch.where((good & ~moved)[:, None], new, v)
        moved, t = moved | good, t / 2
        if bool((moved | ~(slope < 0)).all()):
            break
    return v, moved


def _direction(v: Tensor, z: Tensor, p: Tensor, line: Tensor, g: Tensor) -> Tensor:
    """Newton's direction from a QR factorisation of the weighted tokens: exact where these are nearly collinear.

    Weights are relative to the largest and floored, and the length is bounded, so that none under- or overflows.
    """
    m = (z @ v[..., None])[..., 0].abs()
    log_weight = p.log() - m - 2 * torch.log1p(torch.exp(-m))
    top, largest = log_weight.amax(-1, keepdim=True), math.log(torch.finfo(p.dtype).max)
    A = (log_weight - top).clamp_min(-largest / 2).mul(0.5).exp()[..., None] * z
    a, b = A.unbind(-1)
    r11 = a.norm(dim=-1)
    unit = a / r11[:, None]
    r12 = (unit * b).sum(-1)
    b = b - r12[:, None] * unit
    again = (unit * b).sum(-1)
    r12, r22 = r12 + again, (b - again[:, None] * unit).norm(dim=-1)
    y1 = -g[:, 0] / r11
    s2 = (-g[:, 1] - r12 * y1) / r22 / r22
    s = torch.stack([(y1 - r12 * s2) / r11, s2], -1)
    along = -(line * g).sum(-1) / (A @ line[..., None]).square().sum((-1, -2))
    s = torch.where((line != 0).any(-1, keepdim=True), line * along[:, None], s)
    room = 0.9 * largest - s.abs().amax(-1, keepdim=True).clamp_min(1).log()
    s = s * torch.exp(torch.minimum(-top, room))
    return torch.where(s.isfinite(), s, 0.0)


def _value(v: Tensor, z: Tensor, p: Tensor) -> Tensor:
    m = (z @ v[..., None])[..., 0]
    return (p * torch.logaddexp(torch.zeros_like(m), -m)).sum(-1)
