r"""Minimisers of the 0-1 loss in the plane: an exact sweep over the circle of directions."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from amem_core.landscape.minimum import signed_tokens
from amem_core.landscape.reading import planar_gap, spread
from amem_core.problem import AssociationProblem

# arcs narrower than this many roundings of a radian have no width
NARROW = 256


@dataclass(frozen=True, eq=False)
class ZeroOneMinimum:
    r"""A matrix that recalls as much as any other.

    Parameters
    ----------
    zero_one_loss : (...) the least total frequency of tokens that are not recalled
    angle : (...) in radians, 0 to 2 pi: :math:`v = W^\top (u_1 - u_2) = (\cos, \sin)` in the middle of the best arc
    W : (..., 2, 2) the smallest matrix that has this ``v``, :math:`(u_1 - u_2)\,v^\top / c`
    recalled : (..., N) the tokens it recalls
    """

    zero_one_loss: Float[Tensor, "*batch"]
    angle: Float[Tensor, "*batch"]
    W: Float[Tensor, "*batch 2 2"]
    recalled: Bool[Tensor, "*batch N"]


def minimise_zero_one(problem: AssociationProblem) -> ZeroOneMinimum:
    r"""Least 0-1 loss of two classes in the plane, by an exact sweep, in ``N log N`` steps a problem.

    Token ``x`` is recalled on the open half-circle of directions ``v`` around its signed embedding
    :math:`z_x = \pm e_x`. The ends of these half-circles cut the circle into arcs; on an end a token is tied, hence
    lost, and nothing is won, so that an open arc is best. Sorted by angle, the gains and losses at the ends add up to
    the frequency recalled on every arc. Tokens without frequency or embedding cut nothing. Arcs narrower than 256
    roundings (6e-14 radians in float64) count as ends. Among arcs equal within 4 N roundings the widest wins, then
    the first.

    Takes the problems of ``minimise_loss``; ``ValueError`` for others.

    >>> p = torch.tensor([0.4, 0.3, 0.3], dtype=torch.float64)
    >>> best = minimise_zero_one(AssociationProblem.planar(torch.tensor([0.0, -0.6, 0.6]), torch.tensor([0, 1, 1]), p))
    >>> round(best.zero_one_loss.item(), 12), best.recalled.tolist()  # the minimiser of the loss has 0.4
    (0.3, [True, True, False])
    """
    gap, c = planar_gap(problem)
    Z, p, length = signed_tokens(problem)
    counts, eps = (p > 0) & (length > 0), torch.finfo(p.dtype).eps
    weight = p * counts
    theta = torch.atan2(Z[..., 1], Z[..., 0])
    # where the heaviest cuts anyway, the others that count for nothing cut nothing
    theta = torch.where(counts, theta, theta.take_along_dim(weight.argmax(-1, keepdim=True), -1))
    ends = torch.cat([theta - math.pi / 2, theta + math.pi / 2], -1).remainder(2 * math.pi)
    ends, order = ends.sort(dim=-1, stable=True)
    won = torch.cat([weight, -weight], -1).take_along_dim(order, -1).cumsum(-1)  # since the first end
    width = torch.cat([ends.diff(dim=-1), 2 * math.pi + ends[..., :1] - ends[..., -1:]], -1)
    wide = width > NARROW * eps
    best = torch.where(wide, won, -torch.inf).amax(-1, keepdim=True)
    width = torch.where(wide & (won >= best - 4 * problem.N * eps), width, 0.0)
    first = (width >= width.amax(-1, keepdim=True) - NARROW * eps).to(p.dtype).argmax(-1, keepdim=True)
    angle = (ends + width / 2).take_along_dim(first, -1)[..., 0].remainder(2 * math.pi)
    v = torch.stack([angle.cos(), angle.sin()], -1)
    recalled = (Z @ v[..., None])[..., 0] > NARROW / 8 * eps * length
    return ZeroOneMinimum((p * ~recalled).sum(-1), angle, spread(v, gap, c), recalled)
